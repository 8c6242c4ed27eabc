"""Counting scores in bounded memory, without knowing their range.

A float32 read as an integer is already a logarithmic bin number: sign, exponent, mantissa. Flipping the magnitude bits
of negative numbers makes that integer grow with the float; its top `bits` bits are the bin. So every bin edge is itself
a float32, `score >= edge` means exactly "this bin or a higher one", no range has to be seen beforehand, and two
histograms are merged by adding them.

Error: a histogram knows a score only up to the width of its bin, which for normal floats is at most `2 ** -(bits - 9)`
of the score's magnitude (1/2048 at the default of 20 bits). Every figure computed from a histogram is the exact figure
of the scores rounded down to the edges of their bins.

Axes: class (0 negative, 1 positive), bin (ascending score).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from blemish.errors import NonFiniteError, UsageError

BITS = 20
"""Default size of a bin number: 2 x 1,048,576 counters, 16 MiB."""
CHUNK = 1 << 20
"""Scores binned at a time; the working memory is some 20 bytes for each of them."""
_LARGEST = torch.finfo(torch.float32).max


class Tally(NamedTuple):
    """How many negatives and positives have each score: all that a ranking figure needs to know.

    Attributes:
        value: (K,) float32, distinct and ascending: scores, or lower edges of bins.
        negative: (K,) negatives at each value: int64 counts, or float64 weights.
        positive: (K,) positives at each value, likewise.
    """

    value: Tensor
    negative: Tensor
    positive: Tensor


class Ranked(NamedTuple):
    """A tally in parts, for scores that don't fit in memory: figures fold over it.

    Attributes:
        parts: tallies, every value of one below all values of the one before it; may be gone through again.
        negative, positive: sums over all parts.
    """

    parts: Iterable[Tally]
    negative: float
    positive: float


def ranked(tally: Tally | Ranked) -> Ranked:
    """A whole tally as one of a single part."""
    if isinstance(tally, Ranked):
        return tally
    return Ranked((tally,), float(tally.negative.sum()), float(tally.positive.sum()))


def empty_histogram(bits: int = BITS, device: torch.device | str | None = None) -> Tensor:
    """(2, 2 ** bits) int64 zeros. `bits` from 9 (sign and exponent only) to 24 (256 MiB)."""
    if not 9 <= bits <= 24:
        raise UsageError(f"bits must be between 9 and 24. Got {bits}.")
    return torch.zeros(2, 1 << bits, dtype=torch.int64, device=device)


def bin_index(scores: Tensor, bits: int = BITS) -> Tensor:
    """Bin numbers, int32 in [0, 2 ** bits), of finite scores of any shape; they grow with the score."""
    pattern = (scores.float() + 0.0).view(torch.int32)  # adding zero turns -0.0 into 0.0, which compares equal to it
    ordered = pattern ^ ((pattern >> 31) & 0x7FFFFFFF)
    return (ordered >> (32 - bits)) + (1 << (bits - 1))


def bin_edge(index: Tensor, bits: int = BITS) -> Tensor:
    """The lowest float32 of each bin. The edge above the highest bin of finite scores is infinity."""
    ordered = (index.to(torch.int32) - (1 << (bits - 1))) << (32 - bits)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


def check_finite(scores: Tensor) -> None:
    """Raise NonFiniteError when a score is NaN, infinite or beyond float32. Allocates nothing."""
    if scores.numel() == 0:
        return
    low, high = (float(bound) for bound in torch.aminmax(scores))  # NaN propagates into both
    if not (low >= -_LARGEST and high <= _LARGEST):
        raise NonFiniteError(
            f"Scores must be finite to be ranked. Got values from {low} to {high}: look for NaN or infinity in the "
            "images, the features or the fitted statistics."
        )


def check_shapes(scores: Tensor, labels: Tensor) -> None:
    """Raise UsageError when labels don't have the shape of their scores."""
    if labels.shape != scores.shape:
        raise UsageError(f"Scores and labels must have one shape. Got {tuple(scores.shape)}, {tuple(labels.shape)}.")


def accumulate(histogram: Tensor, scores: Tensor, positive: Tensor | None = None, *, chunk: int = CHUNK) -> None:
    """Count scores into a histogram, in place and in chunks.

    Args:
        histogram: (2, 2 ** bits) from `empty_histogram`.
        scores: any shape and float type; counted as float32. Must be finite; nothing is counted when they are not.
        positive: same shape, bool (or 0 and non-zero): True for positives. None when all are negative.
        chunk: scores binned at a time; memory alone.

    Raises:
        NonFiniteError: a score is NaN or infinite.
        UsageError: the shapes differ.
    """
    if positive is not None:
        check_shapes(scores, positive)
    check_finite(scores)
    bits = _bits(histogram)
    scores = scores.detach().reshape(-1)  # (n,) of any shape
    labels = None if positive is None else positive.reshape(-1)
    one = histogram.new_ones(1)
    for start in range(0, len(scores), chunk):
        part = slice(start, start + chunk)
        index = bin_index(scores[part].to(histogram.device), bits)
        if labels is not None:
            index += (labels[part] != 0).to(index) << bits
        histogram.view(-1).index_add_(0, index, one.expand(len(index)))


def accumulate_weights(histogram: Tensor, scores: Tensor, weights: Tensor) -> None:
    """Add `weights` to the bins of `scores`, in place.

    Args:
        histogram: (2 ** bits,) float64.
        scores: (n,) finite.
        weights: (n,) float64, or one weight for all as a tensor of shape (1,).
    """
    check_finite(scores)
    bits = _bits(histogram)
    weights = weights.to(histogram).expand(len(scores))
    for start in range(0, len(scores), CHUNK):
        part = slice(start, start + CHUNK)
        histogram.index_add_(0, bin_index(scores[part].detach().to(histogram.device), bits), weights[part])


def tally_histogram(negative: Tensor, positive: Tensor) -> Tally:
    """The occupied bins of two rows (2 ** bits,) of counts or weights; values are the lower edges of the bins."""
    index = torch.nonzero((negative != 0) | (positive != 0)).flatten()  # (k,) occupied bins
    return Tally(bin_edge(index, _bits(negative)), negative[index], positive[index])


def tally_scores(scores: Tensor, negative: Tensor, positive: Tensor) -> Tally:
    """The exact tally of (n,) finite float32 scores, by sorting.

    Args:
        scores: (n,) finite scores; taken as float32.
        negative: (n,) weight of each score among the negatives: 0 and 1 for plain counts (then int64), or float64.
        positive: (n,) weight among the positives, likewise.
    """
    check_finite(scores)
    value, (negative, positive) = sum_ties(scores.detach().float(), negative, positive)
    return Tally(value, negative, positive)


def sum_ties(scores: Tensor, *amounts: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The distinct ones of (n,) scores, ascending, and the sums of each (n,) amount over the scores that are equal."""
    ordered, order = torch.sort(scores, stable=True)  # stable: sums of floats come out the same every time
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[1:] = ordered[1:] != ordered[:-1]
    group = torch.cumsum(first, 0) - 1
    value = ordered[first]
    return value, [part.new_zeros(len(value)).index_add_(0, group, part[order]) for part in amounts]


def tally_labels(scores: Tensor, labels: Tensor) -> Tally:
    """The exact tally of scores and bool labels (True: positive) of one shape."""
    check_shapes(scores, labels)
    positive = (labels.reshape(-1) != 0).long()
    return tally_scores(scores.reshape(-1), 1 - positive, positive)


def _bits(histogram: Tensor) -> int:
    return histogram.shape[-1].bit_length() - 1
