"""Where metrics keep the scores they have seen: all of them (exact), or a histogram (bounded memory).

Both classes answer with the same `Tally`, so a metric is the same code over either. Pixels of defects may also carry
weights, which per-region figures need (see `functional.curves.aupro`).
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.histogram import (
    BITS,
    Tally,
    accumulate,
    accumulate_weights,
    check_finite,
    check_shapes,
    empty_histogram,
    tally_histogram,
    tally_scores,
)

_UNEQUAL = "Only metrics of one kind can be merged: give both the same `exact` and `bits`."


class ExactScores:
    """Every score, on the CPU. Memory: 5 bytes for each, 8 more where it has a weight."""

    def __init__(self) -> None:
        self.scores: list[Tensor] = []
        self.positive: list[Tensor] = []
        self.weights: list[Tensor] = []

    def add(self, scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> None:
        """Take scores of any shape, their bool labels, and perhaps a float64 weight for each positive in raster order.

        Raises:
            NonFiniteError: a score is NaN or infinite; nothing is taken.
        """
        check_shapes(scores, positive)
        check_finite(scores)
        self.scores.append(scores.detach().float().flatten().cpu())
        self.positive.append((positive != 0).flatten().cpu())
        if weights is not None:
            self.weights.append(weights.cpu())

    def merge(self, other: Scores) -> None:
        """Add the scores of another exact store."""
        if not isinstance(other, ExactScores):
            raise UsageError(_UNEQUAL)
        self.scores += other.scores
        self.positive += other.positive
        self.weights += other.weights

    def tally(self) -> Tally:
        """Negatives and positives at each distinct score."""
        positive = _joined(self.positive, torch.bool).long()
        return tally_scores(_joined(self.scores, torch.float32), 1 - positive, positive)

    def weighted_tally(self) -> Tally:
        """Negatives and the weights of positives at each distinct score."""
        positive = _joined(self.positive, torch.bool)
        weights = torch.zeros(len(positive), dtype=torch.float64)
        weights[positive] = _joined(self.weights, torch.float64)
        return tally_scores(_joined(self.scores, torch.float32), (~positive).long(), weights)


class BinnedScores:
    """Counts in a histogram, on the device of the scores. Memory: 24 bytes for each of 2 ** bits bins."""

    def __init__(self, bits: int = BITS) -> None:
        self.counts = empty_histogram(bits)
        # Floats are summed on the CPU, where the order of additions, and so the last digit, is always the same.
        self.weights = torch.zeros(1 << bits, dtype=torch.float64)

    def add(self, scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> None:
        """As `ExactScores.add`."""
        self.counts = self.counts.to(scores.device)
        accumulate(self.counts, scores, positive)
        if weights is not None:
            accumulate_weights(self.weights, scores[positive != 0], weights)

    def merge(self, other: Scores) -> None:
        """Add the counts of another bounded store, which must have as many bins."""
        if not isinstance(other, BinnedScores) or other.counts.shape != self.counts.shape:
            raise UsageError(_UNEQUAL)
        self.counts += other.counts.to(self.counts.device)
        self.weights += other.weights

    def tally(self) -> Tally:
        """Negatives and positives in each occupied bin."""
        counts = self.counts.cpu()
        return tally_histogram(counts[0], counts[1])

    def weighted_tally(self) -> Tally:
        """Negatives and the weights of positives in each occupied bin."""
        return tally_histogram(self.counts[0].cpu(), self.weights)


Scores: TypeAlias = ExactScores | BinnedScores


def _joined(parts: list[Tensor], dtype: torch.dtype) -> Tensor:
    return torch.cat(parts) if parts else torch.zeros(0, dtype=dtype)
