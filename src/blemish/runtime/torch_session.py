"""The artifact itself as a session: the module that was fitted, in torch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from blemish.artifact import load
from blemish.data.explanation import Explanation
from blemish.data.good_images import GoodImages
from blemish.data.record import ColorRecord
from blemish.errors import NonFiniteError, NotCalibratedError
from blemish.functional.exact_products import exact_products
from blemish.functional.regions import Region
from blemish.models.base import Detector
from blemish.post_processing.decision import Decision
from blemish.post_processing.post_processor import DecisionModule
from blemish.runtime.backend import Outputs
from blemish.runtime.recorded import Function, Recorded
from blemish.runtime.session import Session
from blemish.seal import read_seal


class TorchBackend:
    """A detector as a `Backend`.

    Args:
        model: fitted and calibrated.
        fingerprint: of its file, where it has one.
        verdict_only: see `blemish.runtime.load`.

    Attributes:
        look: images (N, H, W, 3) on the model's device -> raw scores (N,) and, but for verdicts alone, raw maps
            (N, H, W) there.

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
        self.look = _path(model, verdict_only=verdict_only)

    @property
    def decision(self) -> Decision:
        """See `Backend`."""
        return self.model.decider.decision

    @cached_property
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
        """See `Backend.run`. Raw maps alone, as from exported graphs: sessions decide about pixels."""
        if not images.flags.writeable:  # torch warns of those, though nobody writes here
            images = images.copy()
        score, *maps = (one.cpu().numpy() for one in self.look(torch.from_numpy(images).to(self.model.device)))
        if not np.isfinite(score).all():
            raise NonFiniteError(
                "The score is NaN or infinite, so there is no verdict. Check the image and the backbone's weights."
            )
        shown, label = decision.image.normalize(score), decision.image.is_anomalous(score)
        return Outputs(score, shown, label, raw_map=maps[0] if maps else None)

    def explain(
        self, image: npt.NDArray[Any], regions: Sequence[Region], decision: Decision, count: int
    ) -> Explanation:
        """See `Detector.explain`."""
        return self.model.explain(image, regions, decision, count=count)


def _path(model: Detector, *, verdict_only: bool) -> Function:
    """What a detector makes of images, on CUDA devices as far as it can be recorded."""

    def features(images: Tensor) -> tuple[Tensor]:
        return (model.features(model.pre_processor(images)),)

    def scores(features: Tensor, images: Tensor) -> tuple[Tensor, ...]:
        if verdict_only:
            with exact_products(features.device):
                return (model.score_alone(features),)
        raw = model.inspect_features(features, (images.shape[1], images.shape[2]))
        assert isinstance(raw.maps, Tensor)  # images of one size
        return raw.score, raw.maps

    def whole(images: Tensor) -> tuple[Tensor, ...]:
        return scores(features(images)[0], images)

    if model.device.type != "cuda":
        return whole
    if model.steady:
        return Recorded(whole)
    recorded = Recorded(features)
    return lambda images: scores(model.checked(recorded(images)[0]), images)


def open_session(
    path: str | os.PathLike[str], device: str, threads: int | None, workers: int, verdict_only: bool
) -> Session:
    """See `blemish.runtime.load`."""
    if threads is not None:
        torch.set_num_threads(threads)
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return Session(TorchBackend(load(path, device), read_seal(Path(path)), verdict_only=verdict_only))
