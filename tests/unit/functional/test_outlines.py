"""Outlines against scikit-image, which asks of every pixel center whether it lies inside."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from skimage.measure import points_in_poly

from blemish.functional.outlines import Ring, fill, trace
from blemish.functional.regions import label_components

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


def rings_of(mask: np.ndarray) -> list[tuple[Ring, ...]]:
    labels, count = label_components(mask)
    place = np.flatnonzero(labels)
    return trace(place, labels.ravel()[place], count, mask.shape[1])


def contained(rings: tuple[Ring, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Pixels whose centers scikit-image finds inside an odd number of rings."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    centers = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    odd = np.logical_xor.reduce([points_in_poly(centers, np.array(ring)) for ring in rings])
    return np.asarray(odd).reshape(shape)


def signed_area(ring: Ring) -> float:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True)) / 2


@given(MASKS)
def test_an_outline_holds_the_pixels_it_was_traced_around(mask: np.ndarray) -> None:
    labels, count = label_components(mask)
    outlines = rings_of(mask)
    assert len(outlines) == count
    for number, rings in enumerate(outlines, 1):
        np.testing.assert_array_equal(contained(rings, mask.shape), labels == number)
        np.testing.assert_array_equal(fill(rings, mask.shape), labels == number)
        outer, *holes = (signed_area(ring) for ring in rings)
        assert outer > 0, "clockwise on a screen, where y points down"
        assert all(area < 0 for area in holes)
        assert outer + sum(holes) == (labels == number).sum()
        for ring in rings:
            assert ring[0] == min(ring, key=lambda point: point[::-1])
            turns = zip(ring, ring[1:] + ring[:1], ring[2:] + ring[:2], strict=True)
            assert all((a[0] == b[0]) != (b[0] == c[0]) for a, b, c in turns), "a corner on every turn and nowhere else"


def test_outlines_that_can_be_read() -> None:
    frame = np.ones((3, 4), bool)
    frame[1, 1:3] = False
    assert rings_of(frame) == [(((0, 0), (4, 0), (4, 3), (0, 3)), ((1, 1), (1, 2), (3, 2), (3, 1)))]
    touching = np.eye(2, dtype=bool)
    (rings,) = rings_of(touching)
    assert rings == (((0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (1, 2), (1, 1), (0, 1)),)
    assert rings_of(np.zeros((3, 3), bool)) == []


@given(st.lists(st.tuples(st.floats(-3, 14), st.floats(-3, 14)), min_size=3, max_size=8))
def test_any_polygon_is_filled_by_pixel_centers(points: list[tuple[float, float]]) -> None:
    polygon = np.array(points).round(3) + 0.00071  # no center lies on an edge, where rules differ
    y, x = np.mgrid[:10, :12]
    centers = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    expected = points_in_poly(centers, polygon).reshape(10, 12)
    unsure = np.zeros((10, 12), bool)
    for shift in (-1e-6, 1e-6):
        unsure |= points_in_poly(centers + np.array([shift, 0]), polygon).reshape(10, 12) != expected
    np.testing.assert_array_equal(fill([polygon], (10, 12)) | unsure, expected | unsure)


@pytest.mark.parametrize("size", [(4, 4), (1, 1)])
def test_nothing_fills_nothing(size: tuple[int, int]) -> None:
    assert not fill([], size).any()
