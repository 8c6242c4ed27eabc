"""Predictions of `blemish predict` joined with labels."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blemish.data.layouts import Sample
from blemish.errors import DataError, UsageError
from blemish.report.html_rows import BOXES, ImageRow, Predicted, read_predictions


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    made = []
    for name in ("test/good/0.png", "test/good/1.png", "test/hole/0.png"):
        path = tmp_path / "parts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        kind = path.parent.name
        made.append(Sample(path, name, kind != "good", kind, None, "test"))
    return made


def prediction(path: str, score: float, **more: Any) -> dict[str, Any]:
    label = "anomalous" if score >= 0.5 else "normal"
    regions = [{"box": [1, 2, 3, 4], "area": 4}] if score >= 0.5 else []
    return {
        "path": path,
        "label": label,
        "raw_score": score,
        "threshold": 0.5,
        "seconds": 0.25,
        "model": "ab12",
        "regions": regions,
        **more,
    }


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows({**row, "regions": json.dumps(row["regions"])} for row in rows)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_all_formats_are_read(suffix: str, samples: list[Sample], tmp_path: Path) -> None:
    rows = [prediction(str(sample.path), score) for sample, score in zip(samples, (0.1, 0.6, 0.9), strict=True)]
    found = read_predictions(written(tmp_path / f"rows{suffix}", rows), samples)
    assert found.rows == [
        ImageRow(samples[0], 0.1, False),
        ImageRow(samples[1], 0.6, True, ((1, 2, 3, 4),)),
        ImageRow(samples[2], 0.9, True, ((1, 2, 3, 4),)),
    ]
    assert found.threshold == 0.5
    assert found.models == {"ab12"}
    assert found.seconds == [0.25] * 3
    figures = found.evaluate().to_dict()
    assert figures["image_auroc"] == 1.0
    assert figures["false_alarm_rate"] == 0.5
    assert figures["reasons"]["pixel_auroc"] == "no anomaly maps"


def test_paths_of_another_machine_are_found_by_their_ending(samples: list[Sample], tmp_path: Path) -> None:
    names = ["/mnt/line3/test/good/0.png", "D:\\parts\\test\\hole\\0.png", "elsewhere/good/1.png"]
    found = read_predictions(written(tmp_path / "rows.jsonl", [prediction(name, 0.7) for name in names]), samples)
    assert [row.sample.relative for row in found.rows] == ["test/good/0.png", "test/hole/0.png"]
    assert found.without_label == 1
    assert [sample.relative for sample in found.without_prediction] == ["test/good/1.png"]


def test_a_file_that_is_here_belongs_to_nothing_else(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """another/test/good/0.png exists: it is another image than parts/test/good/0.png."""
    other = tmp_path / "another/test/good/0.png"
    other.parent.mkdir(parents=True)
    other.touch()
    monkeypatch.chdir(tmp_path)
    rows = [prediction("another/test/good/0.png", 0.1), prediction("parts/test/hole/0.png", 0.9)]
    found = read_predictions(written(tmp_path / "rows.jsonl", rows), samples)
    assert [row.sample.relative for row in found.rows] == ["test/hole/0.png"]
    assert found.without_label == 1


def test_several_thresholds_are_none(samples: list[Sample], tmp_path: Path) -> None:
    rows = [prediction(str(samples[0].path), 0.1), prediction(str(samples[2].path), 0.9, threshold=0.4)]
    found = read_predictions(written(tmp_path / "rows.jsonl", rows), samples)
    assert found.threshold is None
    assert found.thresholds == {0.4, 0.5}
    assert Predicted().threshold is None


def test_boxes_are_bounded(samples: list[Sample], tmp_path: Path) -> None:
    many = [{"box": [i, i, i + 1, i + 1]} for i in range(3 * BOXES)]
    row = prediction(str(samples[2].path), 0.9, regions=many)
    (found,) = read_predictions(written(tmp_path / "rows.csv", [row]), samples).rows
    assert len(found.boxes) == BOXES


BAD = {
    "missing": ({"raw_score": None}, "row 1: 'raw_score' is missing"),
    "label": ({"label": "fine"}, 'label must be "normal" or "anomalous". Got \'fine\''),
    "text": ({"raw_score": "high"}, "row 1: not a prediction .*'high'"),
    "nan": ({"raw_score": "nan"}, "row 1: raw_score and threshold must be finite. Got nan and 0.5"),
    "regions": ({"regions": [{"area": 3}]}, "row 1: not a prediction .*box"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_rows_are_named(case: str, samples: list[Sample], tmp_path: Path) -> None:
    change, message = BAD[case]
    path = written(tmp_path / "rows.jsonl", [{**prediction(str(samples[0].path), 0.1), **change}])
    with pytest.raises(DataError, match=message):
        read_predictions(path, samples)


def test_bad_files(samples: list[Sample], tmp_path: Path) -> None:
    twice = written(tmp_path / "twice.jsonl", [prediction(str(samples[0].path), 0.1)] * 2)
    with pytest.raises(DataError, match=r"row 2: .*0\.png was predicted twice"):
        read_predictions(twice, samples)
    other = written(tmp_path / "other.jsonl", [prediction("x.png", 0.1)])
    with pytest.raises(DataError, match="none of its 1 predictions is of a labeled test image"):
        read_predictions(other, samples)
    for name, content, message in (
        ("a.jsonl", b"[1]\n", "a line holds list, not an object"),
        ("b.jsonl", b"{", "can't be read as predictions"),
        ("c.csv", b"\xff\xfe", "can't be read as predictions"),
        ("d.parquet", b"PAR1", "can't be read as predictions"),
        ("e.csv", b"a,b\n1,2\n", "row 1: 'path' is missing"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_predictions(tmp_path / name, samples)
    with pytest.raises(DataError, match=r"can't be read as predictions: .*No such file"):
        read_predictions(tmp_path / "absent.csv", samples)
    with pytest.raises(UsageError, match=r"Predictions are read from .csv, .jsonl, .parquet files. Got 'rows.txt'"):
        read_predictions(Path("rows.txt"), samples)
