"""Exporting, from the model to the file: translate, compare, and only then put the file in its place."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from blemish import artifact
from blemish.data.image_io import IMAGE_SUFFIXES, read_image
from blemish.errors import ArtifactError, DataError, ExportError, NotCalibratedError, NotFittedError, UsageError
from blemish.export.graph import decision_of
from blemish.export.onnx import OPSET, describe, to_onnx
from blemish.export.openvino import write_openvino
from blemish.export.parity import BATCHES, ParityReport, compare, generated_images
from blemish.models.base import AnomalyModule, ExportMode
from blemish.post_processing import PostProcessor
from blemish.runtime.graph_session import GraphBackend

SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".safetensors"}

Images = str | os.PathLike[str] | Iterable[str | os.PathLike[str] | npt.NDArray[np.uint8]]
"""A folder, or files and (H, W, 3) uint8 arrays."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and the comparison it passed."""

    path: Path
    parity: ParityReport


def export(
    model: AnomalyModule,
    root: str | os.PathLike[str],
    export_mode: ExportMode = "onnx",
    *,
    images: Images | None = None,
    static: Sequence[int] | None = None,
) -> Exported:
    """Writes `model` for a runtime, if it gives the same verdicts there.

    Args:
        model: fitted and calibrated.
        root: the file to write; its suffix (.onnx, .xml, .safetensors) is added where it's missing. In an existing
            folder, the file is called "model".
        export_mode: "onnx"; "openvino" (.xml and .bin); "torch", the artifact that `save` writes. (torch's own .pt2
            holds a pickle, and here loading a model never runs code.)
        images: what to compare on, best of all good parts from the line. None draws images.
        static: (N, H, W) for compilers that need fixed shapes: the graph takes nothing else then.

    Raises:
        NotFittedError, NotCalibratedError: if the model can't give verdicts.
        ExportError: if a runtime doesn't agree; the message holds the table, and no file is written.
        UsageError, DataError: for arguments and images that can't be used. ArtifactError: if the file can't be written.
        MissingExtraError: if what translates or runs the graph isn't installed.
    """
    if export_mode not in get_args(ExportMode):
        raise UsageError(f"export_mode must be one of {', '.join(get_args(ExportMode))}. Got {export_mode!r}.")
    path = _target(Path(root), SUFFIXES[export_mode])
    shape = _checked_static(static, export_mode)
    if not model.is_fitted:
        raise NotFittedError(
            f"This {type(model).__name__} is not fitted, so it can't be exported. Run Engine.fit first."
        )
    processor = model.post_processor
    if processor is None or (isinstance(processor, PostProcessor) and not processor.is_calibrated):
        raise NotCalibratedError(
            "This model has no thresholds, so an exported file could give no verdict. Run Engine.validate first."
        )
    manifest = artifact.manifest_of(model).model_dump(mode="json")  # refuses post-processors of other classes
    assert isinstance(processor, PostProcessor)
    if export_mode == "torch":
        artifact.save(model, path)
        return Exported(path, ParityReport(()))
    samples = _samples(images, model, shape)
    decision = decision_of(processor)
    content = {"manifest": manifest, "decision": decision, "static": shape, "opset": OPSET}
    model.eval()
    proto = to_onnx(model, decision, shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            report = _try_out(model, proto, Path(folder), content, samples, shape)
            if not report.passed:
                raise ExportError(
                    f"The exported graph would not give the verdicts of the model, so nothing was written.\n{report}"
                )
            written = write(proto, Path(folder) / path.name, {**content, "parity": report.to_dict()})
            for one in written:
                one.replace(path.with_suffix(one.suffix))
    except OSError as error:
        raise ArtifactError(f"{path} can't be written: {error}. Choose another place.") from error
    return Exported(path, report)


def _target(root: Path, suffix: str) -> Path:
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


def _samples(
    images: Images | None, model: AnomalyModule, static: tuple[int, int, int] | None
) -> list[npt.NDArray[np.uint8]]:
    size = None if static is None else static[1:]
    if images is None:
        return generated_images(model.pre_processor.image_size, size)
    if isinstance(images, (str, os.PathLike)):
        folder = Path(images)
        images = sorted(one for one in folder.rglob("*") if one.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            raise DataError(f"{folder} is no folder with images. Name one, or leave images out.")
    arrays = [one if isinstance(one, np.ndarray) else _rounded(read_image(one)) for one in images]
    fitting = [one for one in arrays if size is None or one.shape[:2] == size]
    if not fitting:
        raise DataError(
            f"There is no image{'' if size is None else f' of {size[0]} x {size[1]} pixels'} to compare on."
        )
    return fitting


def _rounded(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return image if image.dtype == np.uint8 else np.rint(image * 255).astype(np.uint8)


def _try_out(
    model: AnomalyModule,
    proto: Any,
    folder: Path,
    content: Mapping[str, Any],
    samples: list[npt.NDArray[np.uint8]],
    static: tuple[int, int, int] | None,
) -> ParityReport:
    """The graph in every runtime that is installed."""
    runtimes: dict[str, GraphBackend] = {}
    if importlib.util.find_spec("onnxruntime"):
        from blemish.runtime.onnx_session import OnnxBackend

        write(proto, folder / "trial.onnx", content)
        runtimes["onnxruntime"] = OnnxBackend(folder / "trial.onnx")
    if importlib.util.find_spec("openvino"):
        from blemish.runtime.openvino_session import OpenVinoBackend

        write(proto, folder / "trial.xml", content)
        runtimes["openvino"] = OpenVinoBackend(folder / "trial.xml")
    if not runtimes:
        raise ExportError(
            'No runtime is installed that could check the file. Run: pip install "blemish[onnx]" or "blemish[openvino]"'
        )
    return compare(model, runtimes, samples, BATCHES if static is None else static[:1])


def write(proto: Any, path: Path, content: Mapping[str, Any]) -> list[Path]:
    """Writes the model with its metadata, and returns the files, the one to be named last."""
    if path.suffix == ".xml":
        write_openvino(proto, path, content)
        return [path.with_suffix(".bin"), path]
    describe(proto, content)
    path.write_bytes(proto.SerializeToString())
    return [path]
