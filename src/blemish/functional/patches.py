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


def join_layers(layers: Sequence[Tensor], size: tuple[int, int] | None = None) -> Tensor:
    """Layers (N, D_i, h_i, w_i), finest first -> (N, sum of D_i, h, w).

    Args:
        layers: at least one.
        size: (h, w); None takes that of the first. Coarser layers are brought up bilinearly, finer ones averaged down.
    """
    size = (layers[0].shape[-2], layers[0].shape[-1]) if size is None else size
    same = (layer if layer.shape[-2:] == size else resize(layer, size) for layer in layers)
    return torch.cat(list(same), dim=1)  # (N, sum of D_i, h, w)


def worst_mean(scores: Tensor, share: float) -> Tensor:
    """Mean of the highest `share` of each image's patch scores, at least of one: (N, P) -> (N,).

    One patch may be high by chance; a defect covers several. A score that isn't finite makes the result so, in every
    runtime, however it sorts NaN.
    """
    count = max(1, round(share * scores.shape[1]))
    total = scores.sum(dim=1)  # (N,)
    return torch.where(total.abs() < torch.inf, scores.topk(count, dim=1).values.mean(dim=1), total)


def to_rows(embedding: Tensor) -> Tensor:
    """(N, D, h, w) -> (N * h * w, D), image by image, row by row."""
    return embedding.permute(0, 2, 3, 1).reshape(-1, embedding.shape[1])  # (N, h, w, D) -> (N h w, D)
