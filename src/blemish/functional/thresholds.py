"""Where normal ends: choosing a threshold, moving it by a sensitivity, applying it, and showing scores relative to it.

There is one rule, `score >= threshold` is anomalous, and `is_anomalous` is the only place that applies it. Thresholds
are chosen for that rule, on raw scores. With threshold theta, lowest and highest calibration scores lo and hi and
sensitivity alpha (0.5: neutral)::

    normalized = clip((s - theta) / (hi - lo) + 0.5, 0, 1)          anomalous when normalized >= 1 - alpha
    s          >= theta + (0.5 - alpha) (hi - lo)                   the same on raw scores, and the rule that decides

The two lines agree in real numbers but not in float32, so a normalized score that rounding puts on the wrong side of
the cut is moved to its own side. Functions from `raw_threshold` on take and give float32 tensors and branch on no
value: they can be traced into a graph.
"""

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

_UNIT = 2.0**-24 * (1 + 2.0**-23)  # a hair over half the spacing of float32 just above 1
_SMALLEST = 2.0**-149  # the smallest positive float32


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


def raw_threshold(threshold: Tensor, lo: Tensor, hi: Tensor, sensitivity: Tensor) -> Tensor:
    """Move a threshold by a sensitivity: theta + (0.5 - alpha)(hi - lo), on the scale of raw scores.

    Args:
        threshold: theta, float32, any shape that broadcasts with the others.
        lo: lowest calibration score, finite.
        hi: highest calibration score, finite, at least `lo`.
        sensitivity: alpha in [0, 1]. 0.5 gives exactly theta, 1 gives minus infinity: everything is anomalous.

    Returns:
        float32 tensor. Where lo == hi, a sensitivity below 0.5 gives the next float above theta. NaN in gives NaN out,
        which `is_anomalous` takes for anomalous.
    """
    margin = (1 - 2 * sensitivity) * (hi * 0.5 - lo * 0.5)  # halves, because hi - lo may overflow
    moved = torch.where(sensitivity == 0.5, threshold, threshold + margin)
    moved = torch.where((hi <= lo) & (sensitivity < 0.5), _next_above(threshold), moved)
    return torch.where(sensitivity >= 1, -torch.inf, moved)


def is_anomalous(scores: Tensor, threshold: Tensor) -> Tensor:
    """The verdict, bool: `score >= threshold`. Fails closed: NaN or infinite scores, NaN thresholds are anomalous."""
    return ~(scores < threshold) | (scores == -torch.inf)


def normalize(scores: Tensor, threshold: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    """Scores for people: clip((s - theta) / (hi - lo) + 0.5, 0, 1), float32, with the threshold at exactly 0.5.

    Where lo == hi the result is 0, 0.5 or 1, by the sign of s - theta. NaN and infinite scores give 1.
    """
    span = hi * 0.5 - lo * 0.5
    flat = span <= 0
    ratio = (scores * 0.5 - threshold * 0.5) / torch.where(flat, 1.0, span) + 0.5
    step = torch.where(scores > threshold, 1.0, torch.where(scores < threshold, 0.0, 0.5))
    broken = torch.isnan(ratio) | (scores == -torch.inf)
    return torch.where(broken, 1.0, torch.where(flat, step, ratio.clamp(0, 1)))


def normalize_consistently(scores: Tensor, threshold: Tensor, lo: Tensor, hi: Tensor, sensitivity: Tensor) -> Tensor:
    """`normalize`, with rounding kept from contradicting the verdict.

    For every float32 input, `result >= 1 - sensitivity` equals `is_anomalous(scores, raw_threshold(...))`: an anomalous
    score is lifted to 1 - alpha if it fell below, a normal one lowered to the next float under it if it rose too high.
    """
    cut = 1 - sensitivity
    value = normalize(scores, threshold, lo, hi)
    anomalous = is_anomalous(scores, raw_threshold(threshold, lo, hi, sensitivity))
    return torch.where(anomalous, torch.maximum(value, cut), torch.minimum(value, -_next_above(-cut)))


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


def _next_above(x: Tensor) -> Tensor:
    """`torch.nextafter(x, inf)` for float32 by arithmetic alone, because graph formats have no such operator.

    Adding just over half a spacing rounds to the next float (Rump et al. 2009, "Computing predecessor and successor in
    rounding to nearest"). Tiny numbers are scaled up first, where half a spacing would itself be rounded.
    """
    scale = torch.where(x.abs() < 2.0**-60, 2.0**100, 1.0)
    scaled = x * scale
    return (scaled + torch.clamp(scaled.abs() * _UNIT, min=scale * _SMALLEST)) / scale
