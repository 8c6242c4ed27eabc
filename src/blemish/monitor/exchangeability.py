"""A sequential test that scores come in no particular order, with a false-alarm rate that holds at any time.

Each score gets a conformal p-value among all that came before it (Vovk et al. 2005, chapter 2):

    p_t = (|{i < t: s_i > s_t}| + u_t |{i <= t: s_i = s_t}|) / t,    u_t uniform in [0, 1]

If the scores are exchangeable, the p_t are independent and uniform, whatever the distribution of scores. A gambler who
bets against that, fairly, multiplies a capital of 1 by f(p_t) with mean 1, and by Ville's inequality

    P(the capital ever reaches 1 / alpha) <= alpha

The bets are those of the Simple Jumper (Vovk et al. 2021, "Retrain or not retrain: conformal test martingales for
change-point detection", algorithm 1): f_e(p) = 1 + e (p - 1/2) for e in {-1, 0, 1}, with a share J of the capital
redistributed before each. Plug-in bets are in Volkhonskiy et al. 2017.

Ranks alone matter, so defective parts need not be left out: as long as they come at a steady rate, order tells nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable

import numpy as np

from blemish.errors import NonFiniteError, UsageError

JUMP = 0.01
"""J, the share that changes sides before each bet."""
BETS = (-1.0, 0.0, 1.0)


class ExchangeabilityTest:
    """Takes scores one after the other; memory grows with their number.

    Args:
        rng: draws the u_t.
        reference: scores that were there before, such as those of held-out calibration images. Scores of a `cross`
            calibration must not be taken: other models than the one that runs gave them.

    Attributes:
        count: scores taken. log_capital: natural logarithm of the capital.
        highest: the highest that it ever was. lowest_at: number of the score, from 1 on, after which the capital was
            lowest: from about there on order has told something.
    """

    def __init__(self, rng: np.random.Generator, reference: Iterable[float] = ()) -> None:
        self._rng = rng
        self._sorted = sorted(_finite(score) for score in reference)
        self._shares = [1 / len(BETS)] * len(BETS)
        self.count = 0
        self.log_capital = self.highest = self._lowest = 0.0
        self.lowest_at = 0

    def add(self, score: float) -> float:
        """Takes a score and returns its p-value.

        Raises:
            NonFiniteError: for NaN and infinity, which have no rank.
        """
        score = _finite(score)
        insort(self._sorted, score)
        size = len(self._sorted)
        above = size - bisect_right(self._sorted, score)
        ties = bisect_right(self._sorted, score) - bisect_left(self._sorted, score)
        p = (above + self._rng.random() * ties) / size
        mixed = [(1 - JUMP) * share + JUMP / len(BETS) for share in self._shares]
        won = [share * (1 + bet * (p - 0.5)) for share, bet in zip(mixed, BETS, strict=True)]
        total = sum(won)
        self._shares = [share / total for share in won]
        self.count += 1
        self.log_capital += math.log(total)
        self.highest = max(self.highest, self.log_capital)
        if self.log_capital < self._lowest:
            self._lowest, self.lowest_at = self.log_capital, self.count
        return p

    def rejects(self, alpha: float) -> bool:
        """Whether the capital has ever reached 1 / alpha: of exchangeable scores a share of at most alpha does, however
        long they are watched.

        Raises:
            UsageError: for `alpha` outside (0, 1).
        """
        if not 0 < alpha < 1:
            raise UsageError(f"alpha must be between 0 and 1, both excluded. Got {alpha}.")
        return self.highest >= -math.log(alpha)


def _finite(score: float) -> float:
    if not math.isfinite(score):
        raise NonFiniteError(f"A score must be a finite number to have a rank. Got {score}.")
    return float(score)
