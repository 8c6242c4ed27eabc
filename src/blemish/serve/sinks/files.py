"""Files as sinks: a table that grows, and pictures sorted by verdict."""

from __future__ import annotations

import csv
import io
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from blemish.errors import UsageError
from blemish.files import replacing, write_json
from blemish.serve.exporting import COLUMNS, harmless
from blemish.serve.history import Verdict, shown
from blemish.serve.pictures import Pictures
from blemish.serve.tables import ANOMALOUS, FAILED

CSV_COLUMNS = tuple(name for name in COLUMNS if name not in ("feedback", "kind", "feedback_by", "regions"))
UNSURE = 0.1
"""Normalized scores less than this from 0.5, where the threshold lies, are neither NG nor OK."""
TAIL = 1 << 16
"""Bytes at a file's end among which its last row is."""


class CsvSink:
    """Adds a row for each verdict, once: the last row of the file says up to which one it was written.

    Args:
        path: of the file. One that was moved away is begun anew.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = 0
        self._rows: list[Verdict] = []

    def open(self) -> None:
        """Reads how far the file goes, and cuts off a row that a crash left half-written."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._rows = []
        with self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            start = file.seek(max(size - TAIL, 0))
            whole, end, torn = file.read().rpartition(b"\r\n")
            last = whole.rpartition(b"\r\n")[2].partition(b",")[0]
            if (size and not end and start) or (end and not last.isdigit() and last != b"id"):
                raise UsageError(f"{self.path} has other rows than a station writes. Choose another file")
            file.truncate(size - len(torn))
        self._last = int(last) if last.isdigit() else 0

    def send(self, verdict: Verdict) -> bool:
        """Puts a row aside until `flush`."""
        if verdict["id"] > self._last:
            self._rows.append(verdict)
        return True

    def flush(self) -> None:
        """Writes the rows, to the disk's surface."""
        if not self._rows:
            return
        with self.path.open("ab") as file:
            if file.tell() == 0:
                file.write(_lines([CSV_COLUMNS]))
            file.write(_lines([_flat(value) for value in _values(row)] for row in self._rows))
            file.flush()
            os.fsync(file.fileno())
        self._last = self._rows[-1]["id"]
        self._rows = []

    def beat(self) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Nothing is open."""


class FolderSink:
    """Copies pictures into OK, NG, unsure (near the threshold) and failed, each with its verdict as JSON beside it.

    A picture that isn't kept, and was removed before its turn came, leaves its verdict alone.

    Args:
        folder: where the sub-folders are made.
        pictures: of the station.
    """

    def __init__(self, folder: Path, pictures: Pictures) -> None:
        self.folder, self._pictures = folder, pictures

    def open(self) -> None:
        """Makes the folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK | os.X_OK):
            raise PermissionError(f"{self.folder} can't be written to")

    def send(self, verdict: Verdict) -> bool:
        """Copies; a second time gives the same files."""
        name = re.sub(r"[^\w.+-]", "-", verdict["part"])[:80].strip(".")
        place = self.folder / sorted_as(verdict) / f"{name + '_' if name else ''}{verdict['uid']}"
        picture = self._pictures.find(verdict)
        if picture is not None:
            try:
                with replacing(place.with_name(place.name + picture.suffix)) as file:
                    shutil.copyfile(picture, file)
            except FileNotFoundError:  # removed at this moment
                pass
        write_json(place.with_name(f"{place.name}.json"), shown(verdict))
        return True

    def flush(self) -> None:
        """Every file is whole and on the disk."""

    def beat(self) -> None:
        """Nobody looks."""

    def close(self) -> None:
        """Nothing is open."""


def sorted_as(verdict: Verdict) -> str:
    """The sub-folder of a verdict."""
    if verdict["label"] == FAILED:
        return "failed"
    if abs(verdict["score"] - 0.5) < UNSURE:
        return "unsure"
    return "NG" if verdict["label"] == ANOMALOUS else "OK"


def _values(verdict: Verdict) -> list[Any]:
    row = shown(verdict)
    return [row[name] for name in CSV_COLUMNS]


def _flat(value: Any) -> Any:
    """A row is a line, so that its end can be found."""
    return harmless(" ".join(value.splitlines()) if isinstance(value, str) else value)


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()
