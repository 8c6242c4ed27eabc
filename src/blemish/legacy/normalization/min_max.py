"""Min-max normalization of scores around a threshold, for arrays and tensors.

    clip((s - threshold) / (max - min) + 0.5, 0, 1)        0, 0.5 or 1 by the sign of s - threshold when max == min

Tensors go to `functional.thresholds`. Arrays repeat its few lines, because a runtime beside an exported graph has no
torch; a test holds the two together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

    Scores = TypeVar("Scores", npt.NDArray[Any], Tensor)


def normalize(targets: Scores, threshold: Any, min_val: Any, max_val: Any) -> Scores:
    """Bring scores to [0, 1] with the threshold at 0.5.

    Args:
        targets: raw scores or maps of any shape, higher is more abnormal. Not modified. NaN and infinity become 1, so
            that what can't be judged isn't called normal.
        threshold: raw value that becomes 0.5: a number, array or tensor that broadcasts with the targets.
        min_val: lowest raw value of the calibration data, likewise.
        max_val: highest raw value of the calibration data, likewise.

    Returns:
        Array or tensor, as given, of the same shape and, for floats, the same precision.
    """
    if isinstance(targets, np.ndarray):
        scores = targets if targets.dtype.kind == "f" else targets.astype(np.float32)
        return _normalize_array(scores, *(np.asarray(value, scores.dtype) for value in (threshold, min_val, max_val)))
    import torch

    from blemish.functional import thresholds

    scores = targets if targets.is_floating_point() else targets.float()
    return thresholds.normalize(scores, *(torch.as_tensor(value).to(scores) for value in (threshold, min_val, max_val)))


def _normalize_array(
    scores: npt.NDArray[Any], threshold: npt.NDArray[Any], low: npt.NDArray[Any], high: npt.NDArray[Any]
) -> npt.NDArray[Any]:
    span = high / 2 - low / 2  # halves, because max - min may overflow
    flat = span <= 0
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is dealt with below
        ratio = (scores / 2 - threshold / 2) / np.where(flat, 1, span) + 0.5
    step = np.where(scores > threshold, 1.0, np.where(scores < threshold, 0.0, 0.5))
    broken = np.isnan(ratio) | (scores == -np.inf)
    return np.where(broken, 1.0, np.where(flat, step, np.clip(ratio, 0, 1))).astype(scores.dtype)
