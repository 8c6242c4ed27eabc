"""An exported graph in OpenVINO, in full precision, without torch.

Left to itself, its CPU plug-in calculates in bfloat16 where the processor can, which gave NaN and turned verdicts
around. The precision is therefore always set.

8-bit convolutions of a graph whose shapes are open end the process on processors with AMX
(https://github.com/openvinotoolkit/openvino/issues/37577). Such a graph is therefore compiled once for each size of
image that it meets, and takes one image at a time.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino
from openvino import opset13 as ops

from blemish.errors import ArtifactError, UsageError
from blemish.post_processing.decision import SETTINGS
from blemish.runtime.graph_session import GraphBackend, checked_seal, parse_metadata, wanted
from blemish.runtime.session import Session

KEPT_KERNELS = 256
"""How many prepared kernels, about one per layer and size of image, are kept for images of sizes met before. OpenVINO
keeps 5,000 of each kind and oneDNN below it 1,024 more, which is more than a megabyte for each size."""

MAX_SIZES = 8
"""How many sizes of image an 8-bit graph stays compiled for; the one longest unused goes first."""


class OpenVinoBackend(GraphBackend):
    """An .xml file with its .bin as a `Backend`; every thread gets requests of its own.

    Args:
        path: written by the exporter.
        device: "cpu", "gpu", "npu" or "auto", in either case, as OpenVINO names them.
        threads: threads on the CPU for one image; None lets OpenVINO decide.
        workers: how many images or stacks are inspected at once on the CPU, each with so many threads.
        verdict_only: see `blemish.runtime.load`.
        whole: see `blemish.runtime.graph_session.wanted`.

    Attributes:
        by_size: whether the graph is compiled for each size of image, see above.

    Raises:
        ArtifactError: if a file is missing, damaged or foreign. UsageError: if there is no such device here.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "cpu",
        threads: int | None = None,
        workers: int = 1,
        *,
        verdict_only: bool = False,
        whole: bool = False,
    ) -> None:
        fingerprint = checked_seal(Path(path), [Path(path).with_suffix(".bin")])
        core = shared_core()
        kind = device.upper().partition(".")[0].partition(":")[0]
        available = [*dict.fromkeys(name.partition(".")[0] for name in core.available_devices), "AUTO"]
        if kind not in available:
            raise UsageError(f"device must be one of {', '.join(available).lower()} in this OpenVINO. Got {device!r}.")
        try:
            model = core.read_model(os.fspath(path))
        except RuntimeError as error:
            raise ArtifactError(
                f"{os.fspath(path)} can't be read: {' '.join(str(error).split())} Export again, or copy it again."
            ) from error
        text = model.get_rt_info(["blemish"]).value if model.has_rt_info(["blemish"]) else None
        content = parse_metadata(text, os.fspath(path), fingerprint)
        names = {name for output in model.outputs for name in output.names}
        outputs = wanted(names, verdict_only=verdict_only, whole=whole)
        super().__init__(content, fingerprint, outputs)
        if not _free_settings(model):
            raise ArtifactError(f"{os.fspath(path)} is not a graph that blemish exported. Export again.")
        leave(model, outputs)
        options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
        if kind == "CPU":
            options["CPU_RUNTIME_CACHE_CAPACITY"] = str(KEPT_KERNELS)
            if workers > 1:
                options["NUM_STREAMS"] = workers
        if threads is not None:
            options["INFERENCE_NUM_THREADS"] = threads * workers
        self._model = model
        self.by_size = self.content.get("precision") == "int8" and self.content["static"] is None
        self._local = threading.local()

        @lru_cache(MAX_SIZES)
        def compiled(size: tuple[int, int] | None) -> Any:
            fixed = model if size is None else model.clone()
            if size is not None:
                fixed.reshape({"image": [1, *size, 3]})
            return core.compile_model(fixed, device.upper(), options)

        self._compiled = compiled
        if not self.by_size:
            compiled(None)  # now, not while the first part waits

    def infer(self, feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """See `GraphBackend.infer`."""
        if not self.by_size:
            return self._run(None, feed)
        parts = [self._run(image.shape[:2], {**feed, "image": image[None]}) for image in feed["image"]]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _run(self, size: tuple[int, int] | None, feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        if not hasattr(self._local, "request"):
            compiled = self._compiled  # not self: a session in a cycle would keep its memory until the collector comes
            self._local.request = lru_cache(MAX_SIZES)(lambda size: compiled(size).create_infer_request())
        results = self._local.request(size).infer(feed, share_inputs=True, share_outputs=True)
        return [np.array(results[name]) for name in self.outputs]  # copies: the next run writes into these arrays

    def signature(self) -> dict[str, dict[str, str]]:
        """See `GraphBackend.signature`. Thresholds and sensitivities are constants in the file and inputs here."""
        sides = {"inputs": self._model.inputs, "outputs": self._model.outputs}
        return {
            side: {one.any_name: f"{one.element_type.get_type_name()} {one.partial_shape}" for one in ones}
            for side, ones in sides.items()
        }


@cache
def shared_core() -> openvino.Core:
    """OpenVINO's core, the same for all sessions and never ended.

    Its CPU plug-in gives the thread that starts it another stack for signal handlers, and takes that away when the last
    user ends, in whichever thread. Ended in another one, it leaves the first thread a stack that is gone: the next
    signal, Ctrl-C or the end of a child process, ends the program.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", str(KEPT_KERNELS))  # there is no other way to tell it
    return openvino.Core()


def leave(model: Any, outputs: Collection[str]) -> None:
    """Takes all outputs but these from a graph, and with them what only the others need."""
    for output in model.outputs:
        if output.names.isdisjoint(outputs):
            model.remove_result(output.node)


def constant(value: np.float32, name: str) -> Any:
    """A constant of a graph, called `name`."""
    made = ops.constant(value)
    made.set_friendly_name(name)
    return made


def _free_settings(model: Any) -> bool:
    """Turns the constants called as in `SETTINGS` into inputs; False if they aren't there."""
    constants = {one.get_friendly_name(): one for one in model.get_ops() if one.get_type_name() == "Constant"}
    if not constants.keys() >= set(SETTINGS):
        return False
    for name in SETTINGS:
        parameter = ops.parameter([], np.float32, name=name)
        parameter.output(0).set_names({name})
        constants[name].output(0).replace(parameter.output(0))
        model.add_parameters([parameter])
    model.validate_nodes_and_infer_types()
    return True


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
    return Session(OpenVinoBackend(path, device, threads, workers, verdict_only=verdict_only, whole=whole))
