"""Scores of good images by detectors that did not see them, while one detector is fitted on all.

The images are divided into folds. One detector per fold observes the images of that fold alone; what all others have
observed, merged, makes the detector that scores the fold (cross-conformal prediction, Vovk 2015; CV+ of Barber et al.
2021). Every image is observed twice, once for its fold and once for the detector that is delivered, and scored once: no
fold needs a pass of its own. Banks select their rows anew for every fold; moments merge exactly.

Memory: what the folds have observed, one merged detector at a time, if images are scored fold by fold, and as many
bytes of features as are asked for: those of images that needn't be read, nor go through the backbone, to be scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from blemish.errors import DataError
from blemish.models.base import Detector

AT_ONCE = {"cpu": 1}
"""Images that a fold's detector scores together, by kind of device: there, scores are the same to the last bit whatever
else is in the batch. Others, which wait for launches rather than for products, take whole batches."""


def images_at_once(device: torch.device, images: int) -> int:
    """How many of so many images a fold's detector scores together."""
    return max(1, min(images, AT_ONCE.get(device.type, images)))


def features_by_image(detector: Detector, images: Tensor, at_once: int) -> Iterator[Tensor]:
    """The patch features (1, D, gh, gw) of each of some images (N, 3, h, w), `at_once` of which pass the backbone
    together. There are always so many: libraries on a GPU need a second to prepare for another number.
    """
    for some in images.split(at_once):
        filled = some if len(some) == at_once else torch.cat([some, some[-1:].expand(at_once - len(some), -1, -1, -1)])
        yield from detector.features(filled).split(1)[: len(some)]


class CrossFit:
    """The detectors of the folds.

    Args:
        detector: one that has begun to observe, and hasn't yet; it isn't changed. What it knew before, where it was
            resumed, counts for every fold.
        folds: fold number of every image that will be observed, from 0.
        first: number of the first of these images, where others observe those before.
        count: how many folds there are, where these images may not be in all of them.
        room: bytes of features to keep, see `features_of`.
    """

    def __init__(
        self, detector: Detector, folds: Sequence[int], first: int = 0, count: int | None = None, room: int = 0
    ) -> None:
        self._blank = detector.twin()
        self._folds, self._first = list(folds), first
        self._observers = [self._observer() for _ in range(count or max(self._folds) + 1)]
        self._states: list[dict[str, Tensor]] = []
        self._merged: tuple[int, Detector] | None = None
        self._room = room
        self._kept: dict[int, Tensor] = {}

    def observe(self, features: Tensor, first: int) -> None:
        """Takes patch features (N, D, gh, gw) of the images number `first`, `first` + 1, ..."""
        folds = self._folds[first - self._first :][: len(features)]
        for fold in dict.fromkeys(folds):
            inside = [i for i, other in enumerate(folds) if other == fold]
            self._observers[fold].observe(features[inside], [first + i for i in inside])
        for number, one in enumerate(features.split(1), first):
            if one.nbytes <= self._room:
                self._room -= one.nbytes
                # Not a view of the batch, and as those of one image lie in memory: sums depend on that in the last bit.
                self._kept[number] = one.clone(memory_format=torch.contiguous_format)

    def features_of(self, number: int) -> Tensor | None:
        """What was observed of image `number`, (1, D, gh, gw); None where there was no room to keep it."""
        return self._kept.get(number)

    def observed_states(self) -> list[dict[str, Tensor]]:
        """What was observed of each fold, see `Detector.observed_state`."""
        return [observer.observed_state() for observer in self._observers]

    def without(self, number: int) -> Detector:
        """A detector that hasn't seen image `number`, in the order of observation, nor any other of its fold. The
        latest one is kept: ask fold by fold. Nothing can be observed any more. DataError where too few others are left.
        """
        while self._observers:  # their memory becomes that of the states, which all merged detectors share
            self._states.append(self._observers.pop(0).observed_state())
        fold = self._folds[number]
        if self._merged is None or self._merged[0] != fold:
            self._merged = None  # its memory first
            merged = self._blank.twin()
            for other, state in enumerate(self._states):
                if other != fold:
                    merged.merge(state)
            try:
                merged.finish_for(self._folds.count(fold))
            except DataError as error:
                raise DataError(
                    f"Cross calibration fits without the images of each fold in turn. {error} Add images of good parts."
                ) from error
            self._merged = (fold, merged)
        return self._merged[1]

    def _observer(self) -> Detector:
        observer = self._blank.twin()
        observer.start()
        return observer
