"""The few drawing tools that every picture needs: checked arrays, disks, contours, text.

numpy and Pillow only. A plotting library would bring figure state, a back end and a second resampling of every picture;
OpenCV would be a large dependency for four functions.

Axes: images (H, W, 3) uint8 RGB, maps (H, W) float, masks (H, W) bool.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from blemish.errors import NonFiniteError, UsageError

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Color = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

MIN_TEXT = 11
"""Font height in pixels below which a caption is hard to read."""


# ------------------------------------------------------------------------------------------------------------- checking


def as_picture(image: npt.ArrayLike) -> Picture:
    """Return (H, W, 3) uint8 from a gray (H, W), (H, W, 1) or color (H, W, 3) image. UsageError for anything else."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] not in (1, 3) or 0 in array.shape:
        raise UsageError(
            f"An image must be uint8 of shape (H, W), (H, W, 1) or (H, W, 3). "
            f"Got {array.dtype} of shape {np.shape(image)}."
        )
    return np.broadcast_to(array, (*array.shape[:2], 3)) if array.shape[-1] == 1 else array


def as_map(anomaly_map: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    """Return (H, W) floats from a map of shape (H, W), (1, H, W) or (H, W, 1).

    Raises:
        UsageError: another shape, or no numbers.
        NonFiniteError: NaN or infinity, which no color may hide.
    """
    array = _plane(anomaly_map, "An anomaly map")
    if array.dtype.kind not in "fiub":
        raise UsageError(f"An anomaly map must hold real numbers. Got {array.dtype}.")
    if array.dtype.kind != "f":
        array = array.astype(np.float32)
    broken = array.size - np.count_nonzero(np.isfinite(array))
    if broken:
        raise NonFiniteError(f"{broken} of {array.size} values of the anomaly map are NaN or infinite.")
    return array


def as_mask(mask: npt.ArrayLike) -> Mask:
    """Return (H, W) bool, True where a mask of shape (H, W), (1, H, W) or (H, W, 1) is not zero."""
    return np.asarray(_plane(mask, "A mask") != 0)


def mask_picture(mask: Mask) -> Picture:
    """Return a mask as a gray picture: 255 where it is True, 0 elsewhere."""
    picture: Picture = mask.astype(np.uint8) * np.uint8(255)
    return picture


def same_size(image: Picture, other: npt.NDArray[Any], name: str) -> None:
    """Raise UsageError unless the array `name` has the height and width of the image."""
    if other.shape[:2] != image.shape[:2]:
        raise UsageError(
            f"{name} must have the height and width of the image, {image.shape[0]} x {image.shape[1]}. "
            f"Got {other.shape[0]} x {other.shape[1]}."
        )


def _plane(values: npt.ArrayLike, what: str) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.ndim == 3 and array.shape[0] == 1:
        array = array[0]
    elif array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 0 in array.shape:
        raise UsageError(f"{what} must have shape (H, W), (1, H, W) or (H, W, 1). Got {np.shape(values)}.")
    return array


# --------------------------------------------------------------------------------------------------------------- shapes


def erode(mask: Mask, radius: int) -> Mask:
    """Keep the pixels whose whole disk x^2 + y^2 <= radius^2 lies in the mask; it is mirrored at its borders."""
    height, width = mask.shape
    padded = np.pad(mask, radius, mode="symmetric")
    # A disk is a stack of rows. Row dy asks whether 2 * half + 1 pixels side by side are set: a difference of sums.
    sums = np.pad(np.cumsum(padded, axis=1, dtype=np.int32), ((0, 0), (1, 0)))
    kept = np.ones_like(mask)
    for dy in range(-radius, radius + 1):
        half = isqrt(radius * radius - dy * dy)
        rows = sums[radius + dy : radius + dy + height]
        left, right = radius - half, radius + half + 1
        kept &= rows[:, right : right + width] - rows[:, left : left + width] == 2 * half + 1
    return kept


def dilate(mask: Mask, radius: int) -> Mask:
    """Add every pixel within `radius` of the mask."""
    return ~erode(~mask, radius)


def contour(mask: Mask, width: int = 1) -> Mask:
    """Return the rim of a mask, `width` pixels wide, inside it; none where the mask leaves the picture."""
    return mask & ~erode(mask, width)


def frame(box: tuple[int, int, int, int], size: tuple[int, int], thick: int) -> Mask:
    """Pixels of a rectangle drawn just outside the half-open box (x0, y0, x1, y1), as far as a picture of `size` (H, W)
    reaches.
    """
    x0, y0, x1, y1 = box
    framed = np.zeros(size, dtype=bool)
    framed[max(y0 - thick, 0) : y1 + thick, max(x0 - thick, 0) : x1 + thick] = True
    framed[max(y0, 0) : y1, max(x0, 0) : x1] = False
    return framed


def line_width(image: Picture) -> int:
    """Return the width of a line that stays visible when a picture of this size is looked at as a whole."""
    return max(2, round(float(min(image.shape[:2])) / 180))


# ----------------------------------------------------------------------------------------------------------------- text


@lru_cache(maxsize=64)
def font(size: int) -> Font:
    """Return the font built into Pillow, `size` pixels high."""
    return ImageFont.load_default(size=size)


def text_box(text: str, size: int) -> tuple[int, int]:
    """Return the width and height in pixels of a line of text with its margins."""
    return int(np.ceil(font(size).getlength(text))) + size, int(1.6 * size)


def text_tile(text: str, size: int, color: Color, background: Color) -> Picture:
    """Return a line of text on a plain rectangle, `text_box` wide and high."""
    width, height = text_box(text, size)
    tile = Image.new("RGB", (width, height), background)
    ImageDraw.Draw(tile).text((size / 2, height / 2), text, fill=color, font=font(size), anchor="lm")
    return np.asarray(tile)
