"""From patch scores to a smooth map in image pixels: bilinear upsampling and Gaussian blur, both separable.

Along one axis, upsampling is a matrix U and blurring with reflected borders a matrix B, so both together are the single
product `(Bv Uv) m (Bh Uh)^T` on the small patch grid m. A 33 x 33 convolution over the full-size map does the same for
a hundred times the arithmetic, and fails when the map is smaller than its kernel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blemish.functional.resize import apply_weights, axis_weights


def gaussian_kernel(sigma: float) -> Tensor:
    """(2 r + 1,) float32 weights that sum to one, with radius r = round(4 sigma)."""
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (offset / sigma) ** 2)
    return kernel / kernel.sum()


def blur_weights(size: int, sigma: float) -> Tensor:
    """Gaussian blur of an axis of `size` pixels with mirrored borders (the border pixel isn't repeated) as a matrix.

    Returns:
        (size, size) float32; rows sum to one. Also right when the kernel is wider than the axis: the mirror image
        repeats.
    """
    kernel = gaussian_kernel(sigma)
    radius = len(kernel) // 2
    position = torch.arange(size)[:, None] + torch.arange(-radius, radius + 1)[None, :]  # (size, taps)
    period = max(2 * (size - 1), 1)
    mirrored = position.remainder(period)  # (size, taps)
    mirrored = torch.minimum(mirrored, period - mirrored).clamp(max=size - 1)
    taps = kernel.expand(size, -1).contiguous()  # (size, taps)
    return torch.zeros(size, size).scatter_add_(1, mirrored, taps)


def smooth(maps: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (..., H, W) maps. `sigma` in pixels, greater than 0."""
    height, width = maps.shape[-2:]
    return apply_weights(maps, blur_weights(height, sigma).to(maps.device), blur_weights(width, sigma).to(maps.device))


def upsample_weights(in_size: int, out_size: int, sigma: float) -> Tensor:
    """Bilinear upsampling followed by Gaussian blur along one axis: (out_size, in_size) float32, rows sum to one."""
    return blur_weights(out_size, sigma) @ axis_weights(in_size, out_size)
