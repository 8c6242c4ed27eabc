"""Files of predictions, read again by others; pictures that overwrite nothing."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from blemish.errors import ArtifactError, MissingExtraError, OutputError, UsageError
from blemish.functional.regions import find_regions
from blemish.predictions.pictures import PictureFolder
from blemish.predictions.rows import COLUMNS, fingerprint, row_of
from blemish.predictions.streaming import PredictionFile
from blemish.runtime.result import Maps
from blemish.runtime.session import Result

IMAGE = np.full((6, 9, 3), 90, np.uint8)


def result(path: str = "a.png", label: Any = "anomalous") -> Result:
    anomaly_map = np.zeros((6, 9), np.float32)
    anomaly_map[2:4, 3:6] = 0.8
    mask = anomaly_map >= 0.5
    regions = tuple(find_regions(mask, anomaly_map))
    maps = Maps(anomaly_map, mask, regions)
    return Result(path, label, 3.25, 0.9, 2.5, mask.shape, maps, {"read": 0.1, "inspect": 0.2}, IMAGE)


def row(path: str = "a.png", **scale: float) -> dict[str, Any]:
    return row_of(result(path), model="0123456789abcdef", pixel_threshold=0.5, **scale)


def test_row() -> None:
    assert tuple(row()) == COLUMNS
    assert (row()["height"], row()["width"], row()["seconds"]) == (6, 9, 0.3)
    (region,) = row()["regions"]
    assert region == {
        "box": [3, 2, 6, 4],
        "area": 6,
        "area_mm2": None,
        "good_patches": None,
        "peak": [3, 2],
        "peak_score": pytest.approx(0.8),
        "mean_score": pytest.approx(0.8),
        "polygon": [[[3, 2], [6, 2], [6, 4], [3, 4]]],
    }
    assert row(mm_per_pixel=0.5)["regions"][0]["area_mm2"] == 1.5
    assert json.loads(json.dumps(row())) == row()


def test_a_name_in_no_encoding_is_written_readably() -> None:
    assert row("a\udce4.png")["path"] == r"a\udce4.png"


def test_fingerprint_is_that_of_sha256sum(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"abc")
    (tmp_path / "m.xml").write_bytes(b"ab")
    (tmp_path / "m.bin").write_bytes(b"c")
    expected = hashlib.sha256(b"abc").hexdigest()[:16]
    assert fingerprint(tmp_path / "m.onnx") == fingerprint(str(tmp_path / "m.xml")) == expected
    with pytest.raises(ArtifactError, match=r"The model file .*none.onnx can't be read: No such file or directory."):
        fingerprint(tmp_path / "none.onnx")


def read(path: Path) -> list[dict[str, Any]]:
    """With other readers than the library's."""
    if path.suffix == ".parquet":
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        table: list[dict[str, Any]] = list(csv.DictReader(file))
    texts = ("path", "label", "model")
    return [{key: value if key in texts else json.loads(value) for key, value in one.items()} for one in table]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("count", [0, 1, 2500])
def test_what_is_written_is_read(suffix: str, count: int, tmp_path: Path) -> None:
    rows = [row(f'{i} "quoted",\nStück 図.png') for i in range(count)]
    path = tmp_path / "new" / f"rows.{suffix}"
    with PredictionFile(path) as file:
        for start in range(0, count, 700):
            file.write(rows[start : start + 700])
    assert read(path) == rows
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    if suffix == "parquet":
        assert tuple(pq.read_table(path).column_names) == COLUMNS
        assert pq.ParquetFile(path).num_row_groups == -(-count // 1000)


def test_unknown_suffix() -> None:
    with pytest.raises(UsageError, match=r"written to .csv, .jsonl, .parquet, .json files. Got 'rows.xls'."):
        PredictionFile("rows.xls")


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"needs pyarrow.*blemish\[parquet\]"):
        PredictionFile(tmp_path / "rows.parquet")
    assert list(tmp_path.iterdir()) == []


def test_pictures(tmp_path: Path) -> None:
    kinds = ["overlay", "heatmap", "panel", "mask", "map"]
    folder = PictureFolder(tmp_path / "out", kinds)
    assert not (tmp_path / "out").exists()
    written = folder.write(result(str(tmp_path / "a.png")), Path("sub/a.png"))
    assert [path.relative_to(tmp_path / "out").as_posix() for path in written] == [
        f"sub/a.png.{kind}.png" for kind in kinds
    ]
    with Image.open(written[3]) as mask:
        np.testing.assert_array_equal(np.asarray(mask), result().mask * np.uint8(255))
    with Image.open(written[4]) as stored:
        assert int(np.asarray(stored).max()) == round(0.8 * 65535)


def test_pictures_overwrite_nothing(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path / "out", ["mask"])
    folder.prepare([Path("a.png"), Path("b/a.png")])
    folder.write(result(), Path("a.png"))
    for attempt in (lambda: folder.write(result(), Path("a.png")), lambda: folder.prepare([Path("a.png")])):
        with pytest.raises(UsageError, match=r"a.png.mask.png exists. Replace it with --overwrite, or choose"):
            attempt()
    with pytest.raises(UsageError, match=r"b.png.mask.png would be written twice. Name the folder that holds both"):
        folder.prepare([Path("b.png"), Path("b.png")])


def test_pictures_of_a_batch_that_was_cut_off_are_written_again(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path / "out", ["mask"])
    for name in ("a.png", "b.png", "c.png"):
        folder.write(result(), Path(name))
    with pytest.raises(UsageError, match=r"c.png.mask.png exists. Replace it with --overwrite"):
        folder.prepare([Path("a.png"), Path("b.png"), Path("c.png")], again=2)
    assert [one.name for one in folder.folder.iterdir()] == ["c.png.mask.png"]


def test_names_that_are_too_long_are_told_at_the_start(tmp_path: Path) -> None:
    folder = PictureFolder(tmp_path / "out", ["mask"])
    folder.write(result(), Path("ü" * 121 + ".png"))  # 246 bytes, and 9 of the kind
    with pytest.raises(OutputError, match=r"can't be written: File name too long. Choose a shorter name."):
        folder.prepare([Path("a.png"), Path("ü" * 122 + ".png")])


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = PictureFolder(tmp_path / "file", ["mask"])
    with pytest.raises(OutputError, match=r"a.png.mask.png can't be written: Not a directory. Choose another place."):
        folder.prepare([Path("a.png")])
    with pytest.raises(OutputError, match="can't be written"):
        folder.write(result(), Path("a.png"))


@pytest.mark.parametrize("kinds", [[], ["heat"], ["mask", "heat"]])
def test_unknown_kind(kinds: list[str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--save takes a list out of overlay, heatmap, panel, mask, map. Got '"):
        PictureFolder(tmp_path, kinds)
