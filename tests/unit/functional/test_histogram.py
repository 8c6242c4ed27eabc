from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from blemish.errors import NonFiniteError, UsageError
from blemish.functional.histogram import (
    accumulate,
    accumulate_weights,
    bin_edge,
    bin_index,
    check_finite,
    empty_histogram,
    tally_histogram,
    tally_labels,
    tally_scores,
)

FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
BITS = st.integers(9, 24)
SMALLEST_NORMAL = 2.0**-126


@given(st.lists(FINITE, min_size=1, max_size=30), FINITE, BITS)
def test_a_score_reaches_an_edge_exactly_when_its_bin_does(values: list[float], other: float, bits: int) -> None:
    scores = torch.tensor(values)
    index = bin_index(torch.tensor(other), bits)
    edge = bin_edge(index, bits)
    assert torch.equal(scores >= edge, bin_index(scores, bits) >= index)


@given(FINITE, BITS)
def test_a_bin_is_as_narrow_as_stated(value: float, bits: int) -> None:
    index = bin_index(torch.tensor(value), bits)
    low, high = bin_edge(index, bits).double(), bin_edge(index + 1, bits).double()
    assert low <= value < high
    assert 0 <= int(index) < 2**bits
    if abs(value) >= SMALLEST_NORMAL and torch.isfinite(high):
        assert high - low <= 2.0 ** -(bits - 9) * max(abs(low), abs(high))


def test_zeros_of_either_sign_share_a_bin() -> None:
    assert bin_index(torch.tensor(-0.0)) == bin_index(torch.tensor(0.0))
    assert bin_index(torch.tensor(-1e-45)) < bin_index(torch.tensor(0.0))


@pytest.mark.parametrize("bits", [8, 25])
def test_the_number_of_bits_is_checked(bits: int) -> None:
    with pytest.raises(UsageError, match=f"bits must be between 9 and 24. Got {bits}."):
        empty_histogram(bits)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_accumulate_counts_like_a_loop(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.randn(5, 11, generator=generator).to(dtype).T  # not contiguous
    labels = torch.rand(11, 5, generator=generator) < 0.3
    counted = empty_histogram(12)
    accumulate(counted, scores, labels, chunk=7)
    expected = np.zeros((2, 2**12), np.int64)
    for score, label in zip(scores.flatten(), labels.flatten(), strict=True):
        expected[int(label), int(bin_index(score, 12))] += 1
    np.testing.assert_array_equal(counted.numpy(), expected)

    accumulate(counted, scores, chunk=7)
    assert counted.sum(1).tolist() == [55 + int((~labels).sum()), int(labels.sum())]


def test_histograms_are_merged_by_adding() -> None:
    generator = torch.Generator().manual_seed(4)
    scores, labels = torch.randn(300, generator=generator), torch.rand(300, generator=generator) < 0.5
    whole, left, right = empty_histogram(14), empty_histogram(14), empty_histogram(14)
    accumulate(whole, scores, labels)
    accumulate(left, scores[:100], labels[:100])
    accumulate(right, scores[100:], labels[100:])
    assert torch.equal(left + right, whole)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf, 1e39])
def test_scores_that_are_not_finite_are_refused_and_nothing_is_counted(
    broken: float,
) -> None:
    counted = empty_histogram(9)
    with pytest.raises(NonFiniteError, match=r"Scores must be finite to be ranked\. Got values from"):
        accumulate(counted, torch.tensor([1.0, 2.0, 3.0, 4.0, broken], dtype=torch.float64), chunk=2)
    assert not counted.any()
    with pytest.raises(NonFiniteError):
        accumulate_weights(torch.zeros(512, dtype=torch.float64), torch.tensor([broken]), torch.ones(1))


def test_shapes_must_agree() -> None:
    message = r"Scores and labels must have one shape. Got \(3,\), \(2,\)."
    with pytest.raises(UsageError, match=message):
        accumulate(empty_histogram(9), torch.zeros(3), torch.zeros(2))
    with pytest.raises(UsageError, match=message):
        tally_labels(torch.zeros(3), torch.zeros(2))


def test_nothing_to_count_is_fine() -> None:
    counted = empty_histogram(9)
    accumulate(counted, torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.bool))
    check_finite(torch.zeros(0))
    assert len(tally_histogram(counted[0], counted[1]).value) == 0


def test_the_tally_of_a_histogram_is_the_exact_tally_of_rounded_scores() -> None:
    generator = torch.Generator().manual_seed(5)
    scores, labels = torch.randn(5000, generator=generator), torch.rand(5000, generator=generator) < 0.2
    counted = empty_histogram(13)
    accumulate(counted, scores, labels)
    binned = tally_histogram(counted[0], counted[1])
    exact = tally_labels(bin_edge(bin_index(scores, 13), 13), labels)
    for of_bins, of_scores in zip(binned, exact, strict=True):
        assert torch.equal(of_bins, of_scores)


def test_exact_tallies_group_ties() -> None:
    scores = torch.tensor([2.0, -0.0, 2.0, 0.0, -1.0])
    value, negative, positive = tally_scores(
        scores, torch.tensor([1, 1, 0, 1, 1]), torch.tensor([0.0, 0.0, 0.25, 0.0, 0.0])
    )
    assert value.tolist() == [-1.0, 0.0, 2.0]
    assert negative.tolist() == [1, 2, 1]
    assert positive.tolist() == [0.0, 0.0, 0.25]


def test_weights_add_up_per_bin() -> None:
    row = torch.zeros(512, dtype=torch.float64)
    accumulate_weights(row, torch.tensor([1.0, 1.0, -3.0]), torch.tensor([0.5, 0.25, 2.0], dtype=torch.float64))
    assert row[bin_index(torch.tensor(1.0), 9)] == 0.75
    assert row[bin_index(torch.tensor(-3.0), 9)] == 2.0
    assert row.sum() == 2.75


class _LargestAllocation(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operator made."""

    def __init__(self, *known: torch.Tensor) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple) else (out,):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() not in self.known:
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return out


def test_counting_allocates_a_chunk_at_a_time() -> None:
    scores, labels, counted = torch.linspace(0, 1, 100_000), torch.arange(100_000) % 7 == 0, empty_histogram(10)
    with _LargestAllocation(scores, labels, counted) as largest:
        accumulate(counted, scores, labels, chunk=1000)
    assert 0 < largest.bytes <= 8 * 1000
