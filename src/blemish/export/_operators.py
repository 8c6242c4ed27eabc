"""Operators that torch's exporter would write as ONNX ones which not all runtimes take alike.

Transformers bring their position embeddings to the size of the image by antialiased bicubic resizing. ONNX has it, but
OpenVINO passes over `antialias`: features came out with errors of a tenth. It is linear and separable, so with known
sizes it is two small matrix products, which everyone computes alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from onnx import numpy_helper
from onnxscript import opset18 as op
from torch.nn import functional as F


def bicubic(
    image: Any,
    output_size: Sequence[int],
    align_corners: bool,
    scales_h: float | None = None,
    scales_w: float | None = None,
) -> Any:
    """aten::_upsample_bicubic2d_aa: (N, C, h, w) -> (N, C, *output_size), rows @ image @ columns."""
    rows, columns = (
        _weights(int(before), after, align_corners) for before, after in zip(image.shape[2:], output_size, strict=True)
    )
    left, right = (op.Constant(value=numpy_helper.from_array(one.numpy())) for one in (rows, columns.T.contiguous()))
    return op.MatMul(op.MatMul(left, image), right)


def product(weights: Any, blocks: Any) -> Any:
    """`blemish.functional.resize.product`."""
    return op.MatMul(weights, blocks)


def _weights(before: int, after: int, align_corners: bool) -> torch.Tensor:
    """(after, before): what torch makes of each pixel of an axis."""
    axis = torch.eye(before)[None, None]  # its columns are images of one pixel each
    return F.interpolate(axis, (after, before), mode="bicubic", antialias=True, align_corners=align_corners)[0, 0]


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten._upsample_bicubic2d_aa.default: bicubic,
    torch.ops.blemish.product.default: product,
}
