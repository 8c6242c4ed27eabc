"""PatchCore: distance to a memory bank of good patches (arXiv 2106.08265)."""

from blemish.models.patchcore.detector import Patchcore

__all__ = ["Patchcore"]
