"""`blemish report`: everything a test found, as one HTML file; from a model, or from predictions made earlier."""

from __future__ import annotations

import platform
import shlex
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish._version import __version__
from blemish.cli.config import FitConfig
from blemish.cli.console import phases
from blemish.cli.paths import check_writable
from blemish.data.image_io import MAX_PIXELS
from blemish.errors import DataError, UsageError

if TYPE_CHECKING:
    from blemish.artifact import Manifest
    from blemish.data.check import CheckReport
    from blemish.data.index import Index
    from blemish.data.splits import Split
    from blemish.post_processing import DecisionModule

NO_RECORD = "predictions hold no record of how the threshold was chosen; report on the model for that"


def report(
    source: Path = typer.Argument(..., help="Model file, or predictions: .csv, .jsonl, .parquet."),
    directory: Path = typer.Argument(..., metavar="DIR", help="Data set with good and anomalous images."),
    output: Path = typer.Option(Path("report.html"), "--output", "-o", help="File to write, ending in .html."),
    max_pixels: int = typer.Option(MAX_PIXELS, help="Refuse larger images."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Write an evaluation report. A model is tested first; predictions are taken as they are, with the labels of
    DIR.
    """
    from blemish.cli.test import show
    from blemish.report.html_rows import READERS

    if source.suffix.lower() in READERS:
        figures = report_on_predictions(source, directory, output, max_pixels=max_pixels)
    else:
        figures = report_on_model(source, directory, output, "auto", max_pixels=max_pixels)
    show(figures, as_json)


def report_on_model(model: Path, directory: Path, output: Path, accelerator: str, **loading: Any) -> dict[str, Any]:
    """Tests a model and writes the report; returns what `test --json` prints, and the file.

    `loading` goes to `ImageDataModule`: batch_size, num_workers, max_pixels.
    """
    from blemish.report.html import Evaluation, require_packages

    check_writable(output, ".html")
    require_packages()
    if model.suffix.lower() != ".safetensors":
        raise UsageError(
            f"A report is made from a model (.safetensors) or predictions (.csv, .jsonl, .parquet). Got "
            f"{str(model)!r}. With an exported model predict first: "
            f"blemish predict {model} {directory} --out rows.jsonl."
        )
    from blemish.artifact import load, read_manifest
    from blemish.cli.test import figures_of, processor_of, test_data
    from blemish.data.batch import InferenceBatch
    from blemish.engine import Engine
    from blemish.predictions.rows import fingerprint
    from blemish.report.html_gallery import from_model, peak_memory
    from blemish.report.html_rows import ImageRow, rows_of
    from blemish.runtime.torch_session import TorchBackend

    detector = load(model)
    manifest = read_manifest(model)
    processor = processor_of(detector)
    data = test_data(detector, directory, **loading)
    samples = {str(sample.path): sample for sample in data.split.test}
    rows: list[ImageRow] = []
    devices: set[str] = set()

    def watch(batch: InferenceBatch) -> None:
        rows.extend(rows_of(batch, samples))
        devices.update(str(part.device) for part in (batch.raw_score, batch.pred_score) if part is not None)

    result = Engine(accelerator).test(detector, data, watch=watch)
    device = min(devices)
    backend = TorchBackend(detector.to(device)) if processor.is_calibrated else None
    with phases() as show:
        gallery = from_model(rows, backend, max_pixels=data.max_pixels, progress=show)
    gallery = replace(gallery, speed=replace(gallery.speed, how=f"{gallery.speed.how}{_machine(device, gallery)}"))
    same_data = data.record() == manifest.data
    written = _write(
        output,
        Evaluation(
            title=model.name,
            data=str(directory),
            result=result,
            rows=rows,
            threshold=processor.effective_image_threshold if processor.is_calibrated else None,
            gallery=gallery,
            calibration=processor.record,
            check=_checked(data.index, data.split, data.max_pixels),
            memory=[
                ("model file", model.stat().st_size),
                ("most memory of the whole test", peak_memory() or "can't be given: this system doesn't say"),
            ],
            commands=_commands(model, directory, output, manifest, processor, same_data),
            origin=_origin(manifest, fingerprint(model), same_data),
            remarks=_remarks(data.split),
        ),
    )
    return {**figures_of(result, processor), **written}


def report_on_predictions(predictions: Path, directory: Path, output: Path, *, max_pixels: int) -> dict[str, Any]:
    """Writes the report of a file of predictions; returns what `test --json` prints, and the file."""
    from blemish.report.html import Evaluation, require_packages

    check_writable(output, ".html")
    require_packages()
    from blemish.data.index import index_folder
    from blemish.data.splits import Split
    from blemish.report.html_gallery import from_predictions
    from blemish.report.html_rows import read_predictions

    index = index_folder(directory)
    labeled = [sample for sample in index.samples if sample.label is not None]
    tested = [sample for sample in labeled if sample.subset == "test"] or labeled
    if not tested:
        raise DataError(f"{directory}: no labeled images, so predictions can't be compared with anything.")
    found = read_predictions(predictions, tested)
    result = found.evaluate()
    remarks = []
    if any(sample.subset is None for sample in tested):
        remarks.append(
            "Which of these images the model was fitted on isn't known from predictions. If there are any, figures "
            "flatter: report on the model itself, or keep test images in a folder test/."
        )
    if found.without_prediction:
        names = ", ".join(sample.relative for sample in found.without_prediction[:3])
        remarks.append(f"{len(found.without_prediction)} labeled images have no prediction and count nowhere: {names}")
    if found.without_label:
        remarks.append(f"{found.without_label} predictions are of no labeled test image and count nowhere.")
    if found.threshold is None:
        remarks.append(f"The predictions were made with {len(found.thresholds)} thresholds; verdicts are as predicted.")
    written = _write(
        output,
        Evaluation(
            title=predictions.name,
            data=str(directory),
            result=result,
            rows=found.rows,
            threshold=found.threshold,
            gallery=from_predictions(found.rows, found.seconds, max_pixels=max_pixels),
            no_calibration=NO_RECORD,
            check=_checked(index, Split((), (), (), tuple(tested)), max_pixels),
            memory=[("memory", "can't be given: predictions don't hold it")],
            commands=[_command("report", predictions, directory, "-o", output)],
            origin=[
                *(("model file, SHA-256 begins", model) for model in sorted(found.models)),
                ("report made with", f"blemish {__version__}, Python {platform.python_version()}"),
            ],
            remarks=remarks,
        ),
    )
    return {**result.to_dict(), "threshold": found.threshold, "calibration": None, **written}


def _write(output: Path, evaluation: Any) -> dict[str, Any]:
    from blemish.report.html import write_html

    write_html(output, evaluation)
    return {"report": str(output), "report_bytes": output.stat().st_size}


def _checked(index: Index, split: Split, max_pixels: int) -> CheckReport:
    """The state of the data; without the plan of a fit where there is nothing to fit on."""
    from blemish.data import check as checking

    with phases() as show:
        checked = checking.check(index, split, max_pixels=max_pixels, progress=show)
    if split.fit:
        return checked
    return replace(checked, findings=[finding for finding in checked.findings if finding.severity != "note"])


def _remarks(split: Split) -> list[str]:
    if not split.fit:
        return ["There are no images to fit on here. All labeled images of the test set were tested on."]
    return []


def _machine(device: str, gallery: Any) -> str:
    import torch

    if gallery.speed.median is None:
        return ""
    if device.startswith("cuda"):
        return f", on {torch.cuda.get_device_name(device)}"
    return f", on {device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _commands(
    model: Path, directory: Path, output: Path, manifest: Manifest, processor: DecisionModule, same_data: bool
) -> list[str]:
    """`fit` with every setting that isn't the default, and `test`."""
    lines = []
    if manifest.data is not None:
        if not same_data:
            lines.append("# DIR: the images whose fingerprint is given below; they are not those of this test's folder")
        if manifest.arguments.get("roi") is not None:
            lines.append("# ROI: the file with the region of interest; the model holds its pixels, not its name")
        lines.append(fit_command(manifest, processor, directory if same_data else Path("DIR"), model))
    return [*lines, _command("test", model, directory, "--report", output)]


def fit_command(manifest: Manifest, processor: DecisionModule, directory: Path, model: Path) -> str:
    """The command that fits the model of a manifest again."""
    record = {} if manifest.data is None else vars(manifest.data)
    given = {
        **manifest.arguments,
        **{key: value for key, value in record.items() if key != "fingerprint"},
        "max_false_alarm_rate": processor.max_false_alarm_rate,
        "image_sensitivity": round(processor.image_sensitivity, 6),
        "pixel_sensitivity": round(processor.pixel_sensitivity, 6),
    }
    words: list[object] = ["--detector", manifest.detector]
    for one in fields(FitConfig):
        if one.name not in given:
            continue
        value = given[one.name]
        if one.name == "bank_size" and value is None:
            value = 0
        if one.name == "backbone" or value not in (None, one.default):  # the default backbone may be another one day
            text = ",".join(map(str, value)) if isinstance(value, list) else "ROI" if one.name == "roi" else value
            words += [f"--{one.name.replace('_', '-')}", text]
    if manifest.weights.source == "random":
        words.append("--no-pretrained")
    return _command("fit", directory, "-o", model, *words)


def _origin(manifest: Manifest, fingerprint: str, same_data: bool) -> list[tuple[str, str]]:
    data = manifest.data
    fitted = "not known" if data is None else data.fingerprint + (" (this folder)" if same_data else " (another state)")
    return [
        ("model file, SHA-256 begins", fingerprint),
        ("images fitted and calibrated on", fitted),
        ("backbone weights", f"{manifest.weights.source}, SHA-256 {manifest.weights.sha256}"),
        ("seed", str(manifest.arguments.get("seed", "-"))),
        ("fitted with", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("report made with", _versions()),
    ]


def _versions() -> str:
    import torch

    return f"blemish {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}"


def _command(verb: str, *words: object) -> str:
    return shlex.join(["blemish", verb, *map(str, words)])
