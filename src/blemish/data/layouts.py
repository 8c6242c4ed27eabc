"""Which folder shapes are understood. Each layout is one function; `LAYOUTS` lists them in the order they are tried.

A layout looks at the file names below a folder and declines (None) or says what each image is:

    mvtec       train/good/*  test/good/*  test/<defect>/*  [validation/...]  [ground_truth/<defect>/<stem>_mask.png]
                (MVTec AD, MPDD; with ok/ and ko/ BTAD)
    visa        Data/Images/Normal/*  Data/Images/Anomaly/*  Data/Masks/Anomaly/*  [../split_csv/1cls.csv]
    kolektor    kos01/Part0.jpg with Part0_label.bmp (KolektorSDD), or train/10000.png with 10000_GT.png (KolektorSDD2)
    good_bad    good/*  bad/[<defect>/]*  [ground_truth/...]    also ok/ng, normal/abnormal, ... in any case
    flat        only images of good parts, in any folders below

Only `kolektor` looks into files: nothing but the masks says which of its images are good. Masks are paired with images
by name, never by position in a sorted list: one missing file would shift all that follow.
"""

from __future__ import annotations

import csv
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal, TypeAlias

from blemish.data.image_io import read_mask, read_size
from blemish.errors import DataError

Subset: TypeAlias = Literal["train", "validation", "test"]

GOOD_NAMES = ("good", "ok", "normal", "nominal")
"""Folder names (and manifest labels) of good parts; compared in lower case."""
BAD_NAMES = (
    *("bad", "ng", "nok", "ko", "abnormal", "anomalous", "anomaly", "anomalies"),
    *("defect", "defects", "defective"),
)
"""Folder names (and manifest labels) of anomalous parts; compared in lower case."""
MASK_NAMES = ("ground_truth", "mask", "masks")
"""Folder names that hold masks; compared in lower case."""
_VALIDATION_NAMES = ("validation", "val", "valid")


@dataclass(frozen=True)
class Sample:
    """One image and what the folder or manifest says about it.

    Attributes:
        path: where the file lies.
        relative: its path below the root, with "/" between folders and Unicode composed (NFC): the same everywhere.
        label: True for anomalous, False for good, None when nobody said.
        defect: the kind of defect; "good" for good images, "" when unknown.
        mask: the mask file, if there is one.
        subset: the part of the data it was put into by its owner; None leaves the choice to `blemish.data.splits`.
    """

    path: Path
    relative: str
    label: bool | None
    defect: str
    mask: Path | None = None
    subset: Subset | None = None


@dataclass(frozen=True)
class Problem:
    """Something about one file that deserves a look. `path` is relative to the root."""

    path: str
    reason: str


@dataclass(frozen=True)
class Listing:
    """The image files below `root`: relative path (as `Sample.relative`) -> file, ordered by relative path."""

    root: Path
    images: Mapping[str, Path]


Layout: TypeAlias = Callable[[Listing], "tuple[list[Sample], list[Problem]] | None"]


def mvtec(listing: Listing) -> tuple[list[Sample], list[Problem]] | None:
    """`train/good`, `test/<defect>` and masks, as the MVTec AD data set arranges them; `train` may be absent."""
    if not any(_folders(name)[:1] in (("train",), ("test",)) and _is(GOOD_NAMES, name, 1) for name in listing.images):
        return None
    samples: list[Sample] = []
    problems: list[Problem] = []
    masks: dict[str, Path] = {}
    for name, path in listing.images.items():
        folders = _folders(name)
        if not folders:
            problems.append(Problem(name, "ignored: it lies outside train/, test/ and validation/"))
        elif folders[0] in MASK_NAMES:
            masks[_below(name, 1)] = path
        elif folders[0] == "train" and _is(GOOD_NAMES, name, 1):
            samples.append(Sample(path, name, False, "good", subset="train"))
        elif folders[0] == "train":
            problems.append(Problem(name, "ignored: only train/good is used to fit"))
        elif folders[0] == "test" or folders[0] in _VALIDATION_NAMES:
            subset: Subset = "test" if folders[0] == "test" else "validation"
            if len(folders) == 1:
                samples.append(Sample(path, name, None, "", subset=subset))
            else:
                good = _is(GOOD_NAMES, name, 1)
                defect = "good" if good else PurePosixPath(name).parts[1]
                samples.append(Sample(path, name, not good, defect, subset=subset))
        else:
            problems.append(Problem(name, "ignored: it lies outside train/, test/ and validation/"))
    labeled = [sample for sample in samples if sample.subset != "train"]
    paired, more = pair_masks({sample: _below(sample.relative, 1) for sample in labeled}, masks, listing.root)
    return [sample for sample in samples if sample.subset == "train"] + paired, problems + more


