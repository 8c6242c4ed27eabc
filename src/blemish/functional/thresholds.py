"""Where normal ends: thresholds chosen for the rule of `functional.verdict`, `score >= threshold`, on raw scores."""

from __future__ import annotations

import torch
from torch import Tensor

from blemish.errors import CalibrationError
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
            None: the highest score. `certified_rate` says what either promises.

    Raises:
        CalibrationError: there are too few scores for the rate; the message names the number needed.
        UsageError: the rate lies outside (0, 1).
        NonFiniteError: a score is NaN or infinite.
    """
    check_finite(scores)
    k = normal_rank(scores.numel(), max_false_alarm_rate)
    return float(torch.kthvalue(scores.detach().reshape(-1).float(), k).values)


def _best_f1(tally: Tally) -> tuple[float, float]:
    if int(tally.positive.sum()) == 0:
        raise CalibrationError(
            "The F1 threshold needs at least 1 anomalous label. Got 0: calibrate on normal scores alone."
        )
    f1 = f1_curve(tally)
    best = int(torch.nonzero(f1 == f1.max())[-1])
    return float(tally.value[best]), float(f1[best])
