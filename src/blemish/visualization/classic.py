"""Documented address of `blemish.legacy.classic`."""

from blemish.legacy.classic import (
    add_anomalous_label,
    add_normal_label,
    anomaly_map_to_color_map,
    compute_mask,
    superimpose_anomaly_map,
)

__all__ = [
    "add_anomalous_label",
    "add_normal_label",
    "anomaly_map_to_color_map",
    "compute_mask",
    "superimpose_anomaly_map",
]
