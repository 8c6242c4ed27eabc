"""`blemish predict --explain`: good patches beside what was found, in pictures, rows and lines."""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from blemish.data.image_io import read_image
from blemish.errors import UsageError
from blemish.predictions.run import PredictionRun, prediction_run
from blemish.runtime import load


@pytest.fixture
def new(tiles: Path, tmp_path: Path) -> Path:
    """A good part and one with a hole."""
    root = tmp_path / "new"
    root.mkdir()
    shutil.copy(tiles / "test/good/000.png", root / "fine.png")
    shutil.copy(tiles / "test/hole/000.png", root / "hole.png")
    return root


@pytest.fixture(scope="module")
def illustrated(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file with small pictures, by the command line."""
    from typer.testing import CliRunner

    from blemish.cli import app

    path = tmp_path_factory.mktemp("illustrated") / "model.safetensors"
    arguments = ["fit", str(tiles), "-o", str(path), "--detector", "patchcore", "--backbone", "filter_bank"]
    ran = CliRunner().invoke(app, [*arguments, "--image-size", "64,96", "--with-thumbnails"])
    assert ran.exit_code == 0, ran.output
    return path


def test_pictures_and_lines(blemish: Any, model_file: Path, tiles: Path, new: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, new, "--explain", "--good-root", tiles, "--save", "mask")
    assert ran.code == 0, ran.err
    assert "region 1 at [" in ran.out
    assert "train/good/0" in ran.out
    assert "(distance " in ran.out
    assert "could not be shown" not in ran.err
    written = sorted(path.name for path in Path("predictions").iterdir())
    assert written == ["fine.png.mask.png", "hole.png.explanation.png", "hole.png.mask.png"]
    assert read_image("predictions/hole.png.explanation.png").shape[1] > 900
    again = blemish("predict", model_file, new, "--explain", "--good-root", tiles)
    assert again.code == 2
    assert "hole.png.explanation.png exists. Replace it with --overwrite" in again.err


def test_rows(blemish: Any, model_file: Path, tiles: Path, new: Path, inside: Path) -> None:
    plain = blemish("predict", model_file, new, "--json").run["predictions"]
    assert {region["good_patches"] for row in plain for region in row["regions"]} == {None}
    for number, suffix in enumerate(("jsonl", "parquet")):
        assert blemish("predict", model_file, new, "--explain", "--save-dir", number, "-o", f"rows.{suffix}").code == 0
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text(encoding="utf-8").splitlines()]
    stored = pq.read_table("rows.parquet").to_pylist()
    assert [row["regions"] for row in rows] == [row["regions"] for row in stored]
    [hole] = [row for row in rows if row["path"].endswith("hole.png")]
    for region in hole["regions"]:
        assert len(region["good_patches"]) == 3
        for patch in region["good_patches"]:
            assert (tiles / patch["image"]).is_file()
            x0, y0, x1, y1 = patch["box"]
            assert 0 <= x0 < x1 <= 128
            assert 0 <= y0 < y1 <= 96
    unexplained = [{key: value for key, value in region.items() if key != "good_patches"} for region in hole["regions"]]
    assert unexplained == [
        {key: value for key, value in region.items() if key != "good_patches"} for region in plain[1]["regions"]
    ]


def test_pictures_in_the_file_need_no_folder(blemish: Any, illustrated: Path, new: Path, inside: Path) -> None:
    ran = blemish("predict", illustrated, new, "--explain", "--save-dir", "stored")
    assert ran.code == 0
    assert "could not be shown" not in ran.err
    named = len(blemish("inspect", illustrated, "--json").json["good_images"])
    assert f"{named} named, {named} with pictures" in blemish("inspect", illustrated).out
    stored = read_image("stored/hole.png.explanation.png")
    assert len(np.unique(stored.reshape(-1, 3), axis=0)) > 1000


def test_good_images_that_are_not_there_are_told(
    blemish: Any, model_file: Path, new: Path, inside: Path, tmp_path: Path
) -> None:
    ran = blemish("predict", model_file, new, "--explain", "--good-root", new)
    assert ran.code == 0
    assert "good images could not be shown, such as train/good/" in ran.err
    assert f"not found below {new}" in ran.err
    assert "fit with --with-thumbnails" in ran.err
    assert Path("predictions/hole.png.explanation.png").is_file()


def test_without_explain_no_folder_is_taken(blemish: Any, model_file: Path, new: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, new, "--good-root", new)
    assert ran.code == 2
    assert "Add --explain, or drop it." in ran.err


def test_a_file_of_an_earlier_version(blemish: Any, new: Path, inside: Path) -> None:
    earlier = Path(__file__).parents[2] / "golden/schema1/patchcore.safetensors"
    ran = blemish("predict", earlier, new, "--explain")
    assert ran.code == 0
    assert "The model file names no good images" in ran.err


def interrupted(run: PredictionRun) -> None:
    for _ in run:
        raise KeyboardInterrupt


def test_a_run_goes_on_as_it_was_begun(model_file: Path, new: Path, tmp_path: Path) -> None:
    session = load(model_file)
    session.batch_size = 1
    images = [(path, Path(path.name)) for path in sorted(new.iterdir())]
    run = partial(prediction_run, session, images, model="0", output=tmp_path / "rows.jsonl")
    with pytest.raises(KeyboardInterrupt), run(explain=True) as begun:
        interrupted(begun)
    with pytest.raises(UsageError, match=r"was begun with explain True, and now it is False"), run(resume=True):
        pass
