"""How far a rate of few images can be trusted: an interval in closed form, without torch.

Wilson's score interval (1927): no resample of zero events has an event, so the bootstrap would be certain where the
data are not. Of 20 good images without a false alarm this one reaches to 16 %.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

from blemish.errors import UsageError

LEVEL = 0.95


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


def wilson(events: int, trials: int, level: float = LEVEL) -> Interval:
    """Wilson's interval of a rate of which `events` in `trials`, at least 1, were seen::

        (p + z^2 / 2n  +-  z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = events / n

    Raises:
        UsageError: fewer than one trial, or events out of [0, trials].
    """
    check_level(level)
    if trials < 1 or not 0 <= events <= trials:
        raise UsageError(f"A rate needs 0 <= events <= trials and a trial. Got {events} events in {trials} trials.")
    z2 = NormalDist().inv_cdf((1 + level) / 2) ** 2
    rate = events / trials
    middle = rate + z2 / (2 * trials)
    reach = math.sqrt(z2) * math.sqrt(rate * (1 - rate) / trials + z2 / (4 * trials**2))
    scale = 1 + z2 / trials
    low = 0.0 if events == 0 else (middle - reach) / scale  # exact where rounding would leave a trace
    high = 1.0 if events == trials else (middle + reach) / scale
    return Interval(low, high)


def at_least(events: int, trials: int, rate: float) -> float:
    """The probability of `events` or more in `trials` at a rate in [0, 1]: the upper tail of the binomial."""
    if rate <= 0 or events <= 0:
        return float(events <= 0)
    if rate >= 1:
        return 1.0
    terms = (
        math.lgamma(trials + 1)
        - math.lgamma(k + 1)
        - math.lgamma(trials - k + 1)
        + k * math.log(rate)
        + (trials - k) * math.log1p(-rate)
        for k in range(events, trials + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def check_level(level: float) -> None:
    """Raises `UsageError` for a confidence that isn't between 0 and 1."""
    if not 0 < level < 1:
        raise UsageError(f"level must lie between 0 and 1, both excluded. Got {level}.")
