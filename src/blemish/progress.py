"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias, TypeVar

T = TypeVar("T")

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with (phase, done, total): what is being done, and how much of it; `done` starts over with a phase."""


def silent(phase: str, done: int, total: int) -> None:
    """The `Progress` that shows nothing."""


def watched(items: Sequence[T], phase: str, progress: Progress) -> Iterator[T]:
    """Goes through `items`, with a call before each and one at the end."""
    for done, item in enumerate(items):
        progress(phase, done, len(items))
        yield item
    progress(phase, len(items), len(items))