def visa(listing: Listing) -> tuple[list[Sample], list[Problem]] | None:
    """A category of VisA. Who trains and who tests is in `split_csv/1cls.csv` beside the category's folder; without
    that file nobody has said.
    """
    if not any(_folders(name) == ("data", "images", "normal") for name in listing.images):
        return None
    table = listing.root.resolve().parent / "split_csv" / "1cls.csv"
    subsets = _visa_split(table, listing.root.resolve().name) if table.is_file() else {}
    samples: list[Sample] = []
    problems: list[Problem] = []
    masks: dict[str, Path] = {}
    for name, path in listing.images.items():
        folders = _folders(name)
        anomalous = folders == ("data", "images", "anomaly")
        if folders == ("data", "masks", "anomaly"):
            masks[_below(name, 2)] = path
        elif folders != ("data", "images", "normal") and not anomalous:
            problems.append(Problem(name, "ignored: it lies in neither Normal/ nor Anomaly/ of Data/Images/"))
        elif subsets and name not in subsets:
            problems.append(Problem(name, f"ignored: {table.name} doesn't list it"))
        elif anomalous and subsets.get(name) == "train":
            problems.append(Problem(name, "ignored: anomalous, but listed for training"))
        else:
            defect = "anomaly" if anomalous else "good"
            samples.append(Sample(path, name, anomalous, defect, subset=subsets.get(name)))
    keys = {sample: _below(sample.relative, 2) for sample in samples if sample.label}
    paired, more = pair_masks(keys, masks, listing.root)
    return [sample for sample in samples if not sample.label] + paired, problems + more


def kolektor(listing: Listing) -> tuple[list[Sample], list[Problem]] | None:
    """KolektorSDD and KolektorSDD2, where every image has a mask beside it and is good if that marks nothing.

    KolektorSDD has no published folders for training and testing. Anomalous images in `train/` of KolektorSDD2 are left
    out: only good ones are fitted on.
    """
    first = all(re.fullmatch(r"kos\d+", "/".join(_folders(name))) for name in listing.images)
    second = all(_folders(name) in (("train",), ("test",)) for name in listing.images)
    ending = "_label" if first else "_gt"
    masks = {_stem(name).lower(): path for name, path in listing.images.items() if _stem(name).lower().endswith(ending)}
    if not (first or second) or not masks:
        return None
    samples: list[Sample] = []
    problems: list[Problem] = []
    unclaimed = dict(masks)
    for name, path in listing.images.items():
        key = _stem(name).lower()
        if key in masks:
            continue
        mask = unclaimed.pop(key + ending, None)
        subset: Subset | None = None if first else "train" if _folders(name) == ("train",) else "test"
        if mask is None:
            problems.append(Problem(name, "it has no mask, so nobody says whether it is good"))
            samples.append(Sample(path, name, None, "", subset=subset))
        elif not read_mask(mask, read_size(mask)).any():
            samples.append(Sample(path, name, False, "good", subset=subset))
        elif subset == "train":
            problems.append(Problem(name, "ignored: anomalous, and only good images of train/ are used to fit"))
        else:
            samples.append(Sample(path, name, True, "defect", mask, subset))
    return samples, problems + [
        Problem(_relative(path, listing.root), "no image has the name of this mask") for path in unclaimed.values()
    ]


def good_bad(listing: Listing) -> tuple[list[Sample], list[Problem]] | None:
    """Two folders of images, `good/` and `bad/` by any of their usual names; folders inside `bad/` name the defect."""
    tops = {_folders(name)[0] for name in listing.images if _folders(name)}
    if not tops.intersection(GOOD_NAMES) or not tops.intersection(BAD_NAMES):
        return None
    samples: list[Sample] = []
    problems: list[Problem] = []
    masks: dict[str, Path] = {}
    for name, path in listing.images.items():
        if _is(GOOD_NAMES, name, 0):
            samples.append(Sample(path, name, False, "good"))
        elif _is(BAD_NAMES, name, 0):
            parts = PurePosixPath(name).parts
            samples.append(Sample(path, name, True, parts[1] if len(parts) > 2 else parts[0]))
        elif _is(MASK_NAMES, name, 0):
            masks[_below(name, 2 if _is(BAD_NAMES, name, 1) else 1)] = path
        else:
            problems.append(Problem(name, "ignored: it lies in neither the folder of good nor the one of bad parts"))
    keys = {sample: _below(sample.relative, 1) for sample in samples if sample.label}
    paired, more = pair_masks(keys, masks, listing.root)
    return [sample for sample in samples if not sample.label] + paired, problems + more


