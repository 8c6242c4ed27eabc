from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blemish.functional import search_index
from blemish.functional.distances import nearest, square_norms
from blemish.functional.search_index import SearchIndex, half_index, make_index, nearest_indexed, principal_index
from clouds import brute_force, features, points
from known import known

Maker = Callable[[Tensor, Tensor], SearchIndex | None]
MAKERS = [principal_index, half_index]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("make", MAKERS)
def test_an_index_finds_what_brute_force_finds(make: Maker, decay: float, dtype: torch.dtype) -> None:
    """Queries like the bank, which bounds prove, and others, for which all rows are searched."""
    queries, bank = features(300, decay, 1), features(700, 1.0, 2).to(dtype)
    queries[:50] = bank[:50].float() + 1e-4 * points(50, 256)  # almost on the bank
    norms = square_norms(bank)
    index = known(make(bank, norms))
    found = nearest_indexed(queries, bank, norms, index)
    values, rows = brute_force(queries, bank).topk(1, dim=1, largest=False)
    assert torch.equal(found.row, rows)
    torch.testing.assert_close(found.distance.double(), values, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("make", MAKERS)
def test_an_index_searches_few_queries_in_full(make: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank = features(600, 1.0, 1), features(2000, 1.0, 2)
    norms, searched = square_norms(bank), []
    index = known(make(bank, norms))
    monkeypatch.setattr(search_index, "nearest", lambda q, *rest: searched.append(len(q)) or nearest(q, *rest))
    nearest_indexed(queries, bank, norms, index)
    assert sum(searched) < 0.02 * len(queries)


def test_no_index_where_it_would_not_pay() -> None:
    narrow, short, without_directions = points(500, 64), points(4, 512), features(700, 0.0, 2)
    for bank in (narrow, short, without_directions):
        assert make_index(bank, square_norms(bank)) is None


@pytest.mark.parametrize("make", MAKERS)
def test_an_index_is_not_misled_by_rows_that_its_basis_almost_holds(make: Maker) -> None:
    """What the basis misses is lost in rounding, but decides for queries that lie far outside of it."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(points(256, 256))[0]
    plane = points(4000, 64, seed=1) @ axes[:, :64].T
    plane[2000:] = plane[:2000] + 0.01 * plane[2000:]  # neighbors in pairs
    bank = plane + 2e-3 * torch.randn(4000, 1, generator=generator) * axes[:, 64]
    queries = plane[:500] + 3 * axes[:, 64]
    norms = square_norms(bank)
    index = known(make(bank, norms))
    found, expected = nearest_indexed(queries, bank, norms, index), nearest(queries, bank, norms)
    assert torch.equal(found.row, expected.row)
    torch.testing.assert_close(found.distance, expected.distance, rtol=1e-6, atol=0)


@pytest.mark.parametrize("unit", [1e-6, 1.0, 3e7])
def test_halves_reach_as_far_as_features(unit: float) -> None:
    """Rows in any unit, and queries that lie so far out that they have no half."""
    queries, bank = unit * points(300, 24), unit * points(600, 24, seed=1)
    queries[:20] *= 1e6
    norms = square_norms(bank)
    found = nearest_indexed(queries, bank, norms, half_index(bank, norms))
    values, rows = brute_force(queries, bank).topk(1, dim=1, largest=False)
    assert torch.equal(found.row[20:], rows[20:])
    torch.testing.assert_close(found.distance.double(), values, rtol=1e-6, atol=0)


def test_what_halves_lose_is_in_their_bounds() -> None:
    """Pairs of rows that are one half apart at most, beside a coordinate that is large: rounding alone decides."""
    bank = points(400, 32).repeat_interleave(2, dim=0)
    bank[1::2] += 1e-4 * points(400, 32, seed=1)
    bank[:, 0] = 900.0
    queries = bank + 1e-5 * points(800, 32, seed=2)
    norms = square_norms(bank)
    index = half_index(bank, norms)
    own = square_norms(queries)
    bounds = index.bounds(queries, own)
    true = brute_force(queries, bank).square() - own.double()[:, None]
    assert (
        bounds.unit * bounds.values[:, :800] - bounds.high[:, None] <= true + 1e-5 * (own + norms.max())[:, None]
    ).all()
    found, plain = nearest_indexed(queries, bank, norms, index), nearest(queries, bank, norms)
    assert (found.distance <= plain.distance).all()  # a product of floats can't order them either


@pytest.mark.parametrize("make", MAKERS)
def test_a_query_that_is_no_number_has_no_distance(make: Maker) -> None:
    queries, bank = features(40, 1.0, 1), features(700, 1.0, 2)
    queries[3] = torch.nan
    norms = square_norms(bank)
    distance = nearest_indexed(queries, bank, norms, known(make(bank, norms))).distance[:, 0]
    assert distance.isnan().nonzero().tolist() == [[3]]
