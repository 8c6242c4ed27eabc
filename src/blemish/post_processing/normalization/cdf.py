"""Documented address of `blemish.legacy.normalization.cdf`."""

from blemish.legacy.normalization.cdf import normalize, standardize

__all__ = ["normalize", "standardize"]
