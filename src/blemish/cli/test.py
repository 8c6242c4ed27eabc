"""`blemish test`: how good is a model on labelled images?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.console import print_json, table
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.models.base import AnomalyModule

FIGURES = {
    "image_auroc": "AUROC, images",
    "image_ap": "average precision, images",
    "image_f1": "F1 at the threshold, images",
    "image_f1_max": "best possible F1, images",
    "false_alarm_rate": "false alarms among good images",
    "miss_rate": "misses among anomalous images",
    "pixel_auroc": "AUROC, pixels",
    "pixel_ap": "average precision, pixels",
    "pixel_f1": "F1 at the threshold, pixels",
    "pixel_f1_max": "best possible F1, pixels",
    "aupro": "AUPRO to 30 % false positives",
}


def test(
    model: Path = typer.Argument(..., help="Model file."),
    directory: Path = typer.Argument(..., metavar="DIR", help="Data set with good and anomalous images."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    batch_size: int = typer.Option(8, help="Images per step."),
    num_workers: int | None = typer.Option(None, help="Processes that read images."),
    max_pixels: int = typer.Option(200_000_000, help="Refuse larger images."),
    accelerator: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
) -> None:
    """Measure a model on labelled images, on raw scores and in original pixels."""
    from blemish.artifact import load

    detector = load(model)
    figures = run_test(
        detector, directory, accelerator, batch_size=batch_size, num_workers=num_workers, max_pixels=max_pixels
    )
    if as_json:
        print_json(figures)
    else:
        print_figures(figures)


def run_test(detector: AnomalyModule, directory: Path, accelerator: str, **loading: Any) -> dict[str, Any]:
    """The figures of `detector` on the test images of `directory`, split as for its fit, and what they rest on.

    `loading` goes to `ImageDataModule`: batch_size, num_workers, max_pixels.
    """
    from blemish.data.datamodule import ImageDataModule
    from blemish.engine import Engine
    from blemish.post_processing import PostProcessor

    record = detector.data_record
    dealt = {} if record is None else {key: value for key, value in vars(record).items() if key != "fingerprint"}
    datamodule = ImageDataModule(directory, **loading, **dealt)
    result = Engine(accelerator).test(detector, datamodule)
    processor = detector.post_processor
    if not isinstance(processor, PostProcessor):
        raise UsageError("This model has no post-processor, so it gives no verdicts to test.")
    calibration = None if processor.record is None else {**vars(processor.record), "oracle": processor.record.oracle}
    return {**result.to_dict(), "threshold": processor.effective_image_threshold, "calibration": calibration}


def print_figures(figures: dict[str, Any]) -> None:
    """The tables of a test."""
    reasons = figures["reasons"]
    counts = figures["counts"]
    title = f"{counts['images']} test images: {counts['good']} good, {counts['anomalous']} anomalous"
    if figures["calibration"] and figures["calibration"]["oracle"]:
        title += " - ORACLE: test images chose the threshold"
    rows = [(text, _shown(figures[key]), reasons.get(key, "")) for key, text in FIGURES.items()]
    table(title, ("figure", "value", "why not"), rows)
    if figures["per_defect"]:
        columns = tuple(figures["per_defect"][0])
        table("per defect", columns, [[_shown(row[c]) for c in columns] for row in figures["per_defect"]])


def _shown(value: Any) -> Any:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else value
