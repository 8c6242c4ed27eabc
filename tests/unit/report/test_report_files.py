"""Files of predictions: complete while they grow, whole or absent where a half would be no file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blemish.errors import DataError, UsageError
from blemish.functional.regions import find_regions
from blemish.report.pictures import PictureFolder
from blemish.report.predictions import COLUMNS, PredictionFile, row_of
from blemish.runtime.session import Result


def result(path: str = "a.png", label: Any = "anomalous") -> Result:
    anomaly_map = np.zeros((6, 9), np.float32)
    anomaly_map[2:4, 3:6] = 0.8
    mask = anomaly_map >= 0.5
    regions = tuple(find_regions(mask, anomaly_map))
    return Result(path, label, 3.25, 0.9, 2.5, anomaly_map, mask, regions, {"read": 0.1, "inspect": 0.2})


def test_row() -> None:
    row = row_of(result())
    assert tuple(row) == COLUMNS
    assert (row["height"], row["width"], row["seconds"]) == (6, 9, 0.3)
    (region,) = row["regions"]
    assert region["area"] == 6
    assert json.loads(json.dumps(row)) == {**row, "regions": [json.loads(json.dumps(region))]}


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_are_on_disk_as_they_come(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    with PredictionFile(path) as file:
        for i in range(3):
            file.write(row_of(result(f"{i}.png")))
            assert f"{i}.png" in path.read_text()


@pytest.mark.parametrize("count", [0, 1, 2500])
def test_parquet_is_whole_or_absent(count: int, tmp_path: Path) -> None:
    path, row = tmp_path / "rows.parquet", row_of(result())
    with PredictionFile(path) as file:
        for _ in range(count):
            file.write(row)
        assert not path.exists()
    table = pq.read_table(path)
    assert table.num_rows == count
    assert tuple(table.column_names) == COLUMNS
    assert [one.name for one in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_rows_survive_an_interruption(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"

    def interrupted() -> None:
        with PredictionFile(path) as file:
            file.write(row_of(result()))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [one.name for one in tmp_path.iterdir()] == [path.name]
    assert path.stat().st_size > 0


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Predictions are written to .csv, .jsonl, .parquet files. Got 'rows.xls'."):
        PredictionFile("rows.xls")


def test_pictures(tmp_path: Path) -> None:
    Image.fromarray(np.full((6, 9, 3), 90, np.uint8)).save(tmp_path / "a.png")
    folder = PictureFolder(tmp_path / "out", ["overlay", "mask", "map"], 0.5)
    assert not (tmp_path / "out").exists()
    written = folder.write(result(str(tmp_path / "a.png")), Path("sub/a.png"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        *("sub/a.png.overlay.png", "sub/a.png.mask.png", "sub/a.png.map.png"),
    ]
    with Image.open(written[1]) as mask:
        np.testing.assert_array_equal(np.asarray(mask), result().mask * np.uint8(255))
    with Image.open(written[2]) as stored:
        assert int(np.asarray(stored).max()) == round(0.8 * 65535)


def test_pictures_overwrite_nothing(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path / "out", ["mask"], 0.5)
    folder.prepare([Path("a.png"), Path("b/a.png")])
    folder.write(result(), Path("a.png"))
    for attempt in (lambda: folder.write(result(), Path("a.png")), lambda: folder.prepare([Path("a.png")])):
        with pytest.raises(UsageError, match=r"a.png.mask.png exists and is not overwritten. Choose an empty folder"):
            attempt()
    with pytest.raises(UsageError, match=r"b.png.mask.png would be written twice. Name the folder that holds both"):
        folder.prepare([Path("b.png"), Path("b.png")])


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = PictureFolder(tmp_path / "file", ["mask"], 0.5)
    with pytest.raises(UsageError, match=r"file can't be written: .* Choose another --save-dir."):
        folder.prepare([Path("a.png")])
    with pytest.raises(DataError, match="can't be written"):
        folder.write(result(), Path("a.png"))


@pytest.mark.parametrize("kinds", [[], ["heat"], ["mask", "heat"]])
def test_unknown_kind(kinds: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--save takes a list out of overlay, mask, map. Got '"):
        PictureFolder(tmp_path, kinds, 0.5)
