"""SIGTERM as an exception, as Ctrl-C is one: stopping a service cleans up like any error and leaves whole files."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell calls a program that SIGTERM ended."""


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """The block ends with SystemExit, `EXIT_CODE`, at the first SIGTERM; later ones don't disturb what cleans up.

    Where somebody else handles the signal already, or outside of the main thread, which alone gets signals, nothing is
    changed. A trainer of Lightning calls the handler that it finds, and would else wait for the end of an epoch.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if handler is not signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit(EXIT_CODE)
