"""A function of many items, several of them at once in threads, answers in their order.

The queue is short and belongs to whoever takes the answers: nothing is computed that isn't waited for soon, and no
thread outlives the loop that takes them, but one that hangs: a drive that doesn't answer must not keep a program that
was told to end. That is why this is no `ThreadPoolExecutor`, whose threads a program waits for at its end.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")

PATIENCE = 2.0
"""Seconds for which a loop that ends early waits for what its threads are at."""


def ahead(
    function: Callable[[_Item], _Answer],
    items: Iterable[_Item],
    *,
    workers: int,
    most: Callable[[], int],
    patience: float = PATIENCE,
) -> Generator[_Answer, None, None]:
    """As `map(function, items)`.

    Args:
        function: called in `workers` threads.
        items: asked for one after the other by the thread that takes the answers. What they raise is raised after the
            answers to all that came before.
        workers: at least 1.
        most: how many items may be under way or wait to be taken, at least 1; asked again for each.
        patience: see `PATIENCE`.
    """
    tasks: SimpleQueue[tuple[Future[_Answer], _Item] | None] = SimpleQueue()
    waiting: deque[Future[_Answer]] = deque()
    threads = [Thread(target=_work, args=(function, tasks), name="blemish-ahead", daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    left, failure = iter(items), None
    try:
        while True:
            try:
                item = next(left)
            except StopIteration:
                break
            except Exception as error:
                failure = error
                break
            waiting.append(Future())
            tasks.put((waiting[-1], item))
            while len(waiting) >= most():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        for future in waiting:
            future.cancel()
        for _ in threads:
            tasks.put(None)
        for thread in threads:
            thread.join(patience)


def _work(function: Callable[[_Item], _Answer], tasks: SimpleQueue[tuple[Future[_Answer], _Item] | None]) -> None:
    while (task := tasks.get()) is not None:
        future, item = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(function(item))
            except BaseException as error:
                future.set_exception(error)
        del task, future, item  # or the last answer would live until the next one
