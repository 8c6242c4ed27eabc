"""From a mask to a list of defects: connected components and what is worth saying about each.

Pure numpy, because it also runs beside an exported graph where torch is absent. A mask is looked through once, for the
places of its True pixels; all that follows takes as long as there are such pixels, however large the mask is. They form
horizontal runs; runs that touch between neighboring rows are found by two binary searches and joined by a union-find
whose steps are array operations, so no Python loop visits pixels, runs or rows.

Maps are smoothed, so a mark that ends where the map falls below a threshold reaches beyond its defect, the further the
higher its peak is. `cores` cuts each mark relative to its own.

Axes: row (downwards), column (rightwards); the place of a pixel is row * width + column. Components are numbered from 1
in raster order of their first pixel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from blemish.errors import NonFiniteError, UsageError
from blemish.functional.outlines import Ring, trace

Integers: TypeAlias = NDArray[np.int64]
Mask: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class Region:
    """One connected defect, in the pixels of the mask it was found in.

    Attributes:
        box: (x0, y0, x1, y1), half-open: x1 and y1 are the first column and row beyond.
        area: number of pixels.
        peak: (x, y) of the highest score; the first in raster order when several tie.
        peak_score: the score there.
        mean_score: mean over the pixels of the region.
        polygon: rings of (x, y) corners along the edges of its pixels: the outer one, then the holes; see `outlines`.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: tuple[int, int]
    peak_score: float
    mean_score: float
    polygon: tuple[Ring, ...]

    def to_dict(self, mm_per_pixel: float | None = None) -> dict[str, Any]:
        """Numbers and lists, with "area_mm2": None without the side of a pixel in millimetres."""
        return {
            "box": list(self.box),
            "area": self.area,
            "area_mm2": None if mm_per_pixel is None else self.area * mm_per_pixel**2,
            "peak": list(self.peak),
            "peak_score": self.peak_score,
            "mean_score": self.mean_score,
            "polygon": [[list(point) for point in ring] for ring in self.polygon],
        }


CORE = 0.75
"""Of its peak that a pixel of a core reaches. Measured on drawn parts by `benchmarks/areas.py`."""


class _Runs(NamedTuple):
    """Maximal horizontal stretches of True, in raster order: pixels [start, end) of `row` have component `label`, one
    of `n` from 0 on. `pixel_label` is that of each True pixel, in raster order.
    """

    row: Integers
    start: Integers
    end: Integers
    label: Integers
    n: int
    pixel_label: Integers


def label_components(mask: ArrayLike, connectivity: int = 8) -> tuple[NDArray[np.int32], int]:
    """Number the connected components of a mask.

    Args:
        mask: (H, W) bool, or any numbers, where non-zero counts as True.
        connectivity: 8 (diagonal neighbors touch) or 4.

    Returns:
        (H, W) int32 with 0 for background and 1..n for components; and n.
    """
    mask = _checked(mask)
    place = np.flatnonzero(mask)
    runs = _label_runs(place, mask.shape[1], connectivity)
    return _painted(mask.shape, place, runs.pixel_label + 1), runs.n


def find_regions(mask: ArrayLike, score_map: ArrayLike, *, min_area: int = 1) -> list[Region]:
    """The 8-connected regions of a mask, the highest peak first (ties in raster order).

    Args:
        mask: (H, W) bool, True on anomalous pixels.
        score_map: (H, W) scores, higher is more abnormal.
        min_area: regions of fewer pixels are left out.

    Raises:
        UsageError: the shapes differ.
        NonFiniteError: the score of a masked pixel is NaN or infinite.
    """
    mask, score_map = _checked(mask), np.asarray(score_map)
    if score_map.shape != mask.shape:
        raise UsageError(f"mask and score_map must have one shape. Got {mask.shape} and {score_map.shape}.")
    place = np.flatnonzero(mask)  # raster order, as the runs
    score = score_map.reshape(-1)[place].astype(np.float64)
    if not np.isfinite(score).all():
        raise NonFiniteError("The score map holds NaN or infinity within the mask: its regions can't be ranked.")
    width = max(1, mask.shape[1])
    runs = _label_runs(place, width, connectivity=8)
    area = np.bincount(runs.pixel_label, minlength=runs.n)
    mean = np.bincount(runs.pixel_label, weights=score, minlength=runs.n) / area
    top = np.full(runs.n, -np.inf)
    np.maximum.at(top, runs.pixel_label, score)
    peak_y, peak_x = np.divmod(place[_first_at(top, runs.pixel_label, score)], width)
    box = np.full((runs.n, 4), np.iinfo(np.int64).max)
    np.minimum.at(box, runs.label, np.stack([runs.start, runs.row, -runs.end, -runs.row - 1], axis=1))
    box[:, 2:] *= -1
    large = area >= min_area
    number = np.where(large, np.cumsum(large), 0)  # among the large ones, from 1
    kept = large[runs.pixel_label]
    polygons = trace(place[kept], number[runs.pixel_label[kept]], int(large.sum()), width)
    return [
        Region(
            box=(int(box[i, 0]), int(box[i, 1]), int(box[i, 2]), int(box[i, 3])),
            area=int(area[i]),
            peak=(int(peak_x[i]), int(peak_y[i])),
            peak_score=float(top[i]),
            mean_score=float(mean[i]),
            polygon=polygons[number[i] - 1],
        )
        for i in np.argsort(-top, kind="stable")
        if large[i]
    ]


