"""Numbers computed by another library. Verdicts aren't compared: it decides with `>`, we with `>=`."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blemish.functional.thresholds import f1_threshold
from blemish.functional.verdict import normalize
from blemish.metrics import AUPRO, AUROC, AveragePrecision, F1Max

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"
pytestmark = pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as numbers:
        return {key: torch.from_numpy(numbers[key]) for key in numbers.files if key.startswith(("post.", "metric."))}


@pytest.mark.parametrize(("metric", "name"), [(AUROC, "AUROC"), (AveragePrecision, "AUPR"), (F1Max, "F1Max")])
@pytest.mark.parametrize(
    ("level", "scores", "labels"), [("image", "post.score", "post.label"), ("pixel", "post.map", "post.mask")]
)
@pytest.mark.parametrize("exact", [True, False])
def test_ranking(
    golden: dict[str, Tensor], metric: type, name: str, level: str, scores: str, labels: str, exact: bool
) -> None:
    figure = metric(level, exact=exact)
    figure.update(golden[scores], golden[labels] > 0)
    expected = float(golden[f"metric.{level}_{name}"])
    # The other library adds up in float32: its average precision over 38,400 pixels is off by 7e-6 (scikit-learn agrees
    # with us).
    assert figure.compute().value == pytest.approx(expected, abs=1e-5 if exact else 1e-3)


@pytest.mark.parametrize("exact", [True, False])
def test_aupro(golden: dict[str, Tensor], exact: bool) -> None:
    metric = AUPRO(0.3, exact=exact)
    metric.update(golden["post.map"], golden["post.mask"] > 0)
    expected = float(golden["metric.pixel_AUPRO_fpr0.3"])
    assert metric.compute().value == pytest.approx(expected, abs=1e-6 if exact else 1e-3)


@pytest.mark.parametrize(
    ("level", "scores", "labels", "normalized"),
    [
        ("image", "post.score", "post.label", "post.normalized_score"),
        ("pixel", "post.map", "post.mask", "post.normalized_map"),
    ],
)
def test_thresholds_and_normalization(
    golden: dict[str, Tensor], level: str, scores: str, labels: str, normalized: str
) -> None:
    threshold, _ = f1_threshold(golden[scores], golden[labels] > 0)
    assert threshold == golden[f"post.{level}_threshold"]
    statistics = (golden[f"post.{level}_{name}"] for name in ("threshold", "min", "max"))
    torch.testing.assert_close(normalize(golden[scores], *statistics), golden[normalized], rtol=0, atol=1e-6)
