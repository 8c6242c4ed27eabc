"""Documented address of `blemish.legacy.normalization`."""
