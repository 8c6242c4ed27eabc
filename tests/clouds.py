"""Points to search for neighbors among."""

from __future__ import annotations

import torch
from torch import Tensor


def points(n: int, channels: int = 16, seed: int = 0) -> Tensor:
    return torch.randn(n, channels, generator=torch.Generator().manual_seed(seed))


def brute_force(queries: Tensor, bank: Tensor) -> Tensor:
    """(Q, M) float64 distances from differences."""
    return (queries.double()[:, None] - bank.double()[None]).square().sum(dim=2).sqrt()


def features(n: int, decay: float, seed: int) -> Tensor:
    """Points whose variance falls with the channel, as that of a backbone's features does; decay 0 is isotropic."""
    rotation = torch.linalg.qr(points(256, 256, seed=9))[0]
    return (points(n, 256, seed) * torch.arange(1, 257) ** -decay) @ rotation
