"""A picture of a verdict whose colors mean the same on every image of a model.

A heat map stretched to each image's own minimum and maximum paints a perfect part in alarming red. Here color is
anchored to the calibrated pixel threshold: below it nothing is painted at all, and from it upwards

    t = (value - threshold) / (1 - threshold)        t in [0, 1] -> `HEAT`, light yellow to dark red, ever darker

so a hot pixel is a pixel over the threshold, and the same color is the same normalized value everywhere.

Axes: (H, W) are the pixels of the image as it lies on disk; the picture keeps them, and a caption is added below. Where
the image is narrower than a piece of the caption, the canvas is wider than the image.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError
from blemish.functional.regions import Region
from blemish.visualization.caption import (
    MISPLACED,
    NOTHING_MARKED,
    VERDICT,
    below,
    color_bar,
    legend_tile,
    note_tile,
    text_size,
    verdict_tiles,
    wrapped,
)
from blemish.visualization.drawing import (
    Color,
    Mask,
    Picture,
    as_map,
    as_mask,
    as_picture,
    contour,
    dilate,
    frame,
    line_width,
    same_size,
)

HEAT: npt.NDArray[np.float64] = np.array(
    [(255, 236, 120), (254, 184, 64), (246, 110, 44), (214, 34, 60), (148, 0, 84)], dtype=np.float64
)
"""Stops of the ramp, evenly spaced from the threshold to 1; lightness falls throughout, so it also works in gray."""

PREDICTED: Color = (255, 0, 170)
TRUTH: Color = (0, 205, 255)
_NOT_INSPECTED = 0.4
"""Brightness that is left outside the region of interest."""


def overlay(
    image: npt.ArrayLike,
    anomaly_map: npt.ArrayLike,
    *,
    threshold: float = 0.5,
    mask: npt.ArrayLike | None = None,
    regions: Iterable[Region] = (),
    label: str | None = None,
    score: float | None = None,
    score_threshold: float | None = None,
    gt_mask: npt.ArrayLike | None = None,
    roi: npt.ArrayLike | None = None,
    opacity: float = 0.6,
    caption: bool = True,
) -> Picture:
    """Paint what a model found onto the image it found it in.

    Args:
        image: (H, W, 3) uint8 RGB, or gray (H, W).
        anomaly_map: (H, W) normalized values; values outside [0, 1] are painted as the nearest end.
        threshold: the normalized value in [0, 1] from which a pixel is anomalous.
        mask: (H, W) predicted mask whose outline is drawn; None for the pixels at or over the threshold.
        regions: their boxes are drawn.
        label: "normal" or "anomalous", printed in the caption.
        score: the image's score, printed.
        score_threshold: the score from which the image is anomalous, on the same scale (raw or normalized); printed
            beside it.
        gt_mask: (H, W) true mask, outlined in another color.
        roi: (H, W) region of interest; what lies outside was not inspected and is darkened.
        opacity: of the hot colors, in [0, 1].
        caption: add a strip below with the verdict and a color bar; left out on pictures not twice as high as it.

    Returns:
        (H + strip, W or more, 3) uint8. The first H rows and W columns are the picture.

    Raises:
        UsageError: sizes differ, or a number or label is out of its range.
        NonFiniteError: the map holds NaN or infinity.
    """
    picture, values = as_picture(image), as_map(anomaly_map)
    same_size(picture, values, "anomaly_map")
    for name, number in (("threshold", threshold), ("opacity", opacity)):
        if not 0 <= number <= 1:
            raise UsageError(f"{name} must lie between 0 and 1. Got {number}.")
    if label is not None and label not in VERDICT:
        raise UsageError(f'label must be "normal" or "anomalous". Got {label!r}.')

    hot = values >= threshold
    drawn = np.array(picture)
    if roi is not None:
        inside = as_mask(roi)
        drawn = darkened(drawn, inside)
        hot &= inside  # a threshold of 0 reaches everything
    blended = (1 - opacity) * picture[hot] + opacity * heat(values[hot], threshold)
    drawn[hot] = np.rint(blended).astype(np.uint8)

    found, regions = hot if mask is None else as_mask(mask), tuple(regions)
    same_size(picture, found, "mask")
    thick = line_width(picture)
    for region in regions:
        drawn[frame(region.box, picture.shape[:2], thick)] = PREDICTED
    drawn[contour(found, thick)] = PREDICTED
    truth = None if gt_mask is None else as_mask(gt_mask)
    if truth is not None:
        same_size(picture, truth, "gt_mask")
        drawn = outlined(drawn, truth, TRUTH)

    if not caption:
        return drawn
    size = text_size(drawn.shape[1])
    tiles = verdict_tiles(size, label, score, score_threshold)
    tiles.append(
        color_bar(size, lambda at: _bar_colors(at, threshold), [(threshold, f"pixel threshold {threshold:.2f}")])
    )
    tiles += notes(size, label, found, bool(regions), truth)
    return below(drawn, wrapped(tiles, drawn.shape[1], size))


def notes(size: int, label: str | None, found: Mask, boxes: bool, truth: Mask | None) -> list[Picture]:
    """What lines on a picture mean, and what a reader might not expect of them, as tiles for a caption.

    Args:
        size: height of text in pixels.
        label: the verdict, if it is known.
        found: (H, W) what is marked.
        boxes: whether there are boxes.
        truth: (H, W) true mask, if it is known.
    """
    tiles = []
    if found.any():
        tiles.append(legend_tile("over the pixel threshold", size, PREDICTED, "outline"))
    if boxes:
        tiles.append(legend_tile("region", size, PREDICTED, "box"))
    if truth is not None:
        tiles.append(legend_tile("true defect", size, TRUTH, "outline"))
    if label == "anomalous" and not found.any():
        tiles.append(note_tile(f"anomalous, {NOTHING_MARKED}", size))
    if truth is not None and misplaced(found, truth):
        tiles.append(note_tile(MISPLACED, size))
    return tiles


def misplaced(found: Mask, truth: Mask) -> bool:
    """Whether something is marked, and none of it lies on the defect that is there."""
    return bool(found.any() and truth.any() and not (found & truth).any())


def darkened(picture: Picture, roi: npt.ArrayLike) -> Picture:
    """The picture with what lies outside of a region of interest (H, W) darkened: it was not inspected."""
    inside = as_mask(roi)
    same_size(picture, inside, "roi")
    drawn = np.array(picture)
    drawn[~inside] = np.rint(_NOT_INSPECTED * drawn[~inside]).astype(np.uint8)
    return drawn


def outlined(picture: Picture, mask: Mask, color: Color) -> Picture:
    """The picture with the rim of a mask in a color, between two dark lines, so that it shows on every ground."""
    thick = line_width(picture)
    rim = contour(mask, thick)
    drawn = np.array(picture)
    drawn[dilate(rim, max(1, thick // 2))] = 0
    drawn[rim] = color
    return drawn


def heat(values: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.float64]:
    """Colors (..., 3) in [0, 255] of normalized values at or over the threshold."""
    span = 1 - threshold
    t = np.clip((values - threshold) / span, 0, 1) if span > 0 else np.ones_like(values)
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(t, stops, HEAT[:, channel]) for channel in range(3)], axis=-1)


def _bar_colors(values: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.float64]:
    """Gray below the threshold, where nothing is painted."""
    return np.where((values >= threshold)[:, None], heat(values, threshold), 70.0)
