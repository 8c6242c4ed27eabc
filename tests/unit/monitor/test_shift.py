"""A shift of good-looking images is told, and neither defects nor chance are taken for one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from blemish.monitor.shift import LEAST, LEVEL, ShiftTest


def batch_of(reference: np.ndarray, incoming: np.ndarray, threshold: float = math.inf) -> ShiftTest:
    test = ShiftTest(reference.tolist(), threshold)
    for score in incoming:
        test.add(float(score))
    return test


@pytest.mark.parametrize("seed", range(5))
def test_the_p_value_is_that_of_mann_and_whitney(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference, incoming = rng.standard_normal(60), rng.standard_normal(90) + 0.2
    wanted = mannwhitneyu(incoming, reference, alternative="greater", method="asymptotic", use_continuity=False)
    assert batch_of(reference, incoming).p_value == pytest.approx(wanted.pvalue, rel=1e-6)


def test_batches_without_a_shift_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    alarms = sum(batch_of(rng.lognormal(size=50), rng.lognormal(size=80)).sentence is not None for _ in range(2000))
    assert alarms <= 2000 * LEVEL + 4 * math.sqrt(2000 * LEVEL)


def test_a_shift_is_told_and_defects_are_none() -> None:
    rng = np.random.default_rng(0)
    reference = rng.lognormal(0, 0.2, 100)
    threshold = float(np.quantile(reference, 0.9))
    good = rng.lognormal(0, 0.2, 100)
    shifted = batch_of(reference, 1.15 * good, threshold)
    assert shifted.sentence is not None
    assert f"The {shifted.count} images called normal score higher" in shifted.sentence
    assert batch_of(reference, np.concatenate([good, rng.uniform(2, 9, 300)]), threshold).sentence is None
    assert batch_of(reference, good / 2, threshold).sentence is None, "lower scores alarm nobody"


def test_few_scores_say_nothing() -> None:
    reference = np.linspace(1, 2, LEAST)
    assert batch_of(reference, np.full(LEAST - 1, 1.99)).p_value is None
    assert batch_of(reference[1:], np.full(LEAST, 1.99)).p_value is None
    test = batch_of(reference, np.full(LEAST, 1.99))
    assert test.p_value is not None
    for odd in (math.nan, math.inf, -math.inf):
        test.add(odd)
    assert test.count == LEAST
    assert batch_of(np.empty(0), np.ones(50)).p_value is None
