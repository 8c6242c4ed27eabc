"""An exported graph in ONNX Runtime: NumPy, Pillow and onnxruntime, no torch."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

from blemish.errors import ArtifactError, UsageError
from blemish.runtime.graph_session import GraphBackend, checked_seal, parse_metadata, wanted
from blemish.runtime.pruning import output_names, pruned
from blemish.runtime.session import Session

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""Device -> ONNX Runtime's name for it."""


class OnnxBackend(GraphBackend):
    """An .onnx file as a `Backend`. ONNX Runtime's sessions may be run from several threads at once.

    Args:
        path: written by the exporter.
        device: one of `PROVIDERS`, with ":1" for the second one.
        threads: threads per operator; None lets ONNX Runtime decide.
        verdict_only: see `blemish.runtime.load`.
        whole: see `blemish.runtime.graph_session.wanted`.

    Raises:
        ArtifactError: if the file is missing, damaged or foreign. UsageError: if there is no such device here.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "cpu",
        threads: int | None = None,
        *,
        verdict_only: bool = False,
        whole: bool = False,
    ) -> None:
        fingerprint = checked_seal(Path(path))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: warnings are about its own optimizer
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            with open(path, "rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)  # banks are large: no second copy
            outputs = wanted(output_names(content), verdict_only=verdict_only, whole=whole)
            self._session = onnxruntime.InferenceSession(
                pruned(content, outputs), options, providers=_providers(device)
            )
        except UsageError:
            raise
        except Exception as error:  # its own classes, which derive from Exception or RuntimeError
            raise ArtifactError(
                f"{os.fspath(path)} can't be run: {' '.join(str(error).split())} Export again, or copy it again."
            ) from error
        text = self._session.get_modelmeta().custom_metadata_map.get("blemish")
        super().__init__(parse_metadata(text, os.fspath(path), fingerprint), fingerprint, outputs)

    def infer(self, feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """See `GraphBackend.infer`."""
        arrays: list[npt.NDArray[Any]] = self._session.run(self.outputs, feed)
        return arrays

    def signature(self) -> dict[str, dict[str, str]]:
        """See `GraphBackend.signature`."""
        inputs = [*self._session.get_inputs(), *self._session.get_overridable_initializers()]
        sides = {"inputs": inputs, "outputs": self._session.get_outputs()}
        return {
            side: {tensor.name: f"{tensor.type} {tensor.shape}" for tensor in tensors}
            for side, tensors in sides.items()
        }


def _providers(device: str) -> list[Any]:
    kind, _, number = device.partition(":")
    available = onnxruntime.get_available_providers()
    known = [name for name, provider in PROVIDERS.items() if provider in available]
    if kind == "auto":
        kind = "cuda" if "cuda" in known else "cpu"
    if kind not in known or (number and not number.isdigit()):
        raise UsageError(f"device must be one of {', '.join(known)} in this ONNX Runtime. Got {device!r}.")
    return [(PROVIDERS[kind], {"device_id": number})] if number else [PROVIDERS[kind]]


def open_session(
    path: str | os.PathLike[str],
    device: str,
    threads: int | None,
    workers: int,
    verdict_only: bool,
    *,
    whole: bool = False,
) -> Session:
    """See `blemish.runtime.load`, and `blemish.runtime.graph_session.wanted`."""
    return Session(OnnxBackend(path, device, threads, verdict_only=verdict_only, whole=whole))
