"""Which folder shapes are understood. Each layout is one function; `LAYOUTS` lists them in the order they are tried.

A layout looks at the file names below a folder and declines (None) or says what each picture is:

    mvtec       train/good/*  test/good/*  test/<defect>/*  [validation/...]  [ground_truth/<defect>/<stem>_mask.png]
                (MVTec AD and LOCO, MPDD; with ok/ and ko/ BTAD)
    visa        Data/Images/Normal/*  Data/Images/Anomaly/*  Data/Masks/Anomaly/*  [../split_csv/1cls.csv]
    kolektor    kos01/Part0.jpg with Part0_label.bmp (KolektorSDD), or train/10000.png with 10000_GT.png (KolektorSDD2)
    good_bad    good/*  bad/[<defect>/]*  [ground_truth/...]    also ok/ng, accept/reject, gut/schlecht, ...
    flat        images of good parts only, in one folder

and, where the owner says which are good, `named`. What isn't understood is asked about: a folder of bad parts that is
learned as good makes a model that finds nothing.

Masks have been told from pictures by then (`blemish.data.masks`). Only `kolektor` looks into them: nothing else says
which of its images are good.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from blemish.data.image_io import read_mask, read_size
from blemish.data.masks import MaskFile, folders_of, stem_of
from blemish.data.walk import composed
from blemish.data.words import BAD_NAMES, GOOD_NAMES, SUBSET_NAMES, Subset, words_of
from blemish.errors import DataError, UsageError


@dataclass(frozen=True)
class Sample:
    """One image and what the folder or manifest says about it.

    Attributes:
        path: where the file lies.
        relative: its path below the root, with "/" between folders and Unicode composed (NFC): the same everywhere.
        label: True for anomalous, False for good, None when nobody said.
        defect: the kind of defect; "good" for good images, "" when unknown.
        mask: the mask file, or a folder of mask files that belong together, if there is one.
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
    """The image files below `root`: relative path (as `Sample.relative`) -> file, ordered by it; and the masks."""

    root: Path
    pictures: Mapping[str, Path]
    masks: Sequence[MaskFile] = ()


@dataclass
class Found:
    """What a layout says: samples, files that were left out, and the masks that are still to be paired."""

    samples: list[Sample] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    masks: Sequence[MaskFile] = ()

    def leave_out(self, name: str, reason: str) -> None:
        """List a file that is used for nothing."""
        self.problems.append(Problem(name, f"ignored: {reason}"))


Layout: TypeAlias = Callable[[Listing], "Found | None"]


def mvtec(listing: Listing) -> Found | None:
    """`train/good`, `test/<defect>` and masks, as the MVTec AD data set arranges them; `train` may be absent."""
    if not any(_subset(name) in ("train", "test") and _is(GOOD_NAMES, name, 1) for name in listing.pictures):
        return None
    found = Found(masks=listing.masks)
    for name, path in listing.pictures.items():
        folders, subset = folders_of(name), _subset(name)
        good = _is(GOOD_NAMES, name, 1)
        if subset is None:
            found.leave_out(name, "it lies outside train/, test/ and validation/")
        elif good and _contradicted(name, 2):
            found.leave_out(name, "it lies below a folder of good parts, in one of bad parts")
        elif subset == "train" and not good:
            found.leave_out(name, "only train/good is used to fit")
        elif len(folders) == 1:
            found.samples.append(Sample(path, name, None, "", subset=subset))
        else:
            defect = "good" if good else PurePosixPath(name).parts[1]
            found.samples.append(Sample(path, name, not good, defect, subset=subset))
    return found


def visa(listing: Listing) -> Found | None:
    """A category of VisA. Who trains and who tests is in `split_csv/1cls.csv` beside the category's folder; without
    that file nobody has said.
    """
    if not any(folders_of(name) == ("data", "images", "normal") for name in listing.pictures):
        return None
    table = listing.root.resolve().parent / "split_csv" / "1cls.csv"
    subsets = _visa_split(table, listing.root.resolve().name) if table.is_file() else {}
    found = Found(masks=listing.masks)
    for name, path in listing.pictures.items():
        anomalous = folders_of(name) == ("data", "images", "anomaly")
        if folders_of(name) != ("data", "images", "normal") and not anomalous:
            found.leave_out(name, "it lies in neither Normal/ nor Anomaly/ of Data/Images/")
        elif subsets and name not in subsets:
            found.leave_out(name, f"{table.name} doesn't list it")
        elif anomalous and subsets.get(name) == "train":
            found.leave_out(name, "anomalous, but listed for training")
        else:
            defect = "anomaly" if anomalous else "good"
            found.samples.append(Sample(path, name, anomalous, defect, subset=subsets.get(name)))
    return found


