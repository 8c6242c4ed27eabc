"""A function of many items, several of them at once in threads, answers in their order.

The queue is short and belongs to whoever takes the answers: nothing is computed that isn't waited for soon, and no
thread outlives the loop that takes them, however that ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


def ahead(
    function: Callable[[_Item], _Answer], items: Iterable[_Item], *, workers: int, most: Callable[[], int]
) -> Generator[_Answer, None, None]:
    """As `map(function, items)`.

    Args:
        function: called in `workers` threads.
        items: asked for one after the other by the thread that takes the answers. What they raise is raised after the
            answers to all that came before.
        workers: at least 1.
        most: how many items may be under way or wait to be taken, at least 1; asked again for each.
    """
    waiting: deque[Future[_Answer]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="blemish")
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
            waiting.append(pool.submit(function, item))
            while len(waiting) >= most():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)
