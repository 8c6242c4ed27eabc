"""A report from a model, which is tested first, or from predictions that were made earlier, by any runtime.

What a page needs is gathered here: the figures, the images worth a look, the state of the data, where everything came
from, and the commands that make it again.
"""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from blemish._version import __version__
from blemish.artifact import load
from blemish.data import check as checking
from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import Reading
from blemish.data.splits import Split
from blemish.engine import Engine
from blemish.engine.testing import data_for_test, figures_of
from blemish.errors import DataError, UsageError
from blemish.manifest import read_manifest
from blemish.memory import peak_memory
from blemish.models import DETECTORS
from blemish.options import as_text
from blemish.post_processing.moving import moved
from blemish.predictions.rows import fingerprint
from blemish.progress import Progress, silent
from blemish.report.html import Evaluation, require_packages, write_html
from blemish.report.html_gallery import Gallery, Shown, deciding, from_model, from_predictions
from blemish.report.html_rows import ImageRow, read_predictions, rows_of
from blemish.runtime.torch_session import TorchBackend
from blemish.settings import options

if TYPE_CHECKING:
    from blemish.data.batch import InferenceBatch
    from blemish.data.check import CheckReport
    from blemish.data.index import Index
    from blemish.manifest import Manifest
    from blemish.post_processing.post_processor import DecisionModule
    from blemish.settings import LoadingSettings

NO_RECORD = "predictions hold no record of how the threshold was chosen; report on the model for that"


def report_on_model(
    model: Path,
    root: Path,
    output: Path,
    loading: LoadingSettings,
    accelerator: str = "auto",
    *,
    said: Mapping[str, Any] | None = None,
    move: Mapping[str, float | None] = MappingProxyType({}),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Tests a model on a folder and writes the report.

    What it takes is what `blemish.engine.testing.measure` takes.

    Returns:
        What `engine.testing.figures_of` gives, with "report", the file, and "report_bytes".

    Raises:
        UsageError: if it isn't a .safetensors file. MissingExtraError: without the packages of a page.
        DataError: if there is nothing to test on.
    """
    require_packages()
    if model.suffix.lower() != ".safetensors":
        raise UsageError(
            f"A report is made from a model (.safetensors) or predictions (.csv, .jsonl, .parquet). Got "
            f"{str(model)!r}. With an exported model predict first: "
            f"blemish predict {model} {root} --out rows.jsonl."
        )
    detector = load(model)
    manifest = read_manifest(model)
    decider = detector.decider
    if any(value is not None for value in move.values()):
        decider.decision = moved(decider.decision, **move)
    data = data_for_test(detector, root, loading, said or {})
    samples = {str(sample.path): sample for sample in data.split.test}
    rows: list[ImageRow] = []
    devices: set[str] = set()

    def watch(batch: InferenceBatch) -> None:
        rows.extend(rows_of(batch, samples))
        devices.update(str(part.device) for part in (batch.raw_score, batch.pred_score) if part is not None)

    result = Engine(accelerator).test(detector, data, watch=watch)
    device = min(devices)
    backend = TorchBackend(detector.to(device)) if decider.is_calibrated else None
    gallery = from_model(rows, backend, reading=data.reading, progress=progress)
    gallery = replace(gallery, speed=replace(gallery.speed, how=f"{gallery.speed.how}{_machine(device, gallery)}"))
    same_data = manifest.data is not None and data.fingerprint() == manifest.data.fingerprint
    written = _write(
        output,
        Evaluation(
            title=model.name,
            data=str(root),
            result=result,
            rows=rows,
            threshold=decider.effective_image_threshold if decider.is_calibrated else None,
            pixel_threshold=decider.effective_pixel_threshold if decider.is_calibrated else None,
            gallery=gallery,
            deciding=_decisive(decider, data.index, data.reading),
            calibration=decider.record,
            check=_checked(data.index, data.split, data.reading, progress),
            memory=[
                ("model file", model.stat().st_size),
                ("most memory of the whole test", peak_memory() or "can't be given: this system doesn't say"),
            ],
            commands=_commands(model, root, output, manifest, decider, same_data, move),
            calibrate=_command("calibrate", model, "--threshold"),
            origin=_origin(manifest, fingerprint(model), same_data),
            remarks=_remarks(data.split),
        ),
    )
    return {**figures_of(result, decider), **written}


def report_on_predictions(
    predictions: Path,
    root: Path,
    output: Path,
    loading: LoadingSettings,
    *,
    said: Mapping[str, Any] | None = None,
    move: Mapping[str, float | None] = MappingProxyType({}),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Writes the report of a file of predictions, with the labels of a folder.

    A "threshold" in `move` decides in place of the verdicts that were predicted.

    Returns:
        As `report_on_model`; there are no figures of pixels.

    Raises:
        DataError: if the predictions can't be read, or are of no labeled image of the folder.
        MissingExtraError: without the packages of a page.
    """
    require_packages()
    threshold = _only_threshold(move)
    data = ImageDataModule(root, **dict(loading), **(said or {}))
    data.read_as(data.bit_depth)  # predictions don't tell what it was
    index = data.index
    labeled = [sample for sample in index.samples if sample.label is not None]
    tested = [sample for sample in labeled if sample.subset == "test"] or labeled
    if not tested:
        raise DataError(f"{root}: no labeled images, so predictions can't be compared with anything.")
    found = read_predictions(predictions, tested)
    if threshold is not None:
        found.decide(threshold)
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
            data=str(root),
            result=result,
            rows=found.rows,
            threshold=found.threshold,
            gallery=from_predictions(found.rows, found.seconds, reading=data.reading),
            no_calibration=NO_RECORD,
            check=_checked(index, Split((), (), (), tuple(tested)), data.reading, progress),
            memory=[("memory", "can't be given: predictions don't hold it")],
            commands=[_command("report", predictions, root, "-o", output, *_flags(move))],
            origin=[
                *(("model file, SHA-256 begins", model) for model in sorted(found.models)),
                ("report made with", f"blemish {__version__}, Python {platform.python_version()}"),
            ],
            remarks=remarks,
        ),
    )
    return {**result.to_dict(), "threshold": found.threshold, "calibration": None, **written}


