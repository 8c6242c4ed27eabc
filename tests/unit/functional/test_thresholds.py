from __future__ import annotations

import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from blemish.errors import CalibrationError, NonFiniteError, UsageError
from blemish.functional.conformal import certified_rate
from blemish.functional.histogram import accumulate, bin_edge, bin_index, empty_histogram
from blemish.functional.thresholds import (
    cost_threshold,
    f1_threshold,
    f1_threshold_from_histogram,
    normal_threshold,
)
from blemish.functional.verdict import is_anomalous, normalize, normalize_consistently, raw_threshold

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
ORDINARY = st.floats(-1000, 1000, width=32)
FEW = st.sampled_from([-1.5, 0.0, 0.25, 0.5, 1.0, 7.0])
SENSITIVITY = st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 1.0, 2.0**-149, 1 - 2.0**-24]))
NAN, INF = torch.nan, torch.inf


def f32(value: float | list[float]) -> Tensor:
    return torch.tensor(value, dtype=torch.float32)


# --- choosing a threshold


@given(st.lists(st.tuples(st.one_of(FEW, FINITE), st.booleans()), min_size=1, max_size=25))
def test_f1_threshold_is_the_highest_best_of_all(pairs: list[tuple[float, bool]]) -> None:
    assume(any(label for _, label in pairs))
    best_f1, best_threshold = Fraction(-1), -np.inf
    for threshold, _ in sorted(pairs):
        hits = sum(label and score >= threshold for score, label in pairs)
        flagged = sum(score >= threshold for score, _ in pairs)
        f1 = Fraction(2 * hits, flagged + sum(label for _, label in pairs))
        if f1 >= best_f1:
            best_f1, best_threshold = f1, threshold
    scores, labels = torch.tensor([score for score, _ in pairs]), torch.tensor([label for _, label in pairs])
    threshold, f1_found = f1_threshold(scores, labels)
    assert threshold == best_threshold
    assert f1_found == float(best_f1)


def test_the_chosen_threshold_reaches_its_f1_under_the_decision_rule() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(40, 30, generator=generator) < 0.2
    scores = (torch.randn(40, 30, generator=generator) + labels).mul(4).round()
    threshold, f1 = f1_threshold(scores, labels)
    verdict = is_anomalous(scores, f32(threshold))
    assert f1 == pytest.approx(float(2 * (verdict & labels).sum() / (verdict.sum() + labels.sum())))


@pytest.mark.parametrize("bits", [10, 16])
def test_f1_threshold_from_a_histogram_is_that_of_rounded_scores(bits: int) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.rand(3000, generator=generator) < 0.2
    scores = torch.randn(3000, generator=generator) + labels
    histogram = empty_histogram(bits)
    accumulate(histogram, scores, labels)
    found = f1_threshold_from_histogram(histogram)
    assert found == f1_threshold(bin_edge(bin_index(scores, bits), bits), labels)
    verdict = is_anomalous(scores, f32(found[0]))  # the F1 is exact for unrounded scores too
    assert found[1] == pytest.approx(float(2 * (verdict & labels).sum() / (verdict.sum() + labels.sum())))


def test_f1_needs_an_anomalous_label() -> None:
    with pytest.raises(CalibrationError, match=r"The F1 threshold needs at least 1 anomalous label. Got 0"):
        f1_threshold(torch.arange(3.0), torch.zeros(3, dtype=torch.bool))


def test_without_normal_labels_the_lowest_score_is_best() -> None:
    assert f1_threshold(torch.tensor([3.0, 2.0, 5.0]), torch.ones(3, dtype=torch.bool)) == (2.0, 1.0)


