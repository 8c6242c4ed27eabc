"""Hours of predictions that survive a kill.

Rows reach the disk batch by batch, in FILE.unfinished.csv or .jsonl; the file itself, and one that was there before,
isn't touched before all are there. Beside them lies a record of how far they are, FILE.unfinished: JSON lines, first
the settings of the run, then after every batch how many images, bytes and failures there are. The record follows the
rows, so whatever lies behind its last whole line, torn or not, belongs to a batch that was cut off: a run that is
continued drops it and inspects that batch again. Batches start anew at every one of those lines, so the rest comes out
as it would have (see `Session.batches`).

Formats that can't be appended to (Parquet needs a footer, COCO a closing bracket) have their rows in JSON lines
meanwhile. A lock keeps a second process from the same file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias

from blemish.errors import UsageError
from blemish.extras import require
from blemish.files import locked, replacing, writing
from blemish.predictions.rows import FORMATS, JsonLines, PredictionRow

FailedRow: TypeAlias = dict[str, str]
"""`path` and `reason` of an image without a row."""


def is_interrupted(path: Path, *, resume: bool) -> bool:
    """Whether there is a run to continue, and `resume` asks for it.

    Raises:
        UsageError: for an unfinished file without `resume`, and for a complete one with it.
    """
    record = _record_of(path)
    if record.exists() and not resume:
        raise UsageError(
            f"{path} is unfinished. Continue it with --resume, or delete {record} to start from the beginning."
        )
    if resume and path.exists() and not record.exists():
        raise UsageError(f"{path} is complete: there is nothing to resume. Delete it, or name another file.")
    return record.exists()


class PredictionFile:
    """A file that rows are written to, as a context manager: complete when the block ends without an error.

    Args:
        path: ends in .csv, .jsonl, .parquet or .json (COCO); parents are created. A complete file is replaced at the
            end.
        settings: JSON values that rows depend on; a run is continued with the same ones only.
        resume: go on with an unfinished file. Without one, start from the beginning.

    Attributes:
        images, anomalous: how many images are done, and how many of them are anomalous.
        failures: those of them that have no row.

    Raises:
        UsageError: for another suffix; for an unfinished file without `resume`, and for a complete one, or other
            settings, with it.
        OutputError: if the file can't be written, or somebody else is at it.
        MissingExtraError: for Parquet without pyarrow.
    """

    def __init__(
        self, path: str | os.PathLike[str], settings: Mapping[str, Any] | None = None, *, resume: bool = False
    ) -> None:
        self.path = path = Path(path)
        if path.suffix.lower() not in FORMATS:
            raise UsageError(f"Predictions are written to {', '.join(FORMATS)} files. Got {str(path)!r}.")
        self._format = FORMATS[path.suffix.lower()]
        if self._format.needs is not None:
            require(self._format.needs)
        self._record_path = _record_of(path)
        kind = path.suffix.lower() if self._format.convert is None else ".jsonl"
        self._rows_path = path.with_name(f"{path.name}.unfinished{kind}")
        self.images = self.anomalous = 0
        self.failures: list[FailedRow] = []
        self._names = hashlib.sha256()
        self._read_names = self._names.hexdigest()
        settings = json.loads(json.dumps(settings or {}))  # as they come back from the record
        with writing(path):
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "this is a folder")
            with ExitStack() as opening:
                opening.enter_context(locked(path))
                is_interrupted(path, resume=resume)
                self._rows, self._record = self._open(settings)
                self._lock = opening.pop_all()

    def skip(self, paths: Sequence[str]) -> None:
        """Goes past the images that are done, which must be the first ones of `paths`: all of the run, in their order.

        Raises:
            UsageError: if they are others.
        """
        for path in paths[: self.images]:
            self._add_name(path)
        if len(paths) < self.images or self._names.hexdigest() != self._read_names:
            raise UsageError(
                f"The {self.images} images in {self.path} are not the first ones of those named now. Name the same "
                f"ones, or delete {self._record_path} to start from the beginning."
            )

    def write(self, batch: Sequence[PredictionRow | FailedRow]) -> None:
        """Adds one batch, in the order of its images; it has left the process when this returns.

        Args:
            batch: rows made by `predictions.row_of`, and failures.

        Raises:
            OutputError: if it can't be written; a run that continues goes on before this batch.
        """
        rows = [one for one in batch if "reason" not in one]
        failures = [one for one in batch if "reason" in one]
        with writing(self.path):
            self._rows.write(self._format.lines(rows))
            self._rows.flush()
        for one in batch:
            self._add_name(one["path"])
        self.images += len(batch)
        self.anomalous += sum(row["label"] == "anomalous" for row in rows)
        self.failures += failures
        with writing(self.path):
            self._append(self._entry(failures))

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if kind is None:
                with writing(self.path):
                    self._finish()
            for file in (self._rows, self._record):
                with suppress(OSError):  # a full disk is full for what is left, too
                    file.close()

    def _finish(self) -> None:
        last = {**self._entry([]), "moved": True}
        self._rows.flush()
        os.fsync(self._rows.fileno())
        self._rows.close()
        if self._format.convert is None:
            self._append(last)
            self._record.close()  # Windows removes no open files
            os.replace(self._rows_path, self.path)
        else:
            self._record.close()
            with replacing(self.path) as temporary:
                self._format.convert(JsonLines(self._rows_path), temporary)
        self._record_path.unlink()
        self._rows_path.unlink(missing_ok=True)

    def _open(self, settings: Mapping[str, Any]) -> tuple[IO[bytes], IO[bytes]]:
        """The two files, each cut to what is certain and ready to be appended to."""
        lines = self._record_path.read_bytes().splitlines(keepends=True) if self._record_path.exists() else []
        whole = [line for line in lines if line.endswith(b"\n")]
        if len(whole) < 2:  # no batch
            self._record = self._record_path.open("wb")
            self._append(settings)
            try:
                rows = self._rows_path.open("wb")
            except OSError:
                self._record.close()
                self._record_path.unlink()
                raise
            rows.write(self._format.head)
            return rows, self._record
        begun, *entries = map(json.loads, whole)
        self._require_same(begun, settings)
        self.failures = [failure for entry in entries for failure in entry["failures"]]
        self.images, self.anomalous, size, self._read_names = (
            entries[-1][key] for key in ("images", "anomalous", "bytes", "names")
        )
        if entries[-1].get("moved") and not self._rows_path.exists() and self.path.exists():
            os.replace(self.path, self._rows_path)  # it was cut off after the last step but one
        if not self._rows_path.exists() or self._rows_path.stat().st_size < size:
            raise UsageError(
                f"{self._rows_path} was changed: it is shorter than {self._record_path} says. Delete both to start "
                f"from the beginning."
            )
        return _cut(self._rows_path, size), _cut(self._record_path, sum(map(len, whole)))

    def _require_same(self, begun: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        for key in sorted({*begun, *now}):
            if begun.get(key) != now.get(key):
                raise UsageError(
                    f"{self.path} was begun with {key} {begun.get(key)!r}, and now it is {now.get(key)!r}. Give the "
                    f"same, or delete {self._record_path} to start from the beginning."
                )

    def _entry(self, failures: list[FailedRow]) -> dict[str, Any]:
        """How far it is, and the failures since the last entry."""
        known = {"images": self.images, "anomalous": self.anomalous, "bytes": self._rows.tell()}
        return {**known, "names": self._names.hexdigest(), "failures": failures}

    def _append(self, entry: Mapping[str, Any]) -> None:
        self._record.write(json.dumps(entry).encode() + b"\n")
        self._record.flush()

    def _add_name(self, path: str) -> None:
        self._names.update(f"{path}\0".encode(errors="backslashreplace"))


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.unfinished")


def _cut(path: Path, size: int) -> IO[bytes]:
    """An existing file without what comes after `size` bytes, ready to be appended to."""
    file = path.open("r+b")
    file.truncate(size)
    file.seek(size)
    return file
