"""The history as files: CSV, Parquet and COCO, in bounded memory."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from blemish.extras import require
from blemish.predictions.coco import write_coco
from blemish.serve.feedback import Feedback
from blemish.serve.history import History, Search, Verdict, shown
from blemish.serve.tables import FAILED

COLUMNS = (
    *("id", "uid", "time", "source", "product", "part", "label", "raw_score", "score", "threshold", "pixel_threshold"),
    *(
        "height",
        "width",
        "model",
        "seconds",
        "error",
        "brightness",
        "sharpness",
        "feedback",
        "kind",
        "feedback_by",
        "regions",
    ),
)
"""`regions` is JSON text; `feedback`, `kind` and `feedback_by` are of the newest opinion, "" without one."""
GROUP = 1000


def rows(history: History, feedback: Feedback, wanted: Search) -> Iterator[dict[str, Any]]:
    """Rows of an export, newest first."""
    waiting = history.every(wanted)
    while group := list(islice(waiting, GROUP)):
        opinions = feedback.of([verdict["uid"] for verdict in group])
        for verdict in group:
            opinion = opinions.get(verdict["uid"], {})
            said = {"feedback": "judgement", "kind": "kind", "feedback_by": "who"}
            row = shown(verdict) | {column: opinion.get(name, "") for column, name in said.items()}
            yield {name: row[name] for name in COLUMNS[:-1]} | {"regions": json.dumps(row["regions"])}


def csv_lines(found: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Rows as CSV, with a head. Texts that a spreadsheet would take for a formula get an apostrophe."""
    yield ",".join(COLUMNS).encode() + b"\r\n"
    waiting = iter(found)
    while group := list(islice(waiting, GROUP)):
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        writer.writerows([harmless(row[name]) for name in COLUMNS] for row in group)
        yield text.getvalue().encode()


def write_parquet(found: Iterable[dict[str, Any]], path: Path) -> None:
    """Rows as a Parquet file.

    Raises:
        MissingExtraError: without pyarrow.
    """
    pa, pq = require("pyarrow"), require("pyarrow.parquet")
    whole = dict.fromkeys(("id", "height", "width"), pa.int64())
    numbers = ("raw_score", "score", "threshold", "pixel_threshold", "seconds", "brightness", "sharpness")
    real = dict.fromkeys(numbers, pa.float64())
    schema = pa.schema([(name, {**whole, **real}.get(name, pa.string())) for name in COLUMNS])
    waiting = iter(found)
    with pq.ParquetWriter(path, schema) as file:
        while group := list(islice(waiting, GROUP)):
            file.write_table(pa.Table.from_pylist(group, schema=schema))


class CocoRows:
    """Verdicts as rows of `blemish.predictions.coco`, as often as they are asked for: those with a picture's size.

    Args:
        history: whose verdicts.
        wanted: which, with an `until`, so that both times give the same.
    """

    def __init__(self, history: History, wanted: Search) -> None:
        self._history, self._wanted = history, wanted

    def __iter__(self) -> Iterator[Verdict]:
        for verdict in self._history.every(self._wanted):
            if verdict["label"] != FAILED:
                yield {**verdict, "path": Path(verdict["path"] or verdict["uid"]).name}


def write_coco_file(history: History, wanted: Search, path: Path) -> None:
    """Verdicts and their regions as a COCO data set; those that could not be inspected aren't in it."""
    write_coco(CocoRows(history, wanted), path)


def harmless(value: Any) -> Any:
    """A value for a cell; a text that a spreadsheet would take for a formula gets an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
