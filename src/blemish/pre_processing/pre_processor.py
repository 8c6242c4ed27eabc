"""The only place where images change size or range.

The data loader, eager mode and exported graphs all run this module, so a model can't meet other pixels in service than
it was fitted on. It knows both directions: `forward` takes images to the size of the model, `restore` takes maps back
to the pixels of the image. What a center crop or a region of interest leaves out comes back as 0: nobody looked at it.

A region of interest acts here, on the pixels of the image: those outside get the mean color before anything else, so
they can't have any influence, however far the backbone sees. `cells` tells the detector which patches are inside,
`inside` everyone else which pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from blemish.data.batch import PerImage
from blemish.data.explanation import Box
from blemish.data.roi import Mask, Roi, cells_inside, read_roi
from blemish.errors import UsageError
from blemish.functional.pixels import height_width, under_center
from blemish.functional.resize import covered, letterbox_geometry, resize_rows

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class PreProcessor(nn.Module):
    """Resizes to `image_size` and normalizes with `mean` and `std`.

    Args:
        image_size: (h, w) in pixels that the backbone sees; one number means a square.
        mean, std: per RGB channel, for values in [0, 1].
        fit: "stretch" scales height and width independently; "letterbox" keeps the aspect ratio and pads with the mean
            color.
        crop_from: resize to this (h, w), or square, and cut `image_size` from its center, as the recipes of the papers
            do. What lies outside the cut is never inspected: maps are 0 there, and a defect there can't be found.
        roi: the region of interest, see `blemish.data.roi.read_roi`; None is everything. Needs "stretch", where a place
            in the image is one place in the model's input.

    Attributes:
        roi: (H', W') bool, True inside; stretched over every image. None without a region.

    Raises:
        UsageError: for sizes below 1, a `crop_from` smaller than `image_size`, a std of 0, an unknown `fit`, or a
            region of interest that is empty, malformed, outside the cut, or together with "letterbox".
    """

    mean: Tensor
    std: Tensor
    roi: Tensor | None

    def __init__(
        self,
        image_size: int | Sequence[int] = 256,
        mean: Sequence[float] = IMAGENET[0],
        std: Sequence[float] = IMAGENET[1],
        fit: Literal["stretch", "letterbox"] = "stretch",
        crop_from: int | Sequence[int] | None = None,
        roi: Roi | None = None,
    ) -> None:
        super().__init__()
        self.image_size = height_width("image_size", image_size)
        self.crop_from = None if crop_from is None else height_width("crop_from", crop_from)
        self._full = self.crop_from or self.image_size
        self._cut = (self._full[0] - self.image_size[0]) / 2, (self._full[1] - self.image_size[1]) / 2
        if min(self._cut) < 0:
            raise UsageError(f"crop_from must be at least image_size, {self.image_size}. Got {crop_from!r}.")
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise UsageError(f"mean and std need 3 numbers each, std above 0. Got mean={list(mean)}, std={list(std)}.")
        if fit not in ("stretch", "letterbox"):
            raise UsageError(f"fit must be 'stretch' or 'letterbox'. Got {fit!r}.")
        self.fit = fit
        self._is_whole = fit == "stretch" and crop_from is None  # neither padding nor anything cut off
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32)[:, None, None])  # (3, 1, 1)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32)[:, None, None])
        if roi is not None and fit == "letterbox":
            raise UsageError("roi can't be combined with fit_mode 'letterbox'. Use 'stretch'.")
        # A constructor argument of the model, and therefore no part of its state.
        self.register_buffer("roi", None if roi is None else torch.from_numpy(read_roi(roi)), persistent=False)
        if not self.cells(self.image_size).any():
            raise UsageError("The region of interest lies outside of what crop_from leaves. Crop less, or move it.")

    def forward(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) RGB, uint8 in [0, 255] or float32 in [0, 1] -> (N, 3, h, w) float32, normalized.

        Raises:
            UsageError: for another layout, channel count or dtype.
        """
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype not in (torch.uint8, torch.float32):
            raise UsageError(
                f"images must be (N, H, W, 3) RGB, uint8 or float32 in [0, 1]. Got shape {tuple(images.shape)}, "
                f"{images.dtype}."
            )
        values = images.permute(0, 3, 1, 2)  # (N, 3, H, W)
        if images.dtype == torch.float32:
            values = values * 255.0
        size = (images.shape[1], images.shape[2])
        inside = self.inside(size)
        if inside is not None:
            values = torch.where(inside, values, 255.0 * self.mean)
        ratios, cut = self._geometry(size)
        scales = [whole / parts for whole, parts in ratios]
        starts = [part * scale for part, scale in zip(cut, scales, strict=True)]
        # Rows first, which lie in one piece: large images are small after that.
        for axis in (0, 1):
            ratio, start = (None, 0.0) if self._is_whole else (ratios[axis], starts[axis])
            values = resize_rows(values, self.image_size[axis], ratio=ratio, start=start).mT
        normalized = (values - 255.0 * self.mean) / (255.0 * self.std)  # (N, 3, h, w)
        if self.fit == "stretch":
            return normalized
        vertical, horizontal = (
            covered(size[i], self.image_size[i], scale=scales[i], start=starts[i], device=images.device) for i in (0, 1)
        )
        return torch.where(vertical[:, None] & horizontal, normalized, 0.0)  # padding has the mean color

    def restore(self, maps: Tensor, size: tuple[int, int] | Sequence[tuple[int, int]]) -> PerImage:
        """Maps (N, 1, h, w) at model size -> maps in original pixels.

        Args:
            maps: float32.
            size: one (H, W) for all, or N of them.

        Returns:
            (N, H, W) float32 if all sizes are equal, else a list of N tensors (H, W). Values stay within the range of
            `maps`; outside a center crop or the region of interest they are 0.
        """
        if isinstance(size[0], (int, torch.SymInt)):
            return self._restore(maps, (size[0], size[1])).squeeze(1)  # type: ignore[arg-type]
        sizes = [(int(height), int(width)) for height, width in size]  # type: ignore[misc]
        if len(set(sizes)) == 1:
            return self._restore(maps, sizes[0]).squeeze(1)
        return [self._restore(single, one)[0] for single, one in zip(maps, sizes, strict=True)]

    def inside(self, size: tuple[int, int]) -> Tensor | None:
        """(H, W) bool for an image of that size, True in the region of interest; None without one."""
        if self.roi is None:
            return None
        rows, columns = (
            under_center(torch.arange(side, device=self.roi.device), own, side)
            for side, own in zip(size, self.roi.shape, strict=True)
        )
        return self.roi[rows][:, columns]

    def cells(self, grid: tuple[int, int]) -> Mask:
        """Which cells of a grid over the model's input hold a pixel of the region of interest: (rows, columns)."""
        if self.roi is None:
            return np.ones(grid, dtype=np.bool_)
        height, width = self.image_size
        full, cut = (self._full[0] / height, self._full[1] / width), (self._cut[0] / height, self._cut[1] / width)
        return cells_inside(self.roi.cpu().numpy(), grid, full, cut)

    def cell_box(self, cell: tuple[int, int], grid: tuple[int, int], size: tuple[int, int]) -> Box:
        """The pixels of an image of `size` (H, W) that lie under a cell (row, column) of a grid over the model's input,
        within the image; at least one.
        """
        ratios, cuts = self._geometry(size)
        edges = []
        for i, side in enumerate(size):
            ends = ((cell[i] + end) * self.image_size[i] / grid[i] for end in (0, 1))
            low, high = (round((end + cuts[i]) * ratios[i][0] / ratios[i][1]) for end in ends)
            low = min(max(low, 0), side - 1)
            edges.append((low, min(max(high, low + 1), side)))
        (y0, y1), (x0, x1) = edges
        return x0, y0, x1, y1

    def place_in_grid(self, x: int, y: int, grid: tuple[int, int], size: tuple[int, int]) -> tuple[float, float]:
        """Where the center of a pixel of an image of `size` (H, W) lies in a grid over the model's input: row and
        column, whole numbers at the centers of cells.
        """
        ratios, cuts = self._geometry(size)
        row, column = (
            ((pixel + 0.5) * ratios[i][1] / ratios[i][0] - cuts[i]) * grid[i] / self.image_size[i] - 0.5
            for i, pixel in enumerate((y, x))
        )
        return row, column

    def extra_repr(self) -> str:
        """Shown by `print`."""
        return f"image_size={self.image_size}, fit={self.fit!r}, crop_from={self.crop_from}"

    def _geometry(self, original: tuple[int, int]) -> tuple[Sequence[tuple[int, int]], Sequence[float]]:
        """Pixels of the image per pixel of the model's input, as fractions, and what is cut off before it in pixels of
        the latter, along both axes.
        """
        if self.fit == "letterbox":
            ratio, pad = letterbox_geometry(original, self._full)
            return (ratio, ratio), (self._cut[0] - pad[0], self._cut[1] - pad[1])
        return list(zip(original, self._full, strict=True)), self._cut

    def _restore(self, maps: Tensor, original: tuple[int, int]) -> Tensor:
        ratios, cut = self._geometry(original)
        for axis in (1, 0):  # columns first, while there are few rows
            whole, parts = ratios[axis]
            ratio, start = (None, 0.0) if self._is_whole else ((parts, whole), -cut[axis])
            maps = resize_rows(maps.mT, original[axis], ratio=ratio, start=start)
        inside = self.inside(original)
        return maps if inside is None else torch.where(inside, maps, 0.0)
