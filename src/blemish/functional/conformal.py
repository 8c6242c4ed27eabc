"""What n scores of normal images certify, on average and with bad luck; without torch."""

from __future__ import annotations

import math
from fractions import Fraction

from blemish.errors import CalibrationError, UsageError


def certified_rate(n: int, k: int) -> float:
    """The false-alarm rate 1 - k / (n + 1) that the k-th smallest of n normal scores keeps to on average.

    Holds for new normal images drawn like the n (exchangeable), with scores that don't tie (Vovk et al. 2005, split
    conformal).
    """
    return (n + 1 - k) / (n + 1)


def conditional_rate(n: int, k: int, level: float = 0.95) -> float:
    """The false-alarm rate that a share `level` of calibrations keeps to; `certified_rate` is their average.

    With one set of n normal scores drawn, the rate of the threshold at the k-th smallest is fixed: by chance it lies
    above or below the average, as Beta(n + 1 - k, k) for scores that don't tie (Vovk 2012, "Conditional validity of
    inductive conformal predictors"). For k = n this is 1 - (1 - level)^(1 / n).

    Raises:
        UsageError: not 1 <= k <= n, or `level` outside (0, 1).
    """
    if not (1 <= k <= n and 0 < level < 1):
        raise UsageError(f"Needed: 1 <= k <= n and 0 < level < 1. Got n={n}, k={k}, level={level}.")
    # The rate exceeds q where at least k of n scores lie below the (1 - q)-quantile; that falls as q grows.
    low, high = 0.0, 1.0
    for _ in range(60):
        q = (low + high) / 2
        log_terms = (
            math.lgamma(n + 1)
            - math.lgamma(i + 1)
            - math.lgamma(n - i + 1)
            + i * math.log1p(-q)
            + (n - i) * math.log(q)
            for i in range(k, n + 1)
        )
        low, high = (q, high) if math.fsum(map(math.exp, log_terms)) > 1 - level else (low, q)
    return high


def normal_rank(n: int, max_false_alarm_rate: float | None) -> int:
    """Which of n ascending normal scores is the threshold, counted from 1: the highest, or that for a wanted rate.

    Raises:
        CalibrationError: there are too few scores for the rate; the message names the number needed.
        UsageError: the rate lies outside (0, 1).
    """
    if n < 1:
        raise CalibrationError("A threshold needs at least 1 score of a normal image. Got 0.")
    if max_false_alarm_rate is None:
        return n
    if not 0 < max_false_alarm_rate < 1:
        raise UsageError(f"max_false_alarm_rate must lie between 0 and 1, both excluded. Got {max_false_alarm_rate}.")
    rate = Fraction(repr(float(max_false_alarm_rate)))  # the decimal that was typed: 0.1, not 0.1000000000000000055
    k = math.ceil((1 - rate) * (n + 1))
    if k > n:
        raise CalibrationError(
            f"max_false_alarm_rate={max_false_alarm_rate} needs at least {math.ceil(1 / rate) - 1} normal scores. "
            f"Got {n}: add normal images, or ask for {certified_rate(n, n):.3g} or more."
        )
    return k
