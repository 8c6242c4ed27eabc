"""Figures of a ranking: ROC, precision and recall, F1, per-region and per-image overlap.

Each figure is computed from a `Tally`: the negatives and positives at each distinct value. Whether the values are
sorted scores (exact), histogram bins (bounded memory), or come in parts from files makes no difference here: a figure
is a sum, or a maximum, over parts of a falling ranking, and all it carries on is what lies above. A threshold t stands
for "`score >= t` is positive"; scores that tie are always taken together, so no figure depends on the order of its
input. Higher scores are more abnormal.

Where a class that a figure needs is empty, the figure is NaN: callers who can say why check first. All sums are
float64.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.histogram import Ranked, Tally, ranked


def roc_curve(tally: Tally) -> tuple[Tensor, Tensor]:
    """False and true positive rates, (K + 1,) float64 each, from (0, 0) to (1, 1), for falling thresholds."""
    return _rates(tally.negative), _rates(tally.positive)


def auroc(tally: Tally | Ranked) -> float:
    """Area under the ROC curve: the chance that a positive outranks a negative, ties counting half."""
    area, whole = 0.0, ranked(tally)
    for part, _, hits in _falling(whole):
        outranked = hits - part.positive / 2  # by how many positives a negative is
        area += float((outranked * part.negative).sum())
    return _share(area, whole.negative * whole.positive)


def precision_recall_curve(tally: Tally) -> tuple[Tensor, Tensor]:
    """Precision and recall, each (K,) float64, at every value as the threshold, in ascending order of the values."""
    hits, flagged = _at_or_above(tally.positive), _at_or_above(tally.negative + tally.positive)
    return hits / flagged, hits / hits[:1]


def average_precision(tally: Tally | Ranked) -> float:
    """Area under the steps of precision over recall, without interpolation: sum_k (R_k - R_k+1) P_k, ascending."""
    area, whole = 0.0, ranked(tally)
    for part, alarms, hits in _falling(whole):
        area += float((hits / (alarms + hits) * part.positive).sum())
    return _share(area, whole.positive)


def f1_curve(tally: Tally) -> Tensor:
    """(K,) float64: F1 = 2 TP / (positives + flagged) at every value as the threshold."""
    hits = _at_or_above(tally.positive)
    return _f1(_at_or_above(tally.negative), hits, hits[:1])


def f1_max(tally: Tally | Ranked) -> float:
    """The highest F1 that any threshold reaches."""
    whole = ranked(tally)
    if not whole.positive:
        return math.nan
    return max(float(_f1(alarms, hits, whole.positive).max()) for _, alarms, hits in _falling(whole))


def f1_best(tally: Tally | Ranked) -> tuple[float, int, int]:
    """The value that reaches `f1_max` as the threshold (the highest of several), and how many negatives and positives
    lie at or above it. NaN and zeros without positives.
    """
    whole = ranked(tally)
    best, found = -1.0, (math.nan, 0, 0)
    for part, alarms, hits in _falling(whole) if whole.positive else ():
        curve = _f1(alarms, hits, whole.positive)
        place = len(curve) - 1 - int(curve.flip(0).argmax())
        if curve[place] > best:
            best, found = float(curve[place]), (float(part.value[place]), int(alarms[place]), int(hits[place]))
    return found


def aupro(tally: Tally | Ranked, fpr_limit: float = 0.3) -> float:
    """Area under the per-region overlap up to a false-positive rate, divided by it (Bergmann et al. 2021, MVTec AD).

    Args:
        tally: `negative` counts the normal pixels of all images; `positive` holds the summed weights of defect pixels,
            where a pixel of a connected region of area A weighs 1 / A. Each region then counts the same, and the
            overlap averaged over regions is the true positive rate of the weights.
        fpr_limit: in (0, 1]. The curve is interpolated linearly at the limit.
    """
    if not 0 < fpr_limit <= 1:
        raise UsageError(f"fpr_limit must lie in (0, 1]. Got {fpr_limit}.")
    whole = ranked(tally)
    if not (whole.negative and whole.positive):
        return math.nan
    area, last = 0.0, torch.zeros(2, 1, dtype=torch.float64)  # the curve begins at (0, 0)
    for _, alarms, hits in _falling(whole):
        rates = torch.stack([alarms.flip(0) / whole.negative, hits.flip(0) / whole.positive])  # (2, n)
        curve = torch.cat([last, rates], dim=1)  # (2, 1 + n)
        area += _area_until(fpr_limit, *curve)
        last = curve[:, -1:]
        if last[0] >= fpr_limit:
            break
    return area / fpr_limit


def top(tally: Tally | Ranked, share: float) -> Tally:
    """The highest values that together hold at least `share` of the positives, or all of them; in whole parts."""
    whole, parts = ranked(tally), []
    for part, _, hits in _falling(whole):
        parts.append(part)
        if hits[0] >= share * whole.positive:
            break
    columns = zip(*reversed(parts), strict=True)
    return Tally(*(torch.cat(column) for column in columns)) if parts else Tally(*torch.zeros(3, 0))


def aupimo_credit(shared: Tensor, fpr_bounds: tuple[float, float] = (1e-5, 1e-4), total: float | None = None) -> Tensor:
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
        total: weight of all normal pixels, where `shared` has only those of the highest values: what F is a share of.

    Returns:
        (K + 1,) float64 in [0, 1]; the last entry (always 1) is for defect pixels above every normal one.
    """
    low, high = fpr_bounds
    if not 0 < low < high <= 1:
        raise UsageError(f"fpr_bounds must satisfy 0 < low < high <= 1. Got {fpr_bounds}.")
    rate = torch.flip(_rates(shared, total), (0,))  # F(value_k), then 0 above them all
    return (torch.log(high / rate) / math.log(high / low)).clamp(0, 1)


def _falling(whole: Ranked) -> Iterator[tuple[Tally, Tensor, Tensor]]:
    """Each part that isn't empty, and how many of all negatives and positives lie at or above its values: (K,)."""
    alarms = hits = torch.zeros(1, dtype=torch.float64)
    for part in whole.parts:
        if len(part.value):
            alarms = _at_or_above(part.negative) + alarms[:1].to(part.negative.device)
            hits = _at_or_above(part.positive) + hits[:1].to(part.positive.device)
            yield part, alarms, hits


def _f1(alarms: Tensor, hits: Tensor, positives: Tensor | float) -> Tensor:
    return 2 * hits / (positives + alarms + hits)


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _area_until(limit: float, x: Tensor, y: Tensor) -> float:
    """Trapezoid area under a piece of curve whose x ascends from below `limit`, up to it and interpolated there."""
    end = int(torch.searchsorted(x, limit))  # the first point at or beyond the limit
    if end == len(x):
        return float(torch.trapezoid(y, x))
    share = (limit - x[end - 1]) / (x[end] - x[end - 1])
    last = torch.lerp(y[end - 1], y[end], share)
    x = torch.cat([x[:end], x.new_tensor([limit])])
    return float(torch.trapezoid(torch.cat([y[:end], last[None]]), x))


def _at_or_above(counts: Tensor) -> Tensor:
    """(K,) float64: how much lies at each value or higher."""
    return counts.double().flip(0).cumsum(0).flip(0)


def _rates(counts: Tensor, whole: float | None = None) -> Tensor:
    """(K + 1,) float64 rates of a whole, by default of everything that is counted, for thresholds falling from
    infinity. Those of everything end at exactly 1; NaN when nothing is counted.
    """
    total = torch.cat([counts.new_zeros(1, dtype=torch.float64), counts.double().flip(0).cumsum(0)])
    return total / (total[-1] if whole is None else whole)
