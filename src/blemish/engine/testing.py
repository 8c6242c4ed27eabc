"""A model measured on a folder as it was fitted on it: figures, and what they rest on, as plain values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from blemish.data.datamodule import ImageDataModule
from blemish.engine.engine import Engine
from blemish.post_processing.moving import moved

if TYPE_CHECKING:
    from blemish.metrics.evaluation import EvaluationResult
    from blemish.models.base import Detector
    from blemish.post_processing.post_processor import DecisionModule
    from blemish.settings import LoadingSettings


def measure(
    detector: Detector,
    root: Path,
    loading: LoadingSettings,
    accelerator: str = "auto",
    *,
    said: Mapping[str, Any] | None = None,
    move: Mapping[str, float | None] = MappingProxyType({}),
) -> dict[str, Any]:
    """The figures of a detector on the test images of a folder, see `data_for_test`, and what they rest on.
    With `move`, arguments of `blemish.post_processing.moving.moved`, it decides by another threshold from then on.

    Raises:
        UsageError: if it has no post-processor that decides. DataError: if there is nothing to test on.
    """
    decider = detector.decider
    if any(value is not None for value in move.values()):
        decider.decision = moved(decider.decision, **move)
    return figures_of(Engine(accelerator).test(detector, data_for_test(detector, root, loading, said or {})), decider)


def data_for_test(detector: Detector, root: Path, loading: LoadingSettings, said: Mapping[str, Any]) -> ImageDataModule:
    """The images of a folder, dealt as for the detector's fit, tested on those that the detector hasn't seen.

    Args:
        detector: what shall be tested.
        root: a folder, data set or manifest.
        loading: how its files are loaded.
        said: `FolderSettings` that win over those of the fit.
    """
    return ImageDataModule.from_record(root, detector.data_record, **dict(loading), **said)


def figures_of(result: EvaluationResult, decider: DecisionModule) -> dict[str, Any]:
    """Figures, threshold and calibration record as plain values, ready for JSON."""
    calibration = None if decider.record is None else {**vars(decider.record), "oracle": decider.record.oracle}
    threshold = decider.effective_image_threshold if decider.is_calibrated else None
    return {**result.to_dict(), "threshold": threshold, "calibration": calibration}
