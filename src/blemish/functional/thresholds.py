"""Where normal ends: thresholds chosen for the rule of `functional.verdict`, `score >= threshold`, on raw scores."""

from __future__ import annotations

import math
from fractions import Fraction

import torch
from torch import Tensor

from blemish.errors import CalibrationError, UsageError
from blemish.functional.conformal import certified_rate
from blemish.functional.curves import f1_curve
from blemish.functional.histogram import (
    Tally,
    check_finite,
    tally_histogram,
    tally_labels,
)


def f1_threshold(scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """The highest observed score that maximizes F1 under `score >= threshold`, and that F1.

    Args:
        scores: finite scores of any shape; taken as float32.
        labels: same shape, bool, True for anomalous.

    Raises:
        CalibrationError: no label is True.
        NonFiniteError: a score is NaN or infinite.
    """
    return _best_f1(tally_labels(scores, labels))


def f1_threshold_from_histogram(histogram: Tensor) -> tuple[float, float]:
    """`f1_threshold` among bin edges, from a (2, 2 ** bits) histogram. The F1 is exact for that edge."""
    return _best_f1(tally_histogram(histogram[0], histogram[1]))


def normal_threshold(scores: Tensor, max_false_alarm_rate: float | None = None) -> float:
    """A threshold from scores of normal images alone.

    Args:
        scores: n finite scores of any shape; taken as float32.
        max_false_alarm_rate: a in (0, 1): the ceil((1 - a)(n + 1))-th smallest score, the split-conformal quantile.
            None: the highest score. `certified_rate` says what either promises.

    Raises:
        CalibrationError: there are too few scores for the rate; the message names the number needed.
        UsageError: the rate lies outside (0, 1).
        NonFiniteError: a score is NaN or infinite.
    """
    check_finite(scores)
    k = _normal_rank(scores.numel(), max_false_alarm_rate)
    return float(torch.kthvalue(scores.detach().reshape(-1).float(), k).values)


def _best_f1(tally: Tally) -> tuple[float, float]:
    if int(tally.positive.sum()) == 0:
        raise CalibrationError(
            "The F1 threshold needs at least 1 anomalous label. Got 0: calibrate on normal scores alone."
        )
    f1 = f1_curve(tally)
    best = int(torch.nonzero(f1 == f1.max())[-1])
    return float(tally.value[best]), float(f1[best])


def _normal_rank(n: int, max_false_alarm_rate: float | None) -> int:
    """Which of n ascending normal scores is the threshold, counted from 1."""
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
