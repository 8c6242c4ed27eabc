"""The one rule that decides: moving a threshold by a sensitivity, applying it, showing scores relative to it.

With threshold theta, lowest and highest calibration scores lo and hi and sensitivity alpha (0.5: neutral)::

    normalized = clip((s - theta) / (hi - lo) + 0.5, 0, 1)          anomalous when normalized >= 1 - alpha
    s          >= theta + (0.5 - alpha) (hi - lo)                   the same on raw scores, and the rule that decides

The two lines agree in real numbers but not in float32, so a normalized score that rounding puts on the wrong side of
the cut is moved to its own side.

Every function takes and gives float32, as NumPy arrays or as torch tensors, and computes the same bits for both: a
session without torch, the detector and its exported graph share these lines. None branches on a value, so that they can
be traced into a graph. torch is not imported here; who has a tensor has it already.
"""

from __future__ import annotations

import math
import sys
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""A float32 NumPy array or torch tensor."""

_UNIT = 2.0**-24 * (1 + 2.0**-23)  # a hair over half the spacing of float32 just above 1
_SMALLEST = 2.0**-149  # the smallest positive float32


def raw_threshold(threshold: Array, lo: Array, hi: Array, sensitivity: Array) -> Array:
    """Move a threshold by a sensitivity: theta + (0.5 - alpha)(hi - lo), on the scale of raw scores.

    Args:
        threshold: theta, float32, any shape that broadcasts with the others.
        lo: lowest calibration score, finite.
        hi: highest calibration score, finite, at least `lo`.
        sensitivity: alpha in [0, 1]. 0.5 gives exactly theta, 1 gives minus infinity: everything is anomalous.

    Returns:
        float32. Where lo == hi, a sensitivity below 0.5 gives the next float above theta. NaN in gives NaN out, which
        `is_anomalous` takes for anomalous.
    """
    xp = _namespace(threshold)
    margin = (1 - 2 * sensitivity) * (hi * 0.5 - lo * 0.5)  # halves, because hi - lo may overflow
    moved = xp.where(sensitivity == 0.5, threshold, threshold + margin)
    moved = xp.where((hi <= lo) & (sensitivity < 0.5), _next_above(threshold), moved)
    return xp.where(sensitivity >= 1, -math.inf, moved)


def is_anomalous(scores: Array, threshold: Array) -> Array:
    """The verdict, bool: `score >= threshold`. Fails closed: NaN or infinite scores, NaN thresholds are anomalous."""
    return ~(scores < threshold) | (scores == -math.inf)


def normalize(scores: Array, threshold: Array, lo: Array, hi: Array) -> Array:
    """Scores for people: clip((s - theta) / (hi - lo) + 0.5, 0, 1), float32, with the threshold at exactly 0.5.

    Where lo == hi the result is 0, 0.5 or 1, by the sign of s - theta. NaN and infinite scores give 1.
    """
    xp = _namespace(scores)
    span = hi * 0.5 - lo * 0.5
    flat = span <= 0
    # Halves, because a difference may overflow. Where there is no span, any difference shall reach one of the ends:
    # even the smallest one, 2^-149, times 2^64 fills a span of 2^-85. (Maps are large, and numbers are chosen here so
    # that no second pass over a map is needed.)
    one = xp.ones_like(span)
    half, gain = xp.where(flat, one, one * 0.5), xp.where(flat, one * 2.0**64, one)
    ratio = (scores * half - threshold * half) * gain / xp.where(flat, one * 2.0**-85, span) + 0.5
    broken = xp.isnan(ratio) | (scores == -math.inf)
    return xp.where(broken, 1.0, xp.clip(ratio, 0, 1))


def normalize_consistently(scores: Array, threshold: Array, lo: Array, hi: Array, sensitivity: Array) -> Array:
    """`normalize`, with rounding kept from contradicting the verdict; see `judge`."""
    return judge(scores, threshold, lo, hi, sensitivity)[0]


def judge(scores: Array, threshold: Array, lo: Array, hi: Array, sensitivity: Array) -> tuple[Array, Array]:
    """Normalized scores, float32, and verdicts, bool.

    For every float32 input, `normalized >= 1 - sensitivity` equals the verdict, `is_anomalous(scores,
    raw_threshold(...))`: an anomalous score is lifted to 1 - alpha if it fell below, a normal one lowered to the next
    float under it if it rose too high.
    """
    xp = _namespace(scores)
    cut = 1 - sensitivity
    value = normalize(scores, threshold, lo, hi)
    anomalous = is_anomalous(scores, raw_threshold(threshold, lo, hi, sensitivity))
    return xp.where(anomalous, xp.maximum(value, cut), xp.minimum(value, -_next_above(-cut))), anomalous


def _namespace(array: Any) -> Any:
    """The functions for arrays of this kind: NumPy's, or torch's, which name those used here alike."""
    return np if isinstance(array, np.ndarray | np.generic) else sys.modules["torch"]


def _next_above(x: Any) -> Any:
    """`nextafter(x, inf)` for float32 by arithmetic alone, because graph formats have no such operator.

    Adding just over half a spacing rounds to the next float (Rump et al. 2009, "Computing predecessor and successor in
    rounding to nearest"). Tiny numbers are scaled up first, where half a spacing would itself be rounded.
    """
    xp = _namespace(x)
    one = xp.ones_like(x)
    scale = xp.where(abs(x) < 2.0**-60, one * 2.0**100, one)
    scaled = x * scale
    return (scaled + xp.maximum(abs(scaled) * _UNIT, scale * _SMALLEST)) / scale
