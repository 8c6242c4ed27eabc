"""`predict --ray`: the rows of `predict`, whatever dies on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from finding import run, workers_of

from blemish.errors import DataError, UsageError
from blemish.scale.images import Images, Named
from blemish.scale.parts import Results, table_of
from blemish.scale.predictor import Predictor, make_predictor
from blemish.scale.scoring import PIECE, Pictures, score

Row = dict[str, Any]
EXACT = ("path", "label", "height", "width", "model", "threshold", "pixel_threshold")


def rows_of(folder: Path) -> list[Row]:
    """In the order of parts."""
    return [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]


@pytest.fixture(scope="module")
def many(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """130 names of images, more than one process scores at once."""
    folder = tmp_path_factory.mktemp("many")
    files = sorted(tiles.glob("test/*/*.png"))
    names = [folder / f"{number:03}.png" for number in range(130)]
    for number, name in enumerate(names):
        shutil.copy(files[number % len(files)], name)
    return [str(name) for name in names]


@pytest.fixture(scope="module")
def predictor(model_file: Path) -> Predictor:
    return make_predictor(model_file)


def test_rows_are_those_of_predict(ray: Any, model_file: Path, pictures: Path, tmp_path: Path) -> None:
    expected = tmp_path / "rows.parquet"
    run("predict", model_file, pictures, "--out", expected, "--save", "mask", "--save-dir", tmp_path / "a", code=3)
    output, saved = tmp_path / "rows", tmp_path / "b"
    said, _ = run(
        *("predict", model_file, pictures, "--ray", "--out", output, "--save", "mask", "--save-dir", saved, "--json"),
        code=3,
    )
    assert json.loads(said) == {"inspected": 19, "anomalous": json.loads(said)["anomalous"], "failed": 1} | {
        "output": str(output)
    }
    got = rows_of(output)
    bad = [row for row in got if row["error"] is not None]
    assert [Path(row["path"]).name for row in bad] == ["05x.png"]
    assert bad[0]["label"] is None
    assert bad[0]["raw_score"] is None
    wanted = pq.read_table(expected).to_pylist()
    good = [row for row in got if row["error"] is None]
    assert len(good) == len(wanted) == 19
    for row, other in zip(good, wanted, strict=True):
        assert {key: row[key] for key in EXACT} == {key: other[key] for key in EXACT}
        assert row["raw_score"] == pytest.approx(other["raw_score"], rel=1e-5)
        assert [region["box"] for region in row["regions"]] == [region["box"] for region in other["regions"]]
    written = sorted(file.relative_to(saved) for file in saved.rglob("*.png"))
    assert written == sorted(file.relative_to(tmp_path / "a") for file in (tmp_path / "a").rglob("*.png"))
    assert all((saved / name).read_bytes() == (tmp_path / "a" / name).read_bytes() for name in written)
    manifest = json.loads((output / "_manifest.json").read_text())
    assert manifest["images"] == 20
    assert manifest["failed"] == 1
    assert manifest["parts"] == [{"file": "part-000000.parquet", "rows": 20}]
    assert "--resume" in run("predict", model_file, pictures, "--ray", "--out", output, code=2)[1]
    _, again = run("predict", model_file, pictures, "--ray", "--out", output, "--resume", "--min-area", 5, code=2)
    assert "was begun with min_area 1, and now it is 5" in again


def test_lists_and_urls_name_the_same_images(pictures: Path, tmp_path: Path) -> None:
    import pyarrow as pa

    names = [image.source for image in Images([str(pictures)])]
    assert names == sorted(str(path) for path in pictures.rglob("*.png"))
    assert [image.relative for image in Images([str(pictures)])][:2] == ["01.png", "02.png"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    (tmp_path / "list.csv").write_text("label;Path\n" + "\n".join(f"good;{name}" for name in names))
    pq.write_table(pa.table({"path": names, "line": [1] * len(names)}), tmp_path / "list.parquet")
    for inputs in (
        *(str(tmp_path / f"list.{suffix}") for suffix in ("txt", "csv", "parquet")),
        *(f"{pictures}/**/*.png", f"file://{tmp_path}/list.parquet"),
    ):
        assert sorted(image.source for image in Images([inputs])) == names, inputs
    for url in (f"file://{pictures}", f"file://{pictures}/**/*.png"):
        assert list(Images([url])) == [
            Named(f"file://{name}", Path(name).relative_to(pictures).as_posix()) for name in names
        ]
    shutil.copytree(pictures, tmp_path / "beside")
    (tmp_path / "near.txt").write_text("beside/01.png\n\nbeside/../beside/02.png\n")
    assert list(Images([str(tmp_path / "near.txt")])) == [
        Named(str(tmp_path / "beside/01.png"), "beside/01.png"),
        Named(str(tmp_path / "beside/02.png"), "beside/02.png"),
    ]


def test_what_names_nothing_is_said(tmp_path: Path, model_file: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "no.csv").write_text("file\na.png\n")
    (tmp_path / "gap.csv").write_text("path,label\n,good\n")
    (tmp_path / "bad.parquet").write_text("no")
    pq.write_table(table_of([]), tmp_path / "none.parquet")
    for inputs, kind, message in (
        (tmp_path / "empty", DataError, "names no images"),
        (tmp_path / "none.parquet", DataError, "names no images"),
        (tmp_path / "*.bmp", DataError, "names no images"),
        (tmp_path / "no.csv", DataError, "the column 'path' is missing. Found: file"),
        (tmp_path / "gap.csv", DataError, "row 1: the path is empty"),
        (tmp_path / "bad.parquet", DataError, "not a Parquet file"),
        ("nonsense://bucket/parts", UsageError, "Install what fsspec needs"),
        (f"file://{tmp_path}/gone.txt", DataError, "can't be read"),
    ):
        with pytest.raises(kind, match=message):
            list(Images([str(inputs)]))
    run("predict", model_file, tmp_path / "empty", "--ray", "--out", tmp_path / "out", code=3)
    assert not (tmp_path / "out").exists()


def test_a_run_that_was_cut_off_goes_on(ray: Any, predictor: Predictor, many: list[str], tmp_path: Path) -> None:
    """Of 130 images some have rows, one part is missing in the middle, and two more were named since."""
    folder, listed = tmp_path / "out", tmp_path / "list.txt"
    listed.write_text("\n".join(many[:100]))
    settings = {"model": predictor.model}
    begun = Results(folder, settings)
    rows = predictor.rows(many[:40], many[:40])
    begun.write(0, [table_of(rows[:7]), table_of(rows[7:20])])
    begun.write(2, [table_of(rows[30:])])
    (folder / ".blemish-0123").mkdir()
    results = Results(folder, settings, resume=True)
    assert results.images == 30
    scored: list[int] = []
    score(ray, predictor, Images([str(listed)]), results, watch=scored.append)
    assert scored == [100]
    assert not (folder / ".blemish-0123").exists()
    assert sorted(row["path"] for row in rows_of(folder)) == many[:100]
    listed.write_text("\n".join(many))
    score(ray, predictor, Images([str(listed)]), Results(folder, settings, resume=True))
    assert sorted(row["path"] for row in rows_of(folder)) == many
    manifest = json.loads((folder / "_manifest.json").read_text())
    assert manifest["images"] == sum(part["rows"] for part in manifest["parts"]) == 130


def test_folders_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds other files, first notes.txt. Name a folder of its own"):
        Results(tmp_path, {})
    folder = tmp_path / "out"
    Results(folder, {"model": "a"})
    with pytest.raises(UsageError, match="was begun with model 'a', and now it is 'b'"):
        Results(folder, {"model": "b"}, resume=True)
    (folder / "part-000000.parquet").write_text("half")
    with pytest.raises(DataError, match=r"part-000000.parquet is damaged"):
        Results(folder, {"model": "a"}, resume=True)


def test_a_killed_worker_costs_no_row_and_doubles_none(
    ray: Any, predictor: Predictor, many: list[str], tmp_path: Path
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(many))
    killed: list[int] = []

    def kill() -> None:
        until = time.monotonic() + 60
        while not killed and time.monotonic() < until:
            for process in workers_of(ray, "_score"):
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                break

    thread = threading.Thread(target=kill)
    thread.start()
    score(ray, predictor, Images([str(listed)]), Results(tmp_path / "out", {"model": predictor.model}))
    thread.join()
    assert killed
    got = rows_of(tmp_path / "out")
    assert [row["path"] for row in got] == many
    assert all(row["error"] is None for row in got)


def test_workers_that_see_less_are_found_before_work_begins(
    ray: Any, model_file: Path, many: list[str], tmp_path: Path
) -> None:
    moved = tmp_path / "moved.safetensors"
    shutil.copy(model_file, moved)
    predictor, shipped = make_predictor(moved), make_predictor(moved, ship=True)
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(many[: PIECE + 3]))
    saved = Pictures(tmp_path / "saved", ("map",))
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "mine.png").touch()
    with pytest.raises(UsageError, match=r"isn't empty. Choose an empty folder with --save-dir"):
        score(ray, predictor, Images([str(listed)]), Results(tmp_path / "a", {}), pictures=saved)
    results = Results(tmp_path / "b", {})
    score(ray, shipped, Images([str(listed)]), results)
    assert (results.images, results.failed) == (PIECE + 3, 0)


def test_options_of_ray_need_it(model_file: Path, pictures: Path) -> None:
    assert "are for --ray" in run("predict", model_file, pictures, "--address", "auto", code=2)[1]
    assert "Name it with --out" in run("predict", model_file, pictures, "--ray", code=2)[1]
    two = run("predict", model_file, pictures, pictures, "--ray", "--out", "x", "--save", "map", code=2)
    assert "takes one folder, pattern or list" in two[1]
