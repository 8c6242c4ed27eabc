"""PatchCore: distance to a memory bank of good patches (arXiv 2106.08265)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.models.patchcore.detector import Patchcore as Patchcore

__all__ = ["Patchcore"]

__getattr__ = lazy(__name__, {"Patchcore": "blemish.models.patchcore.detector"})
