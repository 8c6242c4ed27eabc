"""Images that are named by the million: listed while they are scored, never all at once.

What can be named: a folder, a glob pattern, a file, each also as a URL that fsspec knows (`s3://bucket/parts/`), and
lists of names: .csv and .parquet with a column `path`, .txt with a name on each line.
"""

from __future__ import annotations

import csv
import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from blemish.data.walk import entries, is_own_output
from blemish.errors import DataError, UsageError
from blemish.extras import require
from blemish.files import is_image


class Named(NamedTuple):
    """An image: where it is, a file name or URL, and what its pictures are called below their folder."""

    source: str
    relative: str


@dataclass(frozen=True)
class Images:
    """What users named, as often as it is gone through, in a fixed order.

    Attributes:
        inputs: see above.

    Raises:
        DataError: (when gone through) if one names no images, or a list can't be read.
        UsageError: (when gone through) if a URL needs a driver that isn't installed.
    """

    inputs: Sequence[str]

    def __iter__(self) -> Iterator[Named]:
        for text in self.inputs:
            found = _of_url(text) if "://" in text else _of_path(text)
            first = next(found, None)
            if first is None:
                raise DataError(f"{text!r} names no images. Check the path.")
            yield first
            yield from found


def _of_path(text: str) -> Iterator[Named]:
    path = Path(text)
    if path.is_dir():
        for file, reason in entries(path):
            if reason is None:
                yield Named(str(file), file.relative_to(path).as_posix())
    elif path.suffix.lower() in _LISTS and path.is_file():
        for name in _LISTS[path.suffix.lower()](text):
            yield _listed(name, path.parent)
    elif path.exists():
        yield Named(text, path.name)
    else:
        fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
        for match in sorted(glob.glob(text, recursive=True)):
            if os.path.isfile(match) and not is_own_output(Path(match)):
                yield Named(match, Path(match).relative_to(fixed).as_posix())


def _of_url(text: str) -> Iterator[Named]:
    suffix = PurePosixPath(text).suffix.lower()
    try:
        system, inside = require("fsspec").core.url_to_fs(text)
        if suffix in _LISTS:
            for name in _LISTS[suffix](text):
                yield _listed(name, None)
            return
        if glob.has_magic(inside):
            fixed = itertools.takewhile(lambda part: not glob.has_magic(part), inside.split("/"))
            root, found = "/".join(fixed), system.glob(inside)
        elif system.isdir(inside):
            root, found = inside.rstrip("/"), system.find(inside)
        else:
            yield Named(text, PurePosixPath(inside).name)
            return
        for one in sorted(found):
            if is_image(PurePosixPath(one)) and not is_own_output(PurePosixPath(one)):  # type: ignore[arg-type]
                yield Named(system.unstrip_protocol(one), one[len(root) :].lstrip("/"))
    except (ImportError, ValueError) as error:  # no driver; no such scheme
        raise UsageError(f"{text} can't be read: {error}. Install what fsspec needs for it.") from error
    except OSError as error:
        raise DataError(f"{text} can't be read: {error.strerror or error or type(error).__name__}.") from error


def _listed(name: str, folder: Path | None) -> Named:
    """A name in a list: URLs and absolute paths stand, others are relative to the list."""
    if "://" in name:
        return Named(name, name.partition("://")[2].lstrip("/"))
    if folder is None and not os.path.isabs(name):
        raise DataError(f"A list behind a URL must hold URLs or absolute paths. Got {name!r}.")
    path = Path(os.path.normpath((folder or Path()) / name))
    below = folder is not None and path.is_relative_to(os.path.normpath(folder))
    root = Path(os.path.normpath(folder)) if below and folder is not None else Path(path.anchor)
    return Named(str(path), path.relative_to(root).as_posix())


def _lines(text: str) -> Iterator[str]:
    with _opened(text) as stream:
        yield from filter(None, map(str.strip, stream))


def _csv_paths(text: str) -> Iterator[str]:
    with _opened(text) as stream:
        header = stream.readline()
        delimiter = max(",;\t", key=header.count)
        names = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
        column = _column_of(text, names)
        for number, row in enumerate(csv.reader(stream, delimiter=delimiter), start=1):
            if len(row) <= column or not row[column].strip():
                raise DataError(f"{text}, row {number}: the path is empty.")
            yield row[column].strip()


def _parquet_paths(text: str) -> Iterator[str]:
    pyarrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        with _opened(text, "rb") as stream:
            file = parquet.ParquetFile(stream)
            names = file.schema_arrow.names
            name = names[_column_of(text, [name.lower() for name in names])]
            for batch in file.iter_batches(columns=[name], batch_size=4096):
                for path in batch.column(0).to_pylist():
                    if not path:
                        raise DataError(f"{text}: a path is empty.")
                    yield str(path)
    except pyarrow.ArrowException as error:
        raise DataError(f"{text}: not a Parquet file ({error}).") from error


_LISTS = {".csv": _csv_paths, ".parquet": _parquet_paths, ".txt": _lines}
"""Suffix of a list -> the names in it."""


def _opened(text: str, mode: str = "r") -> Any:
    options: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8-sig", "newline": ""}
    return require("fsspec").open(text, mode, **options) if "://" in text else open(text, mode, **options)


def _column_of(text: str, names: Sequence[str]) -> int:
    if "path" not in names:
        raise DataError(f"{text}: the column 'path' is missing. Found: {', '.join(names) or 'nothing'}.")
    return names.index("path")
