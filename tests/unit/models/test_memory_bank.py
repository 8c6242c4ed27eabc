"""The bank against naive loops: neighbors, equation 7, and a stream that overflows the buffer."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from blemish.errors import MissingExtraError, UsageError
from blemish.models.patchcore.bank import MemoryBank


def points(count: int, seed: int = 0, channels: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, generator=generator) + torch.linspace(-50, 50, channels)


def filled(patches: torch.Tensor, **arguments: Any) -> MemoryBank:
    """Of images that are one patch each."""
    bank = MemoryBank(**arguments)
    bank.start()
    bank.observe(patches[:, None])
    bank.finish()
    return bank


def rows(bank: MemoryBank) -> np.ndarray:
    result: np.ndarray = (bank.rows.double() + bank.center.double()).numpy()
    return result


def test_rows_are_patches_that_were_observed() -> None:
    patches = points(200)
    bank = filled(patches, ratio=0.1)
    assert len(bank.rows) == 20
    nearest = NearestNeighbors(n_neighbors=1).fit(patches.numpy()).kneighbors(rows(bank))[0]
    np.testing.assert_allclose(nearest, 0, atol=1e-4)
    assert len(np.unique(rows(bank).round(3), axis=0)) == 20


@pytest.mark.parametrize("count", [1, 300, 6000])
def test_nearest_is_that_of_scikit_learn(count: int) -> None:
    bank, queries = filled(points(count), ratio=1.0, size=None), points(200, seed=1)
    expected, index = NearestNeighbors(n_neighbors=1).fit(rows(bank)).kneighbors(queries.double().numpy())
    found = bank.nearest(queries)
    np.testing.assert_allclose(found.distance.numpy(), expected, rtol=1e-4)
    np.testing.assert_array_equal(found.row.numpy(), index)


@pytest.mark.parametrize("size", [1, 30, 2000])
def test_radius_is_the_farthest_patch(size: int) -> None:
    patches = points(2000)
    bank = filled(patches * 3, ratio=1.0, size=40)
    bank.start()
    bank.size = size
    bank.observe(patches[:, None])
    bank.finish()
    expected = NearestNeighbors(n_neighbors=1).fit(rows(bank)).kneighbors(patches.double().numpy())[0].max()
    assert float(bank.radius) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_search_follows_the_rows() -> None:
    """After another fit, an update, or loaded state, nothing may be searched that was there before."""
    other, queries = filled(points(900, seed=7) + 30, ratio=1.0), points(50)
    for change in ("fit", "update", "load"):
        bank = filled(points(900), ratio=1.0)
        bank.nearest(queries)
        if change == "load":
            bank.load_state_dict(other.state_dict())
        else:
            bank.start() if change == "fit" else bank.resume()
            bank.observe(points(900, seed=7)[:, None] + 30)
            bank.finish()
        fresh = MemoryBank(ratio=1.0)
        fresh.load_state_dict(bank.state_dict())
        torch.testing.assert_close(bank.nearest(queries).distance, fresh.nearest(queries).distance)


@pytest.mark.parametrize("b", [1, 2, 5, 1000])
def test_image_scores_follow_equation_7(b: int) -> None:
    bank, images, per_image = filled(points(60), ratio=0.5), 5, 12
    patches = points(images * per_image, seed=2)
    got = bank.image_scores(patches, bank.nearest(patches), images, b)
    memory = rows(bank)
    for image, score in zip(patches.double().view(images, per_image, -1).numpy(), got, strict=True):
        distances = np.linalg.norm(image[:, None] - memory, axis=2)  # (P, M)
        worst = distances.min(axis=1).argmax()
        star = distances[worst].min()
        nearest = memory[distances[worst].argmin()]
        around = np.argsort(np.linalg.norm(memory - nearest, axis=1))[:b]
        weight = 1.0
        if b > 1:
            weight = 1 - math.exp(star) / sum(math.exp(one) for one in distances[worst][around])
        assert float(score) == pytest.approx(weight * star, rel=1e-4)


def held(bank: MemoryBank) -> int:
    """Rows of features that a bank holds while it observes."""
    state = bank.observed_state()
    return len(state["patches"]) + len(state["coresets"])


def test_overflowing_stream_still_covers_everything() -> None:
    """Merge and reduce: every patch lies near the bank, nearly as near as if all had been seen at once."""
    patches = points(4000)
    whole = filled(patches, ratio=1.0, size=80)
    bank = MemoryBank(ratio=1.0, size=80, buffer_bytes=4 * 6 * 400)
    bank.start()
    for batch in patches.split(130):  # no divisor of the buffer
        bank.observe(batch[:, None])
        assert held(bank) <= 400 + 4 * 80  # ten blocks: at most four results wait
    bank.finish()
    assert len(bank.rows) == 80
    radius = float(bank.nearest(patches).distance.max())
    assert radius <= 2 * float(whole.nearest(patches).distance.max())


def test_buffer_fits_twice_the_bank() -> None:
    bank = MemoryBank(ratio=1.0, size=50, buffer_bytes=1)
    bank.start()
    bank.observe(points(100)[:, None])
    assert held(bank) == 100
    bank.observe(points(1)[:, None])
    assert held(bank) == 51
    bank.finish()
    assert len(bank.rows) == 50


def test_update_adds_only_what_is_not_covered() -> None:
    bank = filled(points(200), ratio=0.2)
    before = rows(bank)
    bank.resume()
    bank.observe(torch.cat([points(200), points(3, seed=5) + 500])[:, None])
    bank.finish()
    after = rows(bank)
    assert len(after) <= len(before) + 3
    assert (after > 400).all(axis=1).sum() >= 1
    for row in before:
        assert np.abs(after - row).max(axis=1).min() < 1e-3


def test_update_respects_the_size() -> None:
    bank = filled(points(200), ratio=1.0, size=30)
    bank.resume()
    bank.observe(points(200, seed=1)[:, None] * 3)
    bank.finish()
    assert len(bank.rows) == 30


def test_progress_is_reported() -> None:
    bank, seen = MemoryBank(ratio=0.5), []
    bank.start()
    bank.observe(points(100)[:, None])
    bank.finish(lambda *call: seen.append(call))
    assert seen[-1] == ("coreset", 50, 50)


# -------------------------------------------------------------------------------------------------------------- merging

P, D = 7, 6
SMALL: dict[str, Any] = {"ratio": 0.3, "size": 40, "buffer_bytes": 4 * D * 100}  # 14 images and two patches of the next


def images(count: int) -> torch.Tensor:
    return points(count * P).view(count, P, D)


def observer(found: torch.Tensor, numbers: Sequence[int] | None = None, **arguments: Any) -> MemoryBank:
    bank = MemoryBank(**arguments)
    bank.start()
    for batch in range(0, len(found), 4):
        some = None if numbers is None else numbers[batch : batch + 4]
        bank.observe(found[batch : batch + 4], images=some)
    return bank


def pieces(found: torch.Tensor, ends: Sequence[int], **arguments: Any) -> list[MemoryBank]:
    whole = range(len(found))
    cuts = [0, *ends, len(found)]
    return [observer(found[a:b], whole[a:b], **arguments) for a, b in pairwise(cuts)]


def merged(banks: Sequence[MemoryBank], **arguments: Any) -> MemoryBank:
    bank = MemoryBank(**arguments)
    bank.start()
    for other in banks:
        bank.merge(other.observed_state())
    bank.finish()
    return bank


def same_bank(one: MemoryBank, other: MemoryBank) -> bool:
    mine, others = one.state_dict(), other.state_dict()
    return mine.keys() == others.keys() and all(torch.equal(mine[name], others[name]) for name in mine)


@pytest.mark.parametrize("arguments", [{}, SMALL, {"size": None, "buffer_bytes": 4 * D * 100}], ids=str)
@pytest.mark.parametrize("ends", [[100], [1, 2], [14, 28, 42], [15, 43, 44, 101, 150], list(range(5, 200, 5))], ids=str)
def test_pieces_merge_to_the_bank_of_one_pass(ends: list[int], arguments: dict[str, Any]) -> None:
    """Bit for bit, wherever they are cut, in any order, with a buffer that overflows and without."""
    found = images(200)
    whole = observer(found, **arguments)
    whole.finish()
    for step in (1, -1):
        assert same_bank(merged(pieces(found, ends, **arguments)[::step], **arguments), whole)
    own, *others = pieces(found, ends, **arguments)
    for other in others:
        own.merge(other)
    own.finish()
    assert same_bank(own, whole)


def test_merging_leaves_the_other_as_it_was() -> None:
    found = images(60)
    first, second = pieces(found, [30], **SMALL)
    before = {name: tensor.clone() for name, tensor in second.observed_state().items()}
    first.merge(second)
    after = second.observed_state()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_every_second_image_merges_to_one_pass_while_it_fits() -> None:
    found = images(200)
    whole = observer(found, ratio=0.1)
    whole.finish()
    halves = [observer(found[r::2], range(r, 200, 2), ratio=0.1) for r in (0, 1)]
    assert same_bank(merged(halves[::-1], ratio=0.1), whole)


def test_every_second_image_stays_in_bounds_beyond_and_covers_as_well() -> None:
    found = images(400)
    whole = observer(found, **SMALL)
    whole.finish()
    halves = [observer(found[r::2], range(r, 400, 2), **SMALL) for r in (0, 1)]
    assert all(held(half) <= 2 * 100 + 6 * 40 for half in halves)
    bank = merged(halves, **SMALL)
    assert len(bank.rows) == 40
    radii = [float(one.nearest(found.flatten(0, 1)).distance.max()) for one in (bank, whole)]
    assert radii[0] <= 1.5 * radii[1]


def test_a_piece_from_the_middle_stays_in_bounds() -> None:
    bank = MemoryBank(**SMALL)
    bank.start()
    for number, image in enumerate(images(300), start=20):
        bank.observe(image[None], images=[number])
        assert held(bank) <= 2 * 100 + 2 * 5 * 40


def test_pieces_are_added_to_a_fitted_bank_once() -> None:
    found = images(40)
    bank = filled(points(200), ratio=0.2)
    expected = filled(points(200), ratio=0.2)
    for one in (bank, expected):
        one.resume()
    expected.observe(found + 9)
    for piece in pieces(found + 9, [13]):
        bank.merge(piece)
    for one in (bank, expected):
        one.finish()
    assert len(bank.rows) > 40
    assert same_bank(bank, expected)


def test_parts_that_overlap_are_refused() -> None:
    found = images(20)
    with pytest.raises(
        UsageError, match=r"must have seen different images. Got image 0 in both: give `observe` the num"
    ):
        observer(found).merge(observer(found))
    late = observer(found, range(100, 120))
    with pytest.raises(UsageError, match=r"Got image 110 in both"):
        late.merge(observer(found, range(110, 130)))
    with pytest.raises(UsageError, match=r"features of one shape. Got \(7, 6\), \[6, 7\]."):
        late.merge(observer(found.mT.contiguous()))
    with pytest.raises(UsageError, match=r"Numbers of images must rise from 0, each once. Got 119 after 119."):
        late.observe(found[:1], images=[119])
    with pytest.raises(UsageError, match=r"Each image needs its number. Got 2 images, 1 numbers."):
        late.observe(found[:2], images=[130])


# -------------------------------------------------------------------------------------------------------------- origins


def cells() -> torch.Tensor:
    """Of a grid of 2 x 5 whose first column is outside the region of interest, and the last row's last."""
    return torch.tensor([(row, column) for row in (0, 1) for column in (1, 2, 3, 4)][:P])


