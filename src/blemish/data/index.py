"""A folder or a manifest becomes an `Index`: every image with what is known about it, and every file that needs a look.

Indexing reads names, not pixels, so that a folder of a hundred thousand images opens at once; `blemish.data.check`
looks into the files. The order is that of the relative paths and doesn't depend on the file system.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from blemish.data.layouts import (
    BAD_NAMES,
    GOOD_NAMES,
    MASK_NAMES,
    Listing,
    Problem,
    Sample,
    Subset,
    composed,
    detect,
)
from blemish.errors import DataError
from blemish.extras import require
from blemish.files import IMAGE_SUFFIXES, is_image

__all__ = ["Index", "Problem", "Sample", "Subset", "find_sets", "index_folder"]

_LABELS: dict[str, bool | None] = {"": None, "0": False, "false": False, "1": True, "true": True}
_LABELS |= dict.fromkeys(GOOD_NAMES, False) | dict.fromkeys(BAD_NAMES, True)
_SPLITS: dict[str, Subset | None] = {"": None, "train": "train", "test": "test"}
_SPLITS |= dict.fromkeys(("validation", "val", "valid"), "validation")


@dataclass(frozen=True)
class Index:
    """What lies in a data folder.

    Attributes:
        root: the folder, or the manifest file.
        layout: "manifest", or the name of a layout of `blemish.data.layouts`.
        samples: ordered by `Sample.relative`.
        problems: files that were left out or found no partner, ordered by path.
        ignored: how many hidden or non-image files were passed over.
    """

    root: Path
    layout: str
    samples: tuple[Sample, ...]
    problems: tuple[Problem, ...] = ()
    ignored: int = 0


def index_folder(path: str | os.PathLike[str]) -> Index:
    """Understand a folder of images, or a manifest.

    Args:
        path: a folder in one of the layouts of `blemish.data.layouts`, or a `.csv` (UTF-8) or `.parquet` manifest with
            the columns `path,label[,defect,mask,split]`. Paths in a manifest are relative to it. `label` is good or bad
            (any of the usual names, or 0/1), or empty; `split` is train, validation, test or empty.

    Raises:
        DataError: missing or empty, no layout fits, no image is known to be good, or the manifest is malformed.
        MissingExtraError: a Parquet manifest without pyarrow.
    """
    root = Path(path)
    if root.is_dir():
        index = _index_directory(root)
    elif not root.exists():
        raise DataError(f"{root}: no such folder or manifest.")
    elif root.suffix.lower() in _MANIFESTS:
        index = _index_manifest(root)
    else:
        raise DataError(
            f"{root}: neither a folder nor a manifest (.csv, .parquet). Point at the folder that holds the images."
        )
    if not any(sample.label is False for sample in index.samples):
        raise DataError(
            f"{root}: none of the {len(index.samples)} images is known to be good; a detector is fitted on those. "
            f"Put them into a folder called good/, or label them so (accepted: {', '.join(GOOD_NAMES)}, 0)."
        )
    return index


def find_sets(root: str | os.PathLike[str]) -> dict[str, Path]:
    """The data sets in a folder, by name: itself where `index_folder` understands it, else the folders directly below
    that hold images, such as the categories of MVTec AD.

    A folder below that can't be used is listed, too: who indexes it is told why.

    Raises:
        DataError: the folder is missing, holds no images, or is a data set that can't be used.
    """
    path = Path(root)
    try:
        index_folder(path)
    except DataError:
        below = sorted(one for one in path.iterdir() if one.is_dir() and one.name[0] != ".") if path.is_dir() else []
        parts = {*_SPLITS, *GOOD_NAMES, *BAD_NAMES, *MASK_NAMES}
        found = {one.name: one for one in below if any(map(is_image, _walk(one, ())))}
        if not found or any(name.lower() in parts for name in found):
            raise
        return found
    return {path.resolve().name: path}


def _index_directory(root: Path) -> Index:
    images: dict[str, Path] = {}
    ignored = 0
    for file in _walk(root, ()):
        if is_image(file):
            images[composed(file.relative_to(root).as_posix())] = file
        else:
            ignored += 1
    if not images:
        raise DataError(
            f"{root}: no images. Looked for {', '.join(IMAGE_SUFFIXES)} in this folder and all below it; "
            f"{ignored} other files were passed over."
        )
    layout, samples, problems = detect(Listing(root, dict(sorted(images.items()))))
    return Index(root, layout, _in_order(samples), tuple(sorted(problems, key=lambda p: p.path)), ignored)


def _walk(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Path]:
    """Every file below a folder. Links to folders are followed, except to one that is being walked already."""
    state = folder.stat()
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: the folder can't be read ({error.strerror}).") from error
    for entry in entries:
        path = folder / entry.name
        if not path.is_dir():  # unlike DirEntry.is_dir, False for a link to itself
            yield path
        elif not entry.name.startswith("."):
            yield from _walk(path, (*above, here))


def _index_manifest(manifest: Path) -> Index:
    rows = _MANIFESTS[manifest.suffix.lower()](manifest)
    samples: list[Sample] = []
    problems: list[Problem] = []
    missing: list[str] = []
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        where = f"{manifest}, row {number}"
        given = row["path"]
        if not given:
            raise DataError(f"{where}: the path is empty.")
        label = _choice(row["label"], _LABELS, f"{where}: label")
        subset = _choice(row.get("split", ""), _SPLITS, f"{where}: split")
        if label is not False and subset == "train":
            raise DataError(
                f"{where}: {given} is in the split train but not labeled good. Only good images are fitted on."
            )
        path = manifest.parent / given
        relative = composed(str(PurePosixPath(os.path.normpath(given).replace(os.sep, "/"))))
        if relative in seen:
            raise DataError(f"{where}: {given} is listed already in row {seen[relative]}.")
        seen[relative] = number
        if not path.is_file():
            missing.append(given)
        mask = manifest.parent / row["mask"] if row.get("mask") else None
        if mask is not None and not mask.is_file():
            problems.append(Problem(relative, f"its mask {row['mask']} doesn't exist; none is used"))
            mask = None
        defect = "" if label is None else (row.get("defect") or "bad") if label else "good"
        samples.append(Sample(path, relative, label, defect, mask, subset))
    if missing:
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise DataError(
            f"{manifest}: {len(missing)} of {len(samples)} images don't exist: {names}. "
            "Paths are relative to the manifest."
        )
    if any(sample.mask for sample in samples):
        bare = [sample for sample in samples if sample.label and sample.mask is None]
        named = {problem.path for problem in problems}
        problems += [Problem(s.relative, "anomalous, but has no mask") for s in bare if s.relative not in named]
    return Index(manifest, "manifest", _in_order(samples), tuple(sorted(problems, key=lambda p: p.path)))


def _read_csv(manifest: Path) -> list[dict[str, str]]:
    try:
        with manifest.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            _require_columns(manifest, reader.fieldnames or [])
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{manifest}: not a CSV file in UTF-8 ({error}).") from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{manifest}, row {number}: more or fewer fields than the header has.")
    return [{name.strip(): value.strip() for name, value in row.items()} for row in rows]


def _read_parquet(manifest: Path) -> list[dict[str, str]]:
    pyarrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        table = parquet.read_table(manifest)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{manifest}: not a Parquet file ({error}).") from error
    _require_columns(manifest, table.column_names)
    return [{name: _text(value) for name, value in row.items()} for row in table.to_pylist()]


_MANIFESTS = {".csv": _read_csv, ".parquet": _read_parquet}


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is how some programs write an empty cell
        return ""
    return str(int(value)) if isinstance(value, float) else str(value).strip()


def _require_columns(manifest: Path, names: list[str] | Any) -> None:
    given = [name.strip() for name in names]
    absent = [name for name in ("path", "label") if name not in given]
    if absent:
        raise DataError(
            f"{manifest}: the column {absent[0]!r} is missing. Found: {', '.join(given) or 'nothing'}. "
            "A manifest has the columns path,label and may have defect,mask,split."
        )


def _choice(value: str, allowed: dict[str, Any], what: str) -> Any:
    if value.lower() not in allowed:
        raise DataError(f"{what} {value!r} is not one of {', '.join(name or '(empty)' for name in allowed)}.")
    return allowed[value.lower()]


def _in_order(samples: list[Sample]) -> tuple[Sample, ...]:
    return tuple(sorted(samples, key=lambda sample: sample.relative))
