"""A data folder behind Lightning's loader hooks.

The pre-processing belongs to the model, so the engine sets `transform` before it asks for a loader. Nothing is
shuffled: fitting doesn't descend a gradient, and a fixed order makes two fits give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from blemish.data.arrays import Arrays, index_arrays
from blemish.data.check import masks_complete
from blemish.data.dataset import ImageDataset, Transform, make_loader
from blemish.data.depth import reading_of
from blemish.data.explanation import GoodImage
from blemish.data.good_images import DIGITS
from blemish.data.image_io import MAX_PIXELS, Reading
from blemish.data.index import Index, Sample, index_folder, read_exclusions
from blemish.data.likeness import MOST_IMAGES, clusters, small
from blemish.data.pictures import FILES, Pictures
from blemish.data.record import ColorRecord, DataRecord, colors_of, pack_digests, short_digest
from blemish.data.splits import Policy, Split, split, unseen
from blemish.data.walk import walk
from blemish.data.workers import default_workers, possible_workers
from blemish.errors import DataError, ImageReadError, UsageError
from blemish.escaping import one_line
from blemish.settings import DataSettings, FolderSettings, LoadingSettings, ProbeSettings

COLORED = 32
"""Good images whose colors are remembered."""


class ImageDataModule(LightningDataModule):
    """Everything a detector needs from a folder of images: loaders, the split behind them, a fingerprint.

    Args:
        root: a folder or manifest, see `blemish.data.index.index_folder`. It is read at first use.
        batch_size: images per batch; changes speed and memory, never a result.
        num_workers: loader processes. None takes 0 on one or two cores, else the cores less one, at most 8.
        calibration_fraction, test_fraction, group, seed, calibrate_on: see `blemish.data.splits.split`.
        max_pixels: files with more pixels are refused, see `blemish.data.image_io.read_image`.
        good, bad, all_good: which images show good parts, where the names of folders don't tell, see
            `blemish.data.index.index_folder`.
        frames: what happens to a file that holds several pictures: "refuse", or "first" for the first alone.
        bit_depth: how many bits of 16-bit files the images use, from 1 to 16; None finds it out from the good ones, see
            `blemish.data.depth`.
        exclude: images to leave out, whatever their folder says: their names as in `Sample.relative`, or a text file
            that `blemish.data.index.read_exclusions` takes.
        defects: a folder of anomalous images, without masks: none is fitted on, and their scores move the threshold.
        planted: how many defects are planted into the good calibration images, to tell how many the threshold finds;
            see `blemish.engine.probe`.

    Attributes:
        transform: the model's `PreProcessor`, on the CPU; set by the engine.
        unreadable: files the latest prediction passed over.
        compares: whether cross calibration looks which images show one part, which reads them all; False where nothing
            will be fitted.
        spared: images of the latest `val_dataloader` that it won't read, and their (H, W): a detector that is being
            fitted names those here whose features it remembers.
        bit_depth: as given, or, once images were asked for to fit or measure, as found out.

    Raises:
        UsageError: an argument out of range.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        batch_size: int = 8,
        num_workers: int | None = None,
        calibration_fraction: float = 0.2,
        test_fraction: float = 0.2,
        group: str | None = None,
        seed: int = 0,
        calibrate_on: Literal["auto", "cross", "held_out", "validation", "test"] = "auto",
        max_pixels: int = MAX_PIXELS,
        good: Sequence[str] | None = None,
        bad: Sequence[str] | None = None,
        all_good: bool = False,
        frames: Literal["refuse", "first"] = "refuse",
        bit_depth: int | None = None,
        exclude: Sequence[str] | str | os.PathLike[str] | None = None,
        defects: str | os.PathLike[str] | None = None,
        planted: int = 0,
    ) -> None:
        super().__init__()
        LoadingSettings(batch_size=batch_size, num_workers=num_workers, max_pixels=max_pixels)
        names: dict[str, Any] = {"good": good, "bad": bad}
        FolderSettings(**names, all_good=all_good, frames=frames, bit_depth=bit_depth)
        ProbeSettings(planted=planted)
        DataSettings(
            calibration_fraction=calibration_fraction,
            test_fraction=test_fraction,
            group=group,
            seed=seed,
            calibrate_on=calibrate_on,
        )
        self.root = Path(root)
        self.batch_size = batch_size
        self.num_workers = default_workers() if num_workers is None else num_workers
        self.calibration_fraction = calibration_fraction
        self.test_fraction = test_fraction
        self.group = group
        self.seed = seed
        self.calibrate_on = calibrate_on
        self.max_pixels = max_pixels
        self.good, self.bad, self.all_good = tuple(good or ()), tuple(bad or ()), all_good
        self.frames = frames
        self.bit_depth = bit_depth
        self.exclude = exclude or ()
        self.defects = None if defects is None else Path(defects)
        self.planted = planted
        self._depth_is_known = bit_depth is not None
        self.transform: Transform | None = None
        self.unreadable: list[ImageReadError] = []
        self.pictures: Pictures = FILES
        self.compares = True
        self.spared: dict[Sample, tuple[int, int]] = {}
        self._digests: dict[Sample, str] = {}  # SHA-256 of files, read once

    @classmethod
    def from_arrays(
        cls,
        images: Sequence[npt.NDArray[Any]],
        labels: Sequence[bool | None] | None = None,
        masks: Sequence[npt.NDArray[np.bool_] | None] | None = None,
        *,
        names: Sequence[str] | None = None,
        subsets: Sequence[Literal["train", "validation", "test"] | None] | None = None,
        bit_depth: int | None = None,
        **arguments: Any,
    ) -> ImageDataModule:
        """Images in memory, for fitting, testing and predicting alike.

        Args:
            images: (H, W, 3) RGB or (H, W) gray, of any sizes; uint8, uint16, or float32 in [0, 1].
            labels: True for anomalous, False for good, None for unknown. Without labels all are good.
            masks: (H, W) bool, True on defect pixels; None where there is none.
            names: what each is called, in verdicts and for `group`; by default "000000", "000001", ...
            subsets: the set that each belongs to; None leaves it to `blemish.data.splits.split`.
            bit_depth: how many bits uint16 arrays use. None finds it out, as for files.
            arguments: see the class; `num_workers` is 0 by default, as the images are there already.

        Raises:
            UsageError: arrays of another form, or lists of different lengths.
        """
        index, arrays, depth = index_arrays(images, labels, masks, names, subsets, bit_depth)
        data = cls(index.root, **{"num_workers": 0} | arguments)
        data.index, data.pictures = index, arrays
        data.read_as(depth)
        return data

    @classmethod
    def from_record(cls, root: str | os.PathLike[str], record: DataRecord | None, **arguments: Any) -> ImageDataModule:
        """A folder on which a model shall be measured: read and dealt as for its fit, and tested on images that it
        hasn't seen.

        Args:
            root: see the class.
            record: what the model remembers, if it does.
            arguments: see the class; they win over the record's.
        """
        if record is None:
            return cls(root, **arguments)
        # Said of another folder, perhaps:
        remembered: dict[str, Any] = {**record.arguments(), "all_good": False, "exclude": ()}
        if arguments.get("good") or arguments.get("all_good"):
            remembered |= {"good": (), "bad": ()}
        data = cls(root, **remembered | arguments)
        data.compares = False  # which images are alike matters to a fit alone
        if record.good and not arguments.get("good"):
            try:
                _ = data.index
            except DataError:  # a folder without those names, which may be understood without them
                data = cls(root, **remembered | {"good": (), "bad": ()} | arguments)
                data.compares = False
        names = {sample.relative for sample in data.index.samples}
        data.index = data.index.without([name for name in record.exclude if name in names])
        data.read_as(data.bit_depth or record.bit_depth)
        pool = [s for s in data.index.samples if s.label is False and s.subset in ("train", None)]
        if len(pool) < 2:  # nothing to fit on, and so nothing to deal
            tested = tuple(s for s in data.index.samples if s.subset == "test" and s.label is not None)
            data.split = Split(fit=(), calibrate=(), validation=(), test=tested)
        if record.digests:
            data.split = unseen(data.index, data.split, data._seen(record))
            data.leave_out_seen(record)
        return data

    def __repr__(self) -> str:
        """Reads the folder, if nobody has."""
        try:
            layout, sets = self.index.layout, self.split
        except DataError as error:
            return f"<ImageDataModule {str(self.root)!r}: {error}>"
        parts = (
            f"{len(sets.fit)} to fit, {len(sets.calibration)} to calibrate ({sets.policy}), {len(sets.test)} to test"
        )
        return f"<ImageDataModule {str(self.root)!r}, {layout} layout: {parts}>"

    @cached_property
    def index(self) -> Index:
        """What lies in the folder. Raises `DataError` as `index_folder` does, and for exclusions that name nothing."""
        found = index_folder(self.root, good=self.good, bad=self.bad, all_good=self.all_good)
        if isinstance(self.exclude, (str, os.PathLike)):
            return found.without(read_exclusions(self.exclude))
        return found.without(self.exclude)

    @cached_property
    def split(self) -> Split:
        """Who fits, calibrates and tests. Raises `DataError` as `blemish.data.splits.split` does."""
        return split(
            self.index,
            calibration_fraction=self.calibration_fraction,
            test_fraction=self.test_fraction,
            group=self.group,
            seed=self.seed,
            calibrate_on=self.calibrate_on,
            alike=self._alike if self.compares else None,
        )

    @property
    def calibration(self) -> tuple[Sample, ...]:
        """The images that choose the thresholds, those of `defects` last.

        Raises:
            DataError: no image among `defects`, or one that is a good part, too. Both are compared by their bytes.
        """
        return (*self.split.calibration, *self._defects)

    @cached_property
    def _defects(self) -> tuple[Sample, ...]:
        if self.defects is None:
            return ()
        if isinstance(self.pictures, Arrays):
            raise UsageError("defects is a folder, for images in files. Give arrays labels, and the subset validation.")
        files = walk(self.defects).images if self.defects.is_dir() else {}
        if not files:
            raise DataError(f"{self.defects}: no folder with images of defects. Point --defects at one.")
        found = tuple(Sample(path, name, True, "") for name, path in files.items())
        good = {self._digest(sample): sample for sample in self.index.samples if sample.label is False}
        for sample in found:
            twin = good.get(self._digest(sample))
            if twin is not None:
                raise DataError(
                    f"{sample.path} is also among the good parts, as {twin.relative}: the same bytes can't be both. "
                    f"Take it out of one of the folders."
                )
        return found

    @property
    def reading(self) -> Reading:
        """How files are read. Without a `bit_depth` it is found out now; `ImageReadError` where a good image can't be
        read.
        """
        if not self._depth_is_known:
            self.read_as(reading_of(self.split, max_pixels=self.max_pixels, frames=self.frames).bit_depth)
        return self._reading

    @property
    def policy(self) -> Policy:
        """Which set chooses the thresholds."""
        return self.split.policy

    def read_as(self, bit_depth: int | None) -> None:
        """Take a model's `bit_depth`, or that of its data; None for all 16 bits. Nothing is found out any more."""
        self.bit_depth, self._depth_is_known = bit_depth, True

    def leave_out_seen(self, record: DataRecord | None) -> None:
        """Take images out of the test set that a model was made from, whatever they are called, and warn if there are
        any. Reads every test file once.

        Args:
            record: what the model remembers; nothing changes without.
        """
        if record is None or not record.digests:
            return
        seen = self._seen(record)
        lost = [sample for sample in self.split.test if seen(sample)]
        if lost:
            self.split = replace(self.split, test=tuple(s for s in self.split.test if s not in set(lost)))
            warnings.warn(
                f"{len(lost)} test image(s) are left out: the model was fitted on, or calibrated with, files of the "
                f"same bytes, first {one_line(lost[0].relative)}.",
                stacklevel=2,
            )

    def train_dataloader(self) -> DataLoader[Any]:
        """Good images to fit on, in the order of the index."""
        return self._loader(self.split.fit)

    def val_dataloader(self) -> DataLoader[Any]:
        """Images that choose the thresholds, by `policy`; with masks where every anomalous one has its own."""
        samples = self.calibration
        _warn_of_bare(samples, "The threshold of pixels is chosen without masks, as it needs them all")
        self.spared = {}  # of an earlier loader, nothing is known any more
        return self._loader(samples, with_masks=masks_complete(samples), spared=self.spared)

    def test_dataloader(self) -> DataLoader[Any]:
        """Labeled images to measure on; with masks where anomalous ones have some. Without a mask, or with one that
        can't be used, an anomalous image counts in the figures of images alone.

        Raises:
            DataError: there is nothing to test on.
        """
        if not self.split.test:
            raise DataError(
                f"{self.root}: nothing to test on. Add labeled images, such as test/good/ and test/<defect>/, or bad/."
            )
        samples = self.split.test
        _warn_of_bare(samples, "Pixel figures are over the other images")
        masked = any(sample.label and sample.mask is not None for sample in samples)
        return self._loader(samples, with_masks=masked, lenient=True)

    def predict_dataloader(self, paths: Sequence[str | os.PathLike[str]] | None = None) -> DataLoader[Any]:
        """All images of the index, or the given files. Unreadable ones are passed over and listed in `unreadable`."""
        self.unreadable = []
        if paths is None:
            return self._loader(self.index.samples, unreadable=self.unreadable)
        samples = tuple(Sample(Path(path), Path(path).as_posix(), None, "") for path in paths)
        return self._loader(samples, unreadable=self.unreadable, from_files=True)

    def fingerprint(self) -> str:
        """Hex sha256 over names and bytes of the images that fit and that calibrate: what the model was made from."""
        digest = hashlib.sha256()
        for name, samples in (("fit", self.split.fit), ("calibrate", self.calibration)):
            for sample in samples:
                digest.update(f"{name}\0{sample.relative}\0{self._digest(sample)}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def pixels(self, sample: Sample) -> npt.NDArray[Any]:
        """An image as it is read for the model: (H, W, 3) RGB, uint8 or float32 in [0, 1]. Raises `ImageReadError`."""
        return self.pictures.pixels(sample, self.reading)

    def prepared(self, pixels: npt.NDArray[Any]) -> Tensor:
        """An image (H, W, 3) as a loader hands it to the model, (3, h, w) float32."""
        with torch.no_grad():
            image: Tensor = self._ready()(torch.from_numpy(pixels)[None])[0]
        return image

    def record(self) -> DataRecord:
        """What a model remembers of this data; reads every file once for the fingerprint."""
        made_from = [*self.split.fit, *self.split.calibrate]
        made_from += self.split.validation if self.policy == "validation" else ()
        made_from += self._defects
        return DataRecord(
            self.fingerprint(),
            self.calibration_fraction,
            self.test_fraction,
            self.group,
            self.seed,
            self.calibrate_on,
            good=self.good,
            bad=self.bad,
            all_good=self.all_good,
            frames=self.frames,
            bit_depth=self.reading.bit_depth,
            exclude=self.index.excluded,
            digests=pack_digests(map(self._digest, made_from)),
            color=self._colors(made_from),
        )

    def good_image(self, number: int, sample: Sample) -> GoodImage:
        """What a model file says of one of its images, by the number it has there."""
        name = sample.relative.encode(errors="backslashreplace").decode()  # JSON has no bytes outside of UTF-8
        return GoodImage(number, name, self.pictures.size(sample), self._digest(sample)[:DIGITS])

    @property
    def _reading(self) -> Reading:
        return Reading(self.max_pixels, 0 if self.frames == "first" else None, self.bit_depth)

    def _alike(self, samples: Sequence[Sample]) -> list[int]:
        """What `blemish.data.likeness` says of images; nothing of more than it can compare."""
        if len(samples) > MOST_IMAGES:
            return list(range(len(samples)))
        # Values are compared among themselves, so the bit depth doesn't matter.
        pictures = ImageDataset(samples, _small, reading=self._reading, pictures=self.pictures)
        return clusters([picture.numpy() for batch in self._batches(pictures) for picture in batch.image])

    def _ready(self) -> Transform:
        if self.transform is None:
            raise UsageError(
                "ImageDataModule.transform is not set. Use Engine, which sets it, or assign model.pre_processor to it."
            )
        return self.transform

    def _seen(self, record: DataRecord) -> Callable[[Sample], bool]:
        seen = record.seen()
        return lambda sample: short_digest(self._digest(sample)) in seen

    def _colors(self, samples: Sequence[Sample]) -> ColorRecord | None:
        """Of some good images, evenly chosen."""
        good = [sample for sample in samples if sample.label is False]
        some = good[:: max(1, -(-len(good) // COLORED))]
        reading = self.reading
        return colors_of(self.pictures.pixels(sample, reading) for sample in some) if some else None

    def _digest(self, sample: Sample) -> str:
        if sample not in self._digests:
            self._digests[sample] = self.pictures.digest(sample)
        return self._digests[sample]

    def _loader(
        self,
        samples: Sequence[Sample],
        *,
        with_masks: bool = False,
        lenient: bool = False,
        unreadable: list[ImageReadError] | None = None,
        from_files: bool = False,
        spared: Mapping[Sample, tuple[int, int]] | None = None,
    ) -> DataLoader[Any]:
        reading = self._reading if from_files else self.reading  # images to predict alone show nothing
        dataset = ImageDataset(
            samples,
            self._ready(),
            reading=reading,
            with_masks=with_masks,
            lenient=lenient,
            pictures=FILES if from_files else self.pictures,
            spared=spared,
        )
        return self._batches(dataset, unreadable)

    def _batches(self, dataset: ImageDataset, unreadable: list[ImageReadError] | None = None) -> DataLoader[Any]:
        workers = possible_workers(min(self.num_workers, len(dataset)))
        return make_loader(dataset, batch_size=self.batch_size, num_workers=workers, unreadable=unreadable)


def _small(pixels: Tensor) -> Tensor:
    """(1, H, W, 3) -> (1, h, w): what images are compared by."""
    return torch.from_numpy(small(pixels[0].numpy()))[None]


def _warn_of_bare(samples: Sequence[Sample], consequence: str) -> None:
    """Where some anomalous images have masks and others don't."""
    bare = [sample.relative for sample in samples if sample.label and sample.mask is None]
    if bare and any(sample.label and sample.mask for sample in samples):
        warnings.warn(
            f"{consequence}: {len(bare)} anomalous image(s) have no mask, first {one_line(bare[0])}.",
            stacklevel=3,
        )