@pytest.mark.parametrize("arguments", [{"ratio": 0.3}, SMALL], ids=str)
def test_origins_name_the_patch_a_row_was(arguments: dict[str, Any]) -> None:
    found = images(60)
    bank = observer(found, **arguments)
    bank.finish(cells=cells(), first=1000)
    assert bank.origin.shape == (len(bank.rows), 3)
    assert bank.origin.dtype == torch.int32
    where = {tuple(cell): patch for patch, cell in enumerate(cells().tolist())}
    for (image, *cell), row in zip(bank.origin.tolist(), rows(bank), strict=True):
        np.testing.assert_allclose(row, found[image - 1000, where[tuple(cell)]].double().numpy(), atol=1e-4)
    assert len({tuple(origin) for origin in bank.origin.tolist()}) == len(bank.rows)


def test_origins_travel_where_they_are_known() -> None:
    known, unknown = observer(images(20)), observer(images(20))
    known.finish(cells=cells())
    unknown.finish()
    assert bool((unknown.origin == -1).all())
    assert "origin" in known.state_dict()
    assert "origin" not in unknown.state_dict()  # as files of before origins were kept
    for bank in (known, unknown):
        again = MemoryBank()
        again.load_state_dict(bank.state_dict())
        assert torch.equal(again.origin, bank.origin)
        assert again.state_dict().keys() == bank.state_dict().keys()


