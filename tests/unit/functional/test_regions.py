from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from blemish.errors import NonFiniteError, UsageError
from blemish.functional.outlines import fill
from blemish.functional.regions import Region, cores, find_regions, label_components

Mask = NDArray[np.bool_]
MASKS = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=14))


def spiral(size: int) -> Mask:
    """One long arm, one pixel wide: the worst case for joining runs."""
    mask = np.zeros((size + 4, size + 4), np.bool_)
    mask[[0, -1]], mask[:, [0, -1]] = True, True  # a wall, two pixels away
    y, x, dy, dx, turns = 2, 2, 0, 1, 0
    while turns < 2:
        mask[y, x] = True
        if mask[y + 2 * dy, x + 2 * dx]:
            dy, dx, turns = dx, -dy, turns + 1
        else:
            y, x, turns = y + dy, x + dx, 0
    return mask[2:-2, 2:-2]


def comb(size: int) -> Mask:
    """Teeth that only the last row joins."""
    mask = np.zeros((size, size), np.bool_)
    mask[:, ::2] = True
    mask[-1] = True
    return mask


def noise(share: float) -> Mask:
    return np.random.default_rng(0).random((97, 61)) < share


EXAMPLES = {
    "empty": np.zeros((5, 7), np.bool_),
    "full": np.ones((5, 7), np.bool_),
    "no rows": np.zeros((0, 7), np.bool_),
    "one row": np.array([[1, 0, 1, 1, 0, 1]], np.bool_),
    "one column": np.array([[1], [0], [1], [1]], np.bool_),
    "checkerboard": np.indices((9, 8)).sum(0) % 2 == 0,
    "spiral": spiral(41),
    "comb": comb(41),
    "comb upside down": comb(41)[::-1],
    "sparse noise": noise(0.2),
    "critical noise": noise(0.41),
    "dense noise": noise(0.6),
}


