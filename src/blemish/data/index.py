"""A folder or a manifest becomes an `Index`: every image with what is known about it, and every file that needs a look.

Indexing reads names, and a few pixels where names don't tell masks from pictures, so that a folder of a hundred
thousand images opens at once; `blemish.data.check` looks into the files. The order is that of the relative paths and
doesn't depend on the file system.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from blemish.data.layouts import Listing, Problem, Sample, detect
from blemish.data.manifests import READERS, read_manifest
from blemish.data.masks import pair, separate
from blemish.data.walk import composed, describe, walk
from blemish.data.words import BAD_NAMES, GOOD_NAMES, MASK_NAMES, SUBSET_NAMES, Subset
from blemish.errors import DataError, UsageError
from blemish.files import READ_SUFFIXES

__all__ = ["Index", "Problem", "Sample", "Subset", "find_products", "find_sets", "index_folder", "read_exclusions"]


@dataclass(frozen=True)
class Index:
    """What lies in a data folder.

    Attributes:
        root: the folder, or the manifest file.
        layout: "manifest", "named" where the caller said what is good, or the name of a layout of
            `blemish.data.layouts`.
        samples: ordered by `Sample.relative`.
        problems: files that were left out or found no partner, ordered by path.
        passed_over: reason -> files that are no images or shall not be looked at, see `blemish.data.walk`.
        excluded: names of samples that were left out by the user's word.
    """

    root: Path
    layout: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
    passed_over: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: tuple[str, ...] = ()

    @property
    def good_folders(self) -> dict[str, int]:
        """The folders whose images are taken for good parts, but for those of test sets, with the number of images."""
        good = (sample for sample in self.samples if sample.label is False and sample.subset in ("train", None))
        return dict(Counter(str(PurePosixPath(sample.relative).parent) for sample in good))

    def without(self, names: Sequence[str]) -> Index:
        """This index but for some samples.

        Args:
            names: `Sample.relative`, or the last part of it where only one file is called so.

        Raises:
            DataError: a name that no sample has, or several; the message lists up to three.
        """
        known = {sample.relative: [sample.relative] for sample in self.samples}
        for sample in self.samples:
            short = PurePosixPath(sample.relative).name
            if short != sample.relative:
                known.setdefault(short, []).append(sample.relative)
        wrong = [name for name in names if len(known.get(composed(name), ())) != 1]
        if wrong:
            raise DataError(
                f"{self.root}: {len(wrong)} of {len(names)} images to leave out can't be told, first "
                f"{', '.join(wrong[:3])}: {'several files have' if known.get(composed(wrong[0])) else 'no file has'} "
                f"this name. Write names as `blemish data audit` does, with the folders below {self.root}."
            )
        out = {known[composed(name)][0] for name in names}
        left = tuple(sample for sample in self.samples if sample.relative not in out)
        return replace(self, samples=left, excluded=tuple(sorted({*self.excluded, *out})))


def index_folder(
    path: str | os.PathLike[str], *, good: Sequence[str] = (), bad: Sequence[str] = (), all_good: bool = False
) -> Index:
    """Understand a folder of images, or a manifest.

    Args:
        path: a folder in one of the layouts of `blemish.data.layouts`, or a `.csv` (UTF-8) or `.parquet` manifest with
            the columns `path,label[,defect,mask,split]`. Paths in a manifest are relative to it. `label` is good or bad
            (any of the usual names, or 0/1), or empty; `split` is train, validation, test or empty.
        good: which folders or files of a folder show good parts, see `blemish.data.layouts.named`. Where given, no
            layout is tried.
        bad: which show bad ones.
        all_good: every image of the folder shows a good part.

    Raises:
        DataError: missing or empty, no layout fits, no image is known to be good, or the manifest is malformed.
        MissingExtraError: a Parquet manifest without pyarrow.
        UsageError: arguments that don't go together.
    """
    root = Path(path)
    if root.is_dir():
        index = _index_directory(root, good, bad, all_good)
    elif not root.exists():
        raise DataError(f"{root}: no such folder or manifest.")
    elif root.suffix.lower() not in READERS:
        raise DataError(
            f"{root}: neither a folder nor a manifest (.csv, .parquet). Point at the folder that holds the images."
        )
    elif good or bad or all_good:
        raise UsageError(f"{root}: a manifest labels its images itself. Drop --good, --bad and --all-good.")
    else:
        samples, problems = read_manifest(root)
        index = Index(root, "manifest", _in_order(samples), _by_path(problems))
    if not any(sample.label is False for sample in index.samples):
        raise DataError(
            f"{root}: none of the {len(index.samples)} images is known to be good; a detector is fitted on those. "
            f"Put them into a folder called good/, or label them so (accepted: {', '.join(GOOD_NAMES[:4])}, ..., 0)."
        )
    return index


def read_exclusions(path: str | os.PathLike[str]) -> list[str]:
    """The names in a text file, one a line, UTF-8; empty lines, and what follows a "#" after a space, say nothing.

    Raises:
        DataError: it can't be read.
    """
    try:
        text = Path(path).read_text("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: the list of images to leave out can't be read: {error.strerror}.") from error
    lines = (f" {line}".partition(" #")[0].strip() for line in text.splitlines())
    return [line.replace("\\", "/") for line in lines if line]


def find_sets(
    root: str | os.PathLike[str], *, good: Sequence[str] = (), bad: Sequence[str] = (), all_good: bool = False
) -> dict[str, Path]:
    """The data sets in a folder, by name: itself where `index_folder` understands it, else the folders directly below
    that hold images, such as the categories of MVTec AD.

    A folder below that can't be used is listed, too: who indexes it is told why.

    Args:
        root: the folder.
        good: as for `index_folder`.
        bad: as for `index_folder`.
        all_good: as for `index_folder`.

    Raises:
        DataError: the folder is missing, holds no images, or is a data set that can't be used.
    """
    path = Path(root)
    try:
        index_folder(path, good=good, bad=bad, all_good=all_good)
    except DataError:
        found = _below(path)
        if found:
            return found
        raise
    return {path.resolve().name: path}


def find_products(root: str | os.PathLike[str]) -> dict[str, Path]:
    """The folders directly below a folder that hold images, by name: one for each product.

    Args:
        root: the folder. With a single product, too, it is not taken for the data set itself.

    Raises:
        DataError: there are none, or they are parts of one data set, such as train and test.
    """
    path = Path(root)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder.")
    found = _below(path)
    if not found:
        raise DataError(
            f"{path}: no folders of products. Give each product a folder below it, with images of good parts, or fit "
            f"one product with `blemish fit`."
        )
    return found


def _below(root: Path) -> dict[str, Path]:
    """Folders with images directly below, by name; none where their names are those of parts of a set."""
    below = sorted(one for one in root.iterdir() if one.is_dir() and one.name[0] != ".") if root.is_dir() else []
    found = {one.name: one for one in below if walk(one).images}
    parts = {*SUBSET_NAMES, *GOOD_NAMES, *BAD_NAMES, *MASK_NAMES}
    return {} if any(name.lower() in parts for name in found) else found


def _index_directory(root: Path, good: Sequence[str], bad: Sequence[str], all_good: bool) -> Index:
    files = walk(root)
    if not files.images:
        passed_over = f" Passed over: {describe(files.passed_over)}." if files.passed_over else ""
        raise DataError(
            f"{root}: no images. Looked for {', '.join(READ_SUFFIXES)} in this folder and all below it.{passed_over}"
        )
    pictures, masks = separate(files.images)
    layout, found = detect(Listing(root, pictures, masks), good=good, bad=bad, all_good=all_good)
    names = {sample: sample.relative for sample in found.samples if sample.subset != "train"}
    paired, odd = pair(names, lambda sample: bool(sample.label), found.masks)
    samples = [replace(sample, mask=paired.get(sample, sample.mask)) for sample in found.samples]
    problems = [*found.problems, *(Problem(path, reason) for path, reason in odd.items())]
    return Index(root, layout, _in_order(samples), _by_path(problems), files.passed_over)


def _in_order(samples: Sequence[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.relative))


def _by_path(problems: Sequence[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: problem.path))
