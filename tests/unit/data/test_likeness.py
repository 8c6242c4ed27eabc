"""Images of one part are told from images of different ones; against average linkage done the long way."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest

from blemish.data.likeness import SIDE, clusters, small

Array = npt.NDArray[np.float32]


def noise(rng: np.random.Generator) -> Array:
    return rng.standard_normal((SIDE, SIDE)).astype(np.float32)


def linked(pictures: list[Array], least: float) -> set[frozenset[int]]:
    """Average linkage by trying all pairs of clusters, again and again."""
    rest = np.stack(pictures).reshape(len(pictures), -1).astype(float)
    rest -= rest.mean(axis=0)
    rest /= np.linalg.norm(rest, axis=1, keepdims=True)
    alike = rest @ rest.T
    found = [frozenset([i]) for i in range(len(pictures))]

    def mean(pair: tuple[frozenset[int], frozenset[int]]) -> float:
        return float(np.mean([alike[i, j] for i in pair[0] for j in pair[1]]))

    while len(found) > 1:
        best = max(itertools.combinations(found, 2), key=mean)
        if mean(best) < least:
            break
        found = [one for one in found if one not in best] + [best[0] | best[1]]
    return set(found)


@pytest.mark.parametrize("seed", range(8))
def test_as_average_linkage_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = [noise(rng) for _ in range(12)]
    shots = [part + rng.uniform(0.1, 1.2) * noise(rng) for part in parts for _ in range(3)]
    numbers = clusters(shots)
    found = {frozenset(i for i, one in enumerate(numbers) if one == number) for number in numbers}
    assert found == linked(shots, 0.7)
    assert max(map(len, found)) > 1
    assert numbers[0] == 0
    assert list(dict.fromkeys(numbers)) == list(range(max(numbers) + 1)), "in the order of appearance"


def test_what_all_share_makes_nothing_alike() -> None:
    rng = np.random.default_rng(0)
    common = 50 * noise(rng)
    assert clusters([common + noise(rng) for _ in range(20)]) == list(range(20))


def test_what_many_share_is_no_part() -> None:
    """A part in one of two places: half of the pictures are alike, and are still told apart."""
    rng = np.random.default_rng(0)
    places = [3 * noise(rng), 3 * noise(rng)]
    numbers = clusters([places[i % 2] + noise(rng) for i in range(40)])
    assert np.bincount(numbers).max() <= 8


def test_brightness_contrast_and_size_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    picture = rng.uniform(50, 150, (64, 96, 3))
    dark = small((0.5 * picture + 20).astype(np.uint8))
    bright = small((picture / 255).astype(np.float32))
    assert np.corrcoef(dark.ravel(), bright.ravel())[0, 1] > 0.99
    np.testing.assert_allclose([dark.mean(), dark.std()], [0, 1], atol=1e-4)
    assert not small(np.full((40, 40, 3), 7, np.uint8)).any(), "without contrast it is like no other"
    assert clusters([np.zeros((SIDE, SIDE), np.float32)] * 12) == list(range(12))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few(count: int) -> None:
    rng = np.random.default_rng(0)
    assert clusters([noise(rng) for _ in range(count)]) == list(range(count))
