"""Masks to polygons and back, without losing a pixel.

A polygon runs along the edges of pixels: pixel (x, y) is the square from (x, y) to (x + 1, y + 1), so the area of a
polygon is the number of its pixels, and filling it gives them back. Tracing through pixel centers, as contour finders
do, loses half a pixel on every side and all of a line one pixel wide.

A ring turns only where one or three of the four pixels around a lattice point are set, or two across; its corners pair
up along rows and along columns. Where two pixels touch in a corner alone the ring passes from one to the other, as in
the 8-connected regions of `functional.regions`. Pure numpy.

Axes: points are (x, y) = (column, row), x rightwards, y downwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Ring: TypeAlias = tuple[tuple[int, int], ...]
"""Corners of a closed line; the last is joined to the first."""


def trace(place: npt.NDArray[np.int64], label: npt.NDArray[np.int64], count: int, width: int) -> list[tuple[Ring, ...]]:
    """The outlines of the components of a mask.

    Args:
        place: (P,) row * width + column of its pixels, rising.
        label: (P,) the component of each of them, 1..count; 8-connected, see `regions.label_components`.
        count: how many there are.
        width: of the mask.

    Returns:
        For each component its rings: the outer one, clockwise as seen on a screen, then its holes, the other way round.
        Each starts at its uppermost, then leftmost corner.
    """
    if not count:
        return []
    row, column = np.divmod(place, width)
    top, left = int(row[0]) - 1, int(column.min()) - 1  # a border of one pixel around all of them
    width = int(column.max()) - left + 2
    flat = np.zeros((int(row[-1]) - top + 2) * width, np.int32)
    place = (row - top) * width + column - left
    flat[place] = label
    # A ring can only turn where a horizontal run of pixels begins or ends, at one of four lattice points around its
    # ends. The number of a lattice point is that of the pixel above it and to the left.
    begins, ends = place[flat[place - 1] == 0], place[flat[place + 1] == 0]
    lattice = np.sort(np.concatenate([begins - width - 1, begins - 1, ends - width, ends]))
    lattice = lattice[np.flatnonzero(np.diff(lattice, prepend=-1))]  # np.unique would import masked arrays, 50 ms
    around = [flat[lattice + step] for step in (0, 1, width, width + 1)]
    parts = [part != 0 for part in around]
    differs, across = parts[0] ^ parts[3], (parts[0] == parts[3]) & (parts[1] == parts[2]) & (parts[0] ^ parts[1])
    turns = np.flatnonzero((differs ^ parts[1] ^ parts[2]) | across)  # one or three set, or two across
    twice = across[turns].astype(np.intp) + 1
    second = np.repeat(np.cumsum(twice) - twice, twice) != np.arange(twice.sum())
    turns = np.repeat(turns, twice)
    y, x = np.divmod(lattice[turns], width)
    upper_left, upper_right, lower_left, lower_right = (part[turns] for part in parts)
    owner = np.max([part[turns] for part in around], axis=0)

    # Every corner joins one edge of its row, to the left or right of it, with one of its column, above or below. Where
    # pixels touch across, there are two corners in one place: the first takes the edge above.
    double = across[turns]
    leftwards = np.where(double, upper_left == second, upper_left != lower_left)
    upwards = np.where(double, ~second, upper_left != upper_right)
    after = np.empty(len(y), np.intp)
    _join(after, np.lexsort((~leftwards, x, y)), forwards=lower_right)
    _join(after, np.lexsort((~upwards, y, x)), forwards=lower_left)

    rings: list[list[Ring]] = [[] for _ in range(count)]
    following, owners = after.tolist(), owner.tolist()
    points = list(zip((x + left + 1).tolist(), (y + top + 1).tolist(), strict=True))
    seen = bytearray(len(points))
    for start in range(len(points)):  # in raster order, so the outer ring of a component comes first
        ring, corner = [], start
        while not seen[corner]:
            seen[corner] = 1
            ring.append(points[corner])
            corner = following[corner]
        if ring:
            rings[owners[start] - 1].append(tuple(ring))
    return [tuple(one) for one in rings]


def fill(rings: Iterable[Sequence[Sequence[float]]], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """The pixels of an (H, W) mask whose centers lie inside an odd number of rings of (x, y) points."""
    height, width = size
    odd = np.zeros((height, width + 1), dtype=np.uint8)
    center = np.arange(height) + 0.5
    for ring in rings:
        points = np.asarray(ring, dtype=np.float64)
        for (x0, y0), (x1, y1) in zip(points, np.roll(points, -1, axis=0), strict=True):
            rows = np.flatnonzero((y0 <= center) != (y1 <= center))
            crossing = x0 + (center[rows] - y0) * ((x1 - x0) / (y1 - y0)) if len(rows) else center[:0]
            first = np.ceil(crossing - 0.5).clip(0, width).astype(np.intp)  # the first pixel center to the right of it
            odd[rows, first] ^= 1  # an edge crosses a row once
    return np.bitwise_xor.accumulate(odd[:, :-1], axis=1).view(np.bool_)


def _join(after: npt.NDArray[np.intp], order: npt.NDArray[np.intp], forwards: npt.NDArray[np.bool_]) -> None:
    """Corners in the order of their row (or column) are ends of edges, two by two; an edge is walked from its first end
    to its second where `forwards` says so, with the component to the right.
    """
    first, last = order[::2], order[1::2]
    ahead = forwards[first]
    after[np.where(ahead, first, last)] = np.where(ahead, last, first)
