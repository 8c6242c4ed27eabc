"""The seam between a detector and its verdicts."""

from __future__ import annotations

from abc import ABC, abstractmethod

from lightning.pytorch import Callback
from torch import nn

from blemish.data.batch import InferenceBatch


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


PostProcessor = BasePostProcessor
"""The base class under the name that `post_processing.base` gave it in older libraries."""
