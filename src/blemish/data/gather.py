"""One data set, several processes: everyone's evidence, each image once. In a single process nothing here changes
anything.
"""

from __future__ import annotations

from collections.abc import Sized
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor


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


def together() -> bool:
    """Whether this process belongs to a group."""
    return dist.is_available() and dist.is_initialized()


def add_up(counts: Tensor, device: torch.device) -> Tensor:
    """The sum of everyone's counts, of one shape."""
    if not together():
        return counts
    total = counts.to(device, copy=True)
    dist.all_reduce(total)
    return total.to(counts.device)


def gather_rows(rows: Tensor, histogram: Tensor | None, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Rows (n, C) of all processes, one after the other, and the sum of their histograms."""
    if not together():
        return rows, histogram
    world = dist.get_world_size()
    count = torch.tensor([len(rows), 0 if histogram is None else len(histogram.flatten())], device=device)
    counts = [torch.zeros_like(count) for _ in range(world)]
    dist.all_gather(counts, count)
    longest = max(int(one[0]) for one in counts)
    padded = torch.zeros(longest, rows.shape[1], dtype=rows.dtype, device=device)
    padded[: len(rows)] = rows.to(device)
    parts = [torch.zeros_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    merged = torch.cat([part[: int(one[0])].cpu() for part, one in zip(parts, counts, strict=True)])
    bins = max(int(one[1]) for one in counts) // 2
    if bins:
        histogram = torch.zeros(2, bins, dtype=torch.int64, device=device) if histogram is None else histogram
        dist.all_reduce(histogram)
    return merged, histogram