@given(st.lists(FINITE, min_size=1, max_size=40), st.integers(1, 60))
def test_normal_threshold_is_the_conformal_order_statistic(values: list[float], percent: int) -> None:
    n, rate = len(values), percent / 100
    k = -((-(100 - percent) * (n + 1)) // 100)  # ceil in whole numbers
    if k > n:
        with pytest.raises(CalibrationError):
            normal_threshold(torch.tensor(values), rate)
    else:
        assert normal_threshold(torch.tensor(values), rate) == sorted(values)[k - 1]
        assert certified_rate(n, k) <= rate
    assert normal_threshold(torch.tensor(values)) == max(values)


@pytest.mark.parametrize(
    ("rate", "n"), [(0.1, 9), (0.3, 9), (0.7, 9), (0.29, 99), (0.58, 99), (0.01, 99), (0.05, 19), (1e-5, 99999)]
)
def test_a_rate_that_n_certifies_exactly_is_not_lost_to_rounding(rate: float, n: int) -> None:
    scores = torch.arange(1.0, n + 1)
    k = round((1 - rate) * (n + 1))
    assert normal_threshold(scores, rate) == k
    assert certified_rate(n, k) == pytest.approx(rate)


def test_conformal_thresholds_keep_their_promise_on_average() -> None:
    """Over many draws of 9 normal scores, a new one reaches the threshold in 30 % of cases."""
    draws = torch.rand(4000, 10, generator=torch.Generator().manual_seed(2))
    alarms = sum(bool(draw[9] >= normal_threshold(draw[:9], 0.3)) for draw in draws)
    assert alarms / len(draws) == pytest.approx(0.3, abs=0.03)


def test_too_few_normal_scores_name_the_number_needed() -> None:
    message = "max_false_alarm_rate=0.01 needs at least 99 normal scores. Got 20: add normal images, or ask for 0.0476"
    with pytest.raises(CalibrationError, match=re.escape(message)):
        normal_threshold(torch.arange(20.0), 0.01)
    assert normal_threshold(torch.arange(99.0), 0.01) == 98.0
    with pytest.raises(CalibrationError, match=r"at least 1 score of a normal image. Got 0"):
        normal_threshold(torch.zeros(0))


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, NAN])
def test_a_false_alarm_rate_is_a_probability(rate: float) -> None:
    with pytest.raises(UsageError, match=r"max_false_alarm_rate must lie between 0 and 1, both excluded. Got"):
        normal_threshold(torch.arange(20.0), rate)


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_broken_scores_choose_no_threshold(broken: float) -> None:
    scores = torch.tensor([1.0, broken])
    with pytest.raises(NonFiniteError, match="Scores must be finite"):
        normal_threshold(scores)
    with pytest.raises(NonFiniteError, match="Scores must be finite"):
        f1_threshold(scores, torch.tensor([True, False]))


# --- moving and applying it


@given(ORDINARY, ORDINARY, ORDINARY, st.floats(0, 1, exclude_max=True, width=32))
def test_raw_threshold_is_the_formula(theta: float, a: float, b: float, alpha: float) -> None:
    lo, hi = sorted((a, b))
    assume(lo < hi)
    expected = theta + (0.5 - alpha) * (hi - lo)
    found = float(raw_threshold(f32(theta), f32(lo), f32(hi), f32(alpha)))
    assert found == pytest.approx(expected, abs=2.0**-22 * (abs(theta) + hi - lo) + 1e-44)


@given(FINITE, FINITE, FINITE)
def test_the_neutral_sensitivity_gives_exactly_theta(theta: float, a: float, b: float) -> None:
    lo, hi = sorted((a, b))
    assert raw_threshold(f32(theta), f32(lo), f32(hi), f32(0.5)) == theta
    assert raw_threshold(f32(theta), f32(lo), f32(hi), f32(1.0)) == -INF


@given(FINITE, FINITE, st.floats(0, 0.5, width=32, exclude_max=True))
@example(2.0**-125, 0.0, 0.25)
@example(1.75 * 2.0**-125, 0.0, 0.25)
@example(-(2.0**-126), 0.0, 0.25)
@example(-(2.0**-149), 0.0, 0.25)
@example(-1.0, 0.0, 0.25)
@example(2.0**-60, 0.0, 0.25)
@example(-3.4028234663852886e38, 0.0, 0.25)
def test_a_flat_range_excludes_theta_below_neutral_and_includes_it_above(theta: float, lo: float, alpha: float) -> None:
    above = raw_threshold(f32(theta), f32(lo), f32(lo), f32(alpha))
    assert above == torch.nextafter(f32(theta), f32(INF))
    assert raw_threshold(f32(theta), f32(lo), f32(lo), f32(0.75)) == theta


