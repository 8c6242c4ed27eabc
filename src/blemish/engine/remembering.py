"""Which good images a model file names, so that its explanations can show them.

Of a detector with a memory bank, those its rows come from, the one with the most rows first. Of others, a few of the
half that calibration scored lower, lowest first, evenly spaced: the very lowest are often pictures of one part.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blemish.data.datamodule import ImageDataModule
from blemish.data.explanation import GoodImage
from blemish.data.good_images import GoodImages, select, small_picture
from blemish.data.layouts import Sample
from blemish.models.base import Detector
from blemish.post_processing.post_processor import DecisionModule

ORDINARY = 8
"""How many images are named for a detector that remembers none."""


def good_images_of(model: Detector, data: ImageDataModule, first: int, *, thumbnails: bool) -> GoodImages:
    """The good images of a detector that has just been fitted and calibrated.

    Args:
        model: with those of earlier fits, if it was updated.
        data: what it was fitted on.
        first: the number that its bank gave to the first of these images.
        thumbnails: keep small pictures of the new ones; earlier ones keep theirs.
    """
    earlier = {image.number: image for image in model.good_images.images}
    samples: dict[int, Sample] = {}

    def named() -> Iterator[GoodImage]:
        rows = model.remembered_images()
        if rows:
            samples.update(enumerate(data.split.fit, first))
            numbers = sorted(rows, key=lambda number: (-rows[number], number))
        else:
            samples.update(enumerate(_ordinary(model, data)))
            numbers = list(samples)
        for number in numbers:
            if number in samples:
                yield data.good_image(number, samples[number])
            elif number in earlier:
                yield earlier[number]

    def picture(image: GoodImage) -> bytes:
        if image.number not in samples:
            return model.good_images.picture(image)
        return small_picture(data.pixels(samples[image.number])) if thumbnails else b""

    return select(named(), picture)


def _ordinary(model: Detector, data: ImageDataModule) -> list[Sample]:
    """Good calibration images of low scores, lowest first."""
    record = model.post_processor.record if isinstance(model.post_processor, DecisionModule) else None
    good = [sample for sample in data.calibration if sample.label is False]
    if record is None or tuple(sample.path.name for sample in good) != record.names:
        return []
    lower = np.argsort(record.scores, kind="stable")[: max(3, len(good) // 2)]
    return [good[i] for i in lower[:: max(1, len(lower) // ORDINARY)][:ORDINARY]]
