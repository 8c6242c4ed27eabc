"""Where normal ends: thresholds chosen for the rule of `functional.verdict`, `score >= threshold`, on raw scores."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blemish.errors import CalibrationError, UsageError
from blemish.functional.conformal import normal_rank
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
            None: the highest score. `blemish.functional.conformal` says what either promises.

    Raises:
        CalibrationError: there are too few scores for the rate; the message names the number needed.
        UsageError: the rate lies outside (0, 1).
        NonFiniteError: a score is NaN or infinite.
    """
    check_finite(scores)
    k = normal_rank(scores.numel(), max_false_alarm_rate)
    return float(torch.kthvalue(scores.detach().reshape(-1).float(), k).values)


def cost_threshold(normal: Tensor, anomalous: Tensor, miss_cost: float) -> float:
    """The threshold with the least (share of normal ones at or above it) + miss_cost * (share of anomalous ones below).

    Between two neighboring scores the cost is the same; of the best interval the middle is taken, so that neither of
    them decides alone. Of equal intervals the lowest is taken: a defect is rather found than missed.

    Args:
        normal: n finite scores (n,), taken as float32.
        anomalous: m finite scores (m,).
        miss_cost: above 0.

    Raises:
        CalibrationError: one of them is empty.
        NonFiniteError: a score is NaN or infinite.
        UsageError: `miss_cost` isn't a positive number.
    """
    check_finite(normal)
    check_finite(anomalous)
    if not len(normal) or not len(anomalous):
        raise CalibrationError(f"A cost needs normal and anomalous scores. Got {len(normal)} and {len(anomalous)}.")
    if not 0 < miss_cost < math.inf:
        raise UsageError(f"miss_cost must be a number above 0. Got {miss_cost}.")
    good, bad = normal.detach().float().sort().values, anomalous.detach().float().sort().values
    steps = torch.cat([good, bad]).unique()  # (s,) ascending; step i ends the i-th interval, which it belongs to
    alarms = (len(good) - torch.searchsorted(good, steps)).double() / len(good)
    misses = torch.searchsorted(bad, steps).double() / len(bad)
    best = int((alarms + miss_cost * misses).argmin())
    if best == 0:
        return float(steps[0])
    middle = float((steps[best - 1].double() + steps[best].double()) / 2)
    lowest = float(torch.nextafter(steps[best - 1], steps[best]))  # between neighbors of float32 there is no middle
    return max(lowest, float(torch.tensor(middle)))


def _best_f1(tally: Tally) -> tuple[float, float]:
    if int(tally.positive.sum()) == 0:
        raise CalibrationError(
            "The F1 threshold needs at least 1 anomalous label. Got 0: calibrate on normal scores alone."
        )
    f1 = f1_curve(tally)
    best = int(torch.nonzero(f1 == f1.max())[-1])
    return float(tally.value[best]), float(f1[best])
