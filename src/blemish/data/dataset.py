"""Samples become batches: read at full depth, then pre-processed one by one with the model's own `PreProcessor`.

The data set never resizes; what the model will do with an image in production is what happens to it here. In loader
workers this also spreads the resizing over the cores.

`make_loader` exists because torch rebuilds a worker's exception from its text alone: an `ImageReadError` would reach
the user as a RuntimeError around a traceback. Here a worker hands errors over as values and the main process raises
them, or collects the files that can't be read and goes on.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from blemish.data.batch import ImageBatch, PerImage
from blemish.data.image_io import AS_DECLARED, HALF, Reading, inverted_sentence
from blemish.data.index import Sample
from blemish.data.pictures import FILES, Pictures
from blemish.errors import DataError, ImageReadError, UsageError
from blemish.escaping import one_line

Transform: TypeAlias = Callable[[Tensor], Tensor]
"""(1, H, W, 3) uint8, or float32 in [0, 1], RGB -> (1, 3, h, w) float32: a `PreProcessor`."""


@dataclass(frozen=True)
class Item:
    """One pre-processed image.

    Attributes:
        image: (3, h, w) float32; (0,) where the data set was told to spare it.
        size: (H, W) on disk, after EXIF rotation.
        sample: what the index says about it.
        mask: (H, W) bool, True on defect pixels; None when the data set was built without masks.
        remark: why an all-False mask stands in for one that can't be used, or why this one can't be right.
    """

    image: Tensor
    size: tuple[int, int]
    sample: Sample
    mask: Tensor | None
    remark: str | None = None


class ImageDataset(Dataset[Item]):
    """Samples, read and transformed when asked for.

    Args:
        samples: what to read, in this order.
        transform: see `Transform`. It runs in loader workers and must therefore live on the CPU.
        reading: how files are read.
        with_masks: give every item a mask. A good image without a mask file has an all-False one. For an anomalous
            image a missing mask would have to be made up, so such samples are refused; see
            `blemish.data.check.masks_complete`.
        lenient: give an all-False mask where one is missing or can't be used, too: evaluation leaves the pixels of
            anomalous images without a marked one out.
        pictures: where they are read.
        spared: (H, W) of good samples that aren't read at all; they may be named until the first item is asked for.

    Raises:
        UsageError: `with_masks` and not `lenient` while an anomalous or unlabeled sample has no mask.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Transform,
        *,
        reading: Reading = AS_DECLARED,
        with_masks: bool = False,
        lenient: bool = False,
        pictures: Pictures = FILES,
        spared: Mapping[Sample, tuple[int, int]] | None = None,
    ) -> None:
        self.samples = tuple(samples)
        self.transform = transform
        self.reading = reading
        self.with_masks = with_masks
        self.lenient = lenient
        self.pictures = pictures
        self.spared = {} if spared is None else spared
        bare = [sample.relative for sample in samples if sample.label is not False and sample.mask is None]
        if with_masks and bare and not lenient:
            raise UsageError(
                f"with_masks needs a mask for every image not known to be good. {len(bare)} lack one, first {bare[0]}. "
                "Add the masks, or pass with_masks=False."
            )

    def part(self, numbers: Sequence[int]) -> ImageDataset:
        """The samples of these numbers alone, read alike."""
        part = copy.copy(self)
        part.samples = tuple(self.samples[number] for number in numbers)
        part.pictures = self.pictures.part(part.samples)
        return part

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        sample = self.samples[index]
        if sample in self.spared:
            size = self.spared[sample]
            return Item(torch.empty(0), size, sample, torch.zeros(size, dtype=torch.bool) if self.with_masks else None)
        pixels = torch.from_numpy(self.pixels(sample))  # (H, W, 3)
        size = (pixels.shape[0], pixels.shape[1])
        with torch.no_grad():
            image = self.transform(pixels[None])[0]  # (3, h, w)
        if not self.with_masks:
            return Item(image, size, sample, None)
        drawn, remark = np.zeros(size, dtype=np.bool_), None
        if sample.mask is not None:
            try:
                drawn = self.pictures.mask(sample, size)
            except DataError as error:
                if not self.lenient:
                    raise
                remark = f"The pixels of an image are not measured: {error}"
        if self.lenient and drawn.mean() > HALF:
            remark = f"{sample.relative}: {inverted_sentence(drawn)}."
        return Item(image, size, sample, torch.from_numpy(drawn), remark)

    def prepared(self, pixels: npt.NDArray[Any]) -> Tensor:
        """Such an image as an item holds it, (3, h, w) float32."""
        with torch.no_grad():
            image: Tensor = self.transform(torch.from_numpy(pixels)[None])[0]
        return image

    def pixels(self, sample: Sample) -> npt.NDArray[Any]:
        """One image as it is read for the model: (H, W, 3) RGB, uint8, or float32 in [0, 1]."""
        return self.pictures.pixels(sample, self.reading)


