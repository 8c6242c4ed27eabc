"""Figures of a ranking: ROC, precision and recall, F1, per-region and per-image overlap.

Each figure is computed from a `Tally`: the negatives and positives at each distinct value. Whether the values are
sorted scores (exact) or histogram bins (bounded memory) makes no difference here. A threshold t stands for "`score >=
t` is positive"; scores that tie are always taken together, so no figure depends on the order of its input. Higher
scores are more abnormal.

Where a class that a figure needs is empty, the figure is NaN: callers who can say why check first. All sums are
float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.histogram import Tally


def roc_curve(tally: Tally) -> tuple[Tensor, Tensor]:
    """False and true positive rates, (K + 1,) float64 each, from (0, 0) to (1, 1), for falling thresholds."""
    return _rates(tally.negative), _rates(tally.positive)


def auroc(tally: Tally) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half."""
    outranked = _at_or_above(tally.positive) - tally.positive / 2  # by how many positives a negative is
    return float((outranked * tally.negative).sum() / (tally.negative.sum() * tally.positive.sum().double()))


def precision_recall_curve(tally: Tally) -> tuple[Tensor, Tensor]:
    """Precision and recall, each (K,) float64, at every value as the threshold, in ascending order of the values."""
    hits, flagged = _at_or_above(tally.positive), _at_or_above(tally.negative + tally.positive)
    return hits / flagged, hits / hits[:1]


def average_precision(tally: Tally) -> float:
    """Area under the steps of precision over recall, without interpolation: sum_k (R_k - R_k+1) P_k, ascending."""
    precision, _ = precision_recall_curve(tally)
    positive = tally.positive.double()
    return float((precision * positive).sum() / positive.sum())


def f1_curve(tally: Tally) -> Tensor:
    """(K,) float64: F1 = 2 TP / (positives + flagged) at every value as the threshold."""
    hits, flagged = _at_or_above(tally.positive), _at_or_above(tally.negative + tally.positive)
    return 2 * hits / (hits[:1] + flagged)


def f1_max(tally: Tally) -> float:
    """The highest F1 that any threshold reaches."""
    return float(f1_curve(tally).max()) if bool(tally.positive.any()) else math.nan


def aupro(tally: Tally, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap up to a false-positive rate, divided by it (Bergmann et al. 2021, MVTec AD).

    Args:
        tally: `negative` counts the normal pixels of all images; `positive` holds the summed weights of defect pixels,
            where a pixel of a connected region of area A weighs 1 / A. Each region then counts the same, and the
            overlap averaged over regions is the true positive rate of the weights.
        fpr_limit: in (0, 1]. The curve is interpolated linearly at the limit.
    """
    if not 0 < fpr_limit <= 1:
        raise UsageError(f"fpr_limit must lie in (0, 1]. Got {fpr_limit}.")
    return _partial_area(*roc_curve(tally), limit=fpr_limit) / fpr_limit


def aupimo_credit(shared: Tensor, fpr_bounds: tuple[float, float] = (1e-5, 1e-4)) -> Tensor:
    """What a defect pixel at each value contributes to its image's AUPIMO (Bertoldo et al. 2024, arXiv 2401.01984).

    AUPIMO of an image is the recall R(z) among its defect pixels, averaged over a shared false-positive rate z that is
    log-uniform between the bounds L and U, where R(z) uses the lowest threshold whose shared rate is at most z. A pixel
    with score s is found at z exactly when F(s) <= z, so its share of the average has a closed form and the integral
    needs no grid::

        AUPIMO = mean over the image's defect pixels of clip(log(U / F(s)) / log(U / L), 0, 1)

    Args:
        shared: (K,) weights of normal pixels per ascending value. F is the false-positive rate of an image averaged
            over the normal images, so a pixel of a normal image with A pixels weighs 1 / A.
        fpr_bounds: L and U with 0 < L < U <= 1.

    Returns:
        (K + 1,) float64 in [0, 1]; the last entry (always 1) is for defect pixels above every normal one.
    """
    low, high = fpr_bounds
    if not 0 < low < high <= 1:
        raise UsageError(f"fpr_bounds must satisfy 0 < low < high <= 1. Got {fpr_bounds}.")
    rate = torch.flip(_rates(shared), (0,))  # F(value_k), then 0 above them all
    return (torch.log(high / rate) / math.log(high / low)).clamp(0, 1)


def _partial_area(x: Tensor, y: Tensor, limit: float) -> float:
    """Trapezoid area under a curve with x ascending from 0 to 1, up to `limit` and interpolated there; NaN if it is."""
    if bool(torch.isnan(x[-1]) | torch.isnan(y[-1])):
        return math.nan
    end = int(torch.searchsorted(x, limit))  # the first point at or beyond the limit
    share = (limit - x[end - 1]) / (x[end] - x[end - 1])
    last = torch.lerp(y[end - 1], y[end], share)
    x = torch.cat([x[:end], x.new_tensor([limit])])
    return float(torch.trapezoid(torch.cat([y[:end], last[None]]), x))


def _at_or_above(counts: Tensor) -> Tensor:
    """(K,) float64: how much lies at each value or higher."""
    return counts.double().flip(0).cumsum(0).flip(0)


def _rates(counts: Tensor) -> Tensor:
    """(K + 1,) float64 rates for thresholds falling from infinity, ending at exactly 1. NaN when nothing is counted."""
    total = torch.cat([counts.new_zeros(1, dtype=torch.float64), counts.double().flip(0).cumsum(0)])
    return total / total[-1]
