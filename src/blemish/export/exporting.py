"""Exporting, from the model to the file: translate, compare, and only then put the file in its place."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from blemish import artifact
from blemish.data.image_io import Reading
from blemish.errors import ExportError, NotCalibratedError, NotFittedError, UsageError
from blemish.export.half import halved
from blemish.export.int8 import MAX_IMAGES, quantize_onnx, quantize_openvino, with_headroom
from blemish.export.onnx import OPSET, describe, to_onnx
from blemish.export.openvino import write_openvino
from blemish.export.parity import BATCHES, compare, generated_images
from blemish.export.report import EXACT, HALF, ParityReport, int8_limits
from blemish.export.samples import Candidate, Pictures, good_ones, list_samples, read_samples, spread, to_compare
from blemish.extras import EXTRAS
from blemish.files import replacing, replacing_together
from blemish.models.base import Detector, ExportMode
from blemish.runtime import load
from blemish.runtime.backend import Backend
from blemish.runtime.whole import open_whole
from blemish.seal import BLANK, write_seal
from blemish.signing import made_here

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".safetensors"}
RUNTIMES = {".onnx": "onnxruntime", ".xml": "openvino"}


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the comparison it passed."""

    path: Path
    parity: ParityReport


def export(
    model: Detector,
    root: str | os.PathLike[str],
    export_mode: ExportMode = "onnx",
    *,
    images: Pictures | None = None,
    static: Sequence[int] | None = None,
    half: bool = False,
    int8: bool = False,
    calibration_images: Pictures | None = None,
    max_flips: int = 0,
) -> Exported:
    """Writes `model` for a runtime, if it gives the same verdicts there.

    Args:
        model: fitted and calibrated.
        root: the file to write; its suffix (.onnx, .xml, .safetensors) is added where it's missing. In an existing
            folder, the file is called "model".
        export_mode: "onnx"; "openvino" (.xml and .bin); "torch", the artifact that `save` writes. (torch's own .pt2
            holds a pickle, and here loading a model never runs code.)
        images: what to compare on: a folder, or files and arrays. Best of all images from the line, good and defective.
            Of a data set, the test images are taken. None draws images; for the artifact it compares nothing.
        static: (N, H, W) for compilers that need fixed shapes: the graph takes nothing else then.
        half: store the backbone's weights in half precision, see `export.half`; compared with the limits `HALF`.
        int8: put the backbone into 8-bit integers, see `export.int8`; the rest stays in float32. Needs `images`. The
            file is compared in its own runtime, with `int8_limits`.
        calibration_images: good images, which tell the integers their ranges. None takes the good ones of `images`.
        max_flips: how many verdicts on `images` may differ after `int8`, at each batch size.

    Raises:
        NotFittedError, NotCalibratedError: if the model can't give verdicts.
        ExportError: if a runtime doesn't agree; the message holds the table, and no file is written.
        UsageError, DataError: for arguments and images that can't be used. OutputError: if the file can't be written.
        MissingExtraError: if what translates or runs the graph isn't installed.
    """
    if export_mode not in get_args(ExportMode):
        raise UsageError(f"export_mode must be one of {', '.join(get_args(ExportMode))}. Got {export_mode!r}.")
    path = target(Path(root), export_mode)
    shape = _checked_static(static, export_mode)
    if half and (int8 or export_mode == "torch"):
        raise UsageError("half is for export_mode 'onnx' and 'openvino', and doesn't go with int8. Drop it.")
    _check_int8(int8, images, calibration_images, max_flips, export_mode)
    if not model.is_fitted:
        raise NotFittedError(
            f"This {model.Settings.title} is not fitted, so it can't be exported. Run Engine.fit first."
        )
    manifest = artifact.manifest_of(model).model_dump(
        mode="json", exclude={"seal", "good_images"}
    )  # refuses post-processors of other classes
    if model.post_processor is None or not model.decider.is_calibrated:
        raise NotCalibratedError(
            "This model has no thresholds, so an exported file could give no verdict. Run Engine.validate first."
        )
    model.eval()
    if export_mode == "torch":
        return Exported(path, _save(model, path, images))
    size = None if shape is None else (shape[1], shape[2])
    named = [] if images is None else list_samples(images)
    reading = _reading(model)
    tried = _drawn(model, size) if images is None else read_samples(to_compare(named), size, reading)
    stacks: list[npt.NDArray[np.uint8]] = []
    if int8:
        good = good_ones(named if calibration_images is None else list_samples(calibration_images))
        count = 1 if shape is None else shape[0]
        images_of_good = (image for image, _ in read_samples(spread(good, MAX_IMAGES), size, reading))
        stacks = [np.stack([image] * count) for image in with_headroom(images_of_good)]
    decision = model.decider.decision.to_dict()
    content = {
        "manifest": manifest,
        "decision": decision,
        "static": shape,
        "opset": OPSET,
        "precision": "int8" if int8 else "float16" if half else "float32",
    }
    graph: Any = to_onnx(model, decision, shape)
    if half:
        graph = halved(graph)
    with replacing_together(*([path.with_suffix(".bin")] if export_mode == "openvino" else []), path) as folder:
        if int8:
            graph = (quantize_onnx if export_mode == "onnx" else quantize_openvino)(graph, stacks, folder)
        report = compare(
            model,
            _runtimes(graph, folder, content, [path.suffix] if int8 else list(RUNTIMES)),
            [image for image, _ in tried],
            BATCHES if shape is None else shape[:1],
            int8_limits(max_flips) if int8 else HALF if half else EXACT,
            [sample.anomalous for _, sample in tried],
        )
        _require_passed(report, model)
        write(graph, folder / path.name, {**content, "parity": report.to_dict()})
    return Exported(path, report)


