"""Documented address of `blemish.legacy.normalization.min_max`."""

from blemish.legacy.normalization.min_max import normalize

__all__ = ["normalize"]
