"""How much memory this process has had."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_memory() -> int | None:
    """The most bytes of memory this process has had so far; None where the system doesn't say.

    Linux is asked for the high-water mark of the process's own memory: its `ru_maxrss` begins with the peak of whoever
    started the process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        words = next((line.split() for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
        return None if words is None else 1024 * int(words[1])
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