@pytest.mark.parametrize(
    ("score", "threshold", "anomalous"),
    [
        (1.0, 1.0, True),
        (0.99, 1.0, False),
        (1.01, 1.0, True),
        (NAN, 1.0, True),
        (INF, 1.0, True),
        (-INF, 1.0, True),
        (0.0, NAN, True),
        (NAN, NAN, True),
        (-3e38, -INF, True),
        (3e38, INF, False),
        (NAN, INF, True),
    ],
)
def test_the_decision_fails_closed(score: float, threshold: float, anomalous: bool) -> None:
    assert bool(is_anomalous(f32(score), f32(threshold))) is anomalous


# --- showing scores


@given(ORDINARY, ORDINARY, ORDINARY, ORDINARY)
def test_normalize_is_the_formula(score: float, theta: float, a: float, b: float) -> None:
    lo, hi = sorted((a, b))
    assume(hi - lo > 1e-3)
    expected = np.clip((score - theta) / (hi - lo) + 0.5, 0, 1)
    found = float(normalize(f32(score), f32(theta), f32(lo), f32(hi)))
    # The subtraction rounds relative to its result, and `+ 0.5` relative to a number up to 1.
    assert found == pytest.approx(expected, abs=1e-6)


@given(FINITE, FINITE, FINITE)
def test_the_threshold_is_shown_at_one_half(theta: float, a: float, b: float) -> None:
    lo, hi = sorted((a, b))
    assert normalize(f32(theta), f32(theta), f32(lo), f32(hi)) == 0.5


def test_a_flat_range_shows_the_side_of_the_threshold() -> None:
    shown = normalize(torch.tensor([0.9, 1.0, 1.1]), f32(1.0), f32(5.0), f32(5.0))
    assert shown.tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("lo", "hi"), [(0.0, 2.0), (1.0, 1.0), (-3e38, 3e38)])
def test_broken_scores_are_shown_at_the_top(lo: float, hi: float) -> None:
    assert normalize(torch.tensor([NAN, INF, -INF]), f32(1.0), f32(lo), f32(hi)).tolist() == [1.0, 1.0, 1.0]
    assert normalize(torch.tensor([0.0, 9.0]), f32(NAN), f32(lo), f32(hi)).tolist() == [1.0, 1.0]


def neighbors(value: Tensor) -> list[Tensor]:
    return [value, torch.nextafter(value, f32(INF)), torch.nextafter(value, f32(-INF))]


@settings(max_examples=1000)
@given(
    st.lists(st.floats(width=32), max_size=8),
    st.one_of(FINITE, FEW),
    st.one_of(FINITE, FEW),
    st.one_of(FINITE, FEW),
    SENSITIVITY,
)
@example([], 1.0, 1.0, 1.0, 0.25)
@example([], 1e30, 1e-45, 0.0, 0.3)
@example([], 3e38, -3e38, 3e38, 0.1)
@example([], 16777216.0, 0.0, 1.0, 0.3)
def test_shown_scores_never_contradict_the_verdict(
    values: list[float], theta: float, a: float, b: float, alpha: float
) -> None:
    lo, hi = (f32(value) for value in sorted((a, b)))
    threshold, sensitivity = f32(theta), f32(alpha)
    raw = raw_threshold(threshold, lo, hi, sensitivity)
    edge_cases = [near for value in (threshold, lo, hi, raw) for near in neighbors(value)]
    scores = torch.stack([*edge_cases, *(f32(value) for value in [*values, NAN, INF, -INF, 0.0])])

    shown = normalize_consistently(scores, threshold, lo, hi, sensitivity)
    verdict = is_anomalous(scores, raw)

    assert torch.equal(shown >= 1 - sensitivity, verdict)
    assert bool(((shown >= 0) & (shown <= 1)).all())
    finite = scores[scores.isfinite()].sort().values
    assert bool((normalize_consistently(finite, threshold, lo, hi, sensitivity).diff() >= 0).all())


