"""The bank against naive loops: neighbors, equation 7, and a stream that overflows the buffer."""

from __future__ import annotations

import math
import sys
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from blemish.errors import MissingExtraError
from blemish.models.patchcore.bank import MemoryBank


def points(count: int, seed: int = 0, channels: int = 6) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, channels, generator=generator) + torch.linspace(-50, 50, channels)


def filled(patches: torch.Tensor, **arguments: object) -> MemoryBank:
    bank = MemoryBank(**arguments)  # type: ignore[arg-type]
    bank.start()
    bank.observe(patches)
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
    bank.observe(patches)
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
            bank.observe(points(900, seed=7) + 30)
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


def test_overflowing_stream_still_covers_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge and reduce: every patch lies near the bank, nearly as near as if all had been seen at once."""
    patches = points(4000)
    whole = filled(patches, ratio=1.0, size=80)
    monkeypatch.setattr("blemish.models.patchcore.bank.BUFFER_BYTES", 4 * 6 * 400)
    bank = MemoryBank(ratio=1.0, size=80)
    bank.start()
    for batch in patches.split(130):  # no divisor of the buffer
        bank.observe(batch)
        assert len(bank._buffer) == 400
    bank.finish()
    assert len(bank.rows) == 80
    radius = float(bank.nearest(patches).distance.max())
    assert radius <= 2 * float(whole.nearest(patches).distance.max())


def test_buffer_fits_twice_the_bank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.models.patchcore.bank.BUFFER_BYTES", 1)
    bank = MemoryBank(ratio=1.0, size=50)
    bank.start()
    bank.observe(points(400))
    assert len(bank._buffer) == 100
    bank.finish()
    assert len(bank.rows) == 50


def test_update_adds_only_what_is_not_covered() -> None:
    bank = filled(points(200), ratio=0.2)
    before = rows(bank)
    bank.resume()
    bank.observe(torch.cat([points(200), points(3, seed=5) + 500]))
    bank.finish()
    after = rows(bank)
    assert len(after) <= len(before) + 3
    assert (after > 400).all(axis=1).sum() >= 1
    for row in before:
        assert np.abs(after - row).max(axis=1).min() < 1e-3


def test_update_respects_the_size() -> None:
    bank = filled(points(200), ratio=1.0, size=30)
    bank.resume()
    bank.observe(points(200, seed=1) * 3)
    bank.finish()
    assert len(bank.rows) == 30


def test_progress_is_reported() -> None:
    bank, seen = MemoryBank(ratio=0.5), []
    bank.start()
    bank.observe(points(100))
    bank.finish(lambda *call: seen.append(call))
    assert seen[-1] == ("coreset", 50, 50)


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
    bank.observe(queries)
    bank.size = None
    bank.finish()
    assert float(bank.nearest(queries).distance.max()) < 1e-3 < float(before.min())


def test_approximate_search_needs_faiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(MissingExtraError, match=r'needs faiss, .* Run: pip install "blemish\[faiss\]"'):
        MemoryBank(neighbor_search="faiss")
    MemoryBank()
