"""Serving a finished model: one `Session` interface over every runtime.

`load(path)` is all a caller needs; nothing here imports a runtime before it is used.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blemish.runtime.session import Session

OPENERS = {
    ".safetensors": ("blemish.runtime.torch_session", "train"),
    ".onnx": ("blemish.runtime.onnx_session", "onnx"),
    ".xml": ("blemish.runtime.openvino_session", "openvino"),
}
"""File suffix -> module with an `open_session(path, device, threads)`, and the extra that it needs."""


def load(path: str | os.PathLike[str], *, device: str = "cpu", threads: int | None = None) -> Session:
    """Opens a model file for inspection.

    Args:
        path: a model that `blemish` wrote.
        device: where it runs: "cpu", "cuda", ...; what there is depends on the runtime, whose error lists it.
        threads: threads on the CPU, at least 1, for exported models. None lets the runtime decide.

    Raises:
        UsageError: for a suffix without a runtime, or an option it doesn't have.
        ArtifactError, NotCalibratedError: if the model can't give verdicts.
        MissingExtraError: if the runtime isn't installed; the message holds the pip command.
    """
    from blemish.errors import MissingExtraError, UsageError

    suffix = Path(path).suffix.lower()
    if suffix not in OPENERS:
        raise UsageError(f"A model file ends in {' or '.join(OPENERS)}. Got {os.fspath(path)!r}.")
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1. Got {threads}.")
    module, extra = OPENERS[suffix]
    try:
        opener = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("blemish"):
            raise
        raise MissingExtraError(error.name or module, extra) from error
    session: Session = opener.open_session(path, device, threads)
    return session
