"""Images in memory as samples: what a camera's driver or a notebook has at hand, without a detour over files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.data.depth import fewest_bits
from blemish.data.image_io import Reading
from blemish.data.index import Index, Sample
from blemish.data.words import Subset
from blemish.errors import DataError, UsageError

ROOT = Path("<arrays>")


@dataclass(frozen=True)
class Arrays:
    """Images in memory, as `blemish.data.pictures.Pictures`.

    Attributes:
        images: `Sample.relative` -> (H, W, 3) RGB, uint8 or float32 in [0, 1].
        masks: `Sample.relative` -> (H, W) bool, True on defect pixels; images that aren't in it have none.
    """

    images: Mapping[str, npt.NDArray[Any]]
    masks: Mapping[str, npt.NDArray[np.bool_]]

    def pixels(self, sample: Sample, reading: Reading) -> npt.NDArray[Any]:
        """See `Pictures`; as they were given."""
        return self.images[sample.relative]

    def mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """See `Pictures`."""
        return self.masks[sample.relative]

    def size(self, sample: Sample) -> tuple[int, int]:
        """See `Pictures`."""
        height, width, _ = self.images[sample.relative].shape
        return height, width

    def digest(self, sample: Sample) -> str:
        """See `Pictures`: of shape, kind and values."""
        image = self.images[sample.relative]
        return hashlib.sha256(f"{image.shape} {image.dtype}\n".encode() + image.tobytes()).hexdigest()

    def part(self, samples: Sequence[Sample]) -> Arrays:
        """See `Pictures`."""
        names = [sample.relative for sample in samples]
        masks = {name: self.masks[name] for name in names if name in self.masks}
        return Arrays({name: self.images[name] for name in names}, masks)


def index_arrays(
    images: Sequence[npt.NDArray[Any]],
    labels: Sequence[bool | None] | None,
    masks: Sequence[npt.NDArray[np.bool_] | None] | None,
    names: Sequence[str] | None,
    subsets: Sequence[Subset | None] | None,
    bit_depth: int | None,
) -> tuple[Index, Arrays, int | None]:
    """An index of arrays, the arrays as they are read, and the bits that uint16 ones use.

    Arguments and errors are those of `blemish.data.datamodule.ImageDataModule.from_arrays`.
    """
    count = len(images)
    given = {
        "labels": [False] * count if labels is None else labels,
        "masks": [None] * count if masks is None else masks,
        "names": [f"{i:06d}" for i in range(count)] if names is None else names,
        "subsets": [None] * count if subsets is None else subsets,
    }
    for what, values in given.items():
        if len(values) != count:
            raise UsageError(f"{what} must have one entry an image. Got {len(values)} for {count} images.")
    if len(set(given["names"])) < count:
        raise UsageError("names must differ from each other.")
    good = [image for image, label in zip(images, given["labels"], strict=True) if label is False]
    deep = [int(image.max(initial=0)) for image in good if image.dtype == np.uint16]
    depth = bit_depth if bit_depth is not None else fewest_bits(max(deep, default=0))

    samples: list[Sample] = []
    pixels: dict[str, npt.NDArray[Any]] = {}
    drawn: dict[str, npt.NDArray[np.bool_]] = {}
    for image, label, mask, name, subset in zip(images, *given.values(), strict=True):
        if label is not False and subset == "train":
            raise UsageError(f"{name} is in the subset train but not labeled good. Only good images are fitted on.")
        pixels[name] = _pixels(image, name, 16 if depth is None else depth)
        if mask is not None:
            if mask.shape != image.shape[:2]:
                raise UsageError(f"The mask of {name} must be {image.shape[:2]}, as its image is. Got {mask.shape}.")
            drawn[name] = mask != 0
        defect = "" if label is None else "bad" if label else "good"
        at = Path(name)
        samples.append(
            Sample(at, name, None if label is None else bool(label), defect, None if mask is None else at, subset)
        )
    if not good:
        raise DataError("None of the arrays is labeled good (False), and a detector is fitted on those.")
    ordered = tuple(sorted(samples, key=lambda sample: sample.relative))
    return Index(ROOT, "arrays", ordered), Arrays(pixels, drawn), depth


def _pixels(image: npt.NDArray[Any], name: str, bits: int) -> npt.NDArray[Any]:
    sound = image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)
    if not sound or not image.size or image.dtype not in (np.uint8, np.uint16, np.float32):
        raise UsageError(
            f"{name} must be (H, W, 3) RGB or (H, W) gray, of uint8, uint16, or float32 in [0, 1]. Got shape "
            f"{image.shape}, {image.dtype}."
        )
    if image.dtype == np.uint16:
        image = image.astype(np.float32) / np.float32(2**bits - 1)
    if image.dtype == np.float32 and not (image.min() >= 0 and image.max() <= 1):  # NaN fails both
        raise UsageError(
            f"{name} must lie in [0, 1]. Got {image.min():.4g} to {image.max():.4g}"
            + (f", as fractions of {bits} bits." if bits < 16 else ".")
        )
    return np.ascontiguousarray(image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2))