def collate(items: Sequence[Item]) -> ImageBatch:
    """Stack items into a batch.

    `gt_label` and `defect` are None when a label is unknown; `gt_mask` is stacked when all images have one size, a list
    when they don't, and None without masks. Images that were spared are missing from the stacked ones alone.

    Raises:
        DataError: the transformed images differ in shape. Nothing is stretched to fit.
    """
    read = [item for item in items if item.image.numel()]
    first = read[0] if read else items[0]
    for item in read:
        if item.image.shape != first.image.shape:
            raise DataError(
                f"Images of one batch must have one shape after pre-processing. {first.sample.path} has "
                f"{tuple(first.image.shape)}, {item.sample.path} has {tuple(item.image.shape)}. "
                "Give the pre-processor a fixed image size, or use batch_size=1."
            )
    samples = [item.sample for item in items]
    labels = [sample.label for sample in samples if sample.label is not None]
    known = len(labels) == len(samples)
    masks = [item.mask for item in items if item.mask is not None]
    gt_mask: PerImage | None = None
    if len(masks) == len(items):
        gt_mask = torch.stack(masks) if len({item.size for item in items}) == 1 else masks
    return ImageBatch(
        image=torch.stack([item.image for item in read]) if read else first.image,
        size=[item.size for item in items],
        path=[str(sample.path) for sample in samples],
        gt_label=torch.tensor(labels) if known else None,
        gt_mask=gt_mask,
        defect=[sample.defect for sample in samples] if known else None,
    )


def make_loader(
    dataset: ImageDataset, *, batch_size: int, num_workers: int, unreadable: list[ImageReadError] | None = None
) -> DataLoader[Any]:
    """Load batches in the order of the samples.

    Args:
        dataset: what to load.
        batch_size: images per batch.
        num_workers: processes that read and pre-process; 0 does it in this one.
        unreadable: a list that collects the errors of unreadable files, which are then left out of their batches. With
            None the first one is raised.

    Returns:
        A `DataLoader` that yields `ImageBatch`; a batch without any readable image is skipped. Of a mask that can't be
        used, or can't be right, a warning tells where the data set is lenient.
    """
    return _Loader(
        _ErrorsAsValues(dataset, unreadable),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=_collate_good,
        generator=torch.Generator(),  # else every pass draws a seed for its workers from the global generator
    )


@dataclass(frozen=True)
class _Failure:
    """An error on its way out of a worker: class and constructor arguments, which always survive pickling."""

    kind: type[DataError]
    arguments: tuple[Any, ...]

    @classmethod
    def of(cls, error: DataError) -> _Failure:
        if isinstance(error, ImageReadError):
            return cls(ImageReadError, (error.path, error.reason))
        return cls(type(error), error.args)

    def error(self) -> DataError:
        return self.kind(*self.arguments)


class _ErrorsAsValues(Dataset[Item | _Failure]):
    def __init__(self, dataset: ImageDataset, unreadable: list[ImageReadError] | None) -> None:
        self.dataset = dataset
        self.unreadable = unreadable

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Item | _Failure:
        try:
            return self.dataset[index]
        except DataError as error:
            return _Failure.of(error)


class _Loader(DataLoader[Any]):
    """Raises or collects what `_ErrorsAsValues` brought.

    It has no constructor of its own, because Lightning rebuilds loaders through theirs.
    """

    def __iter__(self) -> Iterator[ImageBatch]:  # type: ignore[override]
        unreadable = self.dataset.unreadable  # type: ignore[attr-defined]
        for batch, failures, remarks in super().__iter__():
            for remark in remarks:
                warnings.warn(one_line(remark), stacklevel=2)
            for failure in failures:
                error = failure.error()
                if unreadable is None or not isinstance(error, ImageReadError):
                    raise error
                unreadable.append(error)
            if batch is not None:
                yield batch


def _collate_good(items: Sequence[Item | _Failure]) -> tuple[ImageBatch | None, list[_Failure], list[str]]:
    good = [item for item in items if isinstance(item, Item)]
    failures = [item for item in items if isinstance(item, _Failure)]
    remarks = [item.remark for item in good if item.remark is not None]
    try:
        return (collate(good) if good else None), failures, remarks
    except DataError as error:
        return None, [*failures, _Failure.of(error)], remarks
