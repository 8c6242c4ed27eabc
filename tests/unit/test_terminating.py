"""A source that goes on comes to its end at a signal; what is under way is finished."""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from blemish.terminating import until_stopped

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends signals as POSIX does")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_under_way_is_finished(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    finished = []
    with until_stopped(itertools.count()) as items:
        for item in items:
            if item == 2:
                os.kill(os.getpid(), number)
            finished.append(item)
    assert finished == [0, 1, 2]
    assert signal.getsignal(number) is before


def test_who_waits_for_an_item_waits_no_longer() -> None:
    def never() -> Iterator[int]:
        yield 0
        threading.Event().wait()

    main = threading.get_ident()
    with until_stopped(never()) as items:
        assert next(items) == 0
        threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGINT]).start()
        assert list(items) == []


def test_a_second_ctrl_c_ends_at_once() -> None:
    with until_stopped(itertools.count()) as items:
        next(items)
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_items_that_end_by_themselves() -> None:
    with until_stopped("ab") as items:
        assert list(items) == ["a", "b"]
