"""A picture of a verdict whose colors mean the same on every image of a model.

A heat map stretched to each image's own minimum and maximum paints a perfect part in alarming red. Here color is
anchored to the calibrated pixel threshold: below it nothing is painted at all, and from it upwards

    t = (value - threshold) / (1 - threshold)        t in [0, 1] -> `HEAT`, light yellow to dark red, ever darker

so a hot pixel is a pixel over the threshold, and the same color is the same normalized value everywhere.

Axes: (H, W) are the pixels of the image as it lies on disk; the picture keeps them, and a caption is added below. Where
the image is narrower than a piece of the caption, the canvas is wider than the image.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError
from blemish.functional.regions import Region
from blemish.visualization.drawing import (
    MIN_TEXT,
    Color,
    Mask,
    Picture,
    as_map,
    as_mask,
    as_picture,
    contour,
    line_width,
    same_size,
    text_box,
    text_tile,
)

HEAT: npt.NDArray[np.float64] = np.array(
    [(255, 236, 120), (254, 184, 64), (246, 110, 44), (214, 34, 60), (148, 0, 84)], dtype=np.float64
)
"""Stops of the ramp, evenly spaced from the threshold to 1; lightness falls throughout, so it also works in gray."""

PREDICTED: Color = (255, 0, 170)
TRUTH: Color = (0, 205, 255)
_NOT_INSPECTED = 0.4
"""Brightness that is left outside the region of interest."""
_PAPER: Color = (24, 25, 28)
_INK: Color = (232, 232, 232)
_VERDICT: dict[str, tuple[Color, Color]] = {
    "normal": ((12, 60, 28), (140, 222, 160)),
    "anomalous": ((255, 255, 255), (200, 30, 48)),
}
"""Verdict -> text and background color."""


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
    if label is not None and label not in _VERDICT:
        raise UsageError(f'label must be "normal" or "anomalous". Got {label!r}.')

    hot = values >= threshold
    drawn = np.array(picture)
    if roi is not None:
        inside = as_mask(roi)
        same_size(picture, inside, "roi")
        hot &= inside  # a threshold of 0 reaches everything
        drawn[~inside] = np.rint(_NOT_INSPECTED * drawn[~inside]).astype(np.uint8)
    blended = (1 - opacity) * picture[hot] + opacity * heat(values[hot], threshold)
    drawn[hot] = np.rint(blended).astype(np.uint8)

    thick = line_width(picture)
    found = hot if mask is None else as_mask(mask)
    same_size(picture, found, "mask")
    drawn[contour(found, thick)] = PREDICTED
    for region in regions:
        drawn[_frame(region.box, picture.shape[:2], thick)] = PREDICTED
    if gt_mask is not None:
        truth = as_mask(gt_mask)
        same_size(picture, truth, "gt_mask")
        drawn[contour(truth, thick)] = TRUTH

    if not caption:
        return drawn
    strip = _caption(drawn.shape[1], label, score, score_threshold, threshold, gt_mask is not None)
    height, width = drawn.shape[:2]
    if 2 * len(strip) > height:
        return drawn
    canvas = np.full((height, strip.shape[1], 3), _PAPER, dtype=np.uint8)
    canvas[:, :width] = drawn
    return np.concatenate([canvas, strip])


def heat(values: npt.NDArray[np.floating], threshold: float) -> npt.NDArray[np.float64]:
    """Colors (..., 3) in [0, 255] of normalized values at or over the threshold."""
    span = 1 - threshold
    t = np.clip((values - threshold) / span, 0, 1) if span > 0 else np.ones_like(values)
    stops = np.linspace(0, 1, len(HEAT))
    return np.stack([np.interp(t, stops, HEAT[:, channel]) for channel in range(3)], axis=-1)


def _frame(box: tuple[int, int, int, int], size: Sequence[int], thick: int) -> Mask:
    """Pixels of a rectangle drawn just outside the half-open box (x0, y0, x1, y1), as far as the picture reaches."""
    x0, y0, x1, y1 = box
    framed = np.zeros(size, dtype=bool)
    framed[max(y0 - thick, 0) : y1 + thick, max(x0 - thick, 0) : x1 + thick] = True
    framed[max(y0, 0) : y1, max(x0, 0) : x1] = False
    return framed


def _caption(
    width: int, label: str | None, score: float | None, score_threshold: float | None, threshold: float, truth: bool
) -> Picture:
    """Return the strip below the picture, its pieces wrapped to the width; wider when a piece is."""
    size = max(MIN_TEXT, round(width / 55))
    pieces = []
    if label is not None:
        pieces.append(text_tile(label.upper(), size, *_VERDICT[label]))
    if score is not None:
        words = f"score {score:.4g}" + (f" (threshold {score_threshold:.4g})" if score_threshold is not None else "")
        pieces.append(text_tile(words, size, _INK, _PAPER))
    pieces.append(_color_bar(size, threshold))
    if truth:
        legend = [text_tile(*words, _PAPER) for words in (("predicted", size, PREDICTED), ("true", size, TRUTH))]
        pieces.append(np.concatenate(legend, axis=1))
    gap = size // 2
    width = max(width, *(piece.shape[1] + 2 * gap for piece in pieces))
    line = text_box("", size)[1]
    rows, x = 0, 0
    strip = np.full((gap + len(pieces) * (line + gap), width, 3), _PAPER, dtype=np.uint8)
    for piece in pieces:
        if x + piece.shape[1] > width:
            rows, x = rows + 1, 0
        top = gap + rows * (line + gap)
        left = min(x + gap, width - piece.shape[1])
        strip[top : top + line, left : left + piece.shape[1]] = piece
        x = left + piece.shape[1]
    return strip[: gap + (rows + 1) * (line + gap)]


def _color_bar(size: int, threshold: float) -> Picture:
    """Return a bar from 0 to 1: empty below the threshold, the heat ramp from it upwards, a tick and a number at it."""
    height = text_box("", size)[1]
    values = np.linspace(0, 1, 8 * size)
    bar = np.full((height, len(values), 3), _PAPER, dtype=np.uint8)
    inside = slice(height // 4, height - height // 4)
    bar[inside] = (70, 71, 74)
    hot = values >= threshold
    bar[inside, hot] = np.rint(heat(values[hot], threshold)).astype(np.uint8)
    tick = min(int(np.argmax(hot)), len(values) - 2) if hot.any() else len(values) - 2
    bar[:, tick : tick + max(2, size // 8)] = _INK
    caption = text_tile(f"pixel threshold {threshold:.2f}", size, _INK, _PAPER)
    return np.concatenate([np.full((height, size // 2, 3), _PAPER, dtype=np.uint8), bar, caption], axis=1)
