"""Ctrl-C and SIGTERM: a job ends like on any error and leaves whole files; a source that goes on comes to its end."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

EXIT_CODE = 128 + signal.SIGTERM
"""What a shell calls a program that SIGTERM ended."""
INTERRUPTED = 128 + signal.SIGINT
"""The same for Ctrl-C."""

_Item = TypeVar("_Item")


@contextmanager
def ended_by_sigterm(*, and_ctrl_c: bool = False) -> Iterator[None]:
    """The block ends with SystemExit, `EXIT_CODE`, at the first SIGTERM; later ones don't disturb what cleans up.

    With `and_ctrl_c` it does so at Ctrl-C, too, with `INTERRUPTED`: that is for programs, and not for notebooks. Where
    somebody else handles a signal already, or outside of the main thread, which alone gets signals, nothing is changed.
    A trainer of Lightning calls the handler that it finds, and would else wait for the end of an epoch.
    """
    usual: dict[signal.Signals, Any] = {signal.SIGTERM: signal.SIG_DFL}
    usual |= {signal.SIGINT: signal.default_int_handler} if and_ctrl_c else {}
    main = threading.current_thread() is threading.main_thread()
    before = {number: handler for number, handler in usual.items() if main and signal.getsignal(number) is handler}
    for number in before:
        signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


@contextmanager
def until_stopped(items: Iterable[_Item]) -> Iterator[Iterator[_Item]]:
    """The same items, until Ctrl-C or SIGTERM: what is done with the last one is finished, and no other follows.

    A second signal ends at once, as without this. For the main thread, which alone gets signals.
    """
    waiting = stopped = False
    before: dict[signal.Signals, Any] = {}

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for each, handler in before.items():
            signal.signal(each, handler)
        if waiting:
            raise KeyboardInterrupt

    def until() -> Iterator[_Item]:
        nonlocal waiting
        following = iter(items)
        while not stopped:
            waiting = True
            try:
                item = next(following)
            except (KeyboardInterrupt, StopIteration):
                return
            finally:
                waiting = False
            yield item

    before.update({number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)})
    try:
        yield until()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
