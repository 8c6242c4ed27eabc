"""The memory bank: what good patches look like, within a fixed number of rows.

Patches stream through a buffer of bounded size. While it doesn't overflow, the bank is the plain greedy k-center
selection of all patches. When it does, it is reduced to the largest bank that is allowed, and filled on (merge and
reduce): memory never depends on the number of images. Every reduction can add its own coverage radius to that of the
bank, which is why the buffer is large.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from blemish.errors import DataError
from blemish.extras import require
from blemish.functional.coreset import greedy_k_center
from blemish.functional.distances import (
    Neighbors,
    SearchIndex,
    make_index,
    nearest,
    nearest_indexed,
    reweighted_score,
    square_norms,
)
from blemish.models.components.dynamic_buffer import DynamicBufferModule
from blemish.models.patchcore.approximate import ApproximateIndex
from blemish.progress import Progress, silent

BUFFER_BYTES = 256 * 2**20
"""Size of the buffer, unless twice the bank is more."""


class MemoryBank(DynamicBufferModule):
    """Bank of (M, D) patch features with nearest-neighbor search.

    Args:
        ratio: rows to keep, as a share of all patches, in (0, 1].
        size: most rows to keep; None keeps `ratio` of everything, at the price of memory that grows with the images.
        selection_channels: select in a random projection to so many dimensions, which is faster for wide features; the
            rows that are kept are the full ones. None selects in the features themselves.
        dtype: how rows are stored; arithmetic is float32 either way.
        seed: draws the first row of the coreset.
        neighbor_search: "exact", or "faiss" for an approximate search, see `approximate`.

    Raises:
        MissingExtraError: for "faiss" where it isn't installed.

    Attributes:
        center: (D,) float32, mean of the patches; rows and queries are taken relative to it, for precision.
        rows: (M, D), centerd; M = 0 before fitting. norms: (M,) float32, their squared lengths.
        radius: () float32, largest distance of a patch that was reduced last to the bank.
    """

    center: Tensor
    rows: Tensor
    norms: Tensor
    radius: Tensor

    def __init__(
        self,
        ratio: float = 0.1,
        size: int | None = 10_000,
        selection_channels: int | None = None,
        dtype: Literal["float32", "float16"] = "float32",
        seed: int = 0,
        neighbor_search: Literal["exact", "faiss"] = "exact",
    ) -> None:
        super().__init__()
        if neighbor_search == "faiss":
            require("faiss")  # now, not when the first image is scored
        self.neighbor_search = neighbor_search
        self.ratio, self.size, self.seed = ratio, size, seed
        self.selection_channels = selection_channels
        self.dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]
        self.register_buffer("center", torch.empty(0))
        self.register_buffer("rows", torch.empty(0, 0, dtype=self.dtype))
        self.register_buffer("norms", torch.empty(0))
        self.register_buffer("radius", torch.tensor(0.0))
        self._buffer = torch.empty(0, 0)
        self._filled = 0
        self._seen = 0
        self._kept: Tensor | None = None
        # With the rows it was made for.
        self._indexed: tuple[Tensor, SearchIndex | ApproximateIndex | None] | None = None

    def start(self) -> None:
        """Forgets everything."""
        self.rows = torch.empty(0, 0, dtype=self.dtype, device=self.rows.device)
        self.resume()

    def resume(self) -> None:
        """Observes more patches, to be added to the rows there are."""
        self._buffer = torch.empty(0, 0)
        self._filled = self._seen = 0
        self._kept = self.rows.float() + self.center if len(self.rows) else None

    def observe(self, patches: Tensor, progress: Progress = silent) -> None:
        """Takes (n, D) float32 patches. Reduces the buffer when it is full, in the phase "coreset" of `progress`."""
        if not len(self._buffer):
            self._buffer = patches.new_empty(self._capacity(patches.shape[1]), patches.shape[1])
        self._seen += len(patches)
        while len(patches):
            if self._filled == len(self._buffer):
                self._make_room(progress)
            take = patches[: len(self._buffer) - self._filled]
            self._buffer[self._filled : self._filled + len(take)] = take
            self._filled += len(take)
            patches = patches[len(take) :]

    def finish(self, progress: Progress = silent) -> None:
        """Reduces what was observed to the bank.

        Raises:
            DataError: if no patch was observed.
        """
        if not self._filled:
            raise DataError(
                "No good image was seen, so there is nothing to compare with. Give at least one batch of good images."
            )
        observed = self._buffer[: self._filled]
        if self._kept is not None:
            bank = self._extend(self._kept, observed, progress)
        else:
            wanted = max(1, math.ceil(self.ratio * self._seen))
            bank = self._reduce(observed, min(wanted, self.size or wanted), progress)
        self.center = bank.mean(dim=0)
        self.rows = (bank - self.center).to(self.dtype)
        self.norms = square_norms(self.rows)
        self._buffer, self._kept, self._filled = torch.empty(0, 0), None, 0

    def nearest(self, patches: Tensor) -> Neighbors:
        """The nearest row of each of (Q, D) patches, see `functional.distances`; exact in a graph, whatever is wanted
        elsewhere.
        """
        queries = patches - self.center
        if torch.compiler.is_exporting():  # a graph can't do more or less depending on its data
            return nearest(queries, self.rows, self.norms)
        if self._indexed is None or self._indexed[0] is not self.rows:
            approximate = self.neighbor_search == "faiss"
            self._indexed = (
                self.rows,
                ApproximateIndex(self.rows) if approximate else make_index(self.rows, self.norms),
            )
        index = self._indexed[1]
        if index is None:
            return nearest(queries, self.rows, self.norms)
        if isinstance(index, ApproximateIndex):
            return index.nearest(queries)
        return nearest_indexed(queries, self.rows, self.norms, index)

    def image_scores(self, patches: Tensor, found: Neighbors, images: int, num_neighbors: int) -> Tensor:
        """Re-weighted score of each image's most abnormal patch.

        Args:
            patches: (N * P, D), image by image.
            found: their nearest rows, k = 1.
            images: N.
            num_neighbors: b of the paper's equation 7.

        Returns:
            (N,) float32.
        """
        distance, patch = found.distance.view(images, -1).max(dim=1)  # (N,), (N,)
        each = torch.arange(images, device=patches.device)
        row = found.row.view(images, -1)[each, patch]
        worst = patches.view(images, -1, patches.shape[1])[each, patch] - self.center  # (N, D)
        around = nearest(self.rows[row].float(), self.rows, self.norms, num_neighbors).row  # (N, b)
        neighbors = (worst[:, None, :] - self.rows[around].float()).square().sum(dim=2).sqrt()
        return reweighted_score(distance, neighbors)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._indexed = None

    def _capacity(self, channels: int) -> int:
        rows = BUFFER_BYTES // (4 * channels)
        return max(rows, 2 * (self.size or 0), 2)

    def _make_room(self, progress: Progress) -> None:
        if self.size is None:
            self._buffer = torch.cat([self._buffer, torch.empty_like(self._buffer)])
            return
        kept = self._reduce(self._buffer, self.size, progress)
        self._buffer[: len(kept)] = kept
        self._filled = len(kept)

    def _reduce(self, patches: Tensor, k: int, progress: Progress) -> Tensor:
        def watch(done: int, total: int, radius: float) -> None:
            self.radius.fill_(radius)
            progress("coreset", done, total)

        generator = torch.Generator().manual_seed(self.seed)
        points = patches
        if self.selection_channels is not None:  # Johnson and Lindenstrauss: distances survive a Gaussian projection
            shape = (patches.shape[1], self.selection_channels)
            projection = torch.randn(shape, generator=generator) / self.selection_channels**0.5
            points = patches @ projection.to(patches.device)
        return patches[greedy_k_center(points, min(k, len(points)), generator=generator, on_round=watch)]

    def _extend(self, bank: Tensor, observed: Tensor, progress: Progress) -> Tensor:
        """Adds the patches that lie farther from the bank than its radius; reduces again if that makes it too large."""
        together = torch.cat([bank, observed])
        own = torch.arange(len(bank))
        chosen = greedy_k_center(
            together,
            len(together),
            start=own,
            radius=float(self.radius),
            on_round=lambda done, total, _: progress("coreset", done, total),
        )
        if self.size is not None and len(chosen) > self.size:
            return self._reduce(together[chosen], self.size, progress)
        return together[chosen]
