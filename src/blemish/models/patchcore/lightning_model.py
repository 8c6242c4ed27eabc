"""Documented address of `blemish.legacy.patchcore_lightning`."""

from blemish.legacy.patchcore_lightning import PatchcoreLightning

__all__ = ["PatchcoreLightning"]
