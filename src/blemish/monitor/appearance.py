"""How bright and how sharp pictures are: a lamp that ages, a lens that moves are seen before verdicts suffer.

Both depend on what is in the picture: they tell something of pictures of like parts, one beside the other. Sharpness is
the standard deviation of the Laplacian, whose variance Pech-Pacheco et al. (2000) take for the focus of a microscope.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SIDE = 512
"""Sharpness is that of the middle, at most so many pixels wide and high; brightness of at most as many rows and columns
of the whole."""


def brightness(image: npt.NDArray[Any]) -> float:
    """Mean over pixels and channels, in [0, 1].

    Args:
        image: (H, W, 3), integers over their whole range, or floats in [0, 1].
    """
    height, width = image.shape[:2]
    return float(_scaled(image[:: -(-height // SIDE), :: -(-width // SIDE)]).mean())


def sharpness(image: npt.NDArray[Any]) -> float:
    """Standard deviation of the Laplacian of the mean over channels, in units of brightness; 0 for even pictures, and
    for those of fewer than three rows or columns.

    Args:
        image: as for `brightness`.
    """
    height, width = image.shape[:2]
    if min(height, width) < 3:
        return 0.0
    top, left = max(height - SIDE, 0) // 2, max(width - SIDE, 0) // 2
    middle = image[top : top + SIDE, left : left + SIDE]
    red, green, blue = (_scaled(middle[..., channel]) for channel in range(3))
    gray = (red + green + blue) / 3  # (h, w); NumPy takes the mean over an axis of three slowly
    across = gray[1:-1, :-2] + gray[1:-1, 2:]
    down = gray[:-2, 1:-1] + gray[2:, 1:-1]
    return float((across + down - 4 * gray[1:-1, 1:-1]).std())


def _scaled(image: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    full = np.iinfo(image.dtype).max if np.issubdtype(image.dtype, np.integer) else 1
    scaled: npt.NDArray[np.float32] = image.astype(np.float32) / np.float32(full)
    return scaled
