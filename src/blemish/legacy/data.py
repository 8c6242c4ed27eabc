"""Data modules as the older library's scripts name them: folders by their role, MVTec AD, files to predict.

All are `blemish.ImageDataModule`: images keep their size, the model resizes; unless told otherwise, good images alone
choose the thresholds.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias

from blemish.data.datamodule import ImageDataModule
from blemish.data.index import Index
from blemish.data.layouts import Problem, Sample
from blemish.data.masks import MaskFile, folders_of, pair, stem_of
from blemish.data.walk import walk
from blemish.data.words import Subset, without_mask_word
from blemish.errors import DataError
from blemish.legacy.refusing import chosen, refuse

Folders: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
CALIBRATED = {None: "auto", "same_as_test": "test", "from_train": "held_out"}
"""`val_split_mode` -> `calibrate_on`."""
_SPELLINGS = {
    "image_size": "Give it to the model: blemish.Padim(image_size=...).",
    "transform": "Images are resized by the model, and by nothing else: blemish.Padim(image_size=...).",
    "augmentations": "Fitting looks at images as they are.",
    "train_augmentations": "Fitting looks at images as they are.",
    "val_augmentations": "Images are judged as they are.",
    "test_augmentations": "Images are judged as they are.",
    "extensions": "All images that can be read are.",
    "test_split_mode": "Name folders: abnormal_dir, normal_test_dir.",
}


class Folder(ImageDataModule):
    """Images in folders by their role.

    Args:
        name: of the data set; what messages call it.
        normal_dir: folder of good images, or several, below `root`.
        root: folder that the others are in; None for the present one.
        abnormal_dir: folder, or several, of anomalous images, which are tested on; a folder's name is the kind.
        normal_test_dir: folder, or several, of good images that are tested on; None takes `test_split_ratio` of the
            good ones.
        mask_dir: folder, or several in the order of `abnormal_dir`, of masks that are called as their images.
        train_batch_size, eval_batch_size: images per batch; the smaller of the two counts, and changes no result.
        num_workers: see `ImageDataModule`.
        test_split_ratio: share of the good images to test on, where there is no `normal_test_dir`.
        val_split_mode: what chooses the thresholds: "same_as_test", "from_train", or None for good images alone, as
            `calibrate_on="auto"`.
        val_split_ratio: share of the good images for that, where they are held out.
        seed: of the splits.

    Raises:
        UsageError: for what has no meaning here, naming what has. DataError: at first use, without good images.
    """

    def __init__(
        self,
        name: str = "folder",
        normal_dir: Folders = "good",
        root: str | os.PathLike[str] | None = None,
        abnormal_dir: Folders | None = None,
        normal_test_dir: Folders | None = None,
        mask_dir: Folders | None = None,
        *,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int | None = None,
        test_split_ratio: float = 0.2,
        val_split_mode: str | None = None,
        val_split_ratio: float = 0.2,
        seed: int | None = None,
        **others: Any,
    ) -> None:
        refuse(type(self).__name__, others, _SPELLINGS)
        calibrate_on: Any = CALIBRATED[chosen("val_split_mode", val_split_mode, CALIBRATED)]
        super().__init__(
            Path(root or "."),
            batch_size=min(train_batch_size, eval_batch_size),
            num_workers=num_workers,
            calibration_fraction=val_split_ratio,
            test_fraction=test_split_ratio,
            seed=seed or 0,
            calibrate_on=calibrate_on,
        )
        self.name = name
        self._normal, self._abnormal = _several(normal_dir), _several(abnormal_dir)
        self._tested, self._masks = _several(normal_test_dir), _several(mask_dir)

    @cached_property
    def index(self) -> Index:
        """See `ImageDataModule.index`. Raises `DataError` for a folder that isn't there or holds no images."""
        fitted: Subset | None
        tested: Subset | None
        fitted, tested = ("train", "test") if self._tested else (None, None)  # None: a share of the good ones is tested
        samples = self._samples(self._normal, label=False, subset=fitted)
        samples += self._samples(self._tested, label=False, subset=tested)
        bad = self._samples(self._abnormal, label=True, subset=tested)
        masks = [mask for number, folder in enumerate(self._masks) for mask in self._mask_files(number, folder)]
        paired, odd = pair({sample: sample.relative for sample in bad}, lambda _: True, masks)
        samples += [Sample(one.path, one.relative, True, one.defect, paired.get(one), one.subset) for one in bad]
        problems = tuple(Problem(path, reason) for path, reason in sorted(odd.items()))
        return Index(self.root, "named", tuple(sorted(samples, key=lambda one: one.relative)), problems)

    def _samples(self, folders: Sequence[str], *, label: bool, subset: Subset | None) -> list[Sample]:
        found = []
        for folder in folders:
            images = walk(self.root / folder).images if (self.root / folder).is_dir() else {}
            if not images:
                raise DataError(f"{self.root / folder}: no folder with images. {self.name} needs it.")
            kind = Path(folder).name if label else "good"
            found += [Sample(path, f"{folder}/{name}", label, kind, subset=subset) for name, path in images.items()]
        return found

    def _mask_files(self, number: int, folder: str) -> list[MaskFile]:
        """Masks of the folder of anomalous images at the same place; of the only one for all of them."""
        of = self._abnormal[number] if len(self._masks) == len(self._abnormal) else ""
        above = folders_of(f"{of}/file") if of else ()
        return [
            MaskFile(
                path,
                f"{folder}/{name}",
                above,
                folders_of(name),
                frozenset(filter(None, (stem_of(name), without_mask_word(stem_of(name))))),
            )
            for name, path in walk(self.root / folder).images.items()
        ]


