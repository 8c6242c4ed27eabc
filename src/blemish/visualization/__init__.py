"""Pictures of predictions: arrays in, arrays out, with numpy and Pillow alone."""

from blemish.visualization.classic import (
    add_anomalous_label,
    add_normal_label,
    anomaly_map_to_color_map,
    compute_mask,
    superimpose_anomaly_map,
)
from blemish.visualization.overlay import overlay
from blemish.visualization.visualizer import ImageResult, Visualizer

__all__ = [
    "ImageResult",
    "Visualizer",
    "add_anomalous_label",
    "add_normal_label",
    "anomaly_map_to_color_map",
    "compute_mask",
    "overlay",
    "superimpose_anomaly_map",
]
