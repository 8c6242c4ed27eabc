"""PaDiM: one Gaussian of good features per patch position (arXiv 2011.08785)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.engine.module import Padim as Padim
    from blemish.models.padim.detector import PadimDetector as PadimDetector
    from blemish.models.padim.settings import PadimSettings as PadimSettings

_HOME = {
    "Padim": "blemish.engine.module",
    "PadimDetector": "blemish.models.padim.detector",
    "PadimSettings": "blemish.models.padim.settings",
}

__all__ = list(_HOME)

__getattr__ = lazy(__name__, _HOME)
