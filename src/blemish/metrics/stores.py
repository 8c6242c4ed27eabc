"""Where metrics keep the scores they have seen: all of them (exact), or a histogram (bounded memory).

Both classes answer with a ranking of negatives and positives, whole or in parts, so a metric is the same code over
either. Pixels of defects may also carry weights, which per-region figures need (see `functional.curves.aupro`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from blemish.data.gather import add_up, gather_rows
from blemish.errors import UsageError
from blemish.functional.histogram import (
    BITS,
    Ranked,
    Tally,
    accumulate,
    accumulate_weights,
    check_finite,
    check_shapes,
    empty_histogram,
    tally_histogram,
)
from blemish.metrics.spill import Scored, SortedRuns

IN_MEMORY = 1 << 20
"""Scores that an exact store keeps in memory before it sorts them into a file."""

_UNEQUAL = "Only metrics of one kind can be merged: give both the same `exact` and `bits`."


class ExactScores:
    """Every score, on the CPU. Memory: 13 bytes for each of some IN_MEMORY; more are sorted into a temporary file."""

    def __init__(self) -> None:
        self._recent: list[tuple[Tensor, Tensor, Tensor]] = []  # scores, labels, weights; in no order
        self._runs = SortedRuns()
        self._counts = {"negative": 0.0, "positive": 0.0, "weight": 0.0}

    def add(self, scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> None:
        """Take scores of any shape, their bool labels, and perhaps a float64 weight for each positive in raster order.

        Raises:
            NonFiniteError: a score is NaN or infinite; nothing is taken.
        """
        check_shapes(scores, positive)
        check_finite(scores)
        labels = (positive != 0).flatten().cpu()
        weight = torch.zeros(len(labels), dtype=torch.float64)
        if weights is not None:
            weight[labels] = weights.cpu()
        self._take(scores.detach().float().flatten().cpu(), labels, weight)

    def merge(self, other: Scores) -> None:
        """Add the scores of another exact store."""
        if not isinstance(other, ExactScores):
            raise UsageError(_UNEQUAL)
        self._runs.extend(other._runs)
        self._recent += other._recent
        self._counts = {name: count + other._counts[name] for name, count in self._counts.items()}
        self._spill_above(IN_MEMORY)

    def gather(self, device: torch.device) -> None:
        """Add the scores of all other processes, which then hold the same. For scores of images: without weights."""
        parts = [torch.stack([column.double() for column in part], dim=1) for part in self.tally().parts]
        rows, _ = gather_rows(torch.cat(parts), None, device)  # (K, 3): score, negatives, positives
        everyone = ExactScores()
        for positive in (False, True):
            scores = rows[:, 0].repeat_interleave(rows[:, 1 + positive].long())
            everyone.add(scores, torch.full(scores.shape, positive))
        vars(self).update(vars(everyone))

    def tally(self) -> Ranked:
        """Negatives and positives at each distinct score."""
        return self._ranked("positive")

    def weighted_tally(self) -> Ranked:
        """Negatives and the weights of positives at each distinct score."""
        return self._ranked("weight")

    def _take(self, *columns: Tensor) -> None:
        for scores, labels, weight in zip(*(column.split(IN_MEMORY) for column in columns), strict=True):
            self._recent.append((scores, labels, weight))
            amounts = (len(labels) - int(labels.sum()), int(labels.sum()), float(weight.sum()))
            self._counts = {
                name: count + more for (name, count), more in zip(self._counts.items(), amounts, strict=True)
            }
            self._spill_above(IN_MEMORY)

    def _spill_above(self, limit: int) -> None:
        """Sorts everything recent into a run if there is more of it than `limit`."""
        if sum(len(scores) for scores, _, _ in self._recent) > limit:
            self._runs.append(_scored(self._recent))
            self._recent = []

    def _ranked(self, positive: Literal["positive", "weight"]) -> Ranked:
        if len(self._runs):
            self._spill_above(0)
        parts = _Parts(self._runs if len(self._runs) else [_scored(self._recent).distinct()], positive)
        return Ranked(parts, self._counts["negative"], self._counts[positive])


@dataclass(frozen=True)
class _Parts:
    """The tallies of falling parts, as often as they are asked for."""

    runs: Iterable[Scored]
    positive: Literal["positive", "weight"]

    def __iter__(self) -> Iterator[Tally]:
        return (Tally(part.value, part.negative, getattr(part, self.positive)) for part in self.runs)


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

    def gather(self, device: torch.device) -> None:
        """Add the counts of all other processes, which then hold the same."""
        self.counts, self.weights = add_up(self.counts, device), add_up(self.weights, device)

    def tally(self) -> Tally:
        """Negatives and positives in each occupied bin."""
        counts = self.counts.cpu()
        return tally_histogram(counts[0], counts[1])

    def weighted_tally(self) -> Tally:
        """Negatives and the weights of positives in each occupied bin."""
        return tally_histogram(self.counts[0].cpu(), self.weights)


Scores: TypeAlias = ExactScores | BinnedScores


def _scored(parts: list[tuple[Tensor, Tensor, Tensor]]) -> Scored:
    empty = (torch.zeros(0), torch.zeros(0, dtype=torch.bool), torch.zeros(0, dtype=torch.float64))
    scores, labels, weight = (torch.cat(column) for column in zip(empty, *parts, strict=True))
    return Scored(scores, (~labels).long(), labels.long(), weight)
