"""The post-processor as Lightning knows it: a module that is also the callback which calibrates it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from blemish.data.batch import InferenceBatch
from blemish.data.gather import own_share
from blemish.post_processing.calibration import Evidence
from blemish.post_processing.post_processor import DecisionModule


class BasePostProcessor(nn.Module, Callback, ABC):
    """Turns raw predictions into verdicts, as a module inside the exported graph and as a callback that calibrates it.

    A subclass implements `forward`; whatever it computes there is what test, prediction and export run. Calibration
    sees the detector's own scores, which a subclass leaves as they are in `raw_score`::

        class Halving(BasePostProcessor):
            def forward(self, batch):
                return dataclasses.replace(batch, pred_score=batch.pred_score / 2)

    Lightning calls the hooks of `lightning.pytorch.Callback` on it; a detector registers it by itself.
    """

    @abstractmethod
    def forward(self, batch: InferenceBatch) -> InferenceBatch:
        """Post-processes a batch of raw predictions.

        Raises:
            NotImplementedError: always, in this base class.
        """
        raise NotImplementedError(f"{type(self).__name__} must implement forward(batch) -> InferenceBatch.")


class CalibrationHooks(Callback):
    """Calibrates a `DecisionModule` in Lightning's validation loop, and completes what test and prediction return."""

    _evidence: Evidence | None = None

    @property
    def decider(self) -> DecisionModule:
        """What is calibrated."""
        raise NotImplementedError

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the evidence of an earlier calibration."""
        self._evidence = Evidence()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Adds a batch of raw predictions with `gt_label` (and `gt_mask`, where there is one) to the evidence.

        Raises:
            CalibrationError: if the batch has no labels.
        """
        if isinstance(outputs, InferenceBatch):
            self._evidence = self._evidence or Evidence()
            self._evidence.add(outputs, own_share(trainer, self._evidence.images))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses thresholds and ranges from the evidence of all processes.

        Raises:
            CalibrationError: without normal images, or with too few for `max_false_alarm_rate`.
        """
        evidence, self._evidence = self._evidence, None
        if evidence is not None and not getattr(trainer, "sanity_checking", False):
            datamodule = getattr(trainer, "datamodule", None)
            self.decider.calibrate(evidence, source=getattr(datamodule, "policy", "validation"))

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Post-processes the batch in place, if nobody has yet."""
        if isinstance(outputs, InferenceBatch) and outputs.raw_score is None:
            self.decider.post_process_batch(outputs)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """As `on_test_batch_end`."""
        self.on_test_batch_end(trainer, pl_module, outputs)


class Calibration(CalibrationHooks):
    """The hooks for a `DecisionModule` that is no callback itself, as loaded models have it."""

    def __init__(self, decider: DecisionModule) -> None:
        self._decider = decider

    @property
    def decider(self) -> DecisionModule:
        """See `CalibrationHooks`."""
        return self._decider


class PostProcessor(DecisionModule, CalibrationHooks, BasePostProcessor):
    """Thresholds, normalizes and masks raw predictions; calibrates itself during Lightning's validation loop.

    Args:
        image_sensitivity, pixel_sensitivity, max_false_alarm_rate: see `DecisionModule`.
    """

    @property
    def decider(self) -> DecisionModule:
        """Itself."""
        return self


OneClassPostProcessor = PostProcessor
"""The name of `PostProcessor` in an older library."""
