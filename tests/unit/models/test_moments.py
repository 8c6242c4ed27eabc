"""Moments over all positions against NumPy, in pieces and at once."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch

from blemish.functional.gaussian import Moments, unpack
from blemish.models.components.moments import MomentStream
from known import known


def embedding(images: int, offset: float = 20.0) -> torch.Tensor:
    """(N, P, D) of 5 positions and 4 channels."""
    return torch.randn(images, 5, 4, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 5.0) + offset


def pooled(found: torch.Tensor, first: int = 0, batch: int = 7) -> MomentStream:
    stream = MomentStream(pooled=True)
    for at in range(0, len(found), batch):
        part = found[at : at + batch]
        stream.observe(part, range(first + at, first + at + len(part)))
    return stream


def total(stream: MomentStream) -> Moments:
    return known(stream.finish())


def same(one: Moments, other: Moments) -> bool:
    return one.count == other.count and torch.equal(one.mean, other.mean) and torch.equal(one.scatter, other.scatter)


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("images", [1, 33, 700])
def test_all_positions_share_mean_and_scatter(images: int, offset: float) -> None:
    found = embedding(images, offset)
    moments = total(pooled(found))
    rows = found.double().flatten(0, 1).numpy()
    assert moments.count == len(rows) == images * 5
    assert moments.mean.dtype == moments.scatter.dtype == torch.float64
    np.testing.assert_allclose(moments.mean[0], rows.mean(axis=0), rtol=1e-12)
    lower = np.tril(np.cov(rows, rowvar=False) * (len(rows) - 1))
    np.testing.assert_allclose(unpack(moments.scatter)[0], lower, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("ends", [[350], [31, 33, 300], range(90, 700, 90)], ids=str)
def test_pieces_merge_to_the_bytes_of_one_pass(ends: Sequence[int]) -> None:
    found = embedding(700)
    whole = total(pooled(found))
    together = MomentStream(pooled=True)
    for first, stop in reversed(list(pairwise([0, *ends, 700]))):
        together.merge(pooled(found[first:stop], first, batch=5).state())
    assert same(total(together), whole)


def test_a_base_is_added_to() -> None:
    found = embedding(80)
    stream = MomentStream(pooled=True, base=total(pooled(found[:30])))
    stream.observe(found[30:])
    moments, whole = total(stream), total(pooled(found))
    assert moments.count == whole.count
    torch.testing.assert_close(moments.mean, whole.mean)
    torch.testing.assert_close(moments.scatter, whole.scatter)


def test_nothing_has_no_moments() -> None:
    assert MomentStream().finish() is None
