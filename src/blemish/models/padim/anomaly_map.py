"""Documented address of `blemish.legacy.padim_anomaly_map`."""

from blemish.legacy.padim_anomaly_map import AnomalyMapGenerator

__all__ = ["AnomalyMapGenerator"]
