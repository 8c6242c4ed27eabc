"""Min-max normalization of scores around a threshold, for arrays and tensors.

    clip((s - threshold) / (max - min) + 0.5, 0, 1)        0, 0.5 or 1 by the sign of s - threshold when max == min

The formula is `functional.verdict.normalize`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from blemish.functional import verdict

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
        values = targets if targets.dtype.kind == "f" else targets.astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # what is not finite becomes 1
            scaled = verdict.normalize(
                values, *(np.asarray(one, values.dtype) for one in (threshold, min_val, max_val))
            )
        return np.asarray(scaled, values.dtype)
    import torch

    scores = targets if targets.is_floating_point() else targets.float()
    result: Tensor = verdict.normalize(
        scores, *(torch.as_tensor(one).to(scores) for one in (threshold, min_val, max_val))
    )
    return result
