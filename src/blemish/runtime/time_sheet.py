"""Where the time of one verdict goes: reading, what lies before, in and behind the backbone, and the regions.

Exported graphs are profiled by their runtimes, node by node, which makes them slower; nodes are put together as what
comes before the first convolution, up to the last one, and behind. In torch the parts are what the detector's own
modules take. A session's time from file to verdict is measured beside them, without a profile.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError
from blemish.functional.pixels import to_uint8
from blemish.runtime import load
from blemish.runtime.graph_session import wanted
from blemish.runtime.marks import maps_of
from blemish.runtime.pruning import output_names, pruned

if TYPE_CHECKING:
    from blemish.models.base import Detector

PARTS = ("before the backbone", "backbone", "behind the backbone")
READ, REGIONS, WHOLE = "read and decode", "regions", "file to verdict"

Images = npt.NDArray[Any]  # (N, H, W, 3)
Triple = tuple[float, float, float]


class Profile(Protocol):
    """A model whose parts are timed: call it once per round, then ask."""

    def __call__(self) -> None:
        """Inspects the images once."""

    def seconds(self) -> list[Triple]:
        """`PARTS` of every round but the first, which is slower."""


def time_sheet(path: str | os.PathLike[str], image: str | os.PathLike[str], *, rounds: int = 20) -> dict[str, float]:
    """Seconds of each part for one image, medians of rounds in which all parts take turns.

    Args:
        path: a model file.
        image: an image file.
        rounds: at least 1.

    Returns:
        `READ`, `PARTS`, `REGIONS` and, measured by itself, `WHOLE`.

    Raises:
        UsageError, ArtifactError, MissingExtraError: see `load`. ImageReadError, DataError: for an image that the model
            can't take.
    """
    if rounds < 1:
        raise UsageError(f"rounds must be at least 1. Got {rounds}.")
    session = load(path)
    session(image)
    pixels = session.reading(image)
    outputs = session.backend.run(pixels[None], session.decision)
    regions = partial(maps_of, outputs, 0, session.decision.pixel, session.roi, min_area=session.min_area)
    with tempfile.TemporaryDirectory() as folder:
        profile = _profile(Path(path), session.backend, pixels[None], Path(folder))
        times: dict[str, list[float]] = {READ: [], **{part: [] for part in PARTS}, REGIONS: [], WHOLE: []}
        profile()
        for _ in range(rounds):
            times[READ].append(_seconds(lambda: session.reading(image)))
            profile()
            times[REGIONS].append(_seconds(regions))
            times[WHOLE].append(_seconds(lambda: session(image)))
        for part, values in zip(PARTS, zip(*profile.seconds(), strict=True), strict=True):
            times[part] = list(values)
    return {name: median(values) for name, values in times.items()}


def _profile(path: Path, backend: Any, images: Images, folder: Path) -> Profile:
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return TorchProfile(backend.model, images)
    static = backend.content["static"]
    stack = np.repeat(to_uint8(images), 1 if static is None else static[0], axis=0)
    if suffix == ".onnx":
        return OnnxProfile(path, stack, folder)
    return OpenVinoProfile(path, stack, fixed=backend.by_size)


def _seconds(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


class OnnxProfile:
    """An .onnx file in ONNX Runtime, as a `Profile`; the times are known at the end, and asked for once.

    Args:
        path: the file.
        images: (N, H, W, 3) uint8.
        folder: for the runtime's own file.
    """

    def __init__(self, path: Path, images: Images, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors: it warns of thresholds that are inputs
        options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
        graph = path.read_bytes()
        asked_for = wanted(output_names(graph), verdict_only=False, whole=False)
        self._session = onnxruntime.InferenceSession(pruned(graph, asked_for), options)
        self._images, self._rounds = images, 0

    def __call__(self) -> None:
        """See `Profile`."""
        self._session.run(None, {"image": self._images})
        self._rounds += 1

    def seconds(self) -> list[Triple]:
        """See `Profile`."""
        events = json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8"))
        kernels = [event for event in events if event["name"].endswith("_kernel_time")]
        each = len(kernels) // self._rounds
        return [
            _cut(("Conv" in node["args"]["op_name"], node["dur"] / 1e6) for node in kernels[start : start + each])
            for start in range(each, len(kernels), each)
        ]


class OpenVinoProfile:
    """An .xml file in OpenVINO, as a `Profile`.

    Args:
        path: the file.
        images: (N, H, W, 3) uint8.
        fixed: compile the graph for their size, as sessions do with 8-bit graphs.
    """

    def __init__(self, path: Path, images: Images, *, fixed: bool = False) -> None:
        from blemish.runtime.openvino_session import leave, shared_core

        model = shared_core().read_model(path)
        leave(model, wanted({name for one in model.outputs for name in one.names}, verdict_only=False, whole=False))
        if fixed:
            model.reshape({"image": list(images.shape)})
        options = {"INFERENCE_PRECISION_HINT": "f32", "PERF_COUNT": True}
        self._request = shared_core().compile_model(model, "CPU", options).create_infer_request()
        self._images = images
        self._found: list[Triple] = []

    def __call__(self) -> None:
        """See `Profile`."""
        self._request.infer({"image": self._images})
        nodes = self._request.profiling_info
        self._found.append(_cut(("Convolution" in node.node_type, node.real_time.total_seconds()) for node in nodes))

    def seconds(self) -> list[Triple]:
        """See `Profile`."""
        return self._found[1:]


class TorchProfile:
    """A detector in torch, as a `Profile`.

    Args:
        model: fitted.
        images: (N, H, W, 3) uint8, or float32 in [0, 1].
    """

    def __init__(self, model: Detector, images: Images) -> None:
        import torch

        def run() -> None:
            with torch.inference_mode():
                model(torch.from_numpy(images).to(model.device))

        self._run = run
        self._extractor = model.extractor
        self._found: list[Triple] = []

    def __call__(self) -> None:
        """See `Profile`."""
        marks = [time.perf_counter()]

        def mark(*_: Any) -> None:
            marks.append(time.perf_counter())

        hooks = [self._extractor.register_forward_pre_hook(mark), self._extractor.register_forward_hook(mark)]
        try:
            self._run()
        finally:
            for hook in hooks:
                hook.remove()
        mark()
        start, first, last, end = marks[0], marks[1], marks[-2], marks[-1]  # tiles pass the backbone several times
        self._found.append((first - start, last - first, end - last))

    def seconds(self) -> list[Triple]:
        """See `Profile`."""
        return self._found[1:]


def _cut(nodes: Iterable[tuple[bool, float]]) -> Triple:
    """Sums of what comes before the first convolution, up to the last one, and behind, of (convolves, seconds)."""
    timed = list(nodes)
    convolutions = [number for number, (convolves, _) in enumerate(timed) if convolves]
    first, last = (convolutions[0], convolutions[-1] + 1) if convolutions else (0, 0)
    before, inside, behind = (
        sum(seconds for _, seconds in part) for part in (timed[:first], timed[first:last], timed[last:])
    )
    return before, inside, behind
