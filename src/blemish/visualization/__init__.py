"""Pictures of predictions: arrays in, arrays out, with numpy and Pillow alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy
from blemish.visualization.overlay import overlay

if TYPE_CHECKING:
    from blemish.visualization.classic import add_anomalous_label as add_anomalous_label
    from blemish.visualization.classic import add_normal_label as add_normal_label
    from blemish.visualization.classic import anomaly_map_to_color_map as anomaly_map_to_color_map
    from blemish.visualization.classic import compute_mask as compute_mask
    from blemish.visualization.classic import superimpose_anomaly_map as superimpose_anomaly_map
    from blemish.visualization.visualizer import ImageResult as ImageResult
    from blemish.visualization.visualizer import Visualizer as Visualizer

_HOME = {
    "ImageResult": "blemish.visualization.visualizer",
    "Visualizer": "blemish.visualization.visualizer",
    "add_anomalous_label": "blemish.visualization.classic",
    "add_normal_label": "blemish.visualization.classic",
    "anomaly_map_to_color_map": "blemish.visualization.classic",
    "compute_mask": "blemish.visualization.classic",
    "superimpose_anomaly_map": "blemish.visualization.classic",
}

__all__ = ["overlay", *_HOME]

__getattr__ = lazy(__name__, _HOME)
