"""Scores of good images by detectors that did not see them, while one detector is fitted on all.

The images are divided into folds. One detector per fold observes the images of that fold alone; what all others have
observed, merged, makes the detector that scores the fold (cross-conformal prediction, Vovk 2015; CV+ of Barber et al.
2021). Every image is observed twice, once for its fold and once for the detector that is delivered, and scored once: no
fold needs a pass of its own. Banks select their rows anew for every fold; moments merge exactly.

Memory: what the folds have observed, and one merged detector at a time, if images are scored fold by fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blemish.data.batch import RawPrediction
from blemish.models.base import Detector


class CrossFit:
    """The detectors of the folds.

    Args:
        detector: one that has begun to observe, and hasn't yet; it isn't changed. What it knew before, where it was
            resumed, counts for every fold.
        folds: fold number of every image that will be observed, from 0.
    """

    def __init__(self, detector: Detector, folds: Sequence[int]) -> None:
        self._blank = detector.twin()
        self._folds = list(folds)
        self._observers = [self._observer() for _ in range(max(self._folds) + 1)]
        self._merged: tuple[int, Detector] | None = None

    def observe(self, features: Tensor, first: int) -> None:
        """Takes patch features (N, D, gh, gw) of the images number `first`, `first` + 1, ..."""
        folds = self._folds[first : first + len(features)]
        for fold in dict.fromkeys(folds):
            inside = [i for i, other in enumerate(folds) if other == fold]
            self._observers[fold].observe(features[inside], [first + i for i in inside])

    def inspect(self, images: Tensor, size: Sequence[tuple[int, int]], numbers: Sequence[int]) -> RawPrediction:
        """Raw predictions for pre-processed images (N, 3, h, w) by detectors that didn't see them.

        Args:
            images: (N, 3, h, w) float32.
            size: N original (H, W).
            numbers: of the images, in the order in which they were observed.
        """
        parts = [
            self._without(self._folds[number]).inspect(images[i : i + 1], size[i : i + 1])
            for i, number in enumerate(numbers)
        ]
        maps = [part.maps[0] for part in parts]
        rois = [part.roi[0] for part in parts if part.roi is not None]
        return RawPrediction(torch.cat([part.score for part in parts]), maps, rois or None)

    def _observer(self) -> Detector:
        observer = self._blank.twin()
        observer.start()
        return observer

    def _without(self, fold: int) -> Detector:
        """The detector of all other folds; the latest one is kept."""
        if self._merged is None or self._merged[0] != fold:
            self._merged = None  # its memory first
            merged = self._blank.twin()
            for other, observer in enumerate(self._observers):
                if other != fold:
                    merged.merge(observer)
            merged.finish()
            self._merged = (fold, merged)
        return self._merged[1]
