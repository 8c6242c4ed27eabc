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

OPENERS = {".safetensors": "blemish.runtime.torch_session"}
"""File suffix -> module with an `open_session(path, device)`."""


def load(path: str | os.PathLike[str], *, device: str = "cpu") -> Session:
    """Opens a model file for inspection.

    Args:
        path: a model that `blemish` wrote.
        device: where it runs: "cpu", "cuda", ...

    Raises:
        UsageError: for a suffix without a runtime. ArtifactError, NotCalibratedError: if the model can't give verdicts.
        MissingExtraError: if the runtime isn't installed; the message holds the pip command.
    """
    from blemish.errors import MissingExtraError, UsageError

    suffix = Path(path).suffix.lower()
    if suffix not in OPENERS:
        raise UsageError(f"A model file ends in {' or '.join(OPENERS)}. Got {os.fspath(path)!r}.")
    try:
        opener = importlib.import_module(OPENERS[suffix])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("blemish"):
            raise
        raise MissingExtraError(error.name or "torch", "train") from error
    session: Session = opener.open_session(path, device)
    return session
