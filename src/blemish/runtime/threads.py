"""How many threads an operator should use, and how many images are inspected at once. No torch.

Threads of one operator wait for one another at its end. Where other processes hold the cores, each of those ends waits
for the slowest thread: a session with as many threads as cores then takes many times as long as one with a few. The
number depends on the machine alone, not on how busy it is: sums in another order differ in their last digits.
"""

from __future__ import annotations

import os

MOST = 4
"""Threads from which on one image at a time hardly gets faster."""


def usable_cores() -> int:
    """The cores that this process may run on; at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def sensible_threads() -> int:
    """OMP_NUM_THREADS, where it is set; else the cores that this process may use, but at most `MOST`."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() and int(said) > 0 else min(MOST, usable_cores())


MOST_WORKERS = 8
"""Stacks that are inspected at once at most: each of them takes memory."""


def shared_out(cores: int) -> tuple[int, int]:
    """How many stacks to inspect at once on so many cores, and with how many threads each: one, while there are workers
    left, because one thread of one operator never waits for another.
    """
    workers = max(1, min(cores, MOST_WORKERS))
    return workers, cores // workers
