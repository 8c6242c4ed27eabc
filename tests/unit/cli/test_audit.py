"""`blemish data audit`, and what its list does to the next fit."""

from __future__ import annotations

import base64
import io
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.artifact import read_manifest
from blemish.synthetic.products import render
from known import known

SMALL = ("--detector", "padim", "--backbone", "filter_bank", "--image-size", "64", "--n-features", "8")
CROSS = (*SMALL, "--calibrate-on", "cross", "--num-workers", "0")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve tiles, and a picture of something else that got among them."""
    root = tmp_path_factory.mktemp("parts")
    (root / "good").mkdir()
    for i in range(12):
        part, _ = render("tile", size=(64, 64), rng=np.random.default_rng(i))
        Image.fromarray(part).save(root / "good" / f"{i:02d}.png")
    stranger, _ = render("knob", size=(64, 64), rng=np.random.default_rng(0))
    Image.fromarray(stranger).save(root / "good" / "stranger.png")
    return root


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures, self.heat = 0, list[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        of = dict(attrs)
        self.pictures += tag == "img" and str(of["src"]).startswith("data:image/jpeg;base64,")
        self.heat += [str(of["src"])] if str(of.get("alt")).startswith("heat map") else []


def test_the_stranger_is_shown_and_leaves_when_it_is_told_to(parts: Path, tmp_path: Path, blemish: Any) -> None:
    page, names, model = tmp_path / "audit.html", tmp_path / "out.txt", tmp_path / "m.safetensors"
    found = blemish("data", "audit", parts, "-o", page, "--list", names, *CROSS, "--json").json
    assert found["images"][0] == {"name": "good/stranger.png", "score": found["images"][0]["score"], "odd": True}
    assert len(found["images"]) == 13
    assert found["threshold_without_odd"] < found["threshold"] / 2
    text = page.read_text("utf-8")
    assert re.search(r"\d of 13 good images (is|are) unlike the others", text)
    assert Page(text).pictures >= 13 * 3, "photograph, heat, and the place enlarged"
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(Page(text).heat[-1].partition(",")[2]))), int)  # (H, W, 3)
    assert (heat[..., 2] > heat[..., 0]).mean() > 0.9, "an ordinary image: blue, below the threshold nearly everywhere"
    assert heat.std() > 5, "and yet a map"
    assert "# good/stranger.png" in names.read_text("utf-8")

    assert blemish("fit", parts, "-o", model, *CROSS, "--exclude", names).code == 0
    data = known(read_manifest(model).data)
    assert data.exclude == (), "nothing is left out without the user's word"
    names.write_text("good/stranger.png\n", "utf-8")
    assert (
        blemish("fit", parts, "-o", model, *CROSS, "--exclude", names, "--json", "--overwrite").json["fitted_on"] == 12
    )
    data = known(read_manifest(model).data)
    assert data.exclude == ("good/stranger.png",)
    names.write_text("good/nobody.png\n", "utf-8")
    refused = blemish("fit", parts, "-o", tmp_path / "none.safetensors", "--exclude", names)
    assert refused.code == 3
    assert "good/nobody.png: no file has this name" in refused.err
    assert not (tmp_path / "none.safetensors").exists()


def test_fit_says_what_it_would_miss(parts: Path, tmp_path: Path, blemish: Any) -> None:
    model = tmp_path / "m.safetensors"
    done = blemish("fit", parts, "-o", model, *CROSS, "--planted", 24)
    assert "of 100 planted defects" in done.out
    assert "large, strong" in done.out
    assert "warning: This model would miss most small defects: of 24 planted" in done.err
    assert "Of 24 defects planted into these images it finds" in blemish("inspect", model).out


def test_defects_and_their_price(parts: Path, tiles: Path, tmp_path: Path, blemish: Any) -> None:
    model, defects = tmp_path / "m.safetensors", tmp_path / "defects"
    shutil.copytree(tiles / "test" / "hole", defects)
    record = blemish("fit", parts, "-o", model, *CROSS, "--defects", defects, "--json").json["calibration"]
    assert (record["policy"], record["miss_cost"], record["anomalous"]) == ("lowest cost", 1.0, 2)
    shutil.copy(parts / "good" / "01.png", defects / "good.png")
    other = tmp_path / "n.safetensors"
    refused = blemish("fit", parts, "-o", other, *CROSS, "--defects", defects)
    assert (refused.code, "the same bytes can't be both" in refused.err) == (3, True)
    refused = blemish("fit", parts, "-o", other, *CROSS, "--miss-cost", 2)
    assert (refused.code, "all 13 calibration images are normal" in refused.err) == (3, True)
    assert not other.exists()
