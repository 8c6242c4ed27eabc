"""Raw scores to verdicts: thresholds, normalization, labels and masks; and the classic picture functions by their old
names.

Names are resolved on first use: pictures need no torch, and `normalization` works on plain arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.post_processing.base import BasePostProcessor as BasePostProcessor
    from blemish.post_processing.calibration import CalibrationRecord as CalibrationRecord
    from blemish.post_processing.post_processor import OneClassPostProcessor as OneClassPostProcessor
    from blemish.post_processing.post_processor import PostProcessor as PostProcessor

_HOME = {
    "BasePostProcessor": "blemish.post_processing.base",
    "CalibrationRecord": "blemish.post_processing.calibration",
    "OneClassPostProcessor": "blemish.post_processing.post_processor",
    "PostProcessor": "blemish.post_processing.post_processor",
    "ImageResult": "blemish.post_processing.visualizer",
    "Visualizer": "blemish.post_processing.visualizer",
    "add_anomalous_label": "blemish.post_processing.post_process",
    "add_normal_label": "blemish.post_processing.post_process",
    "anomaly_map_to_color_map": "blemish.post_processing.post_process",
    "compute_mask": "blemish.post_processing.post_process",
    "superimpose_anomaly_map": "blemish.post_processing.post_process",
}

__all__ = list(_HOME)


__getattr__ = lazy(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
