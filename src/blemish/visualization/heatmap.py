"""A picture of what a model saw where it marked nothing: the whole map in color, on one scale for all its pictures.

An overlay leaves everything below the threshold alone, so that a good part looks good; who asks why a defect was missed
needs the rest. Below the threshold the ramp is cold, dark blue to almost white, and from it upwards it is that of the
overlay, light yellow to dark red. Both ends are fixed for a model: normalized values 0 and 1, half a calibration range
below and above the threshold. What lies beyond has the color of the end: maps end there, in exported files as well.

Axes: as in `blemish.visualization.overlay`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.functional.regions import Region
from blemish.visualization.caption import INK, PAPER, below, color_bar, legend_tile, text_size, verdict_tiles, wrapped
from blemish.visualization.drawing import (
    Picture,
    as_map,
    as_mask,
    as_picture,
    same_size,
    text_tile,
)
from blemish.visualization.overlay import TRUTH, darkened, heat, notes, outlined, overlay

COLD: npt.NDArray[np.float64] = np.array(
    [(20, 24, 66), (30, 66, 128), (62, 124, 176), (140, 188, 214), (226, 240, 244)], dtype=np.float64
)
"""Stops of the ramp below the threshold, evenly spaced from 0 to it; lightness rises throughout."""

TILE = 1024
"""Longer side of a picture in a panel, in pixels; larger ones are made smaller."""


def heatmap(
    anomaly_map: npt.ArrayLike,
    *,
    threshold: float = 0.5,
    ticks: Sequence[tuple[float, str]] = ((0.0, "0"), (1.0, "1")),
    label: str | None = None,
    score: float | None = None,
    score_threshold: float | None = None,
    gt_mask: npt.ArrayLike | None = None,
    roi: npt.ArrayLike | None = None,
    caption: bool = True,
) -> Picture:
    """Paint a whole map, (H, W) normalized values, below the threshold as well.

    Arguments are those of `blemish.visualization.overlay.overlay`; `ticks` are (normalized value, text) pairs on the
    color bar, where the threshold has one of its own.

    Returns:
        (H + strip, W or more, 3) uint8. The first H rows and W columns are the map.

    Raises:
        UsageError: sizes differ, or a number or label is out of its range.
        NonFiniteError: the map holds NaN or infinity.
    """
    values = as_map(anomaly_map)
    painted = np.rint(colors(values, threshold)).astype(np.uint8)
    if roi is not None:
        painted = darkened(painted, roi)
    if gt_mask is not None:
        truth = as_mask(gt_mask)
        same_size(painted, truth, "gt_mask")
        painted = outlined(painted, truth, TRUTH)
    if not caption:
        return painted
    size = text_size(painted.shape[1])
    own = (threshold, f"{threshold:.2f}") if not any(value == threshold for value, _ in ticks) else None
    bar = color_bar(size, lambda at: colors(at, threshold), ([own] if own else []) + list(ticks))
    tiles = [*verdict_tiles(size, label, score, score_threshold), bar]
    tiles += [] if gt_mask is None else [legend_tile("true defect", size, TRUTH, "outline")]
    return below(painted, wrapped(tiles, painted.shape[1], size))


def panel(
    image: npt.ArrayLike,
    anomaly_map: npt.ArrayLike,
    *,
    threshold: float = 0.5,
    ticks: Sequence[tuple[float, str]] = ((0.0, "0"), (1.0, "1")),
    mask: npt.ArrayLike | None = None,
    regions: Iterable[Region] = (),
    label: str | None = None,
    score: float | None = None,
    score_threshold: float | None = None,
    gt_mask: npt.ArrayLike | None = None,
    roi: npt.ArrayLike | None = None,
) -> Picture:
    """Photo, heat map, overlay and, where it is known, truth, side by side, with one caption.

    Arguments are those of `blemish.visualization.overlay.overlay`, and `ticks` those of `heatmap`.

    Returns:
        (height, width, 3) uint8, in which each picture is at most `TILE` high and wide.

    Raises:
        UsageError, NonFiniteError: as `overlay`.
    """
    picture, values, regions = as_picture(image), as_map(anomaly_map), tuple(regions)
    marked = overlay(
        picture, values, threshold=threshold, mask=mask, regions=regions, gt_mask=gt_mask, roi=roi, caption=False
    )
    tiles = {
        "photo": picture,
        "heat map": heatmap(values, threshold=threshold, gt_mask=gt_mask, roi=roi, caption=False),
        "over the pixel threshold": marked,
    }
    if gt_mask is not None:
        tiles["truth"] = np.repeat(as_mask(gt_mask)[..., None] * np.uint8(255), 3, axis=2)
    scale = min(1.0, TILE / max(picture.shape[:2]))
    shown = [_titled(name, _scaled(tile, scale)) for name, tile in tiles.items()]
    columns = len(shown) if picture.shape[1] <= 1.5 * picture.shape[0] else 2 if len(shown) == 4 else 1
    grid = _grid(shown, columns)
    size = text_size(min(grid.shape[1], TILE))
    bar = color_bar(size, lambda at: colors(at, threshold), ticks)
    found = values >= threshold if mask is None else as_mask(mask)
    pieces = [*verdict_tiles(size, label, score, score_threshold), bar]
    pieces += notes(size, label, found, bool(regions), None if gt_mask is None else as_mask(gt_mask))
    return below(grid, wrapped(pieces, grid.shape[1], size))


def colors(values: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.float64]:
    """Colors (..., 3) in [0, 255] of normalized values: `COLD` below the threshold, the overlay's ramp from it on."""
    t = np.clip(values / threshold, 0, 1) if threshold > 0 else np.ones_like(values)
    stops = np.linspace(0, 1, len(COLD))
    cold = np.stack([np.interp(t, stops, COLD[:, channel]) for channel in range(3)], axis=-1)
    return np.where((values >= threshold)[..., None], heat(values, threshold), cold)


def _scaled(picture: Picture, scale: float) -> Picture:
    if scale == 1:
        return picture
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _titled(title: str, picture: Picture) -> Picture:
    tile = text_tile(title, text_size(min(2 * picture.shape[1], TILE)), INK, PAPER)
    canvas = np.full((len(tile) + len(picture), max(tile.shape[1], picture.shape[1]), 3), PAPER, dtype=np.uint8)
    canvas[: len(tile), : tile.shape[1]] = tile
    canvas[len(tile) :, : picture.shape[1]] = picture
    return canvas


def _grid(tiles: Sequence[Picture], columns: int) -> Picture:
    height, width = max(map(len, tiles)), max(tile.shape[1] for tile in tiles)
    gap = max(4, width // 100)
    rows = ceil(len(tiles) / columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), PAPER, dtype=np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // columns * (height + gap), number % columns * (width + gap)
        canvas[top : top + len(tile), left : left + tile.shape[1]] = tile
    return canvas