def cores(mask: ArrayLike, score_map: ArrayLike, share: float = CORE) -> Mask:
    """What a mark is about: of each 8-connected component of a mask the pixels that reach a share of its own peak and
    are connected with that peak. There are as many components as before, each within its own; one without a positive
    score stays whole.

    Args:
        mask: (H, W) bool, True on anomalous pixels.
        score_map: (H, W) raw scores, not cut off above; 0 is a perfect match. NaN counts as infinite.
        share: of the peak, in (0, 1].

    Returns:
        (H, W) bool.
    """
    mask = _checked(mask)
    place, width = np.flatnonzero(mask), mask.shape[1]  # in raster order, as all below
    runs = _label_runs(place, width, connectivity=8)
    score = np.asarray(score_map).reshape(-1)[place].astype(np.float64)
    score[np.isnan(score)] = np.inf
    peak = np.full(runs.n, -np.inf)
    np.maximum.at(peak, runs.pixel_label, score)
    reaching = score >= np.where(peak > 0, share * peak, -np.inf)[runs.pixel_label]
    pieces = _label_runs(place[reaching], width, connectivity=8)
    at_peak = np.cumsum(reaching)[_first_at(peak, runs.pixel_label, score)] - 1  # among those that reach
    chosen = np.zeros(pieces.n, np.bool_)
    chosen[pieces.pixel_label[at_peak]] = True
    found = np.zeros(mask.shape, np.bool_)
    found.reshape(-1)[place[reaching][chosen[pieces.pixel_label]]] = True
    return found


def highest(score_map: ArrayLike, region: Region | None, threshold: float) -> tuple[int, int]:
    """The pixel (x, y) of the highest value of a map, within a region if there is one. `Region.peak` is that of a
    normalized map, which may be 1 on many pixels.

    Args:
        score_map: (H, W) raw scores.
        region: found where they reach `threshold`.
        threshold: the raw score from which a pixel is anomalous.
    """
    score = np.asarray(score_map)
    x0, y0, x1, y1 = (0, 0, score.shape[1], score.shape[0]) if region is None else region.box
    score = score[y0:y1, x0:x1]
    if region is not None:
        label, _ = label_components(score >= threshold)
        own = label[region.peak[1] - y0, region.peak[0] - x0]
        score = np.where((label == own) | (own == 0), score, -np.inf)
    y, x = divmod(int(score.argmax()), score.shape[1])
    return x0 + x, y0 + y


def _checked(mask: ArrayLike) -> Mask:
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise UsageError(f"A mask must have shape (H, W). Got {mask.shape}.")
    return mask if mask.dtype == np.bool_ else np.asarray(mask != 0, dtype=np.bool_)


def _painted(shape: tuple[int, ...], place: Integers, label: Integers) -> NDArray[np.int32]:
    """(H, W) with the labels of the pixels at these places, and 0 elsewhere."""
    painted = np.zeros(shape, np.int32)
    painted.reshape(-1)[place] = label
    return painted


def _first_at(peak: NDArray[np.float64], pixel_label: Integers, score: NDArray[np.float64]) -> Integers:
    """For each component the first of its pixels whose score is its peak."""
    at_peak = np.flatnonzero(score == peak[pixel_label])[::-1]
    first = np.empty(len(peak), np.int64)
    first[pixel_label[at_peak]] = at_peak  # reversed, so that the first in raster order is written last
    return first


def _label_runs(place: Integers, width: int, connectivity: int) -> _Runs:
    if connectivity not in (4, 8):
        raise UsageError(f"connectivity must be 4 or 8. Got {connectivity}.")
    opens = np.ones(len(place), np.bool_)
    opens[1:] = (np.diff(place) != 1) | (place[1:] % width == 0)
    first = np.flatnonzero(opens)
    length = np.diff(first, append=len(place))
    row, start = np.divmod(place[first], max(1, width))
    end = start + length
    width += 2  # or a run that ends a row would touch the one that begins the next

    # Run b in the next row touches run a when b.end > a.start and b.start < a.end; diagonal contact allows equality.
    # Runs of one row don't overlap, so starts and ends both ascend and the touching b form one range.
    diagonal = connectivity == 8
    below = (row + 1) * width
    first = np.searchsorted(row * width + end, below + start, side="left" if diagonal else "right")
    last = np.searchsorted(row * width + start, below + end, side="right" if diagonal else "left")
    touching = np.maximum(last - first, 0)
    upper = np.repeat(np.arange(len(row)), touching)
    offset = np.arange(len(upper)) - np.repeat(np.cumsum(touching) - touching, touching)
    root = _roots(len(row), upper, np.repeat(first, touching) + offset)
    is_root = root == np.arange(len(row))
    label = (np.cumsum(is_root) - 1)[root]
    return _Runs(row, start, end, label, int(is_root.sum()), np.repeat(label, length))


def _roots(n: int, a: Integers, b: Integers) -> Integers:
    """Find the smallest member of the component of each of n elements, given edges a[i] - b[i].

    Each round hooks roots onto smaller roots across the edges still open, then makes every element point at its root.
    """
    parent = np.arange(n)
    while True:
        root_a, root_b = parent[a], parent[b]
        apart = root_a != root_b
        if not apart.any():
            return parent
        a, b, root_a, root_b = a[apart], b[apart], root_a[apart], root_b[apart]
        np.minimum.at(parent, np.maximum(root_a, root_b), np.minimum(root_a, root_b))
        while (parent != parent[parent]).any():
            parent = parent[parent]
