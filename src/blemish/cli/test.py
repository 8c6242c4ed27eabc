"""`blemish test`: how good is a model on labeled images?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.console import out, print_json, table
from blemish.errors import UsageError

if TYPE_CHECKING:
    from blemish.data.datamodule import ImageDataModule
    from blemish.metrics.evaluation import EvaluationResult
    from blemish.models.base import Detector
    from blemish.post_processing import DecisionModule


def test(
    model: Path = typer.Argument(..., help="Model file."),
    directory: Path = typer.Argument(..., metavar="DIR", help="Data set with good and anomalous images."),
    report: Path | None = typer.Option(None, "--report", help="Also write a report: one .html file."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    batch_size: int = typer.Option(8, help="Images per step."),
    num_workers: int | None = typer.Option(None, help="Processes that read images."),
    max_pixels: int = typer.Option(200_000_000, help="Refuse larger images."),
    accelerator: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
) -> None:
    """Measure a model on labeled images, on raw scores and in original pixels."""
    from blemish.artifact import load

    loading = {"batch_size": batch_size, "num_workers": num_workers, "max_pixels": max_pixels}
    if report is None:
        figures = run_test(load(model), directory, accelerator, **loading)
    else:
        from blemish.cli.report import report_on_model

        figures = report_on_model(model, directory, report, accelerator, **loading)
    show(figures, as_json)


def show(figures: dict[str, Any], as_json: bool) -> None:
    """Prints what a test found."""
    if as_json:
        print_json(figures)
        return
    print_figures(figures)
    if "report" in figures:
        out().print(f"Report: {figures['report']} ({figures['report_bytes'] / 2**20:.1f} MB).", markup=False)


def run_test(detector: Detector, directory: Path, accelerator: str, **loading: Any) -> dict[str, Any]:
    """The figures of `detector` on the test images of `directory`, split as for its fit, and what they rest on.

    `loading` goes to `ImageDataModule`: batch_size, num_workers, max_pixels.
    """
    from blemish.engine import Engine

    processor = processor_of(detector)
    return figures_of(Engine(accelerator).test(detector, test_data(detector, directory, **loading)), processor)


def processor_of(detector: Detector) -> DecisionModule:
    """The post-processor of a detector that shall be tested. UsageError without one."""
    from blemish.post_processing import DecisionModule

    if not isinstance(detector.post_processor, DecisionModule):
        raise UsageError("This model has no post-processor, so it gives no verdicts to test.")
    return detector.post_processor


def test_data(detector: Detector, directory: Path, **loading: Any) -> ImageDataModule:
    """The images of `directory`, dealt as for the detector's fit. Where there are none to fit on, and so nothing to
    deal, all labeled images of the test set are tested on.
    """
    from blemish.data.datamodule import ImageDataModule
    from blemish.data.splits import Split

    record = detector.data_record
    dealt = {} if record is None else {key: value for key, value in vars(record).items() if key != "fingerprint"}
    datamodule = ImageDataModule(directory, **loading, **dealt)
    samples = datamodule.index.samples
    if not any(sample.label is False and sample.subset in ("train", None) for sample in samples):
        tested = tuple(sample for sample in samples if sample.subset == "test" and sample.label is not None)
        datamodule.split = Split(fit=(), calibrate=(), validation=(), test=tested)
    return datamodule


def figures_of(result: EvaluationResult, processor: DecisionModule) -> dict[str, Any]:
    """What `--json` prints."""
    calibration = None if processor.record is None else {**vars(processor.record), "oracle": processor.record.oracle}
    threshold = processor.effective_image_threshold if processor.is_calibrated else None
    return {**result.to_dict(), "threshold": threshold, "calibration": calibration}


def print_figures(figures: dict[str, Any]) -> None:
    """The tables of a test."""
    from blemish.report.html_figures import FIGURES

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
