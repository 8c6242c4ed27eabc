"""What the defaults find: floors below the figures on the bundled backbone's card."""

from __future__ import annotations

import importlib
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from blemish import Engine, ImageDataModule, Patchcore
from blemish.synthetic.products import PRODUCTS, write_dataset


def aurocs(root: Path) -> tuple[float, float | None]:
    """Of images and of pixels, by PatchCore with a small bank, to save time; test images choose nothing."""
    model, engine = Patchcore(bank_size=2000), Engine("cpu", progress=False)
    data = ImageDataModule(root, num_workers=0)
    engine.fit(model, data)
    result = engine.test(model, data)
    assert result.image_auroc.value is not None
    return result.image_auroc.value, result.pixel_auroc.value


def test_drawn_parts(tmp_path: Path) -> None:
    images, pixels = [], []
    for product in PRODUCTS:
        root = write_dataset(tmp_path, product=product, good_train=30, good_test=12, per_defect=3, seed=5)
        image, pixel = aurocs(root)
        assert pixel is not None
        images.append(image)
        pixels.append(pixel)
    assert mean(images) >= 0.95
    assert mean(pixels) >= 0.95


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "image_floor", "pixel_floor"),
    [("magnetic_tile", 0.72, 0.66), ("cookies", 0.96, 0.95), ("aliens", 0.91, None)],
)
def test_photographs(
    name: str,
    image_floor: float,
    pixel_floor: float | None,
    realdata: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each third picture of magnetic_tile; the small sets whole."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "training")
    evaluate = importlib.import_module("evaluate")
    image, pixel = aurocs(evaluate.thinned(realdata(name), tmp_path, 3))
    assert image >= image_floor
    if pixel_floor is not None:
        assert pixel is not None
        assert pixel >= pixel_floor
