"""Serving a finished model: one `Session` interface over every runtime.

`load(path)` is all a caller needs; nothing here imports a runtime before it is used.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blemish.runtime.inputs import Channels
    from blemish.runtime.session import Session

OPENERS = {
    ".safetensors": "blemish.runtime.torch_session",
    ".onnx": "blemish.runtime.onnx_session",
    ".xml": "blemish.runtime.openvino_session",
}
"""File suffix -> module with an `open_session(path, device, threads, workers, verdict_only)`."""


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int | None = None,
    channels: Channels = "rgb",
    workers: int = 1,
    verdict_only: bool = False,
) -> Session:
    """Opens a model file for inspection: call what it gives with images.

    Args:
        path: a model that `blemish` wrote.
        device: where it runs: "cpu", "cuda", ..., or "auto" for a GPU where there is one; what there is depends on the
            runtime, whose error lists it.
        threads: threads on the CPU, at least 1. None lets the runtime decide. In torch they belong to the process: the
            number holds for all of its models.
        batch_size: how many images of equal size are stacked. None takes 1 for streams, so that each verdict is there
            as soon as it can be, and 8 for lists and folders.
        channels: of arrays and tensors: "rgb", "bgr" as OpenCV gives them, or "gray".
        workers: how many stacks lists and folders have inspected at once, see `Session`. With several of them `threads`
            are those of each, and None is an equal share of the cores: for most images in an hour take as many workers
            as cores.
        verdict_only: leave out maps, masks and regions, and the time that they take: scores, labels and thresholds are
            the same. Asking a result for the rest is a `UsageError`.

    Raises:
        UsageError: for a suffix without a runtime, or an option it doesn't have.
        ArtifactError, NotCalibratedError: if the model can't give verdicts.
        MissingExtraError: if the runtime isn't installed; the message holds the pip command.
    """
    from blemish.errors import UsageError
    from blemish.extras import needing_extras

    suffix = Path(path).suffix.lower()
    if suffix not in OPENERS:
        raise UsageError(f"A model file ends in {' or '.join(OPENERS)}. Got {os.fspath(path)!r}.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1. Got {threads}.")
    from blemish.runtime.threads import usable_cores

    if threads is None and workers > 1:
        threads = max(1, usable_cores() // workers)
    with needing_extras():
        opener = importlib.import_module(OPENERS[suffix])
    from blemish.runtime.session import Session

    backend = opener.open_session(path, device, threads, workers, verdict_only).backend
    return Session(backend, batch_size=batch_size, channels=channels, workers=workers)
