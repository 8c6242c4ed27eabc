"""PaDiM: one Gaussian of good features per patch position (arXiv 2011.08785)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.models.padim.detector import Padim as Padim

__all__ = ["Padim"]

__getattr__ = lazy(__name__, {"Padim": "blemish.models.padim.detector"})
