"""`blemish demo`: the whole story on parts that are drawn on the spot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import out, print_json, remark, table
from blemish.cli.flags import given, with_flags
from blemish.presets import PRESETS, with_preset

COLUMNS = {
    "image_auroc": "AUROC",
    "image_f1": "F1",
    "false_alarm_rate": "false alarms",
    "miss_rate": "misses",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "seconds": "s",
}


PRESET, PLANTED = "fast", 30
"""So that nobody waits long; a fit with the default preset takes more than twice as much."""


@with_flags("detector")
def demo(
    output: Path = typer.Option(Path("demo-output"), "--output", "-o", help="Folder to leave images and models in."),
    seed: int = typer.Option(0, help="Draws other parts."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Draw parts, fit on good ones as `fit --preset fast` does, test, and leave pictures to look at."""
    from blemish.trials import demo as story

    chosen = given(flags)
    if chosen.get("detector", PRESETS[PRESET]["detector"]) == PRESETS[PRESET]["detector"]:
        values, from_preset = with_preset({**chosen, "planted": PLANTED}, PRESET)
        how = f"blemish fit --preset {PRESET} --planted {PLANTED}"
    else:
        values, from_preset = with_preset(chosen, None)
        how = f"blemish fit --detector {chosen['detector']}"
    detector = values["detector"]
    remark(
        f"Pictures are drawn, not photographed, and easier than real ones. Nothing is downloaded. Fitted as `{how}`."
    )
    results = dict(story.demonstrate(output, values, from_preset, seed=seed))
    if as_json:
        print_json({"detector": detector, "products": results})
        return
    rows = [[product, *(_shown(figures[key]) for key in COLUMNS)] for product, figures in results.items()]
    title = f"{detector}, from {story.GOOD} good parts of each kind"
    table(title, ("product", *COLUMNS.values()), rows)
    out().print(f"Pictures to look at: {output / 'pictures'}. Models: {output}/*.safetensors.", markup=False)


def _shown(value: float | None) -> float | str:
    return "-" if value is None else round(value, 3)
