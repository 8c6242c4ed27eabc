"""Do good-looking images still look like those that calibrated? One test over a batch, where no line is watched.

Each incoming score below the threshold gets its rank among the calibration scores below the threshold; if both come
from the same line, the mean rank is one half. A mean that lies too far above is a shift: the light has changed, the
lens is dirty, the parts are others. Images at or above the threshold are left out on both sides, so that a batch with
many defects is no shift. The statistic is that of Wilcoxon (1945) and Mann and Whitney (1947), with its normal
approximation, one-sided: scores that become lower alarm nobody.

Under cross calibration the scores of the record came from models that had seen fewer images than the one that runs, and
are rather higher than its own: a shift is then found a little later, and not without one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

LEAST = 20
"""Scores needed on either side."""
LEVEL = 0.001
"""p-value below which there is a shift: one batch in a thousand without one."""


class ShiftTest:
    """Takes incoming scores; memory doesn't grow with their number.

    Args:
        scores: raw scores of the calibration's good images.
        threshold: raw, in force.

    Attributes:
        count: incoming scores below the threshold.
    """

    def __init__(self, scores: Sequence[float], threshold: float) -> None:
        self._threshold = threshold
        self._reference = np.sort(np.asarray([score for score in scores if score < threshold], np.float64))
        self._ranks = 0.0
        self.count = 0

    def add(self, score: float) -> None:
        """Takes one raw score; NaN and infinity, which are never below a threshold, count for nothing."""
        if not score < self._threshold or math.isinf(score) or not len(self._reference):
            return
        below = np.searchsorted(self._reference, score, "left") + np.searchsorted(self._reference, score, "right")
        self._ranks += float(below) / (2 * len(self._reference))
        self.count += 1

    @property
    def p_value(self) -> float | None:
        """Of a mean rank this high or higher, without a shift; None for fewer than `LEAST` scores on either side."""
        known = len(self._reference)
        if min(known, self.count) < LEAST:
            return None
        deviation = math.sqrt((known + self.count + 1) / (12 * known * self.count))
        return 1 - NormalDist().cdf((self._ranks / self.count - 0.5) / deviation)

    @property
    def sentence(self) -> str | None:
        """What there is to say: None without a shift."""
        p = self.p_value
        if p is None or p >= LEVEL:
            return None
        return (
            f"The {self.count} images called normal score higher than the good images that calibrated: "
            f"{self._ranks / self.count:.0%} of those lie below one of them, on average; 50% would (p = {p:.1g}). "
            f"Light, lens, focus or the parts may have changed: look at some, then blemish calibrate or update."
        )