@settings(max_examples=300)
@given(st.lists(ORDINARY, min_size=1, max_size=8), ORDINARY, ORDINARY, ORDINARY, st.floats(0, 1, width=32))
def test_the_verdict_is_that_of_exact_arithmetic_away_from_rounding(
    values: list[float], theta: float, a: float, b: float, alpha: float
) -> None:
    lo, hi = sorted((a, b))
    assume(hi > lo)
    raw = raw_threshold(f32(theta), f32(lo), f32(hi), f32(alpha))
    for value in values:
        exact = (Fraction(value) - Fraction(theta)) / (Fraction(hi) - Fraction(lo)) + Fraction(1, 2)
        distance = min(max(exact, Fraction(0)), Fraction(1)) - (1 - Fraction(alpha))
        if abs(distance) * (Fraction(hi) - Fraction(lo)) > Fraction(abs(theta) + hi - lo) / 2**22 + Fraction(1, 10**40):
            assert bool(is_anomalous(f32(value), raw)) is (distance > 0)


def test_consistent_scores_are_plain_ones_where_rounding_does_no_harm() -> None:
    scores = torch.linspace(-1, 9, 57)
    statistics = f32(3.0), f32(0.5), f32(7.25)
    torch.testing.assert_close(normalize_consistently(scores, *statistics, f32(0.4)), normalize(scores, *statistics))


class _PostProcess(nn.Module):
    def forward(self, scores: Tensor, threshold: Tensor, lo: Tensor, hi: Tensor, alpha: Tensor) -> list[Tensor]:
        raw = raw_threshold(threshold, lo, hi, alpha)
        return [raw, is_anomalous(scores, raw), normalize_consistently(scores, threshold, lo, hi, alpha)]


def test_the_rule_is_a_graph_without_branches_on_values() -> None:
    scores = torch.tensor([0.0, 1.0, 2.0, NAN, INF, -INF])
    traced = torch.export.export(_PostProcess(), (scores, f32(1.0), f32(0.0), f32(4.0), f32(0.5))).module()
    for lo, hi, alpha in [(0.0, 4.0, 0.5), (0.0, 4.0, 0.25), (2.0, 2.0, 0.25), (0.0, 4.0, 1.0)]:
        arguments = scores, f32(1.0), f32(lo), f32(hi), f32(alpha)
        for found, expected in zip(traced(*arguments), _PostProcess()(*arguments), strict=True):
            torch.testing.assert_close(found, expected, rtol=0, atol=0)


# --- with a price for misses


@given(
    st.lists(ORDINARY, min_size=1, max_size=12),
    st.lists(ORDINARY, min_size=1, max_size=12),
    st.sampled_from([0.2, 1, 7.5]),
)
def test_no_threshold_costs_less(good: list[float], bad: list[float], miss_cost: float) -> None:
    def cost(threshold: float) -> Fraction:
        alarms, misses = sum(score >= threshold for score in good), sum(score < threshold for score in bad)
        return Fraction(alarms, len(good)) + Fraction(miss_cost) * Fraction(misses, len(bad))

    found = cost_threshold(torch.tensor(good), torch.tensor(bad), miss_cost)
    assert cost(found) <= min(map(cost, [*good, *bad])) + Fraction(1, 10**9)


def test_the_middle_of_the_best_gap() -> None:
    assert cost_threshold(f32([1.0, 2.0]), f32([4.0, 9.0]), 1.0) == 3.0
    assert cost_threshold(f32([1.0, 5.0]), f32([4.0, 9.0]), 1.0) == 2.5, "of equal costs the one with fewer misses"
    assert cost_threshold(f32([1.0, 5.0]), f32([4.0, 9.0]), 0.5) == 7.0
    assert cost_threshold(f32([5.0]), f32([4.0]), 10.0) == 4.0, "everything is anomalous"
    near = float(np.nextafter(np.float32(1), np.float32(2)))
    assert cost_threshold(f32([1.0]), f32([near]), 1.0) == near, "there is no middle"


def test_a_cost_needs_both_kinds() -> None:
    with pytest.raises(CalibrationError, match="Got 0 and 1"):
        cost_threshold(torch.empty(0), f32([1.0]), 1.0)
    with pytest.raises(UsageError, match=r"miss_cost must be a number above 0. Got 0"):
        cost_threshold(f32([1.0]), f32([1.0]), 0.0)
    with pytest.raises(NonFiniteError):
        cost_threshold(f32([1.0]), f32([NAN]), 1.0)
