"""A data folder behind Lightning's loader hooks.

The pre-processing belongs to the model, so the engine sets `transform` before it asks for a loader. Nothing is
shuffled: fitting doesn't descend a gradient, and a fixed order makes two fits give the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from blemish.data.batch import DataRecord
from blemish.data.check import masks_complete
from blemish.data.dataset import ImageDataset, Transform, make_loader
from blemish.data.image_io import MAX_PIXELS, file_sha256
from blemish.data.index import Index, Sample, index_folder
from blemish.data.splits import Policy, Split, split, validate_arguments
from blemish.errors import DataError, ImageReadError, UsageError


class ImageDataModule(LightningDataModule):
    """Everything a detector needs from a folder of images: loaders, the split behind them, a fingerprint.

    Args:
        root: a folder or manifest, see `blemish.data.index.index_folder`. It is read at first use.
        batch_size: images per batch; changes speed and memory, never a result.
        num_workers: loader processes. None takes 0 on one or two cores, else the cores less one, at most 8.
        calibration_fraction, test_fraction, group, seed, calibrate_on: see `blemish.data.splits.split`.
        max_pixels: files with more pixels are refused, see `blemish.data.image_io.read_image`.

    Attributes:
        transform: the model's `PreProcessor`, on the CPU; set by the engine.
        unreadable: files the latest prediction passed over.

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
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", 0 if num_workers is None else num_workers, 0),
            ("max_pixels", max_pixels, 1),
        ):
            if value < least:
                raise UsageError(f"{name} must be at least {least}. Got {value}.")
        validate_arguments(calibration_fraction, test_fraction, group, calibrate_on)
        self.root = Path(root)
        self.batch_size = batch_size
        self.num_workers = _default_workers() if num_workers is None else num_workers
        self.calibration_fraction = calibration_fraction
        self.test_fraction = test_fraction
        self.group = group
        self.seed = seed
        self.calibrate_on = calibrate_on
        self.max_pixels = max_pixels
        self.transform: Transform | None = None
        self.unreadable: list[ImageReadError] = []

    @cached_property
    def index(self) -> Index:
        """What lies in the folder. Raises `DataError` as `index_folder` does."""
        return index_folder(self.root)

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
        )

    @property
    def policy(self) -> Policy:
        """Which set chooses the thresholds."""
        return self.split.policy

    def train_dataloader(self) -> DataLoader[Any]:
        """Good images to fit on, in the order of the index."""
        return self._loader(self.split.fit, with_masks=False)

    def val_dataloader(self) -> DataLoader[Any]:
        """Images that choose the thresholds, by `policy`; with masks where every anomalous one has its own."""
        return self._loader(self.split.calibration, with_masks=self._usable_masks(self.split.calibration))

    def test_dataloader(self) -> DataLoader[Any]:
        """Labeled images to measure on; with masks where every anomalous one has its own.

        Raises:
            DataError: there is nothing to test on.
        """
        if not self.split.test:
            raise DataError(
                f"{self.root}: nothing to test on. Add labeled images, such as test/good/ and test/<defect>/, or bad/."
            )
        return self._loader(self.split.test, with_masks=self._usable_masks(self.split.test))

    def predict_dataloader(self, paths: Sequence[str | os.PathLike[str]] | None = None) -> DataLoader[Any]:
        """All images of the index, or the given files. Unreadable ones are passed over and listed in `unreadable`."""
        self.unreadable = []
        if paths is None:
            samples = self.index.samples
        else:
            samples = tuple(Sample(Path(path), Path(path).as_posix(), None, "") for path in paths)
        return self._loader(samples, with_masks=False, unreadable=self.unreadable)

    def fingerprint(self) -> str:
        """Hex sha256 over names and bytes of the images that fit and that calibrate: what the model was made from."""
        digest = hashlib.sha256()
        for name, samples in (("fit", self.split.fit), ("calibrate", self.split.calibration)):
            for sample in samples:
                digest.update(
                    f"{name}\0{sample.relative}\0{file_sha256(sample.path)}\n".encode("utf-8", "surrogateescape")
                )
        return digest.hexdigest()

    def record(self) -> DataRecord:
        """What a model remembers of this data; reads every file once for the fingerprint."""
        return DataRecord(
            self.fingerprint(), self.calibration_fraction, self.test_fraction, self.group, self.seed, self.calibrate_on
        )

    def _loader(
        self, samples: Sequence[Sample], *, with_masks: bool, unreadable: list[ImageReadError] | None = None
    ) -> DataLoader[Any]:
        if self.transform is None:
            raise UsageError(
                "ImageDataModule.transform is not set. Use Engine, which sets it, or assign model.pre_processor to it."
            )
        dataset = ImageDataset(samples, self.transform, max_pixels=self.max_pixels, with_masks=with_masks)
        return make_loader(
            dataset, batch_size=self.batch_size, num_workers=min(self.num_workers, len(samples)), unreadable=unreadable
        )

    def _usable_masks(self, samples: Sequence[Sample]) -> bool:
        usable = masks_complete(samples)
        bare = [sample.relative for sample in samples if sample.label and sample.mask is None]
        if bare and any(sample.mask for sample in samples):
            warnings.warn(
                f"Masks are left out: {len(bare)} anomalous image(s) have none, first {bare[0]}. "
                "Pixel figures need them all.",
                stacklevel=3,
            )
        return usable


def _default_workers() -> int:
    cores = os.cpu_count() or 1
    return 0 if cores <= 2 else min(8, cores - 1)
