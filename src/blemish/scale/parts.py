"""A folder of predictions that any crash leaves sound.

    results/_run.json              what rows depend on: model and settings
    results/part-000000.parquet    rows of up to `PART` images, in the order in which they were named; whole or absent
    results/_manifest.json         parts, counts and settings; there when all images are done

Programs that read a folder of Parquet files pass over names that begin with "_".

A part holds the columns of `blemish.predictions.rows` and `error`. Who goes on with a folder reads which paths are in
its parts, 16 bytes each in memory, and scores the others.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.errors import DataError, UsageError
from blemish.escaping import as_utf8
from blemish.extras import require
from blemish.files import replacing, write_json, writing
from blemish.predictions.rows import PredictionRow, arrow_schema

PART = 1024
"""Images per part."""


def table_of(rows: Sequence[PredictionRow]) -> Any:
    """Rows with `error` as a `pyarrow.Table`."""
    pa = require("pyarrow")
    return pa.Table.from_pylist(list(rows), schema=arrow_schema().append(pa.field("error", pa.string())))


@dataclass
class Results:
    """The folder, open to be written by one process.

    Args:
        folder: where; created when needed.
        settings: JSON values that rows depend on, the model's fingerprint among them.
        resume: go on with an unfinished folder, or add images to a complete one. Without one, start.

    Attributes:
        continued: whether there was something to go on with.
        images, anomalous, failed: how many images are done, how many of them are anomalous or have no verdict.

    Raises:
        UsageError: for a folder with predictions without `resume`, for other settings with it, for a folder with other
            files. DataError: for a damaged part. OutputError: if it can't be written.
    """

    folder: Path
    settings: Mapping[str, Any]
    resume: bool = False
    continued: bool = False
    images: int = 0
    anomalous: int = 0
    failed: int = 0
    _parts: dict[str, int] = field(default_factory=dict)
    _done: npt.NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype="S16"))

    def __post_init__(self) -> None:
        run, settings = self.folder / "_run.json", json.loads(json.dumps(self.settings))
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            there = sorted(self.folder.iterdir())
        if run in there and not self.resume:
            raise UsageError(f"{self.folder} holds predictions. Go on with --resume, or name another folder.")
        if run not in there:
            if there:
                raise UsageError(f"{self.folder} holds other files, first {there[0].name}. Name a folder of its own.")
            write_json(run, settings)
            return
        self.continued = True
        begun = json.loads(run.read_text(encoding="utf-8"))
        for key in sorted({*begun, *settings}):
            if begun.get(key) != settings.get(key):
                raise UsageError(
                    f"{self.folder} was begun with {key} {begun.get(key)!r}, and now it is {settings.get(key)!r}. Give "
                    f"the same, or name another folder."
                )
        for left in self.folder.glob(".blemish-*"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        self._read_parts()

    def left(self, paths: Sequence[str]) -> list[bool]:
        """Which of these have no row yet."""
        if not len(self._done):
            return [True] * len(paths)
        keys = _keys(paths)
        places = np.searchsorted(self._done, keys).clip(max=len(self._done) - 1)
        return (self._done[places] != keys).tolist()  # type: ignore[no-any-return]

    def write(self, number: int, tables: Sequence[Any]) -> None:
        """Adds a part.

        Args:
            number: its place in the order of images.
            tables: see `table_of`.

        Raises:
            OutputError: if it can't be written.
        """
        pa, pq = require("pyarrow"), require("pyarrow.parquet")
        name, again = f"part-{number:06}.parquet", 0
        while name in self._parts:  # other images were named when the run began
            again += 1
            name = f"part-{number:06}-{again}.parquet"
        table = pa.concat_tables(tables)
        with replacing(self.folder / name) as temporary:
            pq.write_table(table, temporary)
        self._count(name, table)

    def finish(self) -> None:
        """Writes the manifest."""
        counts = {"images": self.images, "anomalous": self.anomalous, "failed": self.failed}
        parts = [{"file": name, "rows": rows} for name, rows in sorted(self._parts.items())]
        write_json(self.folder / "_manifest.json", {**counts, "settings": dict(self.settings), "parts": parts})

    def _read_parts(self) -> None:
        pq = require("pyarrow.parquet")
        found = [self._done]
        for part in sorted(self.folder.glob("part-*.parquet")):
            try:
                table = pq.read_table(part, columns=["path", "label", "error"])
            except (OSError, ValueError) as error:  # pyarrow's errors are both
                raise DataError(f"{part} is damaged: {error}. Delete it, and go on with --resume.") from error
            self._count(part.name, table)
            found.append(_keys(table.column("path").to_pylist()))
        self._done = np.sort(np.concatenate(found))

    def _count(self, name: str, table: Any) -> None:
        self._parts[name] = table.num_rows
        self.images += table.num_rows
        self.anomalous += table.column("label").to_pylist().count("anomalous")
        self.failed += table.num_rows - table.column("error").null_count


def _keys(paths: Sequence[str]) -> npt.NDArray[Any]:
    # A digest that ends in zeros is compared without them, like all others of its kind.
    digests = [hashlib.blake2b(as_utf8(path).encode(), digest_size=16).digest() for path in paths]
    return np.array(digests, dtype="S16")
