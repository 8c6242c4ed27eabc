"""From feature maps to patch features: neighborhood averaging, stacking of layers, flattening.

PatchCore (arXiv 2106.08265, section 3.1) describes a position by the mean of its p x p neighborhood and joins several
layers by bringing the deeper, coarser ones to the resolution of the first. PaDiM (arXiv 2011.08785, section III-A)
joins without averaging.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.functional.resize import resize


def average_neighborhood(features: Tensor, size: int = 3) -> Tensor:
    """(N, D, h, w) -> (N, D, h, w): mean over the `size` x `size` neighborhood that lies inside the map.

    Positions beyond the border don't count: counting them as zeros would make every border patch look alike.
    """
    return F.avg_pool2d(features, size, stride=1, padding=size // 2, count_include_pad=False)


def join_layers(layers: Sequence[Tensor]) -> Tensor:
    """Layers (N, D_i, h_i, w_i), finest first -> (N, sum of D_i, h_0, w_0), coarser ones brought up bilinearly."""
    size = (layers[0].shape[-2], layers[0].shape[-1])
    return torch.cat([layers[0], *(resize(layer, size) for layer in layers[1:])], dim=1)


def to_rows(embedding: Tensor) -> Tensor:
    """(N, D, h, w) -> (N * h * w, D), image by image, row by row."""
    return embedding.permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])
