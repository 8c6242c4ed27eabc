"""The trade-off of a threshold on the terminal: a histogram, and what is found by size and strength."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish.cli.console import out, table
from blemish.post_processing.summary import planted_table
from blemish.visualization.tradeoff import tradeoff_text

if TYPE_CHECKING:
    from blemish.post_processing.decision import CalibrationRecord


def show_tradeoff(record: CalibrationRecord, threshold: float) -> None:
    """Prints both on stdout; nothing where the record holds no planted defects."""
    if not record.planted:
        return
    console = out()
    block = "#" if console.options.ascii_only else "\N{FULL BLOCK}"
    planted = [defect.score for defect in record.planted]
    console.print(tradeoff_text(record.scores, planted, threshold, block=block), markup=False)
    table("planted defects", ("size, strength", "found", "of"), planted_table(record, threshold))
