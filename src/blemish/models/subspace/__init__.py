"""Subspace: distance to the directions in which good patches vary (arXiv 2602.23013)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.engine.module import Subspace as Subspace
    from blemish.models.subspace.detector import SubspaceDetector as SubspaceDetector
    from blemish.models.subspace.settings import SubspaceSettings as SubspaceSettings

_HOME = {
    "Subspace": "blemish.engine.module",
    "SubspaceDetector": "blemish.models.subspace.detector",
    "SubspaceSettings": "blemish.models.subspace.settings",
}

__all__ = list(_HOME)

__getattr__ = lazy(__name__, _HOME)