def kolektor(listing: Listing) -> Found | None:
    """KolektorSDD and KolektorSDD2, where every image has a mask beside it and is good if that marks nothing.

    KolektorSDD has no published folders for training and testing. Anomalous images in `train/` of KolektorSDD2 are left
    out: only good ones are fitted on.
    """
    first = all(re.fullmatch(r"kos\d+", "/".join(folders_of(name))) for name in listing.pictures)
    second = all(folders_of(name) in (("train",), ("test",)) for name in listing.pictures)
    ending = "_label" if first else "_gt"
    unclaimed = {
        (mask.above, stem): mask for mask in listing.masks for stem in mask.stems if stem_of(mask.name) == stem + ending
    }
    if not (first or second) or not unclaimed:
        return None
    found = Found()
    for name, path in listing.pictures.items():
        mask = unclaimed.pop((folders_of(name), stem_of(name)), None)
        subset: Subset | None = None if first else SUBSET_NAMES[folders_of(name)[0]]
        if mask is None:
            found.problems.append(Problem(name, "it has no mask, so nobody says whether it is good"))
            found.samples.append(Sample(path, name, None, "", subset=subset))
        elif not read_mask(mask.path, read_size(mask.path)).any():
            found.samples.append(Sample(path, name, False, "good", subset=subset))
        elif subset == "train":
            found.leave_out(name, "anomalous, and only good images of train/ are used to fit")
        else:
            found.samples.append(Sample(path, name, True, "defect", mask.path, subset))
    found.problems += [Problem(mask.name, "no image has the name of this mask") for mask in unclaimed.values()]
    return found


def good_bad(listing: Listing) -> Found | None:
    """Two folders of images, `good/` and `bad/` by any of their usual names; folders inside `bad/` name the defect."""
    tops = {folders_of(name)[0] for name in listing.pictures if folders_of(name)}
    if not tops.intersection(GOOD_NAMES) or not tops.intersection(BAD_NAMES):
        return None
    found = Found(masks=listing.masks)
    for name, path in listing.pictures.items():
        if _is(GOOD_NAMES, name, 0):
            if _contradicted(name, 1):
                found.leave_out(name, "it lies below a folder of good parts, in one of bad parts")
            else:
                found.samples.append(Sample(path, name, False, "good"))
        elif _is(BAD_NAMES, name, 0):
            parts = PurePosixPath(name).parts
            found.samples.append(Sample(path, name, True, parts[1] if len(parts) > 2 else parts[0]))
        else:
            found.leave_out(name, "it lies in neither the folder of good nor the one of bad parts")
    return found


def flat(listing: Listing) -> Found | None:
    """Images of good parts only: in one folder, or all below one that is called so. Declines when a name of a folder or
    file says that others may be among them.
    """
    folders = {folders_of(name) for name in listing.pictures}
    others = {*BAD_NAMES, *SUBSET_NAMES}.intersection(word for folder in folders for word in folder)
    said = all(_is(GOOD_NAMES, name, 0) for name in listing.pictures)
    if others or listing.masks or (not said and (len(folders) > 1 or kinds_of_names(listing.pictures))):
        return None
    return Found([Sample(path, name, False, "good") for name, path in listing.pictures.items()])


def named(listing: Listing, good: Sequence[str], bad: Sequence[str]) -> Found:
    """What the owner says is good or bad.

    Args:
        listing: the images.
        good: names of folders, paths of folders below the root, or patterns such as "ok_*" for names of files or
            folders; letter case doesn't matter.
        bad: the same. Where both name an image, the inner folder decides, then the longer name, then bad: "*ok*" and
            "*not_ok*" are told apart, and "*" takes the rest.

    Raises:
        DataError: a name that no image lies under, with those that there are.
    """
    found = Found(masks=listing.masks)
    unused = {*good, *bad}
    for name, path in listing.pictures.items():
        subset = next((SUBSET_NAMES[folder] for folder in folders_of(name) if folder in SUBSET_NAMES), None)
        places = {
            word: (place, len(word.replace("*", ""))) for word in (*good, *bad) if (place := _place(word, name)) >= 0
        }
        unused -= places.keys()
        as_good, as_bad = (
            max((places.get(word, _NOWHERE) for word in words), default=_NOWHERE) for words in (good, bad)
        )
        if not places:
            found.leave_out(name, "neither --good nor --bad names it")
        elif as_good > as_bad:
            found.samples.append(Sample(path, name, False, "good", subset=subset))
        elif subset == "train":
            found.leave_out(name, "anomalous, and only good images of train/ are used to fit")
        else:
            folders = PurePosixPath(name).parts[:-1]
            kind = folders[as_bad[0] :][:1] or folders[-1:] or ("bad",)
            found.samples.append(Sample(path, name, True, kind[0], subset=subset))
    if unused:
        raise DataError(
            f"{listing.root}: nothing is called {sorted(unused)[0]!r}. {_found(listing)} Give the name of a folder, or "
            "a pattern for names, such as 'ok_*'."
        )
    return found


