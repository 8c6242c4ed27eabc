"""`blemish recommend`: tries, chooses, and writes what `blemish fit` takes."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path

import pytest
import yaml

from blemish.cli.flags import read_config
from blemish.cli.recommend import parse_time
from blemish.errors import UsageError
from blemish.models import DETECTORS
from blemish.settings import fit_settings
from blemish.trials import grid as grid_module
from blemish.trials import recommend as recommending
from blemish.trials import trying
from ran import Blemish


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recommending, "arrange", partial(trying.arrange, planted=(12, 12)))
    monkeypatch.setattr(recommending, "grid", lambda *given: grid_module.grid(*given, usual=96, small=64)[:3])


@pytest.fixture
def good(tmp_path: Path, tiles: Path) -> Path:
    return Path(shutil.copytree(tiles / "train" / "good", tmp_path / "good"))


def test_recommend_then_fit(blemish: Blemish, good: Path, tmp_path: Path) -> None:
    config = tmp_path / "new" / "part.yaml"
    options = ("--budget", "1h", "--latency", "1h", "--backbones", "filter_bank", "--seed", "3", "-o", config)
    ran = blemish("recommend", good, *options)
    assert (ran.code, ran.err) == (0, "")
    assert "on 7 images to fit, 2 to calibrate," in ran.out
    assert "3 held out and 12 with planted defects" in ran.out
    assert ran.out.count("→") == 2  # in the table and in its legend
    assert "Planted defects are not your defects" in ran.out
    assert "12 good images are few: false alarms come in steps of 33% on 3 held-out images" in ran.out
    assert f"blemish fit {good} --config {config} -o model.safetensors" in ran.out
    settings = read_config(config)
    assert settings["seed"] == 3
    assert fit_settings(settings, DETECTORS).model.backbone == "filter_bank"
    assert config.read_text().startswith("# Chosen by blemish recommend: image AUROC 0.")
    assert blemish("fit", good, "--config", config, "-o", tmp_path / "m.safetensors").code == 0


def test_json_and_budget(blemish: Blemish, good: Path, tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    options = ("--budget", "1ms", "--backbones", "filter_bank", "-o", config, "--json")
    ran = blemish("recommend", good, *options)
    assert (ran.code, ran.err) == (0, "")
    content = ran.json
    assert len(content["trials"]) == 1
    assert content["not_tried"][0]["detector"] == "padim"
    assert content["trials"][0]["pareto"] is True
    assert content["images"] == {"fit": 7, "calibrate": 2, "held_out": 3, "planted": 12}
    assert content["chosen"] == content["trials"][0]["settings"]
    assert yaml.safe_load(config.read_text()) == content["chosen"]
    assert any("Planted defects are not your defects" in warning for warning in content["warnings"])


def test_a_region_of_interest_is_planted_in_and_written(blemish: Blemish, good: Path, tmp_path: Path) -> None:
    region = tmp_path / "region.json"
    region.write_text("[[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9], [0.1, 0.9]]]")
    config = tmp_path / "a.yaml"
    options = ("--budget", "1ms", "--backbones", "filter_bank", "--roi", region, "-o", config, "--json")
    ran = blemish("recommend", good, *options)
    assert (ran.code, ran.err) == (0, "")
    assert read_config(config)["roi"] == str(region)


def test_a_latency_that_cannot_be_met(blemish: Blemish, good: Path, tmp_path: Path) -> None:
    options = ("--budget", "1ms", "--latency", "0.001ms", "--backbones", "filter_bank", "-o", tmp_path / "a.yaml")
    ran = blemish("recommend", good, *options)
    assert ran.code == 4
    assert "nothing that was tried inspects an image within 0.001ms; the fastest takes" in ran.err
    assert "Not tried within 1ms: padim 96;" in ran.out
    assert read_config(tmp_path / "a.yaml")["detector"] == "patchcore"


def test_a_backbone_that_cannot_be_had(
    blemish: Blemish, good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path))
    options = ("--budget", "1ms", "-o", tmp_path / "a.yaml")
    ran = blemish("recommend", good, *options, "--backbones", "resnet19")
    assert ran.code == 2
    assert "Did you mean" in ran.err
    assert not (tmp_path / "a.yaml").exists()


def test_too_few_images(blemish: Blemish, good: Path, tmp_path: Path) -> None:
    for path in sorted(good.iterdir())[:6]:
        path.unlink()
    ran = blemish("recommend", good, "-o", tmp_path / "a.yaml")
    assert ran.code == 3
    assert "6 good images to choose settings with; at least 8 are needed" in ran.err


@pytest.mark.parametrize(("text", "seconds"), [("50ms", 0.05), ("2s", 2), ("1.5m", 90), ("2h", 7200)])
def test_times(text: str, seconds: float) -> None:
    assert parse_time("latency", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["50", "ms", "-5ms", "0s", "5 days", ""])
def test_times_without_meaning(text: str) -> None:
    with pytest.raises(UsageError, match=r"--budget must be a number above 0 with a unit out of ms, s, m, h"):
        parse_time("budget", text)
