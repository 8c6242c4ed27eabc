"""What the defaults find: floors below the figures on the bundled backbone's card and of `benchmarks/decisions.py`."""

from __future__ import annotations

import importlib
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from blemish import Engine, ImageDataModule, Patchcore
from blemish.engine.testing import measure
from blemish.models import DETECTORS
from blemish.presets import with_preset
from blemish.settings import fit_settings
from blemish.synthetic.products import PRODUCTS, write_dataset
from blemish.trials.work import build_data, build_model, suited


def test_bundled_features_on_drawn_parts(tmp_path: Path) -> None:
    """Small pictures, a small bank, few parts and no threshold, to save time; test images choose nothing. Without what
    the backbone learned, images reach 0.92 and pixels 0.959.
    """
    images, pixels = [], []
    for product in PRODUCTS:
        counts = {"good_train": 16, "good_test": 6, "per_defect": 2}
        root = write_dataset(tmp_path, product=product, **counts, size=(128, 128), seed=5)
        model = Patchcore(image_size=128, bank_size=1000, post_processor=False)
        engine = Engine("cpu", progress=False)
        data = ImageDataModule(root, num_workers=0)
        engine.fit(model, data)
        result = engine.test(model, data)
        assert result.image_auroc.value is not None
        assert result.pixel_auroc.value is not None
        images.append(result.image_auroc.value)
        pixels.append(result.pixel_auroc.value)
    assert mean(images) >= 0.96
    assert mean(pixels) >= 0.965


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "auroc", "balanced"),
    [("aliens", 0.96, 0.87), ("magnetic_tile", 0.80, 0.70)],
)
def test_the_first_verdict_on_photographs(
    name: str, auroc: float, balanced: float, realdata: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `blemish fit` and `blemish test` do it when nobody says how; each tenth picture of magnetic_tile.
    Cookies: `test_cookies` of the verbs.
    """
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "training")
    root = importlib.import_module("evaluate").thinned(realdata(name), tmp_path, 10)
    values, chosen = with_preset({"planted": 0, "num_workers": 0}, None)
    values, _ = suited(values, chosen, build_data(fit_settings(values, DETECTORS), root))
    settings = fit_settings(values, DETECTORS)
    model = build_model(settings)
    Engine("cpu", progress=False).fit(model, build_data(settings, root))
    figures = measure(model, root, settings.loading, "cpu")
    assert figures["image_auroc"] >= auroc
    assert 1 - (figures["false_alarm_rate"] + figures["miss_rate"]) / 2 >= balanced
