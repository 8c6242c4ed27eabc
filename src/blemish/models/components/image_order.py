"""Reductions that give the same bytes however many workers made them.

Sums of floats and coresets of coresets depend on the order in which they are made. Here that order follows the images:
they are numbered through the whole set, so many consecutive ones make a block (how many depends on the sizes of
features alone, never on batches or workers), and the results of blocks are combined in a fixed tree:

    blocks      0   1   2   3 | 4   5   6   7 | 8   9       fan-in 4
    level 1     ((0+1)+2)+3     ((4+5)+6)+7     8+9         left to right within a node
    level 2     (      0..3   +    4..7   )  +  8..9        and so on

A result is combined as soon as its left neighbor is there, so whoever works through n blocks in order holds one result
for each of the log_f(n) levels, and whoever has some blocks in the middle holds at most 2 f of each.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Generic, TypeVar

from blemish.errors import UsageError

T = TypeVar("T")


@dataclass(frozen=True)
class Part(Generic[T]):  # no NamedTuple: those can't be generic before Python 3.11
    """The result of blocks `start` to `stop`, which is excluded."""

    start: int
    stop: int
    value: T

    @property
    def blocks(self) -> tuple[int, int]:
        """`start` and `stop`; parts are ordered by them."""
        return self.start, self.stop


class OrderedFold(Generic[T]):
    """The tree. Values are never changed in place, so that instances may share them.

    Args:
        combine: two values, the left one of earlier images -> their result.
        fan_in: f, children of a node: more keep fewer results waiting in one pass, fewer in pieces from the middle.

    Attributes:
        parts: what couldn't be combined yet, in the order of blocks.
    """

    def __init__(self, combine: Callable[[T, T], T], fan_in: int) -> None:
        self.combine = combine
        self.fan_in = fan_in
        self.parts: list[Part[T]] = []

    def add(self, start: int, stop: int, value: T) -> None:
        """Takes the result of blocks that were reduced already: one, or several by the rules of the same tree.

        Where two results are of the same blocks, each of some of their images, they are combined as well; the tree
        stays the same, but the bytes then depend on who had which images.
        """
        at = bisect_right([part.blocks for part in self.parts], (start, stop))
        self.parts.insert(at, Part(start, stop, value))
        pairs = range(len(self.parts) - 1)
        while (at := next((i for i in pairs if self._belong(*self.parts[i : i + 2])), -1)) >= 0:
            left, right = self.parts[at : at + 2]
            self.parts[at : at + 2] = [Part(left.start, right.stop, self.combine(left.value, right.value))]
            pairs = range(len(self.parts) - 1)

    def fold(self) -> T | None:
        """Everything combined, from left to right; None without any part."""
        return reduce(self.combine, (part.value for part in self.parts)) if self.parts else None

    def _belong(self, left: Part[T], right: Part[T]) -> bool:
        """Whether `right` is the next child of the node of which `left` holds the children so far."""
        if left.blocks == right.blocks:
            return True
        size, child = right.stop - right.start, 1
        while child < size:
            child *= self.fan_in
        return (
            left.stop == right.start
            and child == size
            and left.start % (size * self.fan_in) == 0
            and (left.stop - left.start) % size == 0
            and left.stop - left.start < size * self.fan_in
        )


def numbered(images: Sequence[int] | None, count: int, following: int) -> Sequence[int]:
    """The numbers that a batch of images has in the whole set.

    Args:
        images: as the caller knows them; None numbers the images on from `following`.
        count: how many images there are.
        following: the lowest number that wasn't passed yet.

    Raises:
        UsageError: if there are more numbers or fewer, or if they don't rise.
    """
    if images is None:
        return range(following, following + count)
    if len(images) != count:
        raise UsageError(f"Each image needs its number. Got {count} images, {len(images)} numbers.")
    for before, number in zip([following - 1, *images], images, strict=False):
        if number <= before:
            raise UsageError(f"Numbers of images must rise from 0, each once. Got {number} after {before}.")
    return images


def check_union(both: Collection[int], seen: int, end: int) -> None:
    """Checks that no image counts twice, as far as can be told.

    Args:
        both: numbers of images that are known to be in both parts.
        seen: how many images both parts have seen together.
        end: the number behind their last one.

    Raises:
        UsageError: if there are such images, or more images than numbers.
    """
    if both or seen > end:
        what = f"image {min(both)} in both" if both else f"{seen} images with numbers up to {end - 1}"
        raise UsageError(
            f"Parts that are merged must have seen different images. Got {what}: give `observe` the numbers that "
            f"images have in the whole set."
        )
