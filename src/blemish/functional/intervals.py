"""How far a figure of few images can be trusted: intervals from resampling.

A ranking figure (AUROC, average precision, F1) gets a percentile bootstrap (Efron 1979), stratified: good and anomalous
images are drawn with replacement among themselves, as many as there are, so that no resample lacks a class and the
share of anomalous images, which the owner of the test set chose, stays what it is. A resample is a tally with other
counts, so every figure of a tally can be given an interval by the same lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.histogram import Tally, check_finite, check_shapes
from blemish.functional.proportion import LEVEL, Interval, check_level


def bootstrap(
    scores: Tensor,
    labels: Tensor,
    figures: Mapping[str, Callable[[Tally], float]],
    generator: torch.Generator,
    *,
    resamples: int = 1000,
    level: float = LEVEL,
) -> dict[str, Interval]:
    """Percentile intervals of figures of one set of scores, all from the same resamples.

    Args:
        scores: (N,) finite; higher is more abnormal.
        labels: (N,) bool, True for anomalous. A class without a score is fine for figures that don't need it.
        figures: name -> figure of a tally, as in `functional.curves`.
        generator: on the CPU. Each resample takes first the negatives, then the positives, in the order of `scores`.
        resamples: how many, at least 1.
        level: share of the resamples inside the interval, in (0, 1).

    Raises:
        UsageError: an argument out of range, no scores, or shapes that differ. NonFiniteError: NaN or infinity.
    """
    check_shapes(scores, labels)
    check_finite(scores)
    check_level(level)
    if resamples < 1 or not scores.numel():
        raise UsageError(f"Resampling needs resamples and scores. Got {resamples} resamples, {scores.numel()} scores.")
    found: dict[str, list[float]] = {name: [] for name in figures}
    for tally in _resampled(scores, labels != 0, generator, resamples):
        for name, figure in figures.items():
            found[name].append(figure(tally))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return {
        name: Interval(*torch.quantile(torch.tensor(values, dtype=torch.float64), ends).tolist())
        for name, values in found.items()
    }


def _resampled(scores: Tensor, positive: Tensor, generator: torch.Generator, resamples: int) -> Iterator[Tally]:
    """Tallies of resamples; values that weren't drawn are left out, as figures divide by what lies at a value."""
    value, rank = torch.unique(scores.detach().cpu().float().flatten(), return_inverse=True)
    strata = [rank[~positive.flatten().cpu()], rank[positive.flatten().cpu()]]
    for _ in range(resamples):
        negatives, positives = (_drawn(members, len(value), generator) for members in strata)
        kept = negatives + positives > 0
        yield Tally(value[kept], negatives[kept], positives[kept])


def _drawn(members: Tensor, bins: int, generator: torch.Generator) -> Tensor:
    """How often each rank comes up when as many members are drawn with replacement as there are."""
    if not len(members):
        return torch.zeros(bins, dtype=torch.int64)
    draws = torch.randint(len(members), (len(members),), generator=generator)
    return torch.bincount(members[draws], minlength=bins)
