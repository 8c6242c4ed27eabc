"""A model measured on a folder as it was fitted on it: figures, and what they rest on, as plain values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.data.datamodule import ImageDataModule
from blemish.data.splits import Split
from blemish.engine.engine import Engine

if TYPE_CHECKING:
    from blemish.metrics.evaluation import EvaluationResult
    from blemish.models.base import Detector
    from blemish.post_processing.post_processor import DecisionModule
    from blemish.settings import LoadingSettings


def measure(detector: Detector, root: Path, loading: LoadingSettings, accelerator: str = "auto") -> dict[str, Any]:
    """The figures of a detector on the test images of a folder, see `data_for_test`, and what they rest on.

    Raises:
        UsageError: if it has no post-processor that decides. DataError: if there is nothing to test on.
    """
    decider = detector.decider
    return figures_of(Engine(accelerator).test(detector, data_for_test(detector, root, loading)), decider)


def data_for_test(detector: Detector, root: Path, loading: LoadingSettings) -> ImageDataModule:
    """The images of a folder, dealt as for the detector's fit. Where there are none to fit on, and so nothing to deal,
    all labeled images of the test set are tested on.
    """
    record = detector.data_record
    dealt = {} if record is None else {key: value for key, value in vars(record).items() if key != "fingerprint"}
    datamodule = ImageDataModule(root, **dict(loading), **dealt)
    samples = datamodule.index.samples
    if not any(sample.label is False and sample.subset in ("train", None) for sample in samples):
        tested = tuple(sample for sample in samples if sample.subset == "test" and sample.label is not None)
        datamodule.split = Split(fit=(), calibrate=(), validation=(), test=tested)
    return datamodule


def figures_of(result: EvaluationResult, decider: DecisionModule) -> dict[str, Any]:
    """Figures, threshold and calibration record as plain values, ready for JSON."""
    calibration = None if decider.record is None else {**vars(decider.record), "oracle": decider.record.oracle}
    threshold = decider.effective_image_threshold if decider.is_calibrated else None
    return {**result.to_dict(), "threshold": threshold, "calibration": calibration}
