"""Normalization by a log-normal model of normal scores, for arrays and tensors.

    z = (log s - mean) / std        p = Phi(z - threshold)

mean and std are those of the logarithms of normal scores, Phi is the standard normal distribution function. A score at
the threshold, given on the scale of z, becomes 0.5.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

    Scores = TypeVar("Scores", npt.NDArray[Any], Tensor)


def standardize(targets: Scores, mean: Any, std: Any, center_at: float | None = None) -> Scores:
    """Return the z-scores of the logarithms of raw scores.

    Args:
        targets: raw scores or maps of any shape, not negative; 0 becomes minus infinity. Not modified.
        mean: mean of the logarithms: a number, array or tensor that broadcasts with the targets.
        std: their standard deviation, likewise; positive.
        center_at: a logarithm that is to become 0 instead of the mean.

    Returns:
        Array or tensor, as given, of the same shape.

    Raises:
        UsageError: a target is negative or NaN, or a deviation isn't positive.
    """
    if not bool((targets >= 0).all()):
        raise UsageError("targets must not be negative or NaN: their logarithm is taken.")
    if not bool((std > 0) if isinstance(std, (int, float)) else (std > 0).all()):
        raise UsageError(f"std must be positive. Got {std}.")
    center = mean if center_at is None else center_at
    if isinstance(targets, np.ndarray):
        with np.errstate(divide="ignore"):  # log 0 is minus infinity, and so is its z
            return np.asarray((np.log(targets) - center) / std, dtype=np.result_type(targets, np.float32))
    standardized: Tensor = (targets.log() - center) / std
    return standardized


def normalize(targets: Scores, threshold: Any) -> Scores:
    """Return the probability that a normal score is lower, seen from the threshold: Phi(targets - threshold).

    Args:
        targets: z-scores from `standardize`, any shape. Not modified.
        threshold: z-score that becomes 0.5: a number, array or tensor that broadcasts with the targets.

    Returns:
        Array or tensor, as given, of the same shape, in [0, 1].
    """
    if isinstance(targets, np.ndarray):
        return np.asarray(0.5 * _erfc(-(targets - threshold) / math.sqrt(2)), dtype=np.result_type(targets, np.float32))
    import torch

    probability: Tensor = torch.special.ndtr(targets - threshold)
    return probability


# numpy has no error function; the complement keeps the digits of small probabilities.
_erfc = np.vectorize(math.erfc, otypes=[np.float64])
