"""Many jobs on Ray: the model files of `fit`, one row for what fails, nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from finding import run

FLAGS = ("--preset", "plain", "--detector", "padim", "--backbone", "filter_bank", "--image-size", "64")


@pytest.fixture
def products(tmp_path: Path, tiles: Path) -> Path:
    root = tmp_path / "products"
    shutil.copytree(tiles / "test", root / "unfit" / "test")
    (root / "a" / "good").mkdir(parents=True)
    for file in sorted(tiles.glob("train/good/*.png"))[:5]:
        shutil.copy(file, root / "a" / "good")
    return root


def rows_of(text: str) -> dict[str, Any]:
    return {row["name"]: row for row in json.loads(text)["products"]}


def test_every_product_is_fitted_or_says_why_not(ray: Any, products: Path, tmp_path: Path) -> None:
    command = ("fit-all", products, "-o", tmp_path / "models", *FLAGS, "--ray", "--json")
    rows = rows_of(run(*command, code=4)[0])
    assert [(name, rows[name]["fitted_on"]) for name in sorted(rows)] == [("a", 4), ("unfit", None)]
    assert "good image" in rows["unfit"]["error"]
    run("fit", products / "a", "-o", tmp_path / "one.safetensors", *FLAGS)
    assert (tmp_path / "models" / "a.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()
    again = rows_of(run(*command, code=4)[0])
    assert {name: row["done_before"] for name, row in again.items()} == {"a": True, "unfit": False}


@pytest.mark.slow
def test_a_benchmark_on_ray_has_the_figures_of_one_process(ray: Any, tiles: Path, tmp_path: Path) -> None:
    config = tmp_path / "small.yaml"
    config.write_text("detector: padim\nbackbone: filter_bank\nimage_size: 64\n")
    found = []
    for name, more in (("one", ()), ("ray", ("--ray",))):
        text, _ = run("bench", tiles, "-o", tmp_path / name, "--config", config, "--json", *more)
        (file,) = (tmp_path / name / "jobs").glob("*.json")
        found.append(json.loads(file.read_text())["figures"])
        assert json.loads(text)
    assert found[0] == found[1]
