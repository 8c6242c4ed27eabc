"""`blemish bench`: every data set of a folder, tables with all that made them, and no job lost."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from blemish.artifact import load
from blemish.cli.flags import OPTIONS
from blemish.cli.verbs import command_of
from blemish.trials import jobs
from ran import Blemish

SMALL = ("--backbone", "filter_bank", "--image-size", "64")


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "in_own_process", jobs.attempt)


@pytest.fixture
def root(tmp_path: Path, tiles: Path) -> Path:
    """Three data sets: one of them without images to fit on, one without defects to find."""
    root = tmp_path / "root"
    shutil.copytree(tiles, root / "tile")
    shutil.copytree(tiles / "test", root / "unfit" / "test")
    shutil.copytree(tiles / "train", root / "flawless" / "train")
    shutil.copytree(tiles / "test" / "good", root / "flawless" / "test" / "good")
    (root / "readme.txt").touch()
    return root


@pytest.mark.usefixtures("in_this_process")
def test_bench(blemish: Blemish, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran = blemish("bench", root, "-o", out, "--recipes", "patchcore", "--seeds", "0,1", *SMALL)
    assert (ran.code, ran.err) == (4, "")
    assert "Mean ± standard deviation over 2 seeds" in ran.out
    assert ran.out.count("failed patchcore, unfit: ") == 1
    assert "0 good image(s) to fit on" in ran.out.replace("\n", " ")
    rows = {row["set"]: row for row in csv.DictReader(io.StringIO((out / "table.csv").read_text()))}
    assert list(rows) == ["flawless", "tile", "unfit", "mean"]
    assert (rows["tile"]["done"], rows["unfit"]["done"], rows["mean"]["done"]) == ("2", "0", "2")
    assert float(rows["tile"]["image_auroc_sd"]) >= 0
    assert (rows["flawless"]["image_auroc_mean"], rows["flawless"]["false_alarm_rate_mean"] != "") == ("", True)
    assert rows["mean"]["image_auroc_mean"] == rows["tile"]["image_auroc_mean"]
    assert "- patchcore, unfit, seed 0: " in (out / "table.md").read_text()
    done = [one for one in json.loads((out / "results.json").read_text())["jobs"] if one["error"] is None]
    one = next(job for job in done if job["name"] == "tile")
    assert one["arguments"]["image_size"] == [64, 64]
    assert len(one["weights"]["sha256"]) == 64
    assert {"blemish", "torch", "timm", "numpy"} <= set(one["versions"])
    assert {"fit_seconds", "memory_mb", "ms_per_image", "file_mb"} <= set(one["cost"])
    assert one["images"] == {"fit": 9, "calibrate": 3, "test": 14}


@pytest.mark.usefixtures("in_this_process")
def test_a_second_start_goes_on(blemish: Blemish, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("bench", root, "-o", tmp_path / "out", "--sets", "tile", *SMALL, "--json")
    first = blemish(*arguments, "--recipes", "padim").json

    def refuse(*_: Any) -> None:
        pytest.fail("done again")

    monkeypatch.setattr(jobs, "in_own_process", refuse)
    again = blemish(*arguments, "--recipes", "padim")
    assert (again.code, again.json) == (0, first)
    with pytest.raises(pytest.fail.Exception, match="done again"):
        blemish(*arguments, "--recipes", "patchcore")


def test_a_job_in_its_own_process_gives_what_fit_and_test_give(blemish: Blemish, root: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("detector: patchcore\nbackbone: filter_bank\nimage_size: 64\n")
    content = blemish("bench", root / "tile", "-o", tmp_path / "out", "--config", config, "--json").json
    (one,) = content["jobs"]
    assert (one["recipe"], one["name"], one["error"]) == ("mine", "tile", None)
    model = tmp_path / "m.safetensors"
    blemish("fit", root / "tile", "--config", config, "-o", model)
    figures = blemish("test", model, root / "tile", "--json").json
    for key in ("image_auroc", "pixel_auroc", "aupro", "false_alarm_rate"):
        assert one["figures"][key] == pytest.approx(figures[key], abs=1e-6)
    assert one["arguments"] == load(model).arguments()
    assert content["table"][0]["values"]["image_auroc"] == {"mean": one["figures"]["image_auroc"], "sd": None}


@pytest.mark.usefixtures("in_this_process")
def test_weights_that_cannot_be_had_fail_their_jobs_alone(
    blemish: Blemish, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError("no network")

    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "store"))
    monkeypatch.setattr("blemish.features.weights.require_connection", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    options = ("--preset", "paper", "--recipes", "padim-r18", "--sets", "tile", "-o", tmp_path / "out")
    ran = blemish("bench", root, *options)
    assert ran.code == 4
    assert "failed padim-r18, tile: The weights of backbone 'resnet18.tv_in1k' could not be downloaded" in ran.out


@pytest.mark.usefixtures("in_this_process")
def test_flags_win_and_meet_the_detectors_they_belong_to(blemish: Blemish, root: Path, tmp_path: Path) -> None:
    options = ("--sets", "tile", "--bank-size", "7", "--calibrate-on", "test", "-o", tmp_path / "out")
    ran = blemish("bench", root, *options, *SMALL)
    assert ran.code == 0
    assert "* oracle: test images chose the threshold" in ran.out
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    by_recipe = {one["recipe"]: one["arguments"] for one in content["jobs"]}
    assert by_recipe["patchcore"]["bank_size"] == 7
    assert by_recipe["fused"]["bank_size"] == 7
    assert "bank_size" not in by_recipe["padim"]
    assert [row["oracle"] for row in content["table"]] == [True] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seeds", "0,0"), "--seeds must be different whole numbers from 0 on, such as 0,1,2. Got '0,0'."),
        (("--seeds", "x"), "Got 'x'."),
        (("--seeds", "-1"), "Got '-1'."),
        (("--preset", "papers"), "--preset must be one of default, paper. Got 'papers'."),
        (("--recipes", "stfpm"), "--recipes must be out of patchcore, padim, subspace, fused. Got 'stfpm'."),
        (("--sets", "bottle"), "--sets must be out of flawless, tile, unfit. Got 'bottle'."),
        (("--config", "a.yaml", "--preset", "paper"), "--config takes the place of --preset and --recipes."),
        (("--config", "a.yaml"), "The configuration a.yaml can't be read"),
        (("--image-size", "x"), "image_size must be a number, or HEIGHT,WIDTH, each at least 1. Got 'x'."),
    ],
)
def test_misuse_is_noticed_before_any_job(
    blemish: Blemish, root: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    ran = blemish("bench", root, "-o", tmp_path / "out", *options)
    assert ran.code == 2
    assert message in ran.err
    assert not (tmp_path / "out").exists()


def test_a_missing_folder(blemish: Blemish, tmp_path: Path) -> None:
    ran = blemish("bench", tmp_path / "absent", "-o", tmp_path / "out")
    assert (ran.code, "no such folder" in ran.err) == (3, True)


def test_every_key_of_fit_is_a_flag_but_detector_and_seed() -> None:
    names = {parameter.name for parameter in command_of("bench").params}
    assert OPTIONS.keys() - names == {"detector", "seed"}


def test_where_the_time_goes(blemish: Blemish, model_file: Path, tiles: Path) -> None:
    image = tiles / "test/good/000.png"
    drawn, printed = (blemish("bench", model_file, "--time", image, *flag) for flag in ([], ["--json"]))
    assert (drawn.code, printed.code) == (0, 0)
    for part, milliseconds in printed.json["milliseconds"].items():
        assert part in drawn.out
        assert milliseconds > 0
    refused = blemish("bench", model_file, "--time", image, "--seeds", "0,1")
    assert (refused.code, "--seeds is not for --time" in refused.err) == (2, True)
    assert blemish("bench", tiles, "--time", image).code == 2