def assert_same_partition(mask: Mask, connectivity: int) -> None:
    labels, n = label_components(mask, connectivity)
    expected_n, expected = cv2.connectedComponents(mask.astype(np.uint8), connectivity=connectivity)
    assert n == expected_n - 1
    assert labels.dtype == np.int32
    # Equal up to the names of the components: each pair of names occurs once.
    pairs = np.unique(np.stack([labels.ravel(), expected.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))
    first = [int(np.flatnonzero(labels.ravel() == name)[0]) for name in range(1, n + 1)]
    assert first == sorted(first)
    assert set(np.unique(labels)) - {0} == set(range(1, n + 1))


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("mask", [mask for name, mask in EXAMPLES.items() if name != "no rows"])
def test_components_are_those_of_opencv(mask: Mask, connectivity: int) -> None:
    assert_same_partition(mask, connectivity)


@given(MASKS, st.sampled_from([4, 8]))
def test_components_of_any_mask_are_those_of_opencv(mask: Mask, connectivity: int) -> None:
    assert_same_partition(mask, connectivity)


def naive_regions(mask: Mask, score_map: NDArray[np.float32]) -> list[Region]:
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    regions = []
    for name in range(1, n):
        x, y, width, height, area = (int(value) for value in stats[name])
        pixels = [(float(score_map[py, px]), (int(px), int(py))) for py, px in np.argwhere(labels == name)]
        top = max(score for score, _ in pixels)
        peak = next(at for score, at in pixels if score == top)
        mean = float(np.mean([score for score, _ in pixels]))
        regions.append(Region((x, y, x + width, y + height), area, peak, top, mean, ()))
    return regions


@given(MASKS, st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_regions_are_those_of_a_loop(mask: Mask, seed: int, decimals: int) -> None:
    score_map = np.random.default_rng(seed).normal(size=mask.shape).round(decimals).astype(np.float32)
    found = find_regions(mask, score_map)
    expected = {region.peak: region for region in naive_regions(mask, score_map)}
    assert len(found) == len(expected)
    for region in found:
        twin = expected[region.peak]
        assert (region.box, region.area, region.peak_score) == (twin.box, twin.area, twin.peak_score)
        assert region.mean_score == pytest.approx(twin.mean_score, abs=1e-12)
        filled = fill(region.polygon, mask.shape)
        assert (filled.sum(), filled[region.peak[::-1]]) == (region.area, True)
    peaks = [region.peak_score for region in found]
    assert peaks == sorted(peaks, reverse=True)


@given(MASKS, st.integers(0, 2**32 - 1), st.integers(0, 2))
def test_cores_are_those_of_a_loop(mask: Mask, seed: int, decimals: int) -> None:
    rough = np.random.default_rng(seed).normal(size=mask.shape).astype(np.float32)
    score_map = cv2.GaussianBlur(rough, None, 1.0).reshape(mask.shape).round(decimals)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    expected = np.zeros_like(mask)
    for name in range(1, count):
        inside = labels == name
        peak = float(score_map[inside].max())
        high = inside & (score_map >= 0.75 * peak) if peak > 0 else inside
        _, pieces = cv2.connectedComponents(high.astype(np.uint8), connectivity=8)
        expected |= pieces == pieces[inside & (score_map == np.float32(peak))][0]
    np.testing.assert_array_equal(cores(mask, score_map), expected)


def test_a_core_is_relative_to_its_own_peak() -> None:
    """Of two defects alike but for their height the cores are the same; a ridge with two summits stays one region."""
    bump = cv2.GaussianBlur(np.pad(np.ones((9, 20), np.float32), 20), None, 4.0)
    scores = np.hstack([16 * bump, 1024 * bump])
    core, width = cores(scores >= 1, scores), bump.shape[1]
    np.testing.assert_array_equal(core[:, :width], core[:, width:])
    assert core.sum() < (scores >= 1).sum() / 3
    ridge = np.array([[1, 9, 2, 8, 1]], np.float32)
    assert cores(ridge >= 1, ridge).tolist() == [[False, True, False, False, False]]


@pytest.mark.parametrize("worst", [np.nan, np.inf])
def test_a_core_of_broken_scores_is_not_lost(worst: float) -> None:
    assert cores(np.ones((1, 3), np.bool_), np.array([[5, worst, 5]], np.float32)).tolist() == [[False, True, False]]
    assert cores(np.ones((1, 2), np.bool_), np.full((1, 2), -np.inf, np.float32)).all()


def test_a_region_reads_as_documented() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:3, 2:5] = True
    mask[5, 7] = True
    score_map = np.zeros((6, 8), np.float32)
    score_map[2, 4] = 6.0
    score_map[5, 7] = 9.0
    assert find_regions(mask, score_map) == [
        Region((7, 5, 8, 6), 1, (7, 5), 9.0, 9.0, polygon=(((7, 5), (8, 5), (8, 6), (7, 6)),)),
        Region((2, 1, 5, 3), 6, (4, 2), 6.0, 1.0, polygon=(((2, 1), (5, 1), (5, 3), (2, 3)),)),
    ]
    (large,) = find_regions(mask, score_map, min_area=2)
    assert (large.area, large.polygon) == (6, (((2, 1), (5, 1), (5, 3), (2, 3)),))
    assert find_regions(mask, score_map, min_area=7) == []


def test_ties_are_ordered_by_raster() -> None:
    mask = np.array([[0, 0, 1], [0, 0, 0], [1, 0, 1]])
    found = find_regions(mask, np.ones((3, 3)))
    assert [region.peak for region in found] == [(2, 0), (0, 2), (2, 2)]


@pytest.mark.parametrize("mask", [EXAMPLES["empty"], EXAMPLES["no rows"]], ids=["empty", "no rows"])
def test_nothing_marked_gives_no_region(mask: Mask) -> None:
    assert find_regions(mask, np.zeros(mask.shape)) == []
    assert label_components(mask)[1] == 0


def test_a_mask_may_hold_any_numbers() -> None:
    assert label_components(np.array([[255, 0, 128]], np.uint8))[0].tolist() == [[1, 0, 2]]


def test_bad_arguments_are_named() -> None:
    with pytest.raises(UsageError, match=r"A mask must have shape \(H, W\). Got \(2, 2, 2\)."):
        label_components(np.zeros((2, 2, 2)))
    with pytest.raises(UsageError, match=r"connectivity must be 4 or 8. Got 6."):
        label_components(np.zeros((2, 2)), 6)
    with pytest.raises(UsageError, match=r"mask and score_map must have one shape. Got \(2, 2\) and \(2, 3\)."):
        find_regions(np.ones((2, 2)), np.ones((2, 3)))
    with pytest.raises(NonFiniteError, match="The score map holds NaN or infinity within the mask"):
        find_regions(np.ones((1, 2)), np.array([[1.0, np.nan]]))


def test_regions_need_no_torch() -> None:
    code = "import sys; sys.modules['torch'] = None; from blemish.functional.regions import find_regions"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("corner", [(0, 0), (7, 30), (60, 81)])
def test_regions_and_cores_lie_where_the_mask_does(corner: tuple[int, int]) -> None:
    """Only the part of an image that has marks is looked at."""
    rng = np.random.default_rng(5)
    small, scores = rng.random((20, 15)) > 0.6, rng.random((20, 15), dtype=np.float32)
    y, x = corner
    mask, score_map = np.zeros((80, 96), bool), np.full((80, 96), np.nan, np.float32)
    mask[y : y + 20, x : x + 15], score_map[y : y + 20, x : x + 15] = small, scores
    for there, here in zip(find_regions(mask, score_map), find_regions(small, scores), strict=True):
        x0, y0, x1, y1 = here.box
        assert there.box == (x0 + x, y0 + y, x1 + x, y1 + y)
        assert there.peak == (here.peak[0] + x, here.peak[1] + y)
        assert there.polygon == tuple(tuple((px + x, py + y) for px, py in ring) for ring in here.polygon)
        assert (there.area, there.peak_score, there.mean_score) == (here.area, here.peak_score, here.mean_score)
    np.testing.assert_array_equal(cores(mask, score_map)[y : y + 20, x : x + 15], cores(small, scores))
    assert not cores(mask, score_map)[~mask].any()
