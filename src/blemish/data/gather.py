"""One data set, several processes: everyone's state, each image once. In a single process nothing here changes
anything.

Whatever is collected over a data set gives its state as a dict of tensors, and can merge such a dict: `gather_states`
carries the states of all processes to each of them, bytes and shapes, without pickling. Names travel as rows of UTF-8.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from typing import Any, Literal, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

MAX_DIMS = 8


class Mergeable(Protocol):
    """What `gather` needs to know of an object."""

    def state(self) -> dict[str, Tensor]:
        """Everything it has seen: the same names and types in every process, of any shape."""

    def merge(self, other: Mapping[str, Tensor], /) -> None:
        """Adds such a state."""

    def reset(self) -> None:
        """Forgets everything."""


def own_share(trainer: Any, seen: int, stage: Literal["val", "test"] = "val") -> int | None:
    """How many more images of this process count, in a loop of a Lightning trainer; None without limit.

    A distributed sampler repeats images so that every process gets the same number. Process r of W really owns the
    images r, r + W, r + 2 W, ...; what comes after them is a repetition, and would count twice.
    """
    world = getattr(trainer, "world_size", 1)
    loader = getattr(trainer, f"{stage}_dataloaders", None)
    if isinstance(loader, list) and len(loader) == 1:
        loader = loader[0]
    dataset = getattr(loader, "dataset", None)
    if world == 1 or not isinstance(dataset, Sized):
        return None
    return max(0, len(range(trainer.global_rank, len(dataset), world)) - seen)


def gather_states(state: Mapping[str, Tensor], device: torch.device) -> list[dict[str, Tensor]]:
    """The states of all processes, in the order of their ranks, the own one included.

    All processes of the group must call it, once, with the same names and types.

    Args:
        state: tensors of any shape, of at most 8 dimensions.
        device: one that the group's backend can send from.

    Returns:
        A state for each process, on the devices of the own one.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return [dict(state)]
    columns = [_gather(state[name], device) for name in sorted(state)]
    return [dict(zip(sorted(state), row, strict=True)) for row in zip(*columns, strict=True)]


def gather(collected: Mergeable, device: torch.device) -> None:
    """Adds what all other processes have collected, so that each holds the whole; see `gather_states`."""
    states = gather_states(collected.state(), device)
    if len(states) > 1:
        collected.reset()
        for state in states:
            collected.merge(state)


def encode_names(names: Sequence[str]) -> Tensor:
    """(n, width) uint8: names in UTF-8, filled up with zeros to the longest."""
    rows = [name.encode() for name in names]
    width = max(map(len, rows), default=0)
    return torch.tensor([list(row.ljust(width, b"\0")) for row in rows], dtype=torch.uint8).view(len(rows), width)


def decode_names(rows: Tensor) -> list[str]:
    """The inverse of `encode_names`."""
    return [bytes(row).rstrip(b"\0").decode() for row in rows.tolist()]


def _gather(tensor: Tensor, device: torch.device) -> list[Tensor]:
    """One tensor of every process, whose shapes may differ."""
    shape = torch.zeros(1 + MAX_DIMS, dtype=torch.int64, device=device)
    shape[: 1 + tensor.ndim] = torch.tensor([tensor.ndim, *tensor.shape])
    shapes = [torch.zeros_like(shape) for _ in range(dist.get_world_size())]
    dist.all_gather(shapes, shape)
    sizes = [torch.Size(row[1 : 1 + row[0]]) for row in (one.tolist() for one in shapes)]
    raw = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).to(device)  # any type, as its bytes
    padded = torch.zeros(max(size.numel() for size in sizes) * tensor.element_size(), dtype=torch.uint8, device=device)
    padded[: len(raw)] = raw
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    lengths = [size.numel() * tensor.element_size() for size in sizes]
    return [
        part[:length].cpu().view(tensor.dtype).view(size).to(tensor.device)
        for part, length, size in zip(parts, lengths, sizes, strict=True)
    ]
