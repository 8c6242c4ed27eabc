"""Fused: several detectors over one pass of the backbone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.engine.module import Fused as Fused
    from blemish.models.fused.detector import FusedDetector as FusedDetector
    from blemish.models.fused.settings import FusedSettings as FusedSettings

_HOME = {
    "Fused": "blemish.engine.module",
    "FusedDetector": "blemish.models.fused.detector",
    "FusedSettings": "blemish.models.fused.settings",
}

__all__ = list(_HOME)

__getattr__ = lazy(__name__, _HOME)
