"""What a GPU is asked for again and again, as one call.

A verdict takes hundreds of small kernels, which Python needs longer to name than the card to run. CUDA records what it
was asked for and repeats it (CUDA graphs): the same kernels on the same addresses. A recording belongs to one shape of
images, so it pays where they keep coming, as from a line.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

_LOG = logging.getLogger(__name__)

Function: TypeAlias = Callable[[Tensor], tuple[Tensor, ...]]

KEPT = 2
"""For how many shapes recordings are kept, each with the memory that the function needs: full stacks and the last."""

SETTLED = 3
"""The call with one shape in a row that is recorded: folders of many sizes aren't."""


class Recorded:
    """A function of one tensor on a CUDA device, recorded once the shape of its input has settled; threads take turns.

    Args:
        function: takes the same steps whatever the values. What it reads beside its argument stays where it is. One
            that looks at a value, as somebody's backbone may, can't be recorded, and is called each time.
    """

    def __init__(self, function: Function) -> None:
        self._function, self._lock = function, threading.Lock()
        self._recording = lru_cache(KEPT)(partial(_record, function))
        self._last: Any = None
        self._times = 0
        self._can_be_recorded = True

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """What the function makes of `images`, in tensors of its own."""
        kind = (images.shape, images.dtype, images.device)
        with self._lock:
            self._times = self._times + 1 if kind == self._last else 1
            self._last = kind
            if self._times < SETTLED or not self._can_be_recorded:
                return self._function(images)
            try:
                graph, given, made = self._recording(*kind)
            except RuntimeError as error:
                self._can_be_recorded = False
                _LOG.info("What the GPU is asked for can't be recorded, so each image takes longer: %s", error)
                return self._function(images)
            given.copy_(images)
            graph.replay()
            return tuple(one.clone() for one in made)  # the next call writes into these


def _record(
    function: Function, shape: torch.Size, dtype: torch.dtype, device: torch.device
) -> tuple[torch.cuda.CUDAGraph, Tensor, tuple[Tensor, ...]]:
    """A recording, the tensor that it reads, and those that it writes."""
    given = torch.zeros(shape, dtype=dtype, device=device)
    with torch.cuda.device(device):
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            function(given)  # libraries choose their algorithms, and take the memory for them
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            made = function(given)
    return graph, given, made
