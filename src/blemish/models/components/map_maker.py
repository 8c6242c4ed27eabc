"""Patch scores to a smooth map of the image, with everything that can be computed once kept."""

from __future__ import annotations

from torch import Tensor, nn

from blemish.functional.maps import upsample_weights
from blemish.functional.resize import apply_weights


class MapMaker(nn.Module):
    """Bilinear upsampling and Gaussian blur of patch scores, as two products with matrices that are made here, once.

    Args:
        grid: (rows, columns) of patches.
        image_size: (h, w) of the map.
        sigma: standard deviation of the blur in pixels; the papers of PaDiM and PatchCore use 4.
    """

    vertical: Tensor
    horizontal: Tensor

    def __init__(self, grid: tuple[int, int], image_size: tuple[int, int], sigma: float = 4.0) -> None:
        super().__init__()
        self.register_buffer("vertical", upsample_weights(grid[0], image_size[0], sigma), persistent=False)
        self.register_buffer("horizontal", upsample_weights(grid[1], image_size[1], sigma), persistent=False)

    def forward(self, patch_scores: Tensor) -> Tensor:
        """(N, 1, rows, columns) -> (N, 1, h, w)."""
        return apply_weights(patch_scores, self.vertical, self.horizontal)