def flat(listing: Listing) -> tuple[list[Sample], list[Problem]] | None:
    """Images of good parts only. Declines when a folder's name says that something else lies in it."""
    reserved = {*BAD_NAMES, *MASK_NAMES, *_VALIDATION_NAMES, "train", "test"}
    folders = {folder for name in listing.images for folder in _folders(name)}
    tops = {_folders(name)[:1] for name in listing.images}
    good_beside_others = len(tops) > 1 and any(top and top[0] in GOOD_NAMES for top in tops)
    if folders & reserved or good_beside_others:
        return None
    return [Sample(path, name, False, "good") for name, path in listing.images.items()], []


LAYOUTS: tuple[Layout, ...] = (mvtec, visa, kolektor, good_bad, flat)


def detect(listing: Listing) -> tuple[str, list[Sample], list[Problem]]:
    """Try each layout in turn: the name of the first that fits, its samples, its problems.

    Raises:
        DataError: none fits. The message lists what was looked for.
    """
    for layout in LAYOUTS:
        found = layout(listing)
        if found is not None:
            return layout.__name__, *found
    tops = sorted({PurePosixPath(name).parts[0] + "/" for name in listing.images if "/" in name})
    raise DataError(
        f"{listing.root}: the layout is not clear. Found {', '.join(tops[:8])}{', ...' if len(tops) > 8 else ''}. "
        "Looked for train/good/ with test/<defect>/ (MVTec AD), good/ with bad/, or a folder of good images only. "
        "Rename the folders, point at the folder of good images, or write a manifest (CSV with the columns path,label)."
    )


def pair_masks(keys: Mapping[Sample, str], masks: Mapping[str, Path], root: Path) -> tuple[list[Sample], list[Problem]]:
    """Give each sample the mask of its name.

    Args:
        keys: sample -> its path without the leading folders that images and masks don't share.
        masks: the same kind of path of a mask -> mask file. A mask matches an image in the same folder when its stem is
            that of the image, or that of the image + "_mask"; suffixes don't count.
        root: problems name files relative to it.

    Returns:
        The samples in the same order, and every mask or anomalous image that found no single partner.
    """
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for key, path in masks.items():
        by_stem[_stem(key)].append(path)
    found = {s: [*by_stem.get(_stem(key), ()), *by_stem.get(_stem(key) + "_mask", ())] for s, key in keys.items()}
    claims: dict[Path, int] = defaultdict(int)
    for candidates in found.values():
        for path in candidates:
            claims[path] += 1

    samples: list[Sample] = []
    problems: list[Problem] = []
    for sample, candidates in found.items():
        if len(candidates) == 1 and claims[candidates[0]] == 1:
            sample = replace(sample, mask=candidates[0])
        elif candidates:
            names = ", ".join(_relative(path, root) for path in candidates)
            problems.append(Problem(sample.relative, f"its mask is not clear, none is used: {names}"))
        elif sample.label and masks:
            problems.append(Problem(sample.relative, "anomalous, but no mask has its name"))
        samples.append(sample)
    unclaimed = [path for path in masks.values() if not claims[path]]
    return samples, problems + [
        Problem(_relative(path, root), "no image has the name of this mask") for path in unclaimed
    ]


def _visa_split(table: Path, category: str) -> dict[str, Subset]:
    """Path of an image below the folder of its category -> the set it belongs to."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["object"] == category]
        named: dict[str, Subset] = {"train": "train", "test": "test"}
        return {composed(_below(row["image"], 1)): named[row["split"]] for row in rows}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table}: not the split of VisA, which has the columns object,split,label,image,mask and the splits train "
            f"and test ({error!r})."
        ) from error


def _folders(name: str) -> tuple[str, ...]:
    return tuple(part.lower() for part in PurePosixPath(name).parts[:-1])


def _is(names: Iterable[str], name: str, depth: int) -> bool:
    """Whether the folder at that depth has one of the names."""
    return _folders(name)[depth : depth + 1] in {(candidate,) for candidate in names}


def _below(name: str, depth: int) -> str:
    return "/".join(PurePosixPath(name).parts[depth:])


def _stem(key: str) -> str:
    return str(PurePosixPath(key).with_suffix(""))


def _relative(path: Path, root: Path) -> str:
    return composed(path.relative_to(root).as_posix())


def composed(name: str) -> str:
    """Unicode NFC: macOS stores a file name decomposed that the mask's author typed composed."""
    return unicodedata.normalize("NFC", name)
