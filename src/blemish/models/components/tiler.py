"""Large images, tile by tile.

The backbone sees overlapping tiles at full resolution; their feature maps are blended back into one map of the whole
image, so the detector never knows of tiles and there is nothing to see at a seam. Each tile's weight falls linearly
towards its border (never to zero), and weights are normalized by their sum. Memory for activations is that of one tile
per image of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.functional.pixels import height_width


class Tiler(nn.Module):
    """Runs a feature extractor over tiles of an image and blends the results.

    Args:
        tile_size: (height, width) of a tile in pixels, or one number.
        tile_stride: distance between tiles; None means half a tile. At most `tile_size`. The last tile of a row or
            column is moved inwards so that tiles cover any image exactly.
        image_size: (h, w) of the images; at least one tile.

    Raises:
        UsageError: for sizes that don't fit together.
    """

    def __init__(
        self, tile_size: int | Sequence[int], tile_stride: int | Sequence[int] | None, image_size: tuple[int, int]
    ) -> None:
        super().__init__()
        self.tile_size = height_width("tile_size", tile_size)
        self.tile_stride = (
            (max(1, self.tile_size[0] // 2), max(1, self.tile_size[1] // 2))
            if tile_stride is None
            else height_width("tile_stride", tile_stride)
        )
        if any(stride > tile for stride, tile in zip(self.tile_stride, self.tile_size, strict=True)):
            raise UsageError(
                f"tile_stride must be at most tile_size {self.tile_size}, or pixels are never seen. Got "
                f"{self.tile_stride}."
            )
        if any(tile > side for tile, side in zip(self.tile_size, image_size, strict=True)):
            raise UsageError(f"tile_size must be at most image_size {image_size}. Got {self.tile_size}.")
        self.image_size = image_size
        self._cell = 1

    def grid(self, tile_grid: tuple[int, int], strides: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the blended finest layer.

        Args:
            tile_grid: rows and columns that one tile gives.
            strides: pixels per map cell of every layer.

        Raises:
            UsageError: if tiles don't start on the grid of the coarsest layer.
        """
        self._cell = max(strides)
        if any(side % self._cell for side in (*self.tile_size, *self.tile_stride)):
            raise UsageError(
                f"tile_size {self.tile_size} and tile_stride {self.tile_stride} must be multiples of the backbone's "
                f"stride, "
                f"{self._cell} pixels."
            )
        height, width = self._padded()
        return (height * tile_grid[0] // self.tile_size[0], width * tile_grid[1] // self.tile_size[1])

    def forward(self, extractor: Callable[[Tensor], list[Tensor]], images: Tensor) -> list[Tensor]:
        """(N, 3, h, w) -> blended layers (N, D_i, h / s_i, w / s_i), as the extractor would give for the whole image.

        Images whose sides are no multiple of the coarsest stride are continued by their border pixels.
        """
        height, width = self._padded()
        images = F.pad(images, (0, width - self.image_size[1], 0, height - self.image_size[0]), mode="replicate")
        sums: list[Tensor] = []
        totals: list[Tensor] = []
        for top in _starts(height, self.tile_size[0], self.tile_stride[0]):
            for left in _starts(width, self.tile_size[1], self.tile_stride[1]):
                tile = images[:, :, top : top + self.tile_size[0], left : left + self.tile_size[1]]
                for i, layer in enumerate(extractor(tile)):
                    rows, columns = layer.shape[-2:]
                    pixels = (self.tile_size[0] // rows, self.tile_size[1] // columns)
                    if len(sums) <= i:
                        whole = (height // pixels[0], width // pixels[1])
                        sums.append(layer.new_zeros(*layer.shape[:2], *whole))
                        totals.append(layer.new_zeros(whole))
                    weight = _ramp(rows, layer.device)[:, None] * _ramp(columns, layer.device)  # (rows, columns)
                    y, x = top // pixels[0], left // pixels[1]
                    sums[i][:, :, y : y + rows, x : x + columns] += layer * weight
                    totals[i][y : y + rows, x : x + columns] += weight
        return [layer / total for layer, total in zip(sums, totals, strict=True)]

    def _padded(self) -> tuple[int, int]:
        height, width = (-(-side // self._cell) * self._cell for side in self.image_size)
        return height, width


def _starts(side: int, tile: int, stride: int) -> list[int]:
    return [*range(0, side - tile, stride), side - tile]


def _ramp(size: int, device: torch.device) -> Tensor:
    position = torch.arange(size, device=device, dtype=torch.float32)
    return torch.minimum(position + 1, size - position)
