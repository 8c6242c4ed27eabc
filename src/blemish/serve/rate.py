"""How often somebody may ask: a bucket for each, which fills up steadily and from which every request takes one."""

from __future__ import annotations

import time
from collections import OrderedDict

SECONDS = 2.0
"""A bucket holds what flows in within so long: short bursts pass."""
MOST = 10_000
"""Buckets; those that were asked longest ago, which are full again, are forgotten."""


class Rate:
    """Buckets by who asks.

    Args:
        per_second: what flows into each.
    """

    def __init__(self, per_second: float) -> None:
        self.per_second = per_second
        self._size = max(per_second * SECONDS, 1.0)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, now: float | None = None) -> float:
        """Takes one from a bucket.

        Args:
            who: whose.
            now: in seconds of a steady clock; None looks at it.

        Returns:
            0 if there was one, else the seconds until there will be.
        """
        now = time.monotonic() if now is None else now
        left, then = self._buckets.pop(who, (self._size, now))
        left = min(left + (now - then) * self.per_second, self._size)
        allowed = left >= 1
        self._buckets[who] = (left - 1 if allowed else left), now
        while len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
        return 0.0 if allowed else (1 - left) / self.per_second
