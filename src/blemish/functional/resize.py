"""Antialiased linear resizing as two small matrix products.

Every pixel of the output is a weighted mean of input pixels. With the triangle filter t(u) = max(0, 1 - |u|) and an
axis that is mapped by `center(i) = (i + 0.5) * scale + start`, the weights are

    W[i, j] = t((j + 0.5 - center(i)) / max(scale, 1)) / sum over j

and an image (..., H, W) becomes `Wv @ image @ Wh^T`. The weights come from `arange` on the sizes, so the same
arithmetic runs in a data-loader worker, in eager mode and in an exported graph whose H and W are free.
`torch.nn.functional.interpolate` can't do that: its antialiased kernel has no ONNX counterpart, which is how exported
models of other libraries come to see other pixels than the trained ones did. Weights are non-negative and sum to one:
resizing never leaves the range of its input.
"""

from __future__ import annotations

import torch
from torch import Tensor


def axis_weights(
    in_size: int, out_size: int, *, scale: float | None = None, start: float = 0.0, device: torch.device | None = None
) -> Tensor:
    """Weights of one axis.

    Args:
        in_size: pixels of the input along the axis, at least 1.
        out_size: pixels of the output, at least 1.
        scale: input pixels per output pixel. None stretches the whole input over the whole output (`in_size /
            out_size`).
        start: input coordinate of the left edge of output pixel 0.
        device: where to build the weights.

    Returns:
        (out_size, in_size) float32. Rows sum to 1; a row whose center lies outside the input (padding) is all zero.
    """
    if scale is None:
        scale = in_size / out_size
    center = (torch.arange(out_size, dtype=torch.float32, device=device) + 0.5) * scale + start  # (out,)
    pixel = torch.arange(in_size, dtype=torch.float32, device=device) + 0.5  # (in,)
    support: float = torch.sym_max(scale, 1.0)  # type: ignore[assignment] # max, for sizes that are symbols of a graph too
    weights: Tensor = (1.0 - (pixel[None, :] - center[:, None]).abs() / support).clamp(min=0.0)  # (out, in)
    # Half a pixel of padding puts a center exactly on the edge; rounding must not decide there, differently in a graph.
    edge = 0.01 * scale
    inside = (center > edge) & (center < in_size - edge)
    return weights * inside[:, None] / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)


def apply_weights(image: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """(..., H, W) with (h, H) and (w, W) weights -> (..., h, w)."""
    return vertical @ (image @ horizontal.mT)


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Stretches (..., H, W) float to (..., h, w), antialiased when it shrinks, bilinear when it grows.

    Equals `torch.nn.functional.interpolate(..., mode="bilinear", antialias=True, align_corners=False)` up to rounding.
    """
    height, width = image.shape[-2:]
    return apply_weights(
        image,
        axis_weights(height, size[0], device=image.device),
        axis_weights(width, size[1], device=image.device),
    )


def letterbox_geometry(original: tuple[int, int], size: tuple[int, int]) -> tuple[float, tuple[float, float]]:
    """Scale and padding that fit (H, W) into (h, w) without changing the aspect ratio.

    Returns:
        Original pixels per fitted pixel, and the padding (top, left) in fitted pixels.
    """
    scale: float = torch.sym_max(original[0] / size[0], original[1] / size[1])  # type: ignore[assignment]
    return scale, ((size[0] - original[0] / scale) / 2, (size[1] - original[1] / scale) / 2)
