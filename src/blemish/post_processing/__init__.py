"""Raw scores to verdicts: thresholds, normalization, labels and masks; and the classic picture functions by their old
names.

Names are resolved on first use: pictures need no torch, and `normalization` works on plain arrays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.engine.post_processor import BasePostProcessor as BasePostProcessor
    from blemish.engine.post_processor import OneClassPostProcessor as OneClassPostProcessor
    from blemish.engine.post_processor import PostProcessor as PostProcessor
    from blemish.post_processing.decision import CalibrationRecord as CalibrationRecord
    from blemish.post_processing.decision import Decision as Decision
    from blemish.post_processing.decision import Scale as Scale
    from blemish.post_processing.post_processor import DecisionModule as DecisionModule

_HOME = {
    "BasePostProcessor": "blemish.engine.post_processor",
    "CalibrationRecord": "blemish.post_processing.decision",
    "Decision": "blemish.post_processing.decision",
    "DecisionModule": "blemish.post_processing.post_processor",
    "OneClassPostProcessor": "blemish.engine.post_processor",
    "PostProcessor": "blemish.engine.post_processor",
    "Scale": "blemish.post_processing.decision",
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
