"""How much would be found: defects planted into the good images that calibrate, scored as those are.

A threshold chosen from good images alone says nothing about defects. So some are drawn into images that the scoring
detector has not seen (`blemish.synthetic.planting`), pass through the same path, and their scores become part of the
calibration record: whoever moves the threshold sees at once what that costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from blemish.data.dataset import ImageDataset
from blemish.data.index import Sample
from blemish.errors import UsageError
from blemish.functional.exact_products import exact_products
from blemish.models.base import Detector
from blemish.post_processing.decision import Planted
from blemish.synthetic.planting import Draw, draw, plant

if TYPE_CHECKING:
    from blemish.data.datamodule import ImageDataModule

Draws: TypeAlias = dict[Sample, list[Draw]]
"""What is planted into which image."""


def draws_of(data: ImageDataModule) -> Draws:
    """The defects that the good calibration images of a data module get: `planted` says how many, `seed` which. Images
    share them evenly, in the order of calibration.
    """
    good = [sample for sample in data.calibration if sample.label is False]
    draws: Draws = {}
    for i, sample in enumerate(good):
        numbers = range(data.planted * i // len(good), data.planted * (i + 1) // len(good))
        draws[sample] = [draw(sample.relative, turn, at, data.seed) for turn, at in enumerate(numbers)]
    return draws


class Probe:
    """Plants into good calibration images as they come by.

    Args:
        source: what reads them.
        draws: what to plant, see `draws_of`.

    Attributes:
        found: what was planted so far, with its scores.
    """

    def __init__(self, source: ImageDataModule | ImageDataset, draws: Draws) -> None:
        self.found: list[Planted] = []
        self._source, self._draws = source, draws

    def __call__(self, samples: Sequence[Sample], scorer: Callable[[int], Detector]) -> None:
        """Scores the defects of some images.

        Args:
            samples: a batch of calibration images.
            scorer: number in the batch -> a detector that hasn't seen that image.
        """
        for i, sample in enumerate(samples):
            for each in self._draws.get(sample, ()):
                self._plant(sample, each, scorer(i))

    def _plant(self, sample: Sample, each: Draw, detector: Detector) -> None:
        picture = self._source.pixels(sample)  # (H, W, 3)
        inside = detector.pre_processor.inside((picture.shape[0], picture.shape[1]))
        roi = None if inside is None else np.asarray(inside.cpu())
        try:
            planted, _ = plant(picture, rng=each.rng, kind=each.kind, size=each.size, strength=each.strength, roi=roi)
        except UsageError:  # too small a picture, or no room inside the region of interest: one defect fewer
            return
        image = self._source.prepared(planted)[None].to(detector.device)  # (1, 3, h, w)
        with exact_products(detector.device):
            score, _ = detector.score(detector.features(image))
        self.found.append(Planted(each.kind, each.size, each.strength, float(score)))
