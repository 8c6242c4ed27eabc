"""Between the grid of patches and a smooth map of the image, with everything that can be computed once kept.

With a region of interest the grid has patches inside and outside. Those outside are neither fitted nor scored; a map is
then the mean of the scores inside under the weights of upsampling and blur, so that nothing leaks in across the border:

    map = weights(score where inside, else 0) / weights(1 where inside, else 0)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from blemish.functional.maps import upsample_weights
from blemish.functional.resize import apply_weights

Mask = npt.NDArray[np.bool_]


class MapMaker(nn.Module):
    """Bilinear upsampling and Gaussian blur of patch scores, as two products with matrices that are made here, once.

    Args:
        grid: (rows, columns) of patches.
        image_size: (h, w) of the map.
        sigma: standard deviation of the blur in pixels; the papers of PaDiM and PatchCore use 4.
        cells: (rows, columns) bool, which patches are inside the region of interest; None for all.
        pixels: (h, w) bool, which pixels of the map are; None for all.

    Attributes:
        count: P, how many patches are inside.
    """

    vertical: Tensor
    horizontal: Tensor
    kept: Tensor | None
    place: Tensor | None
    share: Tensor | None
    pixels: Tensor | None

    def __init__(
        self,
        grid: tuple[int, int],
        image_size: tuple[int, int],
        sigma: float = 4.0,
        cells: Mask | None = None,
        pixels: Mask | None = None,
    ) -> None:
        super().__init__()
        self.grid = grid
        self.register_buffer("vertical", upsample_weights(grid[0], image_size[0], sigma), persistent=False)
        self.register_buffer("horizontal", upsample_weights(grid[1], image_size[1], sigma), persistent=False)
        inside = torch.ones(grid, dtype=torch.bool) if cells is None else torch.from_numpy(cells)
        self.count = int(inside.sum())
        kept = place = share = None
        if self.count < inside.numel():
            kept = inside.flatten().nonzero()[:, 0]  # (P,) where in the grid each patch inside is
            place = torch.full((inside.numel(),), self.count)  # and where each of the grid is among those, or behind
            place[kept] = torch.arange(self.count)
            share = apply_weights(inside.float(), self.vertical, self.horizontal).clamp(min=1e-6)
        self.register_buffer("kept", kept, persistent=False)
        self.register_buffer("place", place, persistent=False)
        self.register_buffer("share", share, persistent=False)
        everywhere = pixels is None or bool(pixels.all())
        self.register_buffer("pixels", None if everywhere else torch.from_numpy(pixels), persistent=False)

    def patches(self, features: Tensor) -> Tensor:
        """(N, D, rows, columns) -> (N, P, D): the patches inside, row by row."""
        patches = features.flatten(2).mT  # (N, rows * columns, D)
        return patches if self.kept is None else patches[:, self.kept]

    @property
    def cells(self) -> Tensor:
        """(P, 2) int64, row and column in the grid of each patch inside."""
        inside = torch.arange(self.grid[0] * self.grid[1]) if self.kept is None else self.kept
        return torch.stack([inside // self.grid[1], inside % self.grid[1]], dim=1)

    def nearest(self, row: float, column: float) -> tuple[int, tuple[int, int]]:
        """The patch inside whose cell lies nearest to a place in the grid: its number and its cell."""
        cells = self.cells
        patch = int((cells - cells.new_tensor([row, column], dtype=torch.float32)).square().sum(dim=1).argmin())
        return patch, (int(cells[patch, 0]), int(cells[patch, 1]))

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (N, P) of the patches inside -> maps (N, 1, h, w). Meaningless where `pixels` is False."""
        if self.place is not None:
            # A zero behind the P patches stands for all cells outside: (N, P + 1) -> (N, rows * columns).
            scores = torch.cat([scores, scores.new_zeros(scores.shape[0], 1)], dim=1)[:, self.place]
        maps = apply_weights(scores.reshape(-1, 1, *self.grid), self.vertical, self.horizontal)  # (N, 1, h, w)
        return maps if self.share is None else maps / self.share

    def peak(self, maps: Tensor) -> Tensor:
        """Maps (N, 1, h, w) of distances -> their maxima inside (N,)."""
        return (maps if self.pixels is None else maps * self.pixels).amax(dim=(1, 2, 3))
