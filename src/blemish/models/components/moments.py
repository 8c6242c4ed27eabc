"""Means and scatter matrices of features, image by image, in bounded memory and in an order that workers can't change.

Images are folded into the moments of their block chunk by chunk (`functional.gaussian.merge_moments_`), blocks into
each other by the tree of `image_order`. A chunk that doesn't follow on what was folded of its block has to wait as
features, because rounding depends on the order. Memory, with up to 128 channels:

    one pass         the running block, and for each level of the tree half as much (lower triangles): no level up to
                     256 images, one up to 2,048, two up to 16,384, three up to 131,072
    from the middle  up to 14 per level, and the features of up to a block of images whose beginning another worker has

Pieces of consecutive images, cut anywhere, merge to the very bytes of one pass. Workers that have, say, every second
image hold the features of a block at most; beyond that they fold what they have, and merge to the same up to rounding.

Why not one running result, which would need no tree: nothing could be folded in the middle before everything to the
left of it is known. Why not a binary tree: it keeps a result for every doubling of the images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.gaussian import Moments, combine_moments, merge_moments_, pack, unpack
from blemish.models.components.image_order import OrderedFold, check_union, numbered

CHUNK_BYTES = 64 * 2**20
CHUNK_IMAGES = 32
BLOCK_IMAGES = 256
FAN_IN = 8
PART_NUMBERS = 2**24
"""Of running scatter matrices in one tensor. The system takes back 64 MiB of float32 as soon as they are packed: whole
matrices and triangles of all positions are never held at once."""


@dataclass
class _Running:
    """What was folded of the first images of a block, those below number `stop`.

    `scatter` has parts of (P, D, D).
    """

    stop: int
    count: int
    mean: Tensor
    scatter: list[Tensor]


class MomentStream:
    """Moments of (P, D) features per image.

    Args:
        pooled: one mean and one scatter matrix for all positions, in float64, instead of one for each in float32.
        base: moments of earlier images, to which those of this stream are added.
    """

    def __init__(self, *, pooled: bool = False, base: Moments | None = None) -> None:
        self.pooled = pooled
        self._base = base
        self._shape = (0, 0)  # P, D
        self._seen = self._end = 0  # how many images; the number behind the last
        self._waiting: dict[int, Tensor] = {}  # number of an image -> its features (P, D)
        self._running: dict[int, _Running] = {}  # by number of block
        self._blocks: OrderedFold[Moments] = OrderedFold(combine_moments, FAN_IN)

    @property
    def chunk(self) -> int:
        """How many images are folded at once."""
        positions, channels = self._shape
        return max(1, min(CHUNK_IMAGES, CHUNK_BYTES // max(1, 4 * positions * channels)))

    @property
    def block(self) -> int:
        """How many images make a block: enough that its moments are smaller than its features."""
        return -(-max(BLOCK_IMAGES, 2 * self._shape[1]) // self.chunk) * self.chunk

    def observe(self, embedding: Tensor, images: Sequence[int] | None = None) -> None:
        """Takes a batch.

        Args:
            embedding: (N, P, D) float32.
            images: N numbers of the images within the whole set, rising; None numbers them on from the last one.

        Raises:
            UsageError: if numbers don't rise.
        """
        numbers = numbered(images, len(embedding), self._end)
        self._shape = (embedding.shape[1], embedding.shape[2])
        self._waiting.update(zip(numbers, embedding, strict=True))
        self._seen += len(embedding)
        self._end = numbers[-1] + 1 if len(numbers) else self._end
        self._advance()
        while len(self._waiting) > self.block + self.chunk:  # not so in a piece of consecutive images
            self._close(min(self._waiting) // self.block)

    def state(self) -> dict[str, Tensor]:
        """What was observed and merged, without the base.

        Returns:
            `extent` (4,) int64: P, D, how many images were seen, the number behind the last of them;
            `parts` (k, 3) int64: first image, the one behind the last, and how many vectors were folded of each part;
            `mean` (k, P, D), `scatter` (k, P, D (D + 1) / 2): their moments;
            `images` (w,) int64, `features` (w, P, D): those that wait.
        """
        parts = [(part.start * self.block, part.stop * self.block, part.value) for part in self._blocks.parts]
        for block, run in sorted(self._running.items()):
            parts.append((block * self.block, run.stop, Moments(run.count, run.mean, _packed([*run.scatter]))))
        numbers = sorted(self._waiting)
        table = [(start, stop, moments.count) for start, stop, moments in parts]
        return {
            "extent": torch.tensor([*self._shape, self._seen, self._end]),
            "parts": torch.tensor(table, dtype=torch.int64).view(-1, 3),
            "mean": _stack([moments.mean for *_, moments in parts]),
            "scatter": _stack([moments.scatter for *_, moments in parts]),
            "images": torch.tensor(numbers, dtype=torch.int64),
            "features": _stack([self._waiting[number] for number in numbers]),
        }

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Adds the `state` of another stream.

        Raises:
            UsageError: if its features have another shape, or if it has seen some of the same images.
        """
        *shape, seen, end = (int(number) for number in state["extent"])
        if not seen:
            return
        if self._seen and tuple(shape) != self._shape:
            raise UsageError(f"Parts that are merged must have features of one shape. Got {self._shape}, {shape}.")
        self._shape = (shape[0], shape[1])
        numbers, parts = state["images"].tolist(), state["parts"].tolist()
        both = self._waiting.keys() & numbers
        both |= {start for start, stop, _ in parts if stop % self.block and start // self.block in self._running}
        check_union(both, self._seen + seen, max(self._end, end))
        self._seen, self._end = self._seen + seen, max(self._end, end)
        for (start, stop, count), mean, scatter in zip(parts, state["mean"], state["scatter"], strict=True):
            if stop % self.block:
                self._running[start // self.block] = _Running(stop, count, mean.clone(), _parts(scatter))
            else:
                self._blocks.add(start // self.block, stop // self.block, Moments(count, mean, scatter))
        self._waiting.update(zip(numbers, state["features"], strict=True))
        self._advance()

    def finish(self) -> Moments | None:
        """The moments of everything, base included; None if there is nothing. The stream can't be used afterwards."""
        length = self.block
        for block in sorted({*self._running, *(number // length for number in self._waiting)}):
            self._close(block)
        total, base = self._blocks.fold(), self._base
        return combine_moments(base, total) if base and total else total or base

    def _advance(self) -> None:
        """Folds the chunks that follow on what was folded of their block."""
        length, step = self.block, self.chunk
        for block in sorted({number // length for number in self._waiting}):
            stop = self._running[block].stop if block in self._running else block * length
            chunk = range(stop, stop + step)
            while stop < (block + 1) * length and all(number in self._waiting for number in chunk):
                self._fold(block, chunk)
                stop = chunk.stop
                chunk = range(stop, stop + step)
            if stop == (block + 1) * length:
                self._close(block)

    def _close(self, block: int) -> None:
        """Folds what waits of a block, and hands the block to the tree."""
        length, step = self.block, self.chunk
        numbers = sorted(number for number in self._waiting if number // length == block)
        for first in range(0, len(numbers), step):
            self._fold(block, numbers[first : first + step])
        run = self._running.pop(block)
        self._blocks.add(block, block + 1, Moments(run.count, run.mean, _packed(run.scatter)))

    def _fold(self, block: int, numbers: Sequence[int]) -> None:
        chunk = torch.stack([self._waiting.pop(number) for number in numbers])  # (n, P, D)
        if self.pooled:
            chunk = chunk.double().flatten(0, 1)[:, None]  # (n P, 1, D)
        run = self._running.get(block)
        if run is None:
            positions, channels = chunk.shape[1:]
            mean, nothing = chunk.new_zeros(positions, channels), chunk.new_zeros(1, channels * (channels + 1) // 2)
            run = self._running[block] = _Running(0, 0, mean, _parts(nothing.expand(positions, -1)))
        run.count = merge_moments_(run.count, run.mean, run.scatter, chunk)
        run.stop = numbers[-1] + 1


def _parts(packed: Tensor) -> list[Tensor]:
    """(P, D (D + 1) / 2) -> matrices of up to `PART_NUMBERS` each."""
    return [unpack(rows) for rows in packed.split(max(1, PART_NUMBERS // (2 * packed.shape[1])))]


def _packed(parts: list[Tensor]) -> Tensor:
    """The inverse of `_parts`; takes each out of the list as soon as it is packed."""
    positions, channels = sum(map(len, parts)), parts[0].shape[1]
    packed = parts[0].new_empty(positions, channels * (channels + 1) // 2)
    for rows in packed.split([len(part) for part in parts]):
        rows.copy_(pack(parts.pop(0)))
    return packed


def _stack(tensors: list[Tensor]) -> Tensor:
    return torch.stack(tensors) if tensors else torch.empty(0, 0, 0)
