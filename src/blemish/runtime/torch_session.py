"""The artifact itself as a session: the module that was fitted, in torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blemish.artifact import load
from blemish.data.batch import InferenceBatch
from blemish.data.explanation import Explanation
from blemish.data.good_images import GoodImages
from blemish.data.record import ColorRecord
from blemish.errors import NotCalibratedError
from blemish.functional.regions import Region
from blemish.models.base import Detector
from blemish.post_processing.decision import Decision
from blemish.post_processing.post_processor import DecisionModule
from blemish.runtime.session import VERDICT, Outputs, Session
from blemish.seal import read_seal


class TorchBackend:
    """A detector as a `Backend`.

    Args:
        model: fitted and calibrated.
        fingerprint: of its file, where it has one.
        verdict_only: see `blemish.runtime.load`.

    Raises:
        NotCalibratedError: without thresholds.
    """

    def __init__(self, model: Detector, fingerprint: str | None = None, *, verdict_only: bool = False) -> None:
        processor = model.post_processor
        if not isinstance(processor, DecisionModule) or not processor.is_calibrated:
            raise NotCalibratedError(
                "This model has no thresholds, so it can't give verdicts. Calibrate it with Engine.validate."
            )
        self.model = model.eval()
        self.fingerprint, self.verdict_only = fingerprint, verdict_only

    @property
    def decision(self) -> Decision:
        """See `Backend`."""
        return self.model.decider.decision

    @property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """See `Backend`."""
        roi = self.model.pre_processor.roi
        return None if roi is None else roi.cpu().numpy()

    @property
    def bit_depth(self) -> int | None:
        """See `Backend`."""
        return None if self.model.data_record is None else self.model.data_record.bit_depth

    @property
    def color(self) -> ColorRecord | None:
        """See `Backend`."""
        return None if self.model.data_record is None else self.model.data_record.color

    @property
    def good_images(self) -> GoodImages:
        """See `Backend`."""
        return self.model.good_images

    @torch.inference_mode()
    def run(self, images: npt.NDArray[Any], decision: Decision) -> Outputs:
        """See `Backend.run`."""
        judge, names = (self.model.judge, VERDICT) if self.verdict_only else (self.model, Outputs._fields)
        if not images.flags.writeable:  # torch warns of those, though nobody writes here
            images = images.copy()
        batch: InferenceBatch = judge(torch.from_numpy(images).to(self.model.device), decision)
        return Outputs(*(getattr(batch, name).cpu().numpy() for name in names))

    def explain(
        self, image: npt.NDArray[Any], regions: Sequence[Region], decision: Decision, count: int
    ) -> Explanation:
        """See `Detector.explain`."""
        return self.model.explain(image, regions, decision, count=count)


def open_session(
    path: str | os.PathLike[str], device: str, threads: int | None, workers: int, verdict_only: bool
) -> Session:
    """See `blemish.runtime.load`."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return Session(TorchBackend(load(path, device), read_seal(Path(path)), verdict_only=verdict_only))
