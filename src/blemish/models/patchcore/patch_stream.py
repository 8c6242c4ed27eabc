"""Patches in front of the bank: as they are while they fit a buffer, coresets of blocks when they don't.

Rows are numbered through the whole set, image by image and patch by patch, and as many as fit the buffer make a block.
As long as all numbers lie in the first block, everything is kept. From then on every complete block is reduced to a
coreset (merge and reduce), and coresets of blocks two by two, in the tree of `components.image_order`. What is
complete, and what is reduced with what, depends on numbers alone: pieces of consecutive images, cut anywhere, merge to
the very rows of one pass. A piece may begin within a block, whose beginning another worker has: memory is two buffers
then instead of one. Workers that have, say, every second image reduce incomplete blocks beyond that, and merge to a
coreset as good, of other rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.models.components.image_order import OrderedFold, Part, check_union, numbered


class Rows(NamedTuple):
    """Patches, or a coreset of them.

    Attributes:
        features: (n, D). number: (n,) int64 on the CPU: number of the image * P + number of the patch within it.
        seen: how many patches they stand for.
    """

    features: Tensor
    number: Tensor
    seen: int


@dataclass
class _Buffer:
    """Patches of one block by rising number, in the first `filled` rows."""

    features: Tensor
    number: Tensor
    filled: int = 0

    def rows(self) -> Rows:
        return Rows(self.features[: self.filled], self.number[: self.filled], self.filled)

    def append(self, features: Tensor, number: Tensor) -> None:
        rows = slice(self.filled, self.filled + len(features))
        self.features[rows], self.number[rows], self.filled = features, number, rows.stop


class PatchStream:
    """Collects (P, D) patches per image.

    Args:
        buffer_bytes: size of the buffer, unless two coresets are more.
        select: (n, D) features and k -> indices of a coreset of at most k rows.
        size: rows of a coreset; None keeps everything, whatever memory it takes.
    """

    def __init__(self, buffer_bytes: int, select: Callable[[Tensor, int], Tensor], size: int | None) -> None:
        self.buffer_bytes, self.select, self.size = buffer_bytes, select, size
        self._shape = (0, 0)  # P, D
        self._seen = self._end = 0  # how many images; the number behind the last
        self._buffers: dict[int, _Buffer] = {}  # by number of block
        self._coresets: OrderedFold[Rows] = OrderedFold(self._combine, fan_in=2)

    @property
    def capacity(self) -> int:
        """How many rows fit the buffer, and make a block."""
        return rows_of(self.buffer_bytes, self._shape[1], self.size)

    @property
    def patches(self) -> int:
        """P, how many there are of each image."""
        return self._shape[0]

    def observe(self, patches: Tensor, images: Sequence[int] | None = None) -> None:
        """Takes a batch.

        Args:
            patches: (N, P, D) float32.
            images: N numbers of the images within the whole set, rising; None numbers them on from the last one.

        Raises:
            UsageError: if numbers don't rise.
        """
        numbers = numbered(images, len(patches), self._end)
        self._shape = (patches.shape[1], patches.shape[2])
        first = torch.tensor(numbers, dtype=torch.int64)[:, None] * self.patches  # (N, 1)
        self._seen += len(patches)
        self._end = numbers[-1] + 1 if len(numbers) else self._end
        # (N, P, D) -> (N * P, D), and the number of each patch among those of all images, (N * P,).
        self._take(patches.flatten(0, 1), (first + torch.arange(self.patches)).flatten())
        while self.size and sum(buffer.filled for buffer in self._buffers.values()) > 2 * self.capacity:
            self._reduce(min(self._buffers))  # not so in a piece of consecutive images

    def state(self) -> dict[str, Tensor]:
        """What was observed and merged.

        Returns:
            `extent` (4,) int64: P, D, how many images were seen, the number behind the last of them;
            `patches` (m, D), `patch_number` (m,) int64: what is kept as it is, by number;
            `coresets` (n, D), `coreset_number` (n,) int64: rows of all coresets;
            `parts` (k, 4) int64: of each coreset the first block, the one behind the last, `Rows.seen`, how many rows.
        """
        kept = _join(*(buffer.rows() for _, buffer in sorted(self._buffers.items())))
        coresets = _join(*(part.value for part in self._coresets.parts))
        table = [(part.start, part.stop, part.value.seen, len(part.value.number)) for part in self._coresets.parts]
        return {
            "extent": torch.tensor([*self._shape, self._seen, self._end]),
            "patches": kept.features,
            "patch_number": kept.number,
            "coresets": coresets.features,
            "coreset_number": coresets.number,
            "parts": torch.tensor(table, dtype=torch.int64).view(-1, 4),
        }

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Adds the `state` of another stream with the same arguments.

        Raises:
            UsageError: if its patches have another shape, or if it has seen some of the same images.
        """
        *shape, seen, end = (int(number) for number in state["extent"])
        if not seen:
            return
        if self._seen and tuple(shape) != self._shape:
            raise UsageError(f"Parts that are merged must have features of one shape. Got {self._shape}, {shape}.")
        self._shape = (shape[0], shape[1])
        kept = _join(*(buffer.rows() for buffer in self._buffers.values())).number
        both = (kept[torch.isin(kept, state["patch_number"])] // self.patches).tolist()
        check_union(both, self._seen + seen, max(self._end, end))
        self._seen, self._end = self._seen + seen, max(self._end, end)
        self._take(state["patches"], state["patch_number"])
        sizes = state["parts"][:, 3].tolist()
        rows = zip(state["coresets"].split(sizes), state["coreset_number"].split(sizes), strict=True)
        for (start, stop, covered, _), (features, number) in zip(state["parts"].tolist(), rows, strict=True):
            self._coresets.add(start, stop, Rows(features, number, covered))

    def finish(self) -> Rows:
        """Everything in the order of images. The stream can't be used afterwards."""
        self._reduce_complete()
        parts = [Part(block, block + 1, buffer.rows()) for block, buffer in self._buffers.items()]
        in_order = sorted([*parts, *self._coresets.parts], key=lambda part: part.blocks)
        rows = _join(*(part.value for part in in_order))
        self._buffers.clear()
        self._coresets.parts.clear()
        return rows

    def _take(self, features: Tensor, number: Tensor) -> None:
        """Puts (n, D) rows with rising numbers into the buffers of their blocks."""
        blocks, counts = torch.unique_consecutive(number // self.capacity, return_counts=True)
        sizes = counts.tolist()
        for block, rows, numbers in zip(blocks.tolist(), features.split(sizes), number.split(sizes), strict=True):
            self._reduce_complete()  # before there is another buffer
            buffer = self._buffers.get(block)
            if buffer is None or numbers[0] < buffer.number[buffer.filled - 1]:
                before = [] if buffer is None else [buffer.rows()]
                together = _join(*before, Rows(rows, numbers, len(rows)))
                numbers, order = together.number.sort()
                rows = together.features[order.to(rows.device)] if before else rows
                room = (block + 1) * self.capacity - int(numbers[0])
                buffer = _Buffer(rows.new_empty(room, rows.shape[1]), numbers.new_empty(room))
                self._buffers[block] = buffer
            buffer.append(rows, numbers)

    def _reduce_complete(self) -> None:
        """Reduces every block that is complete, unless all patches there are may turn out to fit the buffer."""
        if self.size and self._end * self.patches > self.capacity:
            for block in sorted(self._buffers):
                if self._buffers[block].filled == self.capacity:
                    self._reduce(block)

    def _reduce(self, block: int) -> None:
        self._coresets.add(block, block + 1, self._coreset(self._buffers.pop(block).rows()))

    def _combine(self, left: Rows, right: Rows) -> Rows:
        return self._coreset(_join(left, right))

    def _coreset(self, rows: Rows) -> Rows:
        assert self.size is not None
        chosen = self.select(rows.features, self.size)
        return Rows(rows.features[chosen], rows.number[chosen.cpu()], rows.seen)


def rows_of(buffer_bytes: int, channels: int, size: int | None) -> int:
    """How many rows of so many channels fit a buffer, or twice a coreset if that is more."""
    return max(buffer_bytes // (4 * max(1, channels)), 2 * (size or 0), 2)


def _join(*parts: Rows) -> Rows:
    """One after the other; a single one is not copied."""
    if len(parts) == 1:
        return parts[0]
    features, number = torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
    if parts:
        features, number = torch.cat([part.features for part in parts]), torch.cat([part.number for part in parts])
    return Rows(features, number, sum(part.seen for part in parts))
