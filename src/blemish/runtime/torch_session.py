"""The artifact itself as a session: the module that was fitted, in torch."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blemish.artifact import load
from blemish.data.batch import InferenceBatch
from blemish.errors import NotCalibratedError, UsageError
from blemish.models.base import AnomalyModule
from blemish.post_processing import PostProcessor
from blemish.runtime.session import Outputs, Session


class TorchBackend:
    """A detector as a `Backend`."""

    def __init__(self, model: AnomalyModule) -> None:
        processor = model.post_processor
        if not isinstance(processor, PostProcessor) or not processor.is_calibrated:
            raise NotCalibratedError(
                "This model has no thresholds, so it can't give verdicts. Calibrate it with Engine.validate."
            )
        self.model = model.eval()
        self._processor = processor

    @property
    def threshold(self) -> float:
        """See `Backend`."""
        return self._processor.effective_image_threshold

    @property
    def pixel_cut(self) -> float:
        """See `Backend`."""
        return self._processor.normalized_pixel_threshold

    @property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """See `Backend`."""
        roi = self.model.pre_processor.roi
        return None if roi is None else roi.cpu().numpy()

    def set(self, **settings: float) -> None:
        """See `Backend`. Changes the model's post-processor."""
        for name, value in settings.items():
            self._processor.get_buffer(f"_{name}").fill_(value)

    @torch.inference_mode()
    def run(self, images: npt.NDArray[Any]) -> Outputs:
        """See `Backend.run`."""
        batch: InferenceBatch = self.model(torch.from_numpy(images).to(self.model.device))
        names = Outputs._fields
        return Outputs(*(getattr(batch, name).cpu().numpy() for name in names))


def open_session(path: str | os.PathLike[str], device: str, threads: int | None = None) -> Session:
    """See `blemish.runtime.load`."""
    if threads is not None:
        raise UsageError("threads is for exported models. In torch it belongs to the process: torch.set_num_threads.")
    return Session(TorchBackend(load(path, device)))