class MVTecAD(ImageDataModule):
    """One category of MVTec AD.

    Args:
        root: folder of the categories.
        category: which one.
        train_batch_size, eval_batch_size, num_workers, val_split_mode, seed: see `Folder`.

    Raises:
        UsageError: for what has no meaning here, naming what has.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = "./datasets/MVTecAD",
        category: str = "bottle",
        *,
        train_batch_size: int = 32,
        eval_batch_size: int = 32,
        num_workers: int | None = None,
        val_split_mode: Literal["same_as_test", "from_train"] | None = None,
        seed: int | None = None,
        **others: Any,
    ) -> None:
        refuse(type(self).__name__, others, _SPELLINGS)
        calibrate_on: Any = CALIBRATED[chosen("val_split_mode", val_split_mode, CALIBRATED)]
        super().__init__(
            Path(root) / category,
            batch_size=min(train_batch_size, eval_batch_size),
            num_workers=num_workers,
            seed=seed or 0,
            calibrate_on=calibrate_on,
        )
        self.category = category


class PredictDataset(ImageDataModule):
    """Images of which nothing is known: a file, or all below a folder.

    Args:
        path: of it.

    Raises:
        UsageError: for what has no meaning here, naming what has. DataError: at first use, without images.
    """

    def __init__(self, path: str | os.PathLike[str], **others: Any) -> None:
        refuse(type(self).__name__, others, _SPELLINGS)
        super().__init__(path, num_workers=0)

    @cached_property
    def index(self) -> Index:
        """See `ImageDataModule.index`."""
        if self.root.is_file():
            files = {self.root.name: self.root}
        else:
            files = dict(walk(self.root).images) if self.root.is_dir() else {}
        if not files:
            raise DataError(f"{self.root}: no image, and no folder with images.")
        return Index(self.root, "files", tuple(Sample(path, name, None, "") for name, path in files.items()))


def _several(folders: Folders | None) -> tuple[str, ...]:
    if folders is None:
        return ()
    each = [folders] if isinstance(folders, (str, os.PathLike)) else folders
    return tuple(Path(one).as_posix() for one in each)
