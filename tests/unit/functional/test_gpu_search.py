"""Neighbors on a GPU: in few launches, in halves only where that pays, and the same ones."""

from __future__ import annotations

import pytest
import torch

from blemish.functional.distances import nearest, square_norms
from blemish.functional.search_index import HALF_COLUMNS, HALF_QUERIES, HALF_ROWS, make_index, nearest_indexed
from blemish.models.patchcore.bank import MemoryBank

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def points(count: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, columns, generator=torch.Generator().manual_seed(seed)).cuda()


def test_one_product_gives_what_many_give() -> None:
    queries, bank = points(5000, 40), points(700, 40, 1)
    norms = square_norms(bank)
    few, many = nearest(queries, bank, norms), nearest(queries, bank, norms, query_rows=1024)
    assert torch.equal(few.row, many.row)
    assert torch.equal(few.distance, many.distance)


def test_halves_rank_where_rows_and_columns_are_many() -> None:
    for rows, columns in ((HALF_ROWS - 1, HALF_COLUMNS), (HALF_ROWS, HALF_COLUMNS - 1)):
        bank = points(rows, columns)
        assert make_index(bank, square_norms(bank)) is None
    bank, queries = points(HALF_ROWS, HALF_COLUMNS), points(HALF_QUERIES, HALF_COLUMNS, 1)
    norms = square_norms(bank)
    index = make_index(bank, norms)
    assert index is not None
    for asked in (queries, queries[:100]):
        assert (nearest_indexed(asked, bank, norms, index).distance <= nearest(asked, bank, norms).distance).all()


def test_a_bank_without_an_index_searches_in_the_same_steps() -> None:
    def bank_of(rows: int) -> MemoryBank:
        bank = MemoryBank(ratio=1.0)
        bank.start()
        bank.observe(points(rows, HALF_COLUMNS)[None])
        bank.finish()
        return bank

    assert not bank_of(50).cpu().steady
    assert bank_of(50).cuda().steady
    large = bank_of(50).cuda()
    large.rows = points(HALF_ROWS, HALF_COLUMNS)
    large.norms = square_norms(large.rows)
    assert not large.steady
