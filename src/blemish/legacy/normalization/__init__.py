"""Normalization of raw scores for people to read: `min_max` (the default) and `cdf`."""
