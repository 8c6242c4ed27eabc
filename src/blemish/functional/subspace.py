"""What good features don't do: the distance to the subspace in which they vary (SubspaceAD, arXiv 2602.23013).

Good patch features x with mean mu vary mostly along a few principal components C, orthonormal columns that hold a share
tau (0.99 in the paper) of their variance. A test feature is as abnormal as its part outside,

    s(x) = | (x - mu) - C C^T (x - mu) |

in feature units. The two products are kept apart from the norm: |x - mu|^2 - |C^T (x - mu)|^2 would need one of them
less, but subtracts nearly equal numbers, and float32 loses what remains. Axes: Q queries, D channels, K components.
"""

from __future__ import annotations

import torch
from torch import Tensor

from blemish.errors import UsageError


def principal_components(scatter: Tensor, share: float) -> Tensor:
    """The fewest directions that hold a share of the variance.

    Args:
        scatter: (D, D), sum of centered outer products, or anything in proportion to it; only the lower triangle is
            read. float64, since variances may differ by more than float32 resolves.
        share: tau, in (0, 1].

    Returns:
        (D, K) orthonormal columns in `scatter`'s type, by falling variance; K at least 1. The largest entry of a column
        is positive.

    Raises:
        UsageError: if `share` is out of range.
    """
    if not 0.0 < share <= 1.0:
        raise UsageError(f"The share of variance must be above 0 and at most 1. Got {share}.")
    variance, directions = torch.linalg.eigh(scatter)
    variance, directions = variance.flip(0).clamp(min=0.0), directions.flip(1)  # falling
    held = variance.cumsum(0)  # (D,)
    enough = int((held < share * held[-1]).sum()) + 1
    chosen = directions[:, :enough]  # (D, K)
    largest = chosen.gather(0, chosen.abs().argmax(dim=0, keepdim=True))  # (1, K)
    turned: Tensor = chosen * torch.where(largest < 0, -1.0, 1.0)
    return turned


def residual_norm(queries: Tensor, mean: Tensor, components: Tensor) -> Tensor:
    """Distances of (..., D) features to the affine subspace of `mean` (D,) and `components` (D, K) -> (...)."""
    centered = queries - mean  # (..., D)
    outside = centered - (centered @ components) @ components.mT  # (..., D)
    norm: Tensor = torch.linalg.vector_norm(outside, dim=-1)
    return norm
