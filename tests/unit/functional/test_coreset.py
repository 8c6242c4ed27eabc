from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from blemish.functional import coreset
from blemish.functional.coreset import CANDIDATES, greedy_k_center


def normal(n: int, channels: int, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed))


def clustered(n: int, channels: int) -> Tensor:
    centers = 5 * normal(20, channels, seed=1)
    return centers[torch.randint(20, (n,), generator=torch.Generator().manual_seed(2))] + 0.1 * normal(n, channels)


DATA: dict[str, Callable[[int], Tensor]] = {
    "gaussian": lambda n: normal(n, 32),
    "clustered": lambda n: clustered(n, 24),
    "offset": lambda n: normal(n, 16) + 1e3,
    "plane": lambda n: torch.rand(n, 2, generator=torch.Generator().manual_seed(4)),
    "tight": lambda n: normal(10, 20).repeat_interleave(n // 10, dim=0) + 1e-3 * normal(n // 10 * 10, 20, seed=1),
    "outlier": lambda n: torch.cat([normal(n - 1, 8), torch.full((1, 8), 1e3)]),
}


def textbook(points: Tensor, k: int, start: list[int], radius: float = 0.0) -> list[int]:
    """Farthest point first, one at a time, from float64 differences."""
    rows, chosen = points.double(), list(start)
    distance = torch.stack([(rows - rows[i]).square().sum(dim=1) for i in chosen]).amin(dim=0)
    while len(chosen) < k and float(distance.max()) > radius**2:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (rows - rows[chosen[-1]]).square().sum(dim=1))
    return chosen


def coverage_radius(points: Tensor, centers: Tensor) -> float:
    return float(torch.cdist(points.double(), centers.double()).amin(dim=1).max())


@pytest.mark.parametrize("n", [300, CANDIDATES, CANDIDATES + 1, 3000])
@pytest.mark.parametrize("kind", DATA)
def test_the_selection_is_the_textbooks(kind: str, n: int) -> None:
    points = DATA[kind](n)
    centerd = points - points.mean(dim=0)  # rounded to float32 once, as documented
    assert greedy_k_center(points, 300, start=5).tolist() == textbook(centerd, 300, [5])


@pytest.mark.parametrize("n", [300, 3000])
def test_where_points_tie_any_farthest_one_is_chosen(n: int) -> None:
    points = torch.rand(
        n, 1, generator=torch.Generator().manual_seed(3)
    )  # on a line, float32 differences are often equal
    rows = (points - points.mean(dim=0)).double()
    distance = torch.full((n,), torch.inf, dtype=torch.float64)
    for i in greedy_k_center(points, 250).tolist():
        assert distance[i] >= distance.max() * (1 - 1e-9)
        distance = torch.minimum(distance, (rows - rows[i]).square().sum(dim=1))


@pytest.mark.parametrize("candidates", [1, 2, 7, 64])
def test_the_number_of_candidates_changes_nothing(candidates: int) -> None:
    points = clustered(400, 24)
    chosen = greedy_k_center(points, 100, candidates=candidates, block_bytes=10_000)  # blocks smaller than the data
    assert chosen.tolist() == textbook(points, 100, [0])


def test_the_first_choice_is_given_drawn_or_zero() -> None:
    points = normal(500, 8)
    assert greedy_k_center(points, 5)[0] == 0
    assert greedy_k_center(points, 5, start=77)[0] == 77
    drawn = [greedy_k_center(points, 20, generator=torch.Generator().manual_seed(s)).tolist() for s in (1, 1, 2)]
    assert drawn[0] == drawn[1] == textbook(points, 20, [drawn[0][0]])
    assert drawn[0][0] != drawn[2][0]
    given = greedy_k_center(points, 5, start=3, generator=torch.Generator().manual_seed(1))
    assert given[0] == 3


def test_an_initial_set_counts_as_chosen_and_comes_first() -> None:
    points, own = normal(1500, 8), [900, 3, 50]
    assert greedy_k_center(points, 40, start=torch.tensor(own)).tolist() == textbook(points, 40, own)


def test_an_initial_set_larger_than_a_round() -> None:
    points = normal(1500, 4)
    own = list(range(CANDIDATES + 100))
    assert greedy_k_center(points, len(own) + 5, start=torch.tensor(own)).tolist() == textbook(
        points, len(own) + 5, own
    )


@pytest.mark.parametrize("n", [400, 2000])
def test_a_radius_stops_the_selection(n: int) -> None:
    points = DATA["plane"](n)
    chosen = greedy_k_center(points, n, radius=0.1)
    assert chosen.tolist() == textbook(points, n, [0], radius=0.1)
    assert coverage_radius(points, points[chosen]) <= 0.1 < coverage_radius(points, points[chosen[:-1]])


@pytest.mark.parametrize(("n", "distinct"), [(200, 10), (3000, 10), (3000, 50), (2500, 1), (1, 1)])
def test_copies_are_chosen_once(n: int, distinct: int) -> None:
    points = normal(distinct, 64)[torch.arange(n) % distinct]
    chosen = greedy_k_center(points, n)
    assert len(chosen) == distinct
    assert len(torch.unique(points[chosen], dim=0)) == distinct


@pytest.mark.parametrize("spread", [1.0, 1e-4, 1e-6])
def test_choosing_everything_chooses_everything_once(spread: float) -> None:
    """Tight clusters far from the mean: their distances are lost in the rounding of the float32 product."""
    points = normal(10, 20).repeat_interleave(150, dim=0) + spread * normal(1500, 20, seed=1)
    assert sorted(greedy_k_center(points, 1500).tolist()) == list(range(1500))


def test_choosing_one() -> None:
    assert greedy_k_center(normal(50, 3), 1, start=7).tolist() == [7]


@pytest.mark.parametrize("k", [0, -1, 11])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=f"k must be between 1 and the number of points, 10. Got {k}."):
        greedy_k_center(normal(10, 2), k)


@pytest.mark.parametrize("n", [600, 3000])
def test_progress_ends_with_the_radius_of_the_result(n: int) -> None:
    points = clustered(n, 8)
    calls: list[tuple[int, int, float]] = []
    chosen = greedy_k_center(points, 150, on_round=lambda *call: calls.append(call))
    done = [call[0] for call in calls]
    assert done == sorted(set(done))
    assert done[-1] == len(chosen) == 150
    assert {call[1] for call in calls} == {150}
    radii = [call[2] for call in calls]
    assert radii == sorted(radii, reverse=True)
    assert radii[-1] == pytest.approx(coverage_radius(points, points[chosen]), rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_the_points_stay_as_they_were_and_the_global_state_unmoved(dtype: torch.dtype) -> None:
    points = normal(1200, 8).to(dtype)
    copy, state = points.clone(), torch.random.get_rng_state()
    chosen = greedy_k_center(points, 30, generator=torch.Generator().manual_seed(0))
    assert chosen.dtype == torch.int64
    assert torch.equal(points, copy)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_all_points_are_read_once_per_round_and_not_once_per_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = 0
    update = coreset._update

    def counted(*args: Tensor) -> None:
        nonlocal reads
        reads += 1
        update(*args)

    monkeypatch.setattr(coreset, "_update", counted)
    assert len(greedy_k_center(normal(8000, 32), 800)) == 800
    assert reads <= 800 / 20