def _reading(model: Detector) -> Reading:
    """How images of the model are read."""
    return Reading(bit_depth=None if model.data_record is None else model.data_record.bit_depth)


def _save(model: Detector, path: Path, images: Pictures | None) -> ParityReport:
    """Writes the artifact, if, loaded again, it gives the same verdicts on `images`."""
    with replacing(path) as temporary:
        artifact.save(model, temporary)
        if images is None:
            return ParityReport(())
        tried = read_samples(to_compare(list_samples(images)), None, _reading(model))
        with made_here():
            again = load(temporary, device=str(model.device)).backend
        pictures, anomalous = [image for image, _ in tried], [sample.anomalous for _, sample in tried]
        report = compare(model, {"artifact": again}, pictures, anomalous=anomalous)
        _require_passed(report, model)
        return report


def _require_passed(report: ParityReport, model: Detector) -> None:
    if report.passed:
        return
    why = ""
    if model.arguments().get("neighbor_search") == "faiss":
        why = (
            " The model looks for neighbors by faiss, which misses some; a graph finds them all, so its scores are "
            "others than those that were calibrated. Fit with neighbor_search exact to export."
        )
    raise ExportError(
        f"The exported file would not give the verdicts of the model, so nothing was written.{why}\n{report}"
    )


def target(root: Path, export_mode: ExportMode) -> Path:
    """The file that `export` writes; see there."""
    suffix = SUFFIXES[export_mode]
    if root.is_dir():
        return root / f"model{suffix}"
    return root if root.suffix.lower() == suffix else root.with_name(root.name + suffix)


def _checked_static(static: Sequence[int] | None, export_mode: str) -> tuple[int, int, int] | None:
    if static is None:
        return None
    if len(static) != 3 or min(static) < 1:
        raise UsageError(f"static must be (N, H, W), each at least 1. Got {tuple(static)}.")
    if export_mode == "torch":
        raise UsageError("static has no meaning for export_mode 'torch', which takes images of any size. Drop it.")
    return (static[0], static[1], static[2])


def _check_int8(
    int8: bool, images: Pictures | None, calibration_images: Pictures | None, max_flips: int, export_mode: str
) -> None:
    if max_flips < 0:
        raise UsageError(f"max_flips must be at least 0. Got {max_flips}.")
    if not int8 and (calibration_images is not None or max_flips):
        raise UsageError("calibration_images and max_flips are for int8. Set int8, or drop them.")
    if int8 and export_mode == "torch":
        raise UsageError(
            "int8 is for export_mode 'onnx' and 'openvino'. The artifact holds the model as it was fitted."
        )
    if int8 and images is None:
        raise UsageError("int8 is fitted to photographs and judged on them: name some with images, good and defective.")


def _drawn(model: Detector, size: tuple[int, int] | None) -> list[tuple[npt.NDArray[np.uint8], Candidate]]:
    return [(image, Candidate(image)) for image in generated_images(model.pre_processor.image_size, size)]


def _runtimes(graph: Any, folder: Path, content: Mapping[str, Any], suffixes: Iterable[str]) -> dict[str, Backend]:
    """The graph in every runtime that is installed."""
    runtimes: dict[str, Any] = {}
    for suffix in suffixes:
        if importlib.util.find_spec(RUNTIMES[suffix]):
            write(graph, folder / f"trial{suffix}", content)
            with made_here():
                runtimes[RUNTIMES[suffix]] = open_whole(folder / f"trial{suffix}")
    if not runtimes:
        extras = sorted({EXTRAS[RUNTIMES[suffix]] for suffix in suffixes})
        wanted = " or ".join(f'"blemish[{extra}]"' for extra in extras)
        raise ExportError(f"No runtime is installed that could check the file. Run: pip install {wanted}")
    return runtimes


def write(graph: Any, path: Path, content: Mapping[str, Any]) -> None:
    """Writes an ONNX model, or for .xml OpenVINO's own with a .bin beside it, with its digest."""
    content = {**content, "seal": BLANK}
    if path.suffix == ".xml":
        write_openvino(graph, path, content)
        write_seal(path, [path.with_suffix(".bin")])
    else:
        describe(graph, content)
        path.write_bytes(graph.SerializeToString())
        write_seal(path)
