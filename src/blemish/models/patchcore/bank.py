"""The memory bank: what good patches look like, within a fixed number of rows.

Patches stream through a buffer of bounded size, see `patch_stream`. While it doesn't overflow, the bank is the plain
greedy k-center selection of all patches. When it does, complete blocks of patches are reduced to the largest bank that
is allowed (merge and reduce): memory never depends on the number of images. Every reduction can add its own coverage
radius to that of the bank, which is why the buffer is large.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from blemish.errors import DataError
from blemish.extras import require
from blemish.functional.coreset import greedy_k_center
from blemish.functional.distances import Neighbors, farthest, nearest, reweighted_score, square_norms
from blemish.functional.search_index import SearchIndex, make_index, nearest_indexed
from blemish.models.components.dynamic_buffer import DynamicBufferModule
from blemish.models.patchcore.approximate import ApproximateIndex
from blemish.models.patchcore.patch_stream import PatchStream, rows_of
from blemish.progress import Progress, silent


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
        buffer_bytes: size of the buffer, unless twice the bank is more.

    Raises:
        MissingExtraError: for "faiss" where it isn't installed.

    Attributes:
        center: (D,) float32, mean of the patches; rows and queries are taken relative to it, for precision.
        rows: (M, D), centerd; M = 0 before fitting. norms: (M,) float32, their squared lengths.
        radius: () float32, largest distance of a patch that was reduced last to the bank.
        origin: (M, 3) int32, where every row comes from: number of the image, row and column of the grid; -1 where that
            isn't known. Not in the state dict when nothing is known of any row.
    """

    center: Tensor
    rows: Tensor
    norms: Tensor
    radius: Tensor
    origin: Tensor

    def __init__(
        self,
        ratio: float = 0.1,
        size: int | None = 10_000,
        selection_channels: int | None = None,
        dtype: Literal["float32", "float16"] = "float32",
        seed: int = 0,
        neighbor_search: Literal["exact", "faiss"] = "exact",
        buffer_bytes: int = 256 * 2**20,
    ) -> None:
        super().__init__()
        if neighbor_search == "faiss":
            require("faiss")  # now, not when the first image is scored
        self.neighbor_search = neighbor_search
        self.ratio, self.size, self.seed = ratio, size, seed
        self.selection_channels = selection_channels
        self.buffer_bytes = buffer_bytes
        self.dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]
        self.register_buffer("center", torch.empty(0))
        self.register_buffer("rows", torch.empty(0, 0, dtype=self.dtype))
        self.register_buffer("norms", torch.empty(0))
        self.register_buffer("radius", torch.tensor(0.0))
        self.register_buffer("origin", torch.empty(0, 3, dtype=torch.int32))
        self._stream: PatchStream | None = None
        self._kept: tuple[Tensor, Tensor] | None = None  # rows with their origins, to which others are added
        self._progress: Progress = silent
        # With the rows it was made for.
        self._indexed: tuple[Tensor, SearchIndex | ApproximateIndex | None] | None = None

    def capacity(self, channels: int) -> int:
        """How many patches of so many channels are kept as they are."""
        return rows_of(self.buffer_bytes, channels, self.size)

    def start(self) -> None:
        """Forgets everything."""
        self.rows = torch.empty(0, 0, dtype=self.dtype, device=self.rows.device)
        self.origin = self.origin.new_empty(0, 3)
        self.resume()

    def resume(self) -> None:
        """Observes more patches, to be added to the rows there are. Their images are numbered from 0."""
        self._stream = None
        self._kept = (self.rows.float() + self.center, self.origin) if len(self.rows) else None

    def observe(self, patches: Tensor, progress: Progress = silent, *, images: Sequence[int] | None = None) -> None:
        """Takes a batch.

        Args:
            patches: (N, P, D) float32.
            progress: told about the phase "coreset" when the buffer overflows.
            images: N numbers of the images within the whole set, rising; None numbers them on from the last one.

        Raises:
            UsageError: if numbers don't rise.
        """
        self._streaming(progress).observe(patches, images)

    def observed_state(self) -> dict[str, Tensor]:
        """What was observed since `start` or `resume`, as tensors to send, see `PatchStream.state`."""
        return self._streaming().state()

    def merge(self, other: MemoryBank | Mapping[str, Tensor], progress: Progress = silent) -> None:
        """Adds what another instance with the same arguments, or one whose `observed_state` is given, has observed of
        the same set.

        Raises:
            UsageError: if both have seen the same images, or features of different shapes.
        """
        state = other.observed_state() if isinstance(other, MemoryBank) else other
        self._streaming(progress).merge(state)

    def finish(self, progress: Progress = silent, *, cells: Tensor | None = None, first: int | None = None) -> None:
        """Reduces what was observed to the bank.

        Args:
            progress: told about the phase "coreset".
            cells: (P, 2) row and column in the grid of each patch of an image; None if nobody will ask for `origin`.
            first: what the origin shall call image 0. None is 0 after `start`, and unknown after `resume`.

        Raises:
            DataError: if no patch was observed.
        """
        stream = self._streaming(progress)
        rows = stream.finish()
        self._stream = None
        if not rows.seen:
            raise DataError(
                "No good image was seen, so there is nothing to compare with. Give at least one batch of good images."
            )
        first = 0 if first is None and self._kept is None else first
        features, origin = rows.features, rows.number.new_full((len(rows.number), 3), -1).int()
        if cells is not None and first is not None:
            image, patch = rows.number // stream.patches + first, rows.number % stream.patches
            origin = torch.cat([image[:, None], cells.cpu()[patch]], dim=1).int()  # (M, 3)
        if self._kept is None:
            wanted = max(1, math.ceil(self.ratio * rows.seen))
            chosen = self._select(features, min(wanted, self.size or wanted))
        else:
            kept, kept_origin = self._kept
            features, origin = torch.cat([kept, features]), torch.cat([kept_origin.cpu(), origin])
            chosen = self._extend(features, len(kept))
        bank = features[chosen]
        self.center = bank.mean(dim=0)
        self.rows = (bank - self.center).to(self.dtype)
        self.norms = square_norms(self.rows)
        self.origin = origin[chosen.cpu()].to(self.rows.device)
        self._kept, self._progress = None, silent

    def nearest(self, patches: Tensor) -> Neighbors:
        """The nearest row of each of (Q, D) patches, see `functional.distances`; exact in a graph, whatever is wanted
        elsewhere.
        """
        queries = patches - self.center
        if torch.compiler.is_exporting():  # a graph can't do more or less depending on its data
            return nearest(queries, self.rows, self.norms)
        index = self._index()
        if index is None:
            return nearest(queries, self.rows, self.norms)
        if isinstance(index, ApproximateIndex):
            return index.nearest(queries)
        return nearest_indexed(queries, self.rows, self.norms, index)

    @property
    def steady(self) -> bool:
        """Whether a search takes the same steps whatever the patches are: on a GPU, where it has no index."""
        return self.rows.is_cuda and self._index() is None

    def farthest(self, patches: Tensor, images: int) -> Neighbors:
        """`nearest`, but the distance is 0 for those of each image's patches (images * P, D) that can't be its worst.
        Where there is an index, and on a GPU, all are searched for, which costs little.
        """
        if patches.is_cuda or self._index() is not None:
            return self.nearest(patches)
        return farthest(patches - self.center, images, self.rows, self.norms)

    def similar(self, patch: Tensor, count: int) -> list[tuple[float, tuple[int, int, int]]]:
        """The `count` rows nearest to a patch (D,), one of each image, nearest first: distance and `origin`."""
        distance = (self.rows.float() - (patch - self.center)).square().sum(dim=1).sqrt()  # (M,)
        ordered = distance.argsort(stable=True)
        found: dict[int, tuple[float, tuple[int, int, int]]] = {}
        for near, (image, row, column) in zip(distance[ordered].tolist(), self.origin[ordered].tolist(), strict=True):
            found.setdefault(image, (near, (image, row, column)))
            if len(found) == count:
                break
        return list(found.values())

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
        row = found.row.view(images, -1)[each, patch]  # (N,)
        worst = patches.view(images, -1, patches.shape[1])[each, patch] - self.center  # (N, D)
        around = nearest(self.rows[row].float(), self.rows, self.norms, num_neighbors).row  # (N, b)
        neighbors = (worst[:, None, :] - self.rows[around].float()).square().sum(dim=2).sqrt()  # (N, b)
        return reweighted_score(distance, neighbors)

    def _index(self) -> SearchIndex | ApproximateIndex | None:
        """What speeds the search up, of the rows there are; None where a plain search is faster."""
        if self._indexed is None or self._indexed[0] is not self.rows:
            approximate = self.neighbor_search == "faiss"
            self._indexed = (
                self.rows,
                ApproximateIndex(self.rows) if approximate else make_index(self.rows, self.norms),
            )
        return self._indexed[1]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if bool((self.origin < 0).all()):
            del destination[f"{prefix}origin"]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        rows = state_dict.get(f"{prefix}rows")
        if isinstance(rows, Tensor) and f"{prefix}origin" not in state_dict:
            unknown = self.origin.new_full((len(rows), 3), -1)
            state_dict = {**state_dict, f"{prefix}origin": unknown}
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._indexed = None

    def _streaming(self, progress: Progress = silent) -> PatchStream:
        self._progress = progress
        if self._stream is None:
            self._stream = PatchStream(self.buffer_bytes, self._select, self.size)
        return self._stream

    def _select(self, patches: Tensor, k: int) -> Tensor:
        """Indices of a coreset of k rows of (n, D)."""

        def watch(done: int, total: int, radius: float) -> None:
            self.radius.fill_(radius)
            self._progress("coreset", done, total)

        generator = torch.Generator().manual_seed(self.seed)
        points = patches
        if self.selection_channels is not None:  # Johnson and Lindenstrauss: distances survive a Gaussian projection
            shape = (patches.shape[1], self.selection_channels)
            projection = torch.randn(shape, generator=generator) / self.selection_channels**0.5
            points = patches @ projection.to(patches.device)
        return greedy_k_center(points, min(k, len(points)), generator=generator, on_round=watch)

    def _extend(self, together: Tensor, own: int) -> Tensor:
        """Indices of the first `own` rows and of those that lie farther from them than the radius; of a coreset of
        these if that makes the bank too large.
        """
        chosen = greedy_k_center(
            together,
            len(together),
            start=torch.arange(own),
            radius=float(self.radius),
            on_round=lambda done, total, _: self._progress("coreset", done, total),
        )
        if self.size is not None and len(chosen) > self.size:
            return chosen[self._select(together[chosen], self.size)]
        return chosen
