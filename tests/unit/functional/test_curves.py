from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional import curves
from blemish.functional.histogram import (
    Tally,
    accumulate,
    bin_edge,
    bin_index,
    empty_histogram,
    tally_histogram,
    tally_labels,
)


def draw(n: int, seed: int, decimals: int | None, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Overlapping classes; few decimals make many ties."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < share
    labels[:2] = [False, True]
    scores = rng.normal(labels * 0.8, 1.0)
    if decimals is not None:
        scores = scores.round(decimals)
    return torch.from_numpy(scores.astype(np.float32)), torch.from_numpy(labels)


CASES = {
    "no ties": draw(500, 0, None),
    "ties": draw(500, 1, 1),
    "heavy ties": draw(500, 2, 0),
    "one value": (torch.ones(20), torch.arange(20) % 3 == 0),
    "two images": draw(2, 3, None),
    "one positive": draw(300, 4, 1, share=0.0),
    "separated": (torch.arange(10.0), torch.arange(10) > 6),
    "inverted": (-torch.arange(10.0), torch.arange(10) > 6),
    "large and tiny": (torch.tensor([3e38, -3e38, 1e-44, 0.0, -1e-44]), torch.tensor([1, 0, 1, 0, 1]) > 0),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    return request.param  # type: ignore[no-any-return]


def test_roc_is_that_of_scikit_learn(case: tuple[Tensor, Tensor]) -> None:
    scores, labels = case
    fpr, tpr = curves.roc_curve(tally_labels(scores, labels))
    expected_fpr, expected_tpr, _ = sklearn_metrics.roc_curve(labels, scores, drop_intermediate=False)
    np.testing.assert_allclose(fpr, expected_fpr, atol=1e-15)
    np.testing.assert_allclose(tpr, expected_tpr, atol=1e-15)
    expected = sklearn_metrics.roc_auc_score(labels, scores)
    assert curves.auroc(tally_labels(scores, labels)) == pytest.approx(expected, abs=1e-12)


def test_precision_and_recall_are_those_of_scikit_learn(case: tuple[Tensor, Tensor]) -> None:
    scores, labels = case
    tally = tally_labels(scores, labels)
    precision, recall = curves.precision_recall_curve(tally)
    expected_precision, expected_recall, thresholds = sklearn_metrics.precision_recall_curve(labels, scores)
    np.testing.assert_allclose(tally.value, thresholds)
    np.testing.assert_allclose(precision, expected_precision[:-1], atol=1e-15)
    np.testing.assert_allclose(recall, expected_recall[:-1], atol=1e-15)
    expected = sklearn_metrics.average_precision_score(labels, scores)
    assert curves.average_precision(tally) == pytest.approx(expected, abs=1e-12)


def test_f1_is_that_of_scikit_learn_at_every_threshold(case: tuple[Tensor, Tensor]) -> None:
    scores, labels = case
    tally = tally_labels(scores, labels)
    expected = [sklearn_metrics.f1_score(labels, scores >= threshold) for threshold in tally.value]
    np.testing.assert_allclose(curves.f1_curve(tally), expected, atol=1e-12)
    assert curves.f1_max(tally) == pytest.approx(max(expected), abs=1e-12)


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_partial_area_is_that_of_scikit_learn(case: tuple[Tensor, Tensor], limit: float) -> None:
    scores, labels = case
    fpr, tpr, _ = sklearn_metrics.roc_curve(labels, scores)
    inside = fpr < limit
    at_limit = tpr[fpr == limit].min() if limit in fpr else np.interp(limit, fpr, tpr)
    expected = sklearn_metrics.auc(np.append(fpr[inside], limit), np.append(tpr[inside], at_limit))
    assert curves.aupro(tally_labels(scores, labels), limit) == pytest.approx(expected / limit, abs=1e-12)


@pytest.mark.parametrize("bits", [10, 14, 20])
def test_binned_figures_keep_the_stated_bound(case: tuple[Tensor, Tensor], bits: int) -> None:
    scores, labels = case
    histogram = empty_histogram(bits)
    accumulate(histogram, scores, labels)
    binned = tally_histogram(histogram[0], histogram[1])
    rounded = tally_labels(bin_edge(bin_index(scores, bits), bits), labels)
    for figure in (curves.auroc, curves.average_precision, curves.f1_max, curves.aupro):
        assert figure(binned) == figure(rounded)
    # Pairs that share a bin count half instead of 0 or 1.
    shared = float((binned.negative.double() * binned.positive).sum())
    bound = 0.5 * shared / float(binned.negative.sum() * binned.positive.sum())
    assert abs(curves.auroc(binned) - curves.auroc(tally_labels(scores, labels))) <= bound + 1e-12


@pytest.mark.parametrize("present", [True, False, None], ids=["all positive", "all negative", "empty"])
def test_figures_without_a_class_they_need_are_nan(present: bool | None) -> None:
    n = 0 if present is None else 5
    tally = tally_labels(torch.arange(float(n)), torch.full((n,), bool(present)))
    assert math.isnan(curves.auroc(tally))
    assert math.isnan(curves.aupro(tally))
    if present:
        assert curves.average_precision(tally) == 1.0
        assert curves.f1_max(tally) == 1.0
    else:
        assert math.isnan(curves.average_precision(tally))
        assert math.isnan(curves.f1_max(tally))


def test_perfect_separation_is_exactly_one() -> None:
    tally = tally_labels(torch.arange(1000.0), torch.arange(1000) >= 993)
    assert curves.auroc(tally) == 1.0
    assert curves.average_precision(tally) == 1.0
    assert curves.f1_max(tally) == 1.0


def test_a_billion_pixels_do_not_overflow() -> None:
    half = torch.tensor([10**9, 10**9])
    assert curves.auroc(Tally(torch.tensor([0.0, 1.0]), half, half)) == 0.5


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.5])
def test_the_limit_of_aupro_is_checked(limit: float) -> None:
    with pytest.raises(UsageError, match=rf"fpr_limit must lie in \(0, 1\]. Got {limit}."):
        curves.aupro(tally_labels(torch.arange(4.0), torch.arange(4) > 1), limit)


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (0.2, 0.1), (0.1, 0.1), (0.1, 2.0)])
def test_the_bounds_of_aupimo_are_checked(bounds: tuple[float, float]) -> None:
    with pytest.raises(UsageError, match="fpr_bounds must satisfy 0 < low < high <= 1"):
        curves.aupimo_credit(torch.ones(3), bounds)


def test_aupimo_credit_runs_from_the_upper_to_the_lower_bound() -> None:
    shared = torch.tensor([0.9, 0.09, 0.009, 0.001], dtype=torch.float64)  # F: 1, 0.1, 0.01, 0.001, then 0
    credit = curves.aupimo_credit(shared, (1e-2, 1e-1))
    torch.testing.assert_close(credit, torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0], dtype=torch.float64))
    credit = curves.aupimo_credit(shared, (1e-3, 1.0))
    torch.testing.assert_close(credit, torch.tensor([0.0, 1 / 3, 2 / 3, 1.0, 1.0], dtype=torch.float64))
