"""Sizes and depths of pictures, without torch."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError


def to_uint8(image: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """A picture of any shape as uint8: as it is, or from floats in [0, 1], rounded to the nearest of 256 levels."""
    if image.dtype == np.uint8:
        return image
    levels: npt.NDArray[np.uint8] = np.rint(image * image.dtype.type(255)).astype(np.uint8)
    return levels


def height_width(name: str, value: int | str | Sequence[int]) -> tuple[int, int]:
    """(height, width) in pixels of what a user may give for it.

    Args:
        name: of the argument, for the message.
        value: one whole number for a square, two, or either as text: "256", "256,320".

    Raises:
        UsageError: for anything else, and for sides below 1.
    """
    try:
        given = [int(part) for part in value.split(",")] if isinstance(value, str) else value
        sides = (given,) if isinstance(given, int) else tuple(map(operator.index, given))
    except (TypeError, ValueError):
        sides = ()
    if len(sides) not in (1, 2) or min(sides) < 1:
        form = "a number, or HEIGHT,WIDTH" if isinstance(value, str) else "one number or (height, width)"
        raise UsageError(f"{name} must be {form}, each at least 1. Got {value!r}.")
    return sides[0], sides[-1]


def under_center(pixel: Any, own: int, side: int) -> Any:
    """Which of the `own` pixels of a mask lies under the center of a pixel of a picture with `side`, along one axis.

    The mask is stretched over the picture. Whole numbers, in NumPy and in torch: no runtime may round it elsewhere.
    """
    return (2 * pixel + 1) * own // (2 * side)
