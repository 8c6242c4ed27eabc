"""A table of images, as CSV or Parquet: `path,label[,defect,mask,split]`, one row an image.

Spreadsheets write semicolons or tabs for commas, a byte-order mark or UTF-16, capitals in the header, and backslashes
on Windows: all are read.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
from pathlib import Path, PurePosixPath
from typing import Any

from blemish.data.formats import open_regular
from blemish.data.layouts import Problem, Sample
from blemish.data.walk import composed
from blemish.data.words import BAD_NAMES, GOOD_NAMES, SUBSET_NAMES
from blemish.errors import DataError
from blemish.extras import require

_LABELS: dict[str, bool | None] = {"": None, "0": False, "false": False, "1": True, "true": True}
_LABELS |= dict.fromkeys(GOOD_NAMES, False) | dict.fromkeys(BAD_NAMES, True)
_SPLITS = {"": None, **SUBSET_NAMES}


def read_manifest(manifest: Path) -> tuple[list[Sample], list[Problem]]:
    """The images of a manifest, in its order, and what is wrong with their masks. See `blemish.data.index`.

    Raises:
        DataError: it can't be read or isn't sound; the message names the row.
        MissingExtraError: a Parquet manifest without pyarrow.
    """
    rows = READERS[manifest.suffix.lower()](manifest)
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
        path = _beside(manifest, given)
        relative = composed(PurePosixPath(os.path.normpath(os.path.relpath(path, manifest.parent))).as_posix())
        if relative in seen:
            raise DataError(f"{where}: {given} is listed already in row {seen[relative]}.")
        seen[relative] = number
        if not os.path.isfile(path):  # unlike Path's, it says no to names that are too long
            missing.append(given)
        mask = _beside(manifest, row["mask"]) if row.get("mask") else None
        if mask is not None and not os.path.exists(mask):
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
    return samples, problems


def _beside(manifest: Path, given: str) -> Path:
    """The file that a row names; backslashes separate folders unless a file is called so."""
    path = manifest.parent / given
    return path if os.path.exists(path) else manifest.parent / given.replace("\\", "/")


def _read_csv(manifest: Path) -> list[dict[str, str]]:
    try:
        with open_regular(manifest) as stream:
            content = stream.read()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
        header = text.splitlines()[0] if text else ""
        delimiter = max(",;\t", key=header.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
        reader.fieldnames = _columns(manifest, reader.fieldnames or [])
        rows = list(reader)
    except OSError as error:
        raise DataError(f"{manifest}: can't be read ({error.strerror}).") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f'{manifest}: not a CSV file in UTF-8 ({error}). Save it as "CSV UTF-8".') from error
    for number, row in enumerate(rows, start=1):
        if None in row or None in row.values():
            raise DataError(f"{manifest}, row {number}: more or fewer fields than the header has.")
    return [{name: value.strip() for name, value in row.items()} for row in rows]


def _read_parquet(manifest: Path) -> list[dict[str, str]]:
    pyarrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        table = parquet.read_table(manifest)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{manifest}: not a Parquet file ({error}).") from error
    names = _columns(manifest, table.column_names)
    return [{name: _text(value) for name, value in row.items()} for row in table.rename_columns(names).to_pylist()]


READERS = {".csv": _read_csv, ".parquet": _read_parquet}
"""Suffix -> reader."""


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN is how some programs write an empty cell
        return ""
    return str(int(value)) if isinstance(value, float) else str(value).strip()


def _columns(manifest: Path, names: Any) -> list[str]:
    """The names of columns in lower case."""
    given = [name.strip().lower() for name in names]
    absent = [name for name in ("path", "label") if name not in given]
    if absent:
        raise DataError(
            f"{manifest}: the column {absent[0]!r} is missing. Found: {', '.join(given) or 'nothing'}. "
            "A manifest has the columns path,label and may have defect,mask,split."
        )
    if len(set(given)) < len(given):
        raise DataError(f"{manifest}: a column has the name of another. Found: {', '.join(given)}.")
    return given


def _choice(value: str, allowed: dict[str, Any], what: str) -> Any:
    if composed(value).lower() not in allowed:
        names = [name or "(empty)" for name in allowed]
        shown = ", ".join(names[:16]) + (", ..." if len(names) > 16 else "")
        raise DataError(f"{what} {value!r} is not one of {shown}.")
    return allowed[composed(value).lower()]
