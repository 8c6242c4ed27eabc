from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from blemish.functional.distances import FIRST, farthest, nearest, reweighted_score, square_norms
from clouds import brute_force, features, points

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("k", [1, 2, 9])
@pytest.mark.parametrize("block", [7, 64, 4096])  # smaller than k, dividing, larger than the bank
def test_nearest_is_brute_force(block: int, k: int, dtype: torch.dtype) -> None:
    queries, bank = points(50), points(300, seed=1).to(dtype)
    found = nearest(queries, bank, square_norms(bank), k, block_rows=block, query_rows=33)
    values, rows = brute_force(queries, bank).topk(k, dim=1, largest=False)
    assert found.distance.dtype == torch.float32
    assert torch.equal(found.row, rows)
    torch.testing.assert_close(found.distance.double(), values, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("alike", [False, True])
def test_the_farthest_is_that_of_all_to_the_last_bit(alike: bool, dtype: torch.dtype) -> None:
    """In each of two images, good patches and one that isn't; or all alike, so that all have to be searched for. They
    lie in memory as features do: channel by channel.
    """
    queries, bank = features(2 * 1100, 1.0, 1), features(700, 1.0, 2).to(dtype)
    queries[[30, 2000]] += features(2, 0.0, 3)
    queries = queries[30].repeat(2 * 1100, 1) if alike else queries
    queries, norms = queries.mT.contiguous().mT, square_norms(bank)
    found, whole = farthest(queries, 2, bank, norms), nearest(queries, bank, norms)
    measured = found.distance > 0
    assert int(measured.sum()) == 2 * 1100 if alike else 2 * FIRST <= int(measured.sum()) < 500
    assert torch.equal(found.row[measured], whole.row[measured])
    assert torch.equal(found.distance[measured], whole.distance[measured])
    (got, place), (want, there) = (one.distance.view(2, -1).max(dim=1) for one in (found, whole))
    assert torch.equal(got, want)
    assert torch.equal(place, there)
    assert (whole.distance[~measured] < want.min()).all()


@pytest.mark.parametrize("where", [slice(40, 41), slice(0, 80)], ids=["a patch", "an image"])
def test_what_is_no_number_is_not_taken_for_near(where: slice) -> None:
    queries, bank = points(160), points(300, seed=1)
    queries[where] = torch.nan
    first, second = farthest(queries, 2, bank, square_norms(bank)).distance.view(2, -1).amax(dim=1)
    assert first.isnan()
    assert not second.isnan()
    assert farthest(torch.full_like(queries, torch.nan), 1, bank, square_norms(bank)).distance.isnan().all()


def test_a_small_bank_has_no_more_neighbors_than_rows() -> None:
    queries, bank = points(5), points(3, seed=1)
    found = nearest(queries, bank, square_norms(bank), 9)
    assert found.distance.shape == found.row.shape == (5, 3)
    torch.testing.assert_close(found.distance.double(), brute_force(queries, bank).sort(dim=1)[0], rtol=1e-6, atol=0)


def test_ties_are_rows_at_that_distance_and_no_row_comes_twice() -> None:
    bank = points(8).repeat(6, 1)  # every row six times
    queries = points(20, seed=2)
    found = nearest(queries, bank, square_norms(bank), 9)
    true = brute_force(queries, bank)
    torch.testing.assert_close(found.distance.double(), true.sort(dim=1)[0][:, :9], rtol=1e-6, atol=0)
    torch.testing.assert_close(found.distance.double(), true.gather(1, found.row), rtol=1e-6, atol=0)
    assert all(len(set(rows)) == 9 for rows in found.row.tolist())


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_a_row_of_the_bank_is_at_distance_zero_exactly(offset: float) -> None:
    """The product alone would leave |x| 3e-4, about 0.1 here, where 0 is right."""
    bank = points(500, 64) + offset
    found = nearest(bank, bank, square_norms(bank))
    assert torch.equal(found.row[:, 0], torch.arange(500))
    assert not found.distance.any()


def test_neighbors_that_the_product_cannot_order_come_in_order() -> None:
    bank = points(300, 16) + 1000.0
    found = nearest(bank, bank, square_norms(bank), 9)
    true = brute_force(bank, bank).gather(1, found.row)
    torch.testing.assert_close(found.distance.double(), true, rtol=1e-6, atol=0)
    assert bool((found.distance.diff(dim=1) >= 0).all())


def test_inputs_stay_as_they_were() -> None:
    queries, bank = points(5), points(30, seed=1)
    copies = queries.clone(), bank.clone()
    nearest(queries, bank, square_norms(bank), 3)
    assert torch.equal(queries, copies[0])
    assert torch.equal(bank, copies[1])


def test_a_query_does_not_depend_on_the_others() -> None:
    queries, bank = points(40), points(300, seed=1)
    together = nearest(queries, bank, square_norms(bank), 3)
    for i in range(40):
        alone = nearest(queries[i : i + 1], bank, square_norms(bank), 3)
        assert torch.equal(alone.row[0], together.row[i])
        torch.testing.assert_close(alone.distance[0], together.distance[i], rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])  # exp(1000) is no float
def test_the_reweighted_score_is_the_papers_equation(scale: float) -> None:
    neighbors = (torch.rand(6, 9, generator=torch.Generator().manual_seed(0)) * scale).sort(dim=1)[0]
    star = neighbors[:, 0]
    found = reweighted_score(star, neighbors)
    for one, row, score in zip(star.tolist(), neighbors.tolist(), found.tolist(), strict=True):
        weight = 1 - 1 / sum(math.exp(min(other - one, 700.0)) for other in row)
        assert score == pytest.approx(weight * one, rel=1e-4, abs=1e-6 * scale)


def test_one_neighbor_leaves_the_score_alone() -> None:
    star = torch.tensor([3.0, 0.5])
    assert torch.equal(reweighted_score(star, star[:, None]), star)


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")
def test_numbers_of_another_library() -> None:
    with np.load(GOLDEN) as numbers:
        golden = {key: torch.from_numpy(numbers[f"patchcore.{key}"]) for key in ("bank", "queries")}
        expected = {
            key: torch.from_numpy(numbers[f"patchcore.{key}"]) for key in ("patch_scores", "locations", "pred_score")
        }
    bank, norms = golden["bank"], square_norms(golden["bank"])
    found = nearest(golden["queries"], bank, norms)
    scores, rows = found.distance.view(2, 30), found.row.view(2, 30)
    torch.testing.assert_close(scores, expected["patch_scores"], rtol=1e-5, atol=0)
    assert torch.equal(rows, expected["locations"])
    star, patch = scores.max(dim=1)
    worst = golden["queries"].view(2, 30, -1)[torch.arange(2), patch]
    around = nearest(bank[rows[torch.arange(2), patch]], bank, norms, 9).row
    neighbors = (worst[:, None] - bank[around]).norm(dim=2)
    torch.testing.assert_close(reweighted_score(star, neighbors), expected["pred_score"], rtol=1e-5, atol=0)
