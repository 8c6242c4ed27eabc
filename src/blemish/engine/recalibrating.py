"""A finished detector calibrated again on a folder of images that it hasn't seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.data.datamodule import ImageDataModule
from blemish.engine.engine import Engine
from blemish.errors import CalibrationError

if TYPE_CHECKING:
    from blemish.models.base import Detector
    from blemish.settings import LoadingSettings


def recalibrate(
    detector: Detector,
    root: Path,
    loading: LoadingSettings,
    accelerator: str = "auto",
    *,
    said: Mapping[str, Any] | None = None,
    rate: float | None = None,
    from_labels: bool = False,
) -> None:
    """Chooses the thresholds of a detector anew; its sensitivities become 0.5.

    Args:
        detector: fitted, with a post-processor that decides.
        root: a folder, data set or manifest, of which the detector has seen nothing.
        loading: how its files are loaded.
        accelerator: see `Engine`.
        said: `FolderSettings`, and "group", for a folder whose names don't tell.
        rate: wanted share of good images called anomalous; None takes the highest score.
        from_labels: good and anomalous images choose the best F1. Those of a test set make an oracle, and the record
            says so. Otherwise all good images outside of a test set choose.

    Raises:
        UsageError: if the detector was made from some of the images.
        CalibrationError: with too few good images for the rate, or with `from_labels` and no anomalous image.
    """
    decider = detector.decider
    if from_labels:
        data = ImageDataModule.from_record(root, detector.data_record, **dict(loading), **(said or {}))
        labeled = data.split.test
        if {sample.label for sample in labeled} != {True, False}:
            counts = [sum(sample.label is label for sample in labeled) for label in (False, True)]
            raise CalibrationError(
                f"{root}: labels need good and anomalous images that the model hasn't seen. Got {counts[0]} good and "
                f"{counts[1]} anomalous."
            )
        owned = any(sample.subset == "test" for sample in labeled)
        data.split = replace(data.split, validation=labeled, policy="test" if owned else "validation")
    else:
        data = ImageDataModule(root, calibrate_on="cross", **dict(loading), **(said or {}))
        data.compares = False
    decider.max_false_alarm_rate, decider.miss_cost = rate, None  # the defects of the fit are not among these images
    decider.image_sensitivity = decider.pixel_sensitivity = 0.5
    Engine(accelerator).validate(detector, data)
