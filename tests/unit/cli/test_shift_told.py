"""Images that look unlike those that calibrated are not judged without a word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.synthetic.products import render


def draw(folder: Path, count: int, *, first: int = 0, noise: float = 0.0) -> None:
    folder.mkdir(parents=True)
    for i in range(first, first + count):
        rng = np.random.default_rng(i)
        part, _ = render("tile", size=(64, 64), rng=rng)
        noisy = np.clip(part + noise * rng.standard_normal(part.shape), 0, 255)
        Image.fromarray(noisy.astype(np.uint8)).save(folder / f"{i:03d}.png")


@pytest.fixture
def line(tmp_path: Path, blemish: Any) -> tuple[Path, Path]:
    """A data set whose good test images are noisier than those that fitted, and a model of it."""
    root = tmp_path / "line"
    draw(root / "train" / "good", 30)
    draw(root / "test" / "good", 12, first=100, noise=40)
    draw(root / "test" / "bad", 1, first=200, noise=80)
    small = ("--detector", "padim", "--backbone", "filter_bank", "--image-size", 64, "--n-features", 8)
    assert blemish("fit", root, "-o", tmp_path / "m.safetensors", *small, "--planted", 0).code == 0
    return root, tmp_path / "m.safetensors"


def test_said_when_good_images_look_otherwise(line: tuple[Path, Path], tmp_path: Path, blemish: Any) -> None:
    root, model = line
    tested = blemish("test", model, root)
    assert tested.code == 0
    assert "12 of 12 good images are called anomalous; about 10% were expected." in tested.err

    draw(tmp_path / "noisy", 25, first=300, noise=40)
    draw(tmp_path / "alike", 25, first=400)
    noisy, alike = (blemish("predict", model, tmp_path / name, "--threshold", 1e6) for name in ("noisy", "alike"))
    assert "The 25 images called normal score higher than the good images that calibrated" in noisy.err
    assert "score higher" not in alike.err
