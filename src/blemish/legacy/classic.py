"""The classic pictures of an anomaly map: JET colors, a blend with the image, a cleaned mask, a label in the corner.

    blend = alpha * colors + (1 - alpha) * image + gamma,   rounded half to even and clipped to [0, 255]

These keep the arithmetic that earlier reports were made with, to the last bit. Their colors are stretched to each
image or run over the whole range, threshold or not; `overlay` is the picture that does not mislead. Inputs are never
modified.

Axes: images (H, W, 3) uint8 RGB or gray (H, W); maps (H, W), (1, H, W) or (H, W, 1).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError
from blemish.visualization.drawing import (
    Color,
    Picture,
    as_map,
    as_picture,
    dilate,
    erode,
    mask_picture,
    same_size,
    text_box,
    text_tile,
)

LABEL_COLORS: dict[str, Color] = {"normal": (170, 232, 150), "anomalous": (255, 112, 100)}


def _jet() -> Picture:
    """Build the 256 colors of the JET map: one trapezium per channel, of slope 4, 64 steps apart."""
    step = np.arange(256)
    red = np.minimum(4 * step - 382, 1148 - 4 * step)
    green = np.minimum(4 * step - 128, 892 - 4 * step)
    blue = np.minimum(4 * step + 128, 638 - 4 * step)
    colors: Picture = np.clip(np.stack([red, green, blue], axis=1), 0, 255).astype(np.uint8)
    colors[159, 2] = 1  # the widely used table has 1 here, off the line by one
    return colors


JET = _jet()


def anomaly_map_to_color_map(anomaly_map: npt.ArrayLike, normalize: bool = True) -> Picture:
    """Color a map from blue (0) to red (1).

    Args:
        anomaly_map: (H, W), (1, H, W) or (H, W, 1) finite values.
        normalize: stretch the map's own minimum and maximum to 0 and 1; a constant map becomes 0. Without it, values
            are taken as they are and clipped to [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.
    """
    values = as_map(anomaly_map)
    if normalize:
        lowest, span = values.min(), np.ptp(values)
        values = (values - lowest) / span if span > 0 else np.zeros_like(values)
    colors: Picture = JET[(np.clip(values, 0, 1) * 255).astype(np.uint8)]
    return colors


def superimpose_anomaly_map(
    anomaly_map: npt.ArrayLike, image: npt.ArrayLike, alpha: float = 0.4, gamma: int = 0, normalize: bool = False
) -> Picture:
    """Blend the colored map with the image.

    Args:
        anomaly_map: as for `anomaly_map_to_color_map`, of the height and width of the image.
        image: (H, W, 3) uint8 RGB, or gray.
        alpha: weight of the colors, in [0, 1]; the image has the rest.
        gamma: added to every channel afterwards.
        normalize: as for `anomaly_map_to_color_map`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        UsageError: sizes differ, or alpha is out of its range.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha must lie between 0 and 1. Got {alpha}.")
    picture, colors = as_picture(image), anomaly_map_to_color_map(anomaly_map, normalize)
    same_size(picture, colors, "anomaly_map")
    blend = np.float32(alpha) * colors + np.float32(1 - alpha) * picture + np.float32(gamma)
    return np.asarray(np.clip(np.rint(blend), 0, 255), dtype=np.uint8)


def compute_mask(anomaly_map: npt.ArrayLike, threshold: float, kernel_size: int = 4) -> Picture:
    """Cut a map at a threshold and remove specks by an opening with a disk.

    Args:
        anomaly_map: (H, W), (1, H, W) or (H, W, 1) finite values.
        threshold: a pixel is anomalous when `value >= threshold`, the rule of the whole library.
        kernel_size: radius of the disk in pixels; 0 keeps every speck.

    Returns:
        (H, W) uint8, 255 on anomalous pixels and 0 elsewhere.
    """
    if kernel_size < 0:
        raise UsageError(f"kernel_size must be at least 0. Got {kernel_size}.")
    if math.isnan(threshold):
        raise UsageError("threshold must be a number. Got NaN.")
    mask = as_map(anomaly_map) >= threshold
    return mask_picture(dilate(erode(mask, kernel_size), kernel_size))


def add_normal_label(image: npt.ArrayLike, confidence: float | None = None) -> Picture:
    """Write "normal" and the confidence in [0, 1], when given, into the upper left corner of a copy of the image."""
    return _labeled(image, "normal", confidence)


def add_anomalous_label(image: npt.ArrayLike, confidence: float | None = None) -> Picture:
    """Write "anomalous" and the confidence in [0, 1], when given, into the upper left corner of a copy of the image."""
    return _labeled(image, "anomalous", confidence)


def _labeled(image: npt.ArrayLike, word: str, confidence: float | None) -> Picture:
    picture = np.array(as_picture(image))
    if confidence is not None and not 0 <= confidence <= 1:
        raise UsageError(f"confidence must lie between 0 and 1. Got {confidence}.")
    text = word if confidence is None else f"{word} {confidence:.0%}"
    height, width = picture.shape[:2]
    size = max(8, round(min(height, width) / 16))
    while size > 4 and text_box(text, size)[0] > width:
        size -= 1
    tile = text_tile(text, size, (20, 20, 20), LABEL_COLORS[word])[:height, :width]
    picture[: tile.shape[0], : tile.shape[1]] = tile
    return picture
