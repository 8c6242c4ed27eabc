"""The region of interest: the part of every picture that is inspected, as a mask.

It is given as an image file, an array, or polygons, in relative coordinates or in pixels, and belongs to the model, not
to the picture: a fixed camera sees a fixed fixture. A mask covers pictures of any size, stretched over them.

In a model's manifest it is the run lengths that COCO calls uncompressed RLE: {"size": [H, W], "counts": [...]}, pixels
column by column, outside and inside by turns, beginning with outside.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blemish.data.formats import MAX_PIXELS, MAX_SIDE, open_regular
from blemish.data.image_io import read_image
from blemish.errors import DataError, UsageError
from blemish.functional.outlines import fill
from blemish.functional.pixels import under_center

Mask: TypeAlias = npt.NDArray[np.bool_]
Roi: TypeAlias = "str | os.PathLike[str] | npt.NDArray[Any] | Sequence[Sequence[Sequence[float]]] | Mapping[str, Any]"
"""What `read_roi` takes."""

RELATIVE_SIZE = (1024, 1024)
"""(H, W) of the mask that polygons in relative coordinates are drawn on."""

MAX_POINTS = 20_000
"""Corners of all polygons together."""
MAX_JSON = 16 * 2**20
"""Bytes of a file with polygons or run lengths."""

_FORMS = (
    'a file, an (H, W) array, polygons of (x, y) points in [0, 1], {"size": [H, W], "polygons": [...]} in pixels, or '
    '{"size": [H, W], "counts": [...]}'
)


def read_roi(roi: Roi) -> Mask:
    """The mask that a region of interest stands for: (H, W) bool, True inside.

    Args:
        roi: an image file, inside where it is at least half white; a .json file with polygons; an (H, W) array, inside
            where it isn't 0; a list of polygons, each a list of (x, y) from (0, 0), upper left, to (1, 1); or a mapping
            with the size of the picture that the points of its "polygons" count pixels of, or with the "counts" of its
            run lengths. A pixel is inside a polygon if its center is, and inside the region if it is in any polygon.

    Raises:
        UsageError: for another form, a region without any pixel, or one above the bounds of this module. DataError: if
            a file can't be read.
    """
    if isinstance(roi, (str, os.PathLike)):
        path = Path(roi)
        mask = read_roi(_read_json(path)) if path.suffix.lower() == ".json" else _read_picture(path)
    elif isinstance(roi, Mapping):
        mask = _from_mapping(roi)
    elif isinstance(roi, np.ndarray) and roi.ndim == 2:
        mask = roi != 0
    else:
        mask = _from_polygons(roi, RELATIVE_SIZE, (1, 1))
    if not mask.any():
        raise UsageError("The region of interest is empty. White, or the inside of a polygon, is what is inspected.")
    return np.ascontiguousarray(mask)


def run_lengths(mask: Mask) -> dict[str, list[int]]:
    """{"size", "counts"} of a mask; `read_roi` takes it back."""
    column_wise = np.concatenate([[False], mask.ravel(order="F")])
    starts = np.flatnonzero(np.diff(column_wise))
    return {"size": list(mask.shape), "counts": np.diff([0, *starts.tolist(), mask.size]).tolist()}


def stretched(mask: Mask, size: tuple[int, int]) -> Mask:
    """A mask over a picture of `size` (H, W): each pixel is that of `mask` under its center."""
    rows, columns = (under_center(np.arange(side), own, side) for side, own in zip(size, mask.shape, strict=True))
    return np.asarray(mask[rows][:, columns])


def cells_inside(
    mask: Mask, grid: tuple[int, int], full: Sequence[float] = (1, 1), cut: Sequence[float] = (0, 0)
) -> Mask:
    """Which cells of a grid hold a pixel of the region.

    Args:
        mask: (H, W) over the whole picture.
        grid: rows and columns.
        full: height and width of the picture, in units of the grid's.
        cut: where the grid begins in it.

    Returns:
        (rows, columns).
    """
    sums = np.pad(mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
    ends = []
    for side, cells, whole, start in zip(mask.shape, grid, full, cut, strict=True):
        edges = (np.arange(cells + 1) / cells + start) * (side / whole)
        first = np.floor(edges[:-1] + 1e-9).clip(0, side).astype(np.intp)
        ends.append((first, np.ceil(edges[1:] - 1e-9).clip(0, side).astype(np.intp)))
    (top, bottom), (left, right) = ends
    inside = sums[bottom][:, right] - sums[top][:, right] - sums[bottom][:, left] + sums[top][:, left]
    return np.asarray(inside > 0)


def _read_picture(path: Path) -> Mask:
    picture = read_image(path)
    half = 128 if picture.dtype == np.uint8 else 0.5
    return np.asarray(picture.max(axis=2) >= half)


def _read_json(path: Path) -> Any:
    try:
        with open_regular(path) as stream:
            content = json.loads(stream.read(MAX_JSON).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"The region of interest {path} can't be read: {error}") from error
    return np.empty(0) if isinstance(content, str) else content  # a name in a file is no form


def _from_mapping(roi: Mapping[str, Any]) -> Mask:
    size = roi.get("size")
    sound = isinstance(size, Sequence) and len(size) == 2 and all(_whole(side, 1, MAX_SIDE) for side in size)
    if not isinstance(size, Sequence) or not sound or size[0] * size[1] > MAX_PIXELS:
        raise UsageError(
            f"size of a region of interest must be [H, W], whole numbers from 1 to {MAX_SIDE:,} and at most "
            f"{MAX_PIXELS:,} pixels. Got {size!r:.80}."
        )
    shape = (size[0], size[1])
    if set(roi) == {"size", "polygons"}:
        return _from_polygons(roi["polygons"], shape, (size[1], size[0]))
    counts = roi.get("counts")
    if set(roi) != {"size", "counts"} or not isinstance(counts, Sequence):
        raise UsageError(f"roi must be {_FORMS}. Got keys {sorted(map(str, roi))}.")
    pixels = shape[0] * shape[1]
    if len(counts) > pixels + 1 or not all(_whole(n, 0, pixels) for n in counts) or sum(counts) != pixels:
        raise UsageError(
            f"counts of a region of interest must be whole numbers that add up to {shape[0]} x {shape[1]}, at most one "
            "more than there are pixels."
        )
    inside = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return inside.reshape(shape, order="F")


def _whole(number: Any, low: int, high: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and low <= number <= high


def _from_polygons(polygons: Any, size: tuple[int, int], extent: tuple[int, int]) -> Mask:
    """Polygons whose points lie between (0, 0) and `extent`, the (x, y) of the lower right corner."""
    try:
        parts = [np.asarray(polygon, dtype=np.float64) for polygon in polygons]
        sound = bool(parts) and all(part.ndim == 2 and part.shape[1] == 2 and len(part) >= 3 for part in parts)
    except (TypeError, ValueError, OverflowError):  # OverflowError: a whole number of hundreds of digits
        sound = False
    if not sound:
        raise UsageError(f"roi must be {_FORMS}. Got {polygons!r:.80}.")
    count = sum(map(len, parts))
    if count > MAX_POINTS:
        raise UsageError(
            f"Polygons of a region of interest may have {MAX_POINTS:,} points together. Got {count:,}. Simplify them, "
            "or give the region as an image, white inside."
        )
    windows = []
    work = 0.0  # pixels of windows, and rows that edges cross, which take twenty times as long
    for part in parts:
        if not (np.isfinite(part).all() and part.min() >= 0 and (part <= extent).all()):
            raise UsageError(
                f"Points of this region of interest must lie between (0, 0) and {extent}. Got {part.min(axis=0)} to "
                f"{part.max(axis=0)}. Points in pixels need the size: {{'size': [H, W], 'polygons': [...]}}."
            )
        scaled = part * (size[1] / extent[0], size[0] / extent[1])
        low, high = np.floor(scaled.min(axis=0)).astype(int), np.ceil(scaled.max(axis=0)).astype(int)
        windows.append((scaled - low, low, high))
        work += (high - low).prod() + 20 * np.abs(scaled[:, 1] - np.roll(scaled[:, 1], 1)).sum()
    if work > 2 * MAX_PIXELS:
        raise UsageError(
            "The polygons of this region of interest are too large, together, to be drawn one by one: their boxes and "
            f"twenty times the rows that their edges cross come to {work:,.0f} pixels, at most {2 * MAX_PIXELS:,} are "
            "drawn. Give the region as an image, white inside."
        )
    mask = np.zeros(size, dtype=np.bool_)
    for points, (left, top), (right, bottom) in windows:
        mask[top:bottom, left:right] |= fill([points.tolist()], (bottom - top, right - left))
    return mask
