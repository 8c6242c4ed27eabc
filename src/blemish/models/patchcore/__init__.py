"""PatchCore: distance to a memory bank of good patches (arXiv 2106.08265)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.engine.module import Patchcore as Patchcore
    from blemish.models.patchcore.detector import PatchcoreDetector as PatchcoreDetector
    from blemish.models.patchcore.settings import PatchcoreSettings as PatchcoreSettings

_HOME = {
    "Patchcore": "blemish.engine.module",
    "PatchcoreDetector": "blemish.models.patchcore.detector",
    "PatchcoreSettings": "blemish.models.patchcore.settings",
}

__all__ = list(_HOME)

__getattr__ = lazy(__name__, _HOME)
