"""Work ahead of what takes its answers: their order, the bound, and that nothing is left over."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from blemish.runtime.ahead import ahead


def threads_left() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("blemish")]


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("most", [1, 3, 50])
def test_answers_come_in_the_order_of_the_items(workers: int, most: int) -> None:
    def slow_if_even(number: int) -> int:
        time.sleep(0.002 * (number % 2 == 0))
        return number * number

    answers = list(ahead(slow_if_even, range(30), workers=workers, most=lambda: most))
    assert answers == [number * number for number in range(30)]
    assert threads_left() == []


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_more_is_asked_for_than_may_wait(most: int) -> None:
    asked = []

    def items() -> Iterator[int]:
        for number in range(20):
            asked.append(number)
            yield number

    for taken, _ in enumerate(ahead(lambda number: number, items(), workers=3, most=lambda: most)):
        assert len(asked) <= taken + most
    assert len(asked) == 20


def test_several_are_computed_at_once() -> None:
    met = threading.Barrier(3, timeout=10)
    assert list(ahead(lambda _: met.wait() >= 0, range(6), workers=3, most=lambda: 3)) == [True] * 6


def test_an_error_comes_at_its_place_and_ends_the_threads() -> None:
    def fails_at_five(number: int) -> int:
        if number == 5:
            raise ValueError("five")
        return number

    answers = ahead(fails_at_five, range(30), workers=2, most=lambda: 4)
    assert [next(answers) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(answers)
    assert threads_left() == []


def test_what_the_items_raise_comes_after_the_answers_before_it() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise OSError("unplugged")

    taken: list[int] = []
    with pytest.raises(OSError, match="unplugged"):
        taken.extend(ahead(lambda number: number, items(), workers=2, most=lambda: 10))
    assert taken == [0, 1, 2]
    assert threads_left() == []


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_closing_early_leaves_no_thread_and_starts_nothing_more(taken: int) -> None:
    started: list[Any] = []
    answers = ahead(lambda number: started.append(number), iter(range(10**9)), workers=2, most=lambda: 4)
    for _ in range(taken):
        next(answers)
    answers.close()
    assert threads_left() == []
    assert len(started) <= taken + 4


def test_what_hangs_is_not_waited_for() -> None:
    """As a file on a drive that doesn't answer, when the user presses Ctrl-C."""
    answered = threading.Event()
    answers = ahead(lambda number: number == 0 or answered.wait(), range(9), workers=2, most=lambda: 3, patience=0.0)
    assert next(answers)
    answers.close()
    assert threads_left()
    answered.set()
    while threads_left():
        time.sleep(0.01)
