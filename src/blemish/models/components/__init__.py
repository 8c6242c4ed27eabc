"""Parts that detectors share. `AnomalyModule` is reachable here under the path of an older library."""

from __future__ import annotations

from blemish._lazy import lazy
from blemish.models.components.dynamic_buffer import DynamicBufferModule
from blemish.models.components.tiler import Tiler

__all__ = ["AnomalyModule", "DynamicBufferModule", "Tiler"]


__getattr__ = lazy(__name__, {"AnomalyModule": "blemish.engine.module"})
