"""Predictions as data: one row per image, written while they are made.

Columns: `path`, `label` ("normal" or "anomalous"), `raw_score`, `score` (normalised to [0, 1]), `threshold` (raw: the
label is `raw_score >= threshold`), `height`, `width`, `seconds`, `regions` (a list of box, area, peak, peak_score and
mean_score, in pixels of the image; JSON text in CSV). Images that could not be inspected have no row: the caller lists
them.
"""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TypeAlias

from blemish.errors import MissingExtraError, UsageError
from blemish.runtime.session import Result

Row: TypeAlias = dict[str, Any]
COLUMNS = ("path", "label", "raw_score", "score", "threshold", "height", "width", "seconds", "regions")


def row_of(result: Result) -> Row:
    """The row of one result: numbers, text and lists only."""
    return {
        "path": result.path,
        "label": result.label,
        "raw_score": result.raw_score,
        "score": result.score,
        "threshold": result.threshold,
        "height": result.mask.shape[0],
        "width": result.mask.shape[1],
        "seconds": round(sum(result.seconds.values()), 6),
        "regions": [asdict(region) for region in result.regions],
    }


class Writer(Protocol):
    """Takes rows until it is closed."""

    def write(self, row: Row) -> None:
        """Adds a row."""
        ...

    def close(self) -> None:
        """Completes the file."""
        ...


class _Csv:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, COLUMNS)
        self._writer.writeheader()

    def write(self, row: Row) -> None:
        self._writer.writerow({**row, "regions": json.dumps(row["regions"])})
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Jsonl:
    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8")

    def write(self, row: Row) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class _Parquet:
    """Rows in groups of 1,000, under a temporary name until closed: a Parquet file without its footer is no file."""

    GROUP = 1000

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ModuleNotFoundError as error:
            raise MissingExtraError("pyarrow", "parquet") from error
        box = pa.list_(pa.int64())
        region = pa.struct(
            [
                ("box", box),
                ("area", pa.int64()),
                ("peak", box),
                ("peak_score", pa.float64()),
                ("mean_score", pa.float64()),
            ]
        )
        kinds = {"path": pa.string(), "label": pa.string(), "height": pa.int64(), "width": pa.int64()}
        kinds["regions"] = pa.list_(region)
        self._schema = pa.schema([(name, kinds.get(name, pa.float64())) for name in COLUMNS])
        self._table = pa.Table
        self._path, self._temporary = path, path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = pq.ParquetWriter(self._temporary, self._schema)
        self._rows: list[Row] = []

    def write(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == self.GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()
        self._temporary.replace(self._path)

    def _flush(self) -> None:
        if self._rows:
            self._file.write_table(self._table.from_pylist(self._rows, schema=self._schema))
            self._rows = []


WRITERS: dict[str, Callable[[Path], Writer]] = {".csv": _Csv, ".jsonl": _Jsonl, ".parquet": _Parquet}


class PredictionFile:
    """A file that rows are written to, as a context manager.

    Args:
        path: ends in .csv, .jsonl or .parquet; parents are created.

    Raises:
        UsageError: for another suffix, or a file that can't be written. MissingExtraError: for Parquet without pyarrow.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        if path.suffix.lower() not in WRITERS:
            raise UsageError(f"Predictions are written to {', '.join(WRITERS)} files. Got {str(path)!r}.")
        try:
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "this is a folder")
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = WRITERS[path.suffix.lower()](path)
        except OSError as error:
            raise UsageError(f"{path} can't be written: {error.strerror}. Choose another place.") from error

    def write(self, row: Row) -> None:
        """Adds a row made by `row_of`."""
        self._writer.write(row)

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
