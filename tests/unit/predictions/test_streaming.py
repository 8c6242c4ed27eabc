"""A file of predictions that was cut off anywhere becomes, when it is continued, the one it would have been."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blemish.errors import OutputError, UsageError
from blemish.functional.regions import find_regions
from blemish.predictions.rows import row_of
from blemish.predictions.streaming import PredictionFile, is_interrupted
from blemish.runtime.result import Maps
from blemish.runtime.session import Result
from disks import files_end_at

SUFFIXES = ["csv", "jsonl", "parquet", "json"]
OPTIONS = {"model": "0123456789abcdef", "batch_size": 2, "min_area": 1}


def entry(number: int) -> dict[str, Any]:
    """Every fifth image fails."""
    path = f'{number} "a",\nb.png'
    if number % 5 == 4:
        return {"path": path, "reason": "no such file"}
    values = np.random.default_rng(number).random((5, 7)).astype(np.float32)
    maps = Maps(values, values > 0.6, tuple(find_regions(values > 0.6, values)))
    label: Any = "anomalous" if number % 2 else "normal"
    found = Result(path, label, number / 7, 0.5, 0.3, (5, 7), maps, {"read": 0.25})
    return row_of(found, model="0123456789abcdef", pixel_threshold=0.6)


ENTRIES = [entry(i) for i in range(11)]
BATCHES = [ENTRIES[i : i + 2] for i in range(0, len(ENTRIES), 2)]
PATHS = [one["path"] for one in ENTRIES]


class Killed(BaseException):
    pass


def run(path: Path, count: int = len(BATCHES), *, kill: bool = False, **arguments: Any) -> PredictionFile:
    """Writes up to `count` batches in all; ends as a killed process does."""
    file = PredictionFile(path, OPTIONS, **arguments)
    try:
        with file:
            file.skip(PATHS)
            for batch in BATCHES[-(-file.images // 2) : count]:
                file.write(batch)
            if kill:
                raise Killed
    except Killed:
        pass
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    for suffix in SUFFIXES:
        run(folder / f"rows.{suffix}")
    return {suffix: (folder / f"rows.{suffix}").read_bytes() for suffix in SUFFIXES}


def rows_of(path: Path) -> Path:
    """Where rows are before all are there."""
    return path.with_name(f"{path.name}.unfinished{'.csv' if path.suffix == '.csv' else '.jsonl'}")


def listing(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("count", [0, 1, 3, len(BATCHES)])
def test_a_continued_run_equals_an_uninterrupted_one(
    suffix: str, count: int, whole: dict[str, bytes], tmp_path: Path
) -> None:
    path = tmp_path / f"rows.{suffix}"
    assert not is_interrupted(path, resume=True)
    run(path, count, kill=True)
    assert is_interrupted(path, resume=True)
    assert not path.exists(), "no file is there before its end"
    file = run(path, resume=True)
    assert path.read_bytes() == whole[suffix]
    assert listing(tmp_path) == [path.name]
    assert (file.images, file.anomalous) == (11, 4)
    assert [one["path"] for one in file.failures] == [PATHS[4], PATHS[9]]


@given(data=st.data(), suffix=st.sampled_from(SUFFIXES), count=st.integers(0, len(BATCHES)))
@settings(max_examples=60)
def test_any_torn_end_is_mended(
    data: st.DataObject, suffix: str, count: int, whole: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The record is torn anywhere in its last entry, or the rows are in a batch that it doesn't know of yet."""
    path = tmp_path_factory.mktemp("torn") / f"rows.{suffix}"
    rows, record = rows_of(path), path.with_name(f"rows.{suffix}.unfinished")
    before: tuple[bytes, bytes] = (b"", b"")
    if count:
        run(path, count - 1, kill=True)
        before = (rows.read_bytes(), record.read_bytes())
        run(path, count, kill=True, resume=True)
    else:
        run(path, 0, kill=True)
    after = (rows.read_bytes(), record.read_bytes())
    if data.draw(st.booleans(), label="the rows are torn"):
        rows.write_bytes(after[0][: data.draw(st.integers(len(before[0]), len(after[0])))])
        record.write_bytes(before[1])
    else:
        record.write_bytes(after[1][: data.draw(st.integers(len(before[1]), len(after[1])))])
    run(path, resume=True)
    assert path.read_bytes() == whole[suffix]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_a_batch_can_be_read_once_it_is_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    with PredictionFile(path) as file:
        for batch in BATCHES:
            file.write(batch)
            assert str(batch[0].get("raw_score", "")) in rows_of(path).read_text(encoding="utf-8")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_older_file_stays_until_the_new_one_is_whole(
    suffix: str, tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(b"old")
    run(path, 3, kill=True)
    assert path.read_bytes() == b"old"
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(Killed))  # behind the last step but one
        run(path, resume=True)
    assert path.read_bytes() == whole[suffix]
    assert run(path, resume=True).images == len(ENTRIES)
    assert path.read_bytes() == whole[suffix]
    assert [name for name in listing(tmp_path) if not name.endswith(".lock")] == [path.name]


