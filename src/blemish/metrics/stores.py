"""Where metrics keep the scores they have seen: all of them (exact), or a histogram (bounded memory).

Both classes answer with a ranking of negatives and positives, whole or in parts, so a metric is the same code over
either. Pixels of defects may also carry weights, which per-region figures need (see `functional.curves.aupro`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.histogram import (
    BITS,
    Ranked,
    Tally,
    accumulate,
    accumulate_weights,
    bin_edge,
    bin_index,
    check_finite,
    check_shapes,
    empty_histogram,
    tally_histogram,
)
from blemish.metrics.spill import IN_MEMORY, Scored, SortedRuns

_UNEQUAL = "Only metrics of one kind can be merged: give both the same `exact` and `bits`."


class ExactScores:
    """Every score, on the CPU.

    Args:
        in_memory: how many are kept in memory, 14 bytes each; more are sorted into a temporary file.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._recent: list[Scored] = []  # in no order
        self._runs = SortedRuns(in_memory)
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
        self._take(Scored(scores.detach().float().flatten().cpu(), ~labels, labels, weight))

    def state(self) -> dict[str, Tensor]:
        """Every distinct score with its amounts, as `Scored`, and `bits` = 0. All of it in memory."""
        columns = zip(*self._distinct(), strict=True)
        return {**dict(zip(Scored._fields, map(torch.cat, columns), strict=True)), "bits": torch.tensor(0)}

    def merge(self, other: Scores | State) -> None:
        """Add the scores of another exact store, or of its state."""
        if isinstance(other, ExactScores):
            self._runs.extend(other._runs)
            self._recent += other._recent
            self._counts = {name: count + other._counts[name] for name, count in self._counts.items()}
            self._spill_above(self._in_memory)
        elif isinstance(other, BinnedScores) or int(other["bits"]):
            raise UsageError(_UNEQUAL)
        else:
            self._take(Scored(*(other[name] for name in Scored._fields)))

    def tally(self) -> Ranked:
        """Negatives and positives at each distinct score."""
        return self._ranked("positive")

    def weighted_tally(self) -> Ranked:
        """Negatives and the weights of positives at each distinct score."""
        return self._ranked("weight")

    def _take(self, rows: Scored) -> None:
        for part in map(Scored._make, zip(*(column.split(self._in_memory) for column in rows), strict=True)):
            self._recent.append(part)
            self._counts = {name: count + float(getattr(part, name).sum()) for name, count in self._counts.items()}
            self._spill_above(self._in_memory)

    def _spill_above(self, limit: int) -> None:
        """Sorts everything recent into a run if there is more of it than `limit`."""
        if sum(len(part.value) for part in self._recent) > limit:
            self._runs.append(_joined(self._recent))
            self._recent = []

    def _distinct(self) -> Iterable[Scored]:
        """Every value once, in falling parts."""
        if len(self._runs):
            self._spill_above(0)
        return self._runs if len(self._runs) else [_joined(self._recent).distinct()]

    def _ranked(self, positive: Literal["positive", "weight"]) -> Ranked:
        return Ranked(_Parts(self._distinct(), positive), self._counts["negative"], self._counts[positive])


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
        self.bits = bits
        self.counts = empty_histogram(bits)
        # Floats are summed on the CPU, where the order of additions, and so the last digit, is always the same.
        self.weights = torch.zeros(1 << bits, dtype=torch.float64)

    def add(self, scores: Tensor, positive: Tensor, weights: Tensor | None = None) -> None:
        """As `ExactScores.add`."""
        self.counts = self.counts.to(scores.device)
        accumulate(self.counts, scores, positive)
        if weights is not None:
            accumulate_weights(self.weights, scores[positive != 0], weights)

    def state(self) -> dict[str, Tensor]:
        """Every occupied bin with its amounts, as `Scored` with the bin's lower edge as value, and `bits`."""
        counts = self.counts.cpu()
        index = torch.nonzero(counts.any(dim=0)).flatten()
        edges = bin_edge(index, self.bits)
        return {
            **Scored(edges, counts[0, index], counts[1, index], self.weights[index])._asdict(),
            "bits": torch.tensor(self.bits),
        }

    def merge(self, other: Scores | State) -> None:
        """Add the counts of another bounded store, or of its state, with as many bins."""
        state = other if isinstance(other, Mapping) else other.state() if isinstance(other, BinnedScores) else None
        if state is None or int(state["bits"]) != self.bits:
            raise UsageError(_UNEQUAL)
        index = bin_index(state["value"], self.bits).long()
        self.weights[index] += state["weight"]
        self.counts[:, index.to(self.counts.device)] += torch.stack([state["negative"], state["positive"]]).to(
            self.counts
        )

    def tally(self) -> Tally:
        """Negatives and positives in each occupied bin."""
        counts = self.counts.cpu()
        return tally_histogram(counts[0], counts[1])

    def weighted_tally(self) -> Tally:
        """Negatives and the weights of positives in each occupied bin."""
        return tally_histogram(self.counts[0].cpu(), self.weights)


Scores: TypeAlias = ExactScores | BinnedScores
State: TypeAlias = Mapping[str, Tensor]


def _joined(parts: list[Scored]) -> Scored:
    none = Scored(torch.zeros(0), *(torch.zeros(0, dtype=kind) for kind in (torch.int64, torch.int64, torch.float64)))
    return Scored(*(torch.cat(column) for column in zip(none, *parts, strict=True)))


def under(name: str, state: State) -> dict[str, Tensor]:
    """A part's state, as it is called in the state of the whole: "name.key"."""
    return {f"{name}.{key}": tensor for key, tensor in state.items()}


def below(name: str, state: State) -> dict[str, Tensor]:
    """The inverse of `under`: the state of one part."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}