def _decisive(decider: DecisionModule, index: Index, reading: Reading) -> Shown | None:
    """The good image that chose the threshold, if its name, which is all that a record holds, fits one image alone."""
    name = None if decider.record is None else decider.record.decided_by
    found = [s for s in index.samples if s.label is False and s.subset != "test" and s.path.name == name]
    return deciding(found[0], decider.effective_image_threshold, reading=reading) if len(found) == 1 else None


def _only_threshold(move: Mapping[str, float | None]) -> float | None:
    for name in ("sensitivity", "rate"):
        if move.get(name) is not None:
            raise UsageError(
                f"{name} needs the calibration, which predictions don't hold. Give threshold, or report on the model."
            )
    return move.get("threshold")


def fit_command(manifest: Manifest, decider: DecisionModule, root: Path, model: Path) -> str:
    """The command that fits the model of a manifest again: `fit` with every setting that isn't the default."""
    record = {} if manifest.data is None else manifest.data.arguments()
    given = {
        **manifest.arguments,
        **{key: value for key, value in record.items() if value != ()},
        "max_false_alarm_rate": decider.max_false_alarm_rate,
        "miss_cost": decider.miss_cost,
        "planted": 0 if decider.record is None else len(decider.record.planted),
        "image_sensitivity": round(decider.image_sensitivity, 6),
        "pixel_sensitivity": round(decider.pixel_sensitivity, 6),
    }
    words: list[object] = ["--preset", "plain", "--detector", manifest.detector]
    for option in options(DETECTORS).values():
        value = given.get(option.name)
        if option.name in given and value is None and option.zero_is_none:
            value = 0
        same = value is None or as_text(value) == as_text(option.default)
        if option.name == "backbone" or not same:  # the usual backbone may be another one day
            text = option.name.upper() if option.name in ("roi", "exclude") else as_text(value)
            words += [f"--{option.name.replace('_', '-')}", text]
    if manifest.weights.source == "random":
        words.append("--no-pretrained")
    return _command("fit", root, "-o", model, *words)


def _write(output: Path, evaluation: Evaluation) -> dict[str, Any]:
    write_html(output, evaluation)
    return {"report": str(output), "report_bytes": output.stat().st_size}


def _checked(index: Index, split: Split, reading: Reading, progress: Progress) -> CheckReport:
    """The state of the data; without the plan of a fit where there is nothing to fit on."""
    checked = checking.check(index, split, reading=reading, progress=progress)
    if split.fit:
        return checked
    return replace(checked, findings=[finding for finding in checked.findings if finding.severity != "note"])


def _remarks(split: Split) -> list[str]:
    if not split.fit:
        return ["There are no images to fit on here. All labeled images of the test set were tested on."]
    return []


def _machine(device: str, gallery: Gallery) -> str:
    if gallery.speed.median is None:
        return ""
    if device.startswith("cuda"):
        return f", on {torch.cuda.get_device_name(device)}"
    return f", on {device} ({platform.machine()}, {torch.get_num_threads()} threads)"


def _commands(
    model: Path,
    root: Path,
    output: Path,
    manifest: Manifest,
    decider: DecisionModule,
    same_data: bool,
    move: Mapping[str, float | None],
) -> list[str]:
    """`fit`, if it is known what on, and `test`."""
    lines = []
    if manifest.data is not None:
        if not same_data:
            lines.append("# DIR: the images whose fingerprint is given below; they are not those of this test's folder")
        if manifest.arguments.get("roi") is not None:
            lines.append("# ROI: the file with the region of interest; the model holds its pixels, not its name")
        if manifest.data.exclude:
            lines.append(f"# EXCLUDE: a list of the {len(manifest.data.exclude)} images that were left out")
        if decider.miss_cost is not None and manifest.data.calibrate_on != "validation":
            lines.append("# and --defects, the folder of defects that moved the threshold")
        lines.append(fit_command(manifest, decider, root if same_data else Path("DIR"), model))
    return [*lines, _command("test", model, root, "--report", output, *_flags(move))]


def _flags(move: Mapping[str, float | None]) -> list[object]:
    return [word for name, value in move.items() if value is not None for word in (f"--{name}", value)]


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
    return f"blemish {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {platform.system()}"


def _command(verb: str, *words: object) -> str:
    return shlex.join(["blemish", verb, *map(str, words)])
