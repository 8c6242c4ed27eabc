"""Parts that detectors share. `AnomalyModule` is reachable here under the path of an older library."""

from __future__ import annotations

from typing import Any

from blemish.models.components.dynamic_buffer import DynamicBufferModule
from blemish.models.components.tiler import Tiler

__all__ = ["AnomalyModule", "DynamicBufferModule", "Tiler"]


def __getattr__(name: str) -> Any:
    if name == "AnomalyModule":  # on first use: the base class itself imports the parts of this package
        from blemish.models.base import AnomalyModule

        return AnomalyModule
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
