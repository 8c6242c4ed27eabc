"""Intervals against a naive bootstrap over lists, an enumeration of all resamples, and scipy's Wilson interval."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, binomtest
from sklearn.metrics import average_precision_score, roc_auc_score

from blemish.errors import NonFiniteError, UsageError
from blemish.functional.curves import auroc, average_precision
from blemish.functional.histogram import Tally
from blemish.functional.intervals import bootstrap
from blemish.functional.proportion import at_least, wilson

SCORES = torch.tensor([0.1, 0.4, 0.4, 0.8, 0.3, 0.4, 0.9, 0.9, 0.2])
LABELS = torch.tensor([False, False, True, True, False, False, True, False, True])
FIGURES = {"auroc": auroc, "ap": average_precision}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def naive(resamples: int) -> dict[str, list[float]]:
    """Every resample as two lists, every figure by scikit-learn."""
    draw = generator()
    good, bad = SCORES[~LABELS].tolist(), SCORES[LABELS].tolist()
    found: dict[str, list[float]] = {"auroc": [], "ap": []}
    for _ in range(resamples):
        negatives = [good[i] for i in torch.randint(len(good), (len(good),), generator=draw)]
        positives = [bad[i] for i in torch.randint(len(bad), (len(bad),), generator=draw)]
        truth = [0] * len(negatives) + [1] * len(positives)
        found["auroc"].append(roc_auc_score(truth, negatives + positives))
        found["ap"].append(average_precision_score(truth, negatives + positives))
    return found


@pytest.mark.parametrize("level", [0.95, 0.5])
def test_bootstrap_is_the_naive_one(level: float) -> None:
    found = bootstrap(SCORES, LABELS, FIGURES, generator(), resamples=200, level=level)
    for name, values in naive(200).items():
        expected = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        np.testing.assert_allclose(found[name], expected, rtol=1e-12)


def test_bootstrap_has_the_distribution_of_all_resamples() -> None:
    """Three good and two anomalous scores: 27 x 4 equally likely resamples."""
    good, bad = [0.1, 0.5, 0.7], [0.4, 0.9]
    every = [
        roc_auc_score([0, 0, 0, 1, 1], [*negatives, *positives])
        for negatives in itertools.product(good, repeat=3)
        for positives in itertools.product(bad, repeat=2)
    ]
    labels = torch.tensor([False] * 3 + [True] * 2)
    found = bootstrap(torch.tensor(good + bad), labels, {"auroc": auroc}, generator(), resamples=4000, level=0.8)
    np.testing.assert_allclose(found["auroc"], np.quantile(every, [0.1, 0.9]), atol=1e-6)


def test_bootstrap_is_seeded_and_leaves_the_global_state_alone() -> None:
    state = torch.get_rng_state()
    first, second = (bootstrap(SCORES, LABELS, FIGURES, generator(), resamples=20) for _ in range(2))
    assert first == second
    assert torch.equal(torch.get_rng_state(), state)


def test_strata_keep_their_sizes_and_absent_values_are_left_out() -> None:
    seen: list[Tally] = []

    def look(tally: Tally) -> float:
        seen.append(tally)
        return 0.0

    bootstrap(SCORES, LABELS, {"look": look}, generator(), resamples=50)
    assert {int(tally.negative.sum()) for tally in seen} == {5}
    assert {int(tally.positive.sum()) for tally in seen} == {4}
    assert all(bool((tally.negative + tally.positive > 0).all()) for tally in seen)
    assert any(len(tally.value) < len(set(SCORES.tolist())) for tally in seen)


def test_one_class_is_enough_for_a_figure_of_one_class() -> None:
    share = {"share": lambda tally: float(tally.negative[tally.value >= 0.4].sum() / tally.negative.sum())}
    found = bootstrap(SCORES[~LABELS], LABELS[~LABELS], share, generator(), resamples=100)["share"]
    assert 0 <= found.low < 0.6 < found.high <= 1


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.95, 0.6]))
def test_wilson_is_scipys(counts: tuple[int, int], level: float) -> None:
    events, trials = counts
    expected = binomtest(events, trials).proportion_ci(level, method="wilson")
    found = wilson(events, trials, level)
    np.testing.assert_allclose(found, (expected.low, expected.high), atol=1e-12)
    assert 0 <= found.low <= events / trials <= found.high <= 1


def test_no_event_is_no_certainty() -> None:
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)
    assert wilson(0, 20).low == 0
    assert wilson(20, 20).high == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: wilson(3, 2), "Got 3 events in 2 trials"),
        (lambda: wilson(0, 0), "Got 0 events in 0 trials"),
        (lambda: wilson(1, 2, level=1.0), "level must lie between 0 and 1, both excluded. Got 1.0"),
        (lambda: bootstrap(SCORES, LABELS, FIGURES, generator(), resamples=0), "Got 0 resamples, 9 scores"),
        (lambda: bootstrap(SCORES[:0], LABELS[:0], FIGURES, generator()), "Got 1000 resamples, 0 scores"),
        (lambda: bootstrap(SCORES, LABELS[:3], FIGURES, generator()), "must have one shape"),
    ],
)
def test_wrong_arguments(call: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()  # type: ignore[operator]


def test_scores_must_be_finite() -> None:
    with pytest.raises(NonFiniteError, match="Scores must be finite"):
        bootstrap(torch.tensor([0.0, float("nan")]), torch.tensor([True, False]), FIGURES, generator())


@pytest.mark.parametrize(
    ("events", "trials", "rate"), [(0, 5, 0.1), (1, 5, 0.1), (5, 5, 0.1), (30, 200, 0.1), (3, 9, 0.0), (3, 9, 1.0)]
)
def test_the_tail_of_the_binomial(events: int, trials: int, rate: float) -> None:
    assert at_least(events, trials, rate) == pytest.approx(binom.sf(events - 1, trials, rate), rel=1e-9, abs=1e-15)
