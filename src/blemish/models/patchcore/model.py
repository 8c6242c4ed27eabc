"""Documented address of `blemish.legacy.patchcore_model`."""

from blemish.legacy.patchcore_model import AnomalyMapGenerator, PatchcoreLightning, PatchcoreModel

__all__ = ["AnomalyMapGenerator", "PatchcoreLightning", "PatchcoreModel"]