LAYOUTS: tuple[Layout, ...] = (mvtec, visa, kolektor, good_bad, flat)


def detect(
    listing: Listing, *, good: Sequence[str] = (), bad: Sequence[str] = (), all_good: bool = False
) -> tuple[str, Found]:
    """The layout's name and what it says: `named` where the owner says what is good, else the first that fits.

    Raises:
        DataError: none fits. The message lists what was found and how to go on.
        UsageError: arguments that don't go together.
    """
    if bad and not good:
        raise UsageError("--bad names folders of bad parts, and without --good nothing says which are good. Name both.")
    if all_good:
        if good or bad:
            raise UsageError("--all-good takes every image for one of a good part. Drop --good and --bad, or it.")
        for name in listing.pictures:
            if _contradicted(name, 0):
                raise DataError(f"{listing.root}: --all-good was said, but {name} lies in a folder of bad parts.")
        return "named", named(listing, ["*"], ())
    if good:
        return "named", named(listing, good, bad)
    for layout in LAYOUTS:
        found = layout(listing)
        if found is not None:
            return layout.__name__, found
    kinds = kinds_of_names(listing.pictures) if len(set(map(folders_of, listing.pictures))) == 1 else {}
    pattern = " or a pattern such as '*ok*'" if kinds else ""
    raise DataError(
        f"{listing.root}: the layout is not clear. {_found(listing, kinds)} "
        "Looked for train/good/ with test/<defect>/ (MVTec AD), good/ with bad/, or one folder of good images only. "
        f"Say which are good with --good NAME and, if there are, --bad NAME (a folder{pattern}; in Python good=[...], "
        "bad=[...]), or --all-good if every image shows a good part, or write a manifest (CSV with the columns "
        "path,label)."
    )


def kinds_of_names(names: Iterable[str]) -> dict[str, int]:
    """Words by which file names fall into a few kinds, with their counts; empty where they don't.

    Good and bad parts in one folder may be told apart by their names, in any language: good_001 and bad_001, or
    links_01 and rechts_01. Names that share all words, or of which nearly each has its own, tell nothing.
    """
    words = {name: words_of(stem_of(name)) for name in names}
    common = frozenset.intersection(*words.values()) if words else frozenset()
    kinds = Counter(" ".join(sorted(own - common)) or "others" for own in words.values())
    known = {word for own in words.values() for word in own - common if word in BAD_NAMES or word in GOOD_NAMES}
    several = sum(count > 1 for count in kinds.values()) > 1 and 3 * len(kinds) <= len(words)
    return dict(kinds.most_common()) if known or several else {}


def _found(listing: Listing, kinds: Mapping[str, int] | None = None) -> str:
    """The folders that hold pictures, or the kinds of their names, with counts."""
    tops = Counter("/".join(PurePosixPath(name).parts[:-1]) + "/" for name in listing.pictures)
    counts = {f"*{word}*": count for word, count in kinds.items()} if kinds else dict(tops.most_common())
    shown = ", ".join(f"{name if name != '/' else './'} ({count})" for name, count in list(counts.items())[:8])
    masks = f", and {len(listing.masks)} masks" if listing.masks else ""
    return f"Found {shown}{', ...' if len(counts) > 8 else ''}{masks}."


def _subset(name: str) -> Subset | None:
    """The part of the data that the outermost folder names."""
    return SUBSET_NAMES.get(next(iter(folders_of(name)), ""))


def _is(names: Iterable[str], name: str, depth: int) -> bool:
    """Whether the folder at that depth has one of the names."""
    return folders_of(name)[depth : depth + 1] in {(candidate,) for candidate in names}


def _contradicted(name: str, depth: int) -> bool:
    """Whether a folder from that depth on is called as folders of bad parts are."""
    return not set(BAD_NAMES).isdisjoint(folders_of(name)[depth:])


_NOWHERE = (-1, 0)


def _place(word: str, name: str) -> int:
    """How many folders of a path lead up to and including what `word` names; -1 if it names nothing of it."""
    wanted = composed(word.strip("/")).lower()
    parts = [part.lower() for part in PurePosixPath(name).parts]
    for i, part in enumerate(parts[:-1]):
        if fnmatchcase(part, wanted) or "/".join(parts[: i + 1]) == wanted:
            return i + 1
    return len(parts) - 1 if any(fnmatchcase(text, wanted) for text in (parts[-1], "/".join(parts))) else -1


def _visa_split(table: Path, category: str) -> dict[str, Subset]:
    """Path of an image below the folder of its category -> the set it belongs to."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.DictReader(stream) if row["object"] == category]
        named: dict[str, Subset] = {"train": "train", "test": "test"}
        return {composed("/".join(PurePosixPath(row["image"]).parts[1:])): named[row["split"]] for row in rows}
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{table}: not the split of VisA, which has the columns object,split,label,image,mask and the splits train "
            f"and test ({error!r})."
        ) from error
