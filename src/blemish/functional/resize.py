"""Antialiased linear resizing as matrix products.

Every pixel of the output is a weighted mean of input pixels. With the triangle filter t(u) = max(0, 1 - |u|) and an
axis that is mapped by `center(i) = (i + 0.5) * scale + start`, the weights are

    W[i, j] = t((j + 0.5 - center(i)) / max(scale, 1)) / sum over j

and an image (..., H, W) becomes `Wv @ image @ Wh^T`. Nearly all weights of a large image are zero: a row of the output
needs the few rows of the input around its center. `resize_rows` cuts the output into blocks and multiplies each with
the rows that it needs. The weights come from `arange` on the sizes, so the same arithmetic runs in a data-loader
worker, in eager mode and in an exported graph whose H and W are free.
`torch.nn.functional.interpolate` can't do that: its antialiased kernel has no ONNX counterpart, which is how exported
models of other libraries come to see other pixels than the trained ones did. Weights are non-negative and sum to one:
resizing never leaves the range of its input.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCKS = 8
"""Blocks of output rows. More save arithmetic, but products of few rows spend their time on arranging the others."""


@torch.library.custom_op("blemish::product", mutates_args=())
def product(weights: Tensor, blocks: Tensor) -> Tensor:
    """`weights @ blocks`, (BLOCKS, rows, needed) by (..., BLOCKS, needed, K), as one operation of an exported graph.

    torch takes a product of many matrices apart into a dozen operations when it exports, and reasons for seconds about
    the sizes of each. Elsewhere nobody should call it: torch imports its compiler for operators of one's own, which
    takes seconds as well.
    """
    return weights @ blocks


@product.register_fake
def _(weights: Tensor, blocks: Tensor) -> Tensor:
    return blocks.new_empty(*blocks.shape[:-2], weights.shape[-2], blocks.shape[-1])


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
    center = _centers(out_size, scale, start, device)
    pixel = torch.arange(in_size, dtype=torch.float32, device=device) + 0.5  # (in,)
    weights = _triangle(pixel[None, :], center[:, None], scale)  # (out, in)
    inside = _inside(center, in_size, scale)
    return weights * inside[:, None] / weights.sum(dim=1, keepdim=True).clamp(min=1e-12)


def resize_rows(image: Tensor, out_size: int, *, ratio: tuple[int, int] | None = None, start: float = 0.0) -> Tensor:
    """Resizes (..., H, K) along H: `axis_weights(H, out_size, ...) @ image` up to rounding, for a part of its cost.

    Args:
        image: uint8 or float32.
        out_size: rows of the output, at least 1.
        ratio: input rows per output row, as a fraction of whole numbers above 0. None stretches the whole input over
            the whole output, so that there is no padding to look for.
        start: input coordinate of the upper edge of output row 0, with a ratio.

    Returns:
        (..., out_size, K) float32; rows of padding are exactly 0.
    """
    in_size, device = image.shape[-2], image.device
    whole, parts = (in_size, out_size) if ratio is None else ratio
    scale = whole / parts
    # Rows in a block; in the last ones some may lie behind the end. (A graph rounds negative quotients upwards.)
    rows = (out_size + BLOCKS - 1) // BLOCKS
    # Views that are made of one operation each: whoever exports waits for every one of them, with symbols for sizes.
    center = _centers(BLOCKS * rows, scale, start, device).view(BLOCKS, rows)
    # Whole numbers, since a graph can't round a size: the distance of the outer centers, the triangles' outer halves,
    # and a row on each side for rounding.
    needed = ((rows - 1) * whole + 2 * torch.sym_max(whole, parts)) // parts + 3
    first = (center.select(1, 0) - torch.sym_max(scale, 1.0) - 0.5).floor().long()  # (BLOCKS,)
    row = first.unsqueeze(1) + torch.arange(needed, device=device)  # (BLOCKS, needed)
    there = row.clamp(0, in_size - 1)
    weights = _triangle(row.unsqueeze(1) + 0.5, center.unsqueeze(2), scale)  # (BLOCKS, rows, needed)
    weights = weights * (row == there).unsqueeze(1)
    total = weights.sum(dim=2, keepdim=True).clamp(min=1e-12)
    if ratio is not None:
        weights = weights * _inside(center, in_size, scale).unsqueeze(2)
    taken = image.index_select(-2, there.view(-1)).float().unflatten(-2, (BLOCKS, needed))  # (..., BLOCKS, needed, K)
    weights = weights / total
    blocks = product(weights, taken) if torch.compiler.is_exporting() else weights @ taken  # (..., BLOCKS, rows, K)
    joined: Tensor = blocks.flatten(-3, -2)
    if isinstance(out_size, torch.SymInt):  # the size of a slice would be an expression in the graph, not "H"
        return joined.index_select(-2, torch.arange(out_size, device=device))
    return joined[..., :out_size, :]


def covered(in_size: int, out_size: int, *, scale: float, start: float, device: torch.device) -> Tensor:
    """(out_size,) bool: which output pixels of an axis have their center in the input, and aren't padding."""
    return _inside(_centers(out_size, scale, start, device), in_size, scale)


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


def letterbox_geometry(original: tuple[int, int], size: tuple[int, int]) -> tuple[tuple[int, int], tuple[float, float]]:
    """Scale and padding that fit (H, W) into (h, w) without changing the aspect ratio.

    Returns:
        Original pixels per fitted pixel as a fraction, and the padding (top, left) in fitted pixels.
    """
    whole: int = torch.sym_max(original[0] * size[1], original[1] * size[0])  # type: ignore[assignment]
    scale = whole / (size[0] * size[1])
    padding = (size[0] - original[0] / scale) / 2, (size[1] - original[1] / scale) / 2
    return (whole, size[0] * size[1]), padding


def _centers(out_size: int, scale: float, start: float, device: torch.device | None) -> Tensor:
    """(out_size,) float32, where the centers of output pixels lie in the input."""
    return (torch.arange(out_size, dtype=torch.float32, device=device) + 0.5) * scale + start


def _triangle(pixel: Tensor, center: Tensor, scale: float) -> Tensor:
    """Weights, not normalized, of pixels for an output pixel with this center."""
    support: float = torch.sym_max(scale, 1.0)  # type: ignore[assignment] # max, for sizes that are symbols of a graph too
    weights: Tensor = (1.0 - (pixel - center).abs() / support).relu()
    return weights


def _inside(center: Tensor, in_size: int, scale: float) -> Tensor:
    """Whether centers lie in the input. Half a pixel of padding puts one exactly on the edge; rounding must not decide
    there, differently in a graph.
    """
    edge = 0.01 * scale
    return (center > edge) & (center < in_size - edge)
