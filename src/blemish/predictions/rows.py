"""Predictions as data: one row per image, in the formats that other programs read.

Columns: `path` (ending in "#0", "#1" for the pictures of a file that holds several), `label` ("normal" or "anomalous"),
`raw_score`, `score` (normalized to [0, 1]), `threshold` (raw: the label is `raw_score >= threshold`), `pixel_threshold`
(normalized, as the scores of regions are), `height`, `width`, `seconds`, `model` (see `fingerprint`) and `regions`: a
list of box, area, area_mm2 (None without a scale), peak, peak_score, mean_score, polygon and good_patches (image, box
and distance; None without an explanation), in pixels of the images; JSON text in CSV. Verdicts alone have no `regions`:
empty in CSV, null elsewhere. Images that could not be inspected have no row: the caller lists them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from blemish.data.explanation import Explanation, GoodPatch
from blemish.errors import ArtifactError
from blemish.escaping import csv_path, json_line
from blemish.extras import require
from blemish.files import digest
from blemish.predictions.coco import write_coco
from blemish.runtime.session import Result

PredictionRow: TypeAlias = dict[str, Any]
COLUMNS = (
    *("path", "label", "raw_score", "score", "threshold", "pixel_threshold", "height", "width", "seconds", "model"),
    "regions",
)
GROUP = 1000
"""Rows per row group of a Parquet file."""


def row_of(
    result: Result,
    *,
    model: str,
    pixel_threshold: float,
    mm_per_pixel: float | None = None,
    explanation: Explanation | None = None,
) -> PredictionRow:
    """The row of one result: numbers, text and lists only.

    Args:
        result: of a session.
        model: fingerprint of its model, see `fingerprint`.
        pixel_threshold: its backend's `pixel_cut`.
        mm_per_pixel: side of a pixel in millimetres, for areas in square millimetres; None leaves them out.
        explanation: of this result; None leaves good patches out.
    """
    row = result.to_dict(mm_per_pixel)
    row |= {"pixel_threshold": pixel_threshold, "model": model}
    regions = row["regions"] or []
    findings = [None] * len(regions) if explanation is None else explanation.findings
    for region, finding in zip(regions, findings, strict=False):  # without regions, there is a finding
        region["good_patches"] = None if finding is None else [_good_patch(patch) for patch in finding.good]
    return {name: row[name] for name in COLUMNS}


def _good_patch(patch: GoodPatch) -> dict[str, Any]:
    return {
        "image": None if patch.image is None else patch.image.name,
        "box": None if patch.box is None else list(patch.box),
        "distance": patch.distance,
    }


def fingerprint(model: str | os.PathLike[str]) -> str:
    """The first 16 digits of the SHA-256 of a model file; of OpenVINO's .xml with its .bin behind it.

    Raises:
        ArtifactError: if there is no such file.
    """
    path = Path(model)
    files = (path, path.with_suffix(".bin")) if path.suffix.lower() == ".xml" else (path,)
    try:
        return digest(*files)[:16]
    except OSError as error:
        raise ArtifactError(f"The model file {error.filename} can't be read: {error.strerror}.") from error


class JsonLines:
    """The rows of a .jsonl file, as often as they are asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[PredictionRow]:
        with self._path.open("rb") as lines:
            yield from map(json.loads, lines)


def _csv_lines(rows: Sequence[PredictionRow]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    for row in rows:
        regions = None if row["regions"] is None else json.dumps(row["regions"])
        writer.writerow({**row, "path": csv_path(row["path"]), "regions": regions})
    return text.getvalue().encode()


def _json_lines(rows: Sequence[PredictionRow]) -> bytes:
    return "".join(f"{json_line(row)}\n" for row in rows).encode()


def arrow_schema() -> Any:
    """The columns of a Parquet file, a `pyarrow.Schema`. Raises `MissingExtraError` without pyarrow."""
    pa = require("pyarrow")
    whole, real = pa.int64(), pa.float64()
    kinds = {"path": pa.string(), "label": pa.string(), "height": whole, "width": whole, "model": pa.string()}
    region = {"box": pa.list_(whole), "area": whole, "area_mm2": real, "peak": pa.list_(whole)}
    region |= {"peak_score": real, "mean_score": real, "polygon": pa.list_(pa.list_(pa.list_(whole)))}
    patch = {"image": pa.string(), "box": pa.list_(whole), "distance": real}
    region["good_patches"] = pa.list_(pa.struct(list(patch.items())))
    kinds["regions"] = pa.list_(pa.struct(list(region.items())))
    return pa.schema([(name, kinds.get(name, real)) for name in COLUMNS])


def _write_parquet(rows: Iterable[PredictionRow], path: Path) -> None:
    pa, pq, schema = require("pyarrow"), require("pyarrow.parquet"), arrow_schema()
    with pq.ParquetWriter(path, schema) as file:
        waiting = iter(rows)
        while group := list(islice(waiting, GROUP)):
            file.write_table(pa.Table.from_pylist(group, schema=schema))


class Format(NamedTuple):
    """How rows become a file.

    Attributes:
        head: what the file begins with.
        lines: rows -> bytes that are appended.
        convert: writes the file from all its rows, for formats that can't be appended to; `lines` are then kept beside
            it until all are there.
        needs: a package that has to be installed.
    """

    head: bytes
    lines: Callable[[Sequence[PredictionRow]], bytes]
    convert: Callable[[Iterable[PredictionRow], Path], None] | None = None
    needs: str | None = None


FORMATS = {
    ".csv": Format(",".join(COLUMNS).encode() + b"\r\n", _csv_lines),
    ".jsonl": Format(b"", _json_lines),
    ".parquet": Format(b"", _json_lines, _write_parquet, "pyarrow"),
    ".json": Format(b"", _json_lines, write_coco),
}
"""Suffix -> format; .json is COCO."""