def test_an_update_keeps_origins_and_knows_new_ones_only_when_told() -> None:
    for first in (None, 20):
        bank = observer(images(20), ratio=0.5)
        bank.finish(cells=cells())
        before = bank.origin.clone()
        bank.resume()
        bank.observe(images(5) + 100)
        bank.finish(cells=cells(), first=first)
        assert torch.equal(bank.origin[: len(before)], before)
        new = bank.origin[len(before) :, 0].unique().tolist()
        assert new == [-1] if first is None else set(new) <= set(range(20, 25))


# ------------------------------------------------------------------------------------------- approximate neighbors


def exact_and_approximate(count: int, channels: int = 16) -> tuple[MemoryBank, MemoryBank]:
    pytest.importorskip("faiss")
    patches = points(count, channels=channels)
    searches: tuple[Literal["exact", "faiss"], ...] = ("exact", "faiss")
    exact, approximate = (filled(patches, ratio=1.0, size=count, neighbor_search=one) for one in searches)
    return exact, approximate


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("count", [1, 2, 17, 3000])
def test_approximate_distances_are_never_too_low(count: int, dtype: str) -> None:
    exact, approximate = exact_and_approximate(count)
    for bank in (exact, approximate):
        bank.rows = bank.rows.to(getattr(torch, dtype))
    queries = points(count, channels=16).repeat(math.ceil(500 / count), 1)[:500]  # what was observed, and noise
    queries += 0.3 * torch.randn(queries.shape, generator=torch.Generator().manual_seed(1))
    truth, found = exact.nearest(queries), approximate.nearest(queries)
    torch.testing.assert_close(exact.rows, approximate.rows)
    assert found.row.shape == found.distance.shape == (500, 1)
    assert bool((found.distance >= truth.distance - 1e-6).all())
    differences = queries - approximate.center - approximate.rows[found.row[:, 0]].float()
    torch.testing.assert_close(found.distance[:, 0], differences.norm(dim=1))
    assert float((found.row == truth.row).float().mean()) > 0.9


def test_approximate_search_repeats_itself() -> None:
    queries = points(500, seed=1, channels=16)
    first, second = (exact_and_approximate(3000)[1].nearest(queries) for _ in range(2))
    assert torch.equal(first.row, second.row)
    assert torch.equal(first.distance, second.distance)


def test_approximate_search_follows_the_rows() -> None:
    bank, queries = exact_and_approximate(900)[1], points(50, channels=16) + 30
    before = bank.nearest(queries).distance
    bank.resume()
    bank.observe(queries[:, None])
    bank.size = None
    bank.finish()
    assert float(bank.nearest(queries).distance.max()) < 1e-3 < float(before.min())


def test_approximate_search_needs_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r'needs faiss, .* Run: pip install "blemish\[faiss\]"'):
        MemoryBank(neighbor_search="faiss")
    MemoryBank()