def test_two_runs_into_one_file(tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / "rows.csv"
    with PredictionFile(path, OPTIONS) as file:
        for again in (False, True):
            with pytest.raises(OutputError, match=r"rows.csv can't be written: another process is writing it. Wait"):
                PredictionFile(path, OPTIONS, resume=again)
        for batch in BATCHES:
            file.write(batch)
    assert path.read_bytes() == whole["csv"]


def test_an_unfinished_file_is_not_begun_anew_by_accident(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    run(path, 3, kill=True)
    before = rows_of(path).read_bytes()
    with pytest.raises(UsageError, match=r"rows.csv is unfinished. Continue it with --resume, or delete .*unfinished"):
        run(path)
    assert rows_of(path).read_bytes() == before


def test_a_complete_file_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path / "rows.csv", resume=True)
    with pytest.raises(UsageError, match=r"rows.csv is complete: there is nothing to resume. Delete it, or name"):
        run(tmp_path / "rows.csv", resume=True)
    run(tmp_path / "rows.csv")


@pytest.mark.parametrize("key", list(OPTIONS))
def test_other_settings_are_refused(key: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    run(path, 2, kill=True)
    with pytest.raises(UsageError, match=rf"begun with {key} '?{OPTIONS[key]}'?, and now it is 'other'. Give the same"):
        PredictionFile(path, {**OPTIONS, key: "other"}, resume=True)
    with pytest.raises(UsageError, match=rf"begun with {key} '?{OPTIONS[key]}'?, and now it is None"):
        PredictionFile(path, {name: value for name, value in OPTIONS.items() if name != key}, resume=True)


def test_other_images_are_refused_and_more_of_them_are_not(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    run(path, 2, kill=True)
    for paths in (PATHS[1:], PATHS[:3], [*PATHS[:3], "other.png"], ["new.png", *PATHS]):
        file = PredictionFile(path, OPTIONS, resume=True)
        with pytest.raises(UsageError, match=r"The 4 images in .*rows.jsonl are not the first ones of those"), file:
            file.skip(paths)
    with PredictionFile(path, OPTIONS, resume=True) as file:
        file.skip([*PATHS, "new.png"])


def test_rows_that_are_gone_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    run(path, 3, kill=True)
    rows_of(path).write_bytes(rows_of(path).read_bytes()[:-1])
    with pytest.raises(
        UsageError, match=r"jsonl.unfinished.jsonl was changed: it is shorter than .* says. Delete both"
    ):
        run(path, resume=True)


def test_rows_that_can_not_be_written_leave_no_record(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet.unfinished.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"rows.parquet can't be written: Is a directory. Choose another place."):
        PredictionFile(tmp_path / "rows.parquet")
    assert listing(tmp_path) == ["rows.parquet.unfinished.jsonl"]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_full_disk_costs_no_rows(suffix: str, share: float, tmp_path: Path, whole: dict[str, bytes]) -> None:
    path = tmp_path / f"rows.{suffix}"
    room = int(share * len(whole[suffix if suffix in ("csv", "jsonl") else "jsonl"]))
    with pytest.raises(OutputError, match=r"can't be written: .* Free some space"), files_end_at(room):
        run(path)
    run(path, resume=True)
    assert path.read_bytes() == whole[suffix]
    assert listing(tmp_path) == [path.name]


def test_an_end_that_fails_can_be_tried_again(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *paths: (_ for _ in ()).throw(OSError(28, "disk full")))
        with pytest.raises(OutputError, match="disk full"):
            run(path)
    assert listing(tmp_path) == ["rows.json.unfinished", "rows.json.unfinished.jsonl"]
    run(path, resume=True)
    assert path.read_bytes() == whole["json"]
