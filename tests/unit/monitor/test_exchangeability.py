"""The test keeps its false-alarm rate, notices changes, and agrees with a naive loop."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blemish.errors import NonFiniteError, UsageError
from blemish.monitor.exchangeability import BETS, JUMP, ExchangeabilityTest


def test_it_agrees_with_the_formulas() -> None:
    scores = np.random.default_rng(3).integers(0, 12, 200).astype(float)  # with ties
    test, uniform = ExchangeabilityTest(np.random.default_rng(5)), np.random.default_rng(5)
    capitals = np.full(3, 1 / 3)
    lowest, at = 1.0, 0
    for t, score in enumerate(scores, start=1):
        seen = scores[:t]
        p = ((seen > score).sum() + uniform.random() * (seen == score).sum()) / t
        assert test.add(score) == pytest.approx(p)
        capitals = (1 - JUMP) * capitals + JUMP / 3 * capitals.sum()
        capitals = capitals * (1 + np.array(BETS) * (p - 0.5))
        assert test.log_capital == pytest.approx(math.log(capitals.sum()))
        if capitals.sum() < lowest - 1e-12:
            lowest, at = capitals.sum(), t
    assert test.lowest_at == at


def test_p_values_of_exchangeable_scores_are_uniform() -> None:
    rng = np.random.default_rng(0)
    test = ExchangeabilityTest(rng, reference=rng.lognormal(size=50))
    values = np.sort([test.add(score) for score in rng.lognormal(size=2000)])
    distance = np.abs(values - np.arange(1, 2001) / 2000).max()
    assert distance < 1.63 / math.sqrt(2000)  # Kolmogorov and Smirnov, 1 %


def test_false_alarms_are_as_rare_as_stated() -> None:
    alpha, runs, alarms = 0.05, 300, 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        test = ExchangeabilityTest(rng)
        defective = rng.random(400) < 0.1
        for score in rng.normal(size=400) + 8 * defective:  # a steady share of bad parts is no drift
            test.add(score)
        alarms += test.rejects(alpha)
    assert alarms / runs <= alpha + 2 * math.sqrt(alpha * (1 - alpha) / runs)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_a_change_is_noticed_and_its_moment_found(shift: float) -> None:
    rng = np.random.default_rng(1)
    test = ExchangeabilityTest(rng)
    for score in rng.normal(size=500):
        test.add(score)
    assert not test.rejects(0.001)
    for _ in range(400):
        test.add(rng.normal() + shift)
        if test.rejects(0.001):
            break
    assert test.rejects(0.001)
    assert 500 < test.count < 650


def test_what_has_no_rank_is_refused() -> None:
    test = ExchangeabilityTest(np.random.default_rng(0))
    with pytest.raises(NonFiniteError, match="Got nan"):
        test.add(float("nan"))
    with pytest.raises(UsageError, match=r"alpha must be between 0 and 1, both excluded. Got 1"):
        test.rejects(1)
    assert test.count == 0
