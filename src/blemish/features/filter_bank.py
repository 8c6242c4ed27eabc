"""A classical filter bank: features without learned weights, without a download and without anybody's data.

Oriented energy in the manner of a Gabor pyramid. The image is split into luminance and two opponent colors; on each of
four octaves every channel is filtered by quadrature pairs (even and odd Gabor functions) at six orientations, and the
magnitude sqrt(even^2 + odd^2) says how much contrast there is at that orientation and scale, whatever its phase. Square
roots of magnitudes, averaged over 8 x 8 pixels, and the local mean color form 75 channels at stride 8. It is the
honest baseline for learned features, and one layer of the bundled backbone. Deterministic: all weights are
computed from formulas.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.features.built import Built

ORIENTATIONS = 6
SCALES = 4
STRIDES = ((2, 4), (2, 2), (1, 2), (1, 1))
"""Per octave: stride of the filters and size of the averaging. Magnitudes are smooth, so every second one is enough."""
STRIDE = 8
MINIMUM_SIDE = 64
"""The coarsest octave is an eighth of the image and must be wider than the filters' mirrored border."""
LAYERS = {**{f"scale{i + 1}": (3 * ORIENTATIONS, STRIDE) for i in range(SCALES)}, "colour": (3, STRIDE)}
"""Channels and stride of each layer. The spelling of the last stands in model files."""
WAVELENGTH = 4.0
"""Pixels per period on each octave: a quarter of the sampling rate, well inside the passband that halving leaves
intact.
"""
SIGMA = 2.0
RADIUS = 4
# Luminance, red-green, blue-yellow; rows are weights of R, G, B. Opponent rows are scaled up because their contrast is
# lower.
OPPONENT = ((1 / 3, 1 / 3, 1 / 3), (1.0, -1.0, 0.0), (0.5, 0.5, -1.0))


def gabor_pairs() -> Tensor:
    """(2 * ORIENTATIONS, 1, 9, 9) float32: even filters, then odd ones; each sums to zero and has unit L1 norm."""
    axis = torch.arange(-RADIUS, RADIUS + 1, dtype=torch.float32)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * SIGMA**2))
    filters = []
    for phase in (torch.cos, torch.sin):
        for k in range(ORIENTATIONS):
            angle = math.pi * k / ORIENTATIONS
            wave = envelope * phase(2 * math.pi / WAVELENGTH * (x * math.cos(angle) + y * math.sin(angle)))
            wave = wave - envelope * (wave.sum() / envelope.sum())
            filters.append(wave / wave.abs().sum())
    return torch.stack(filters)[:, None]


class FilterBank(nn.Module):
    """The filter bank as a backbone: `forward` maps (N, 3, h, w) float32 RGB in [0, 1] to named maps at stride 8.

    Layers: "scale1" ... "scale4" (18 channels each: 3 colors x 6 orientations, finest octave first) and "colour" (3
        channels).
    """

    filters: Tensor
    opponent: Tensor
    binomial: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters", gabor_pairs().repeat(3, 1, 1, 1))  # (36, 1, 9, 9)
        self.register_buffer("opponent", torch.tensor(OPPONENT)[:, :, None, None])  # (3, 3, 1, 1)
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("binomial", (taps[:, None] * taps).expand(3, 1, 5, 5).clone())

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, h, w) -> {"scale1": (N, 18, h/8, w/8), ..., "colour": (N, 3, h/8, w/8)}; h, w at least 64.

        Sides that are no multiple of 8 are continued by their border pixels.
        """
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % STRIDE, 0, -height % STRIDE), mode="replicate")
        level = F.conv2d(images, self.opponent)  # (N, 3, h, w)
        maps = {}
        for scale in range(SCALES):
            padded = F.pad(level, (RADIUS,) * 4, mode="reflect")  # (N, 3, h/2^s + 2 RADIUS, w/2^s + 2 RADIUS)
            stride, pool = STRIDES[scale]
            even, odd = (
                F.conv2d(padded, self.filters, stride=stride, groups=3).unflatten(1, (3, 2, ORIENTATIONS)).unbind(2)
            )
            energy = (even.square() + odd.square() + 1e-8).pow(0.25).flatten(1, 2)  # (N, 18, h/2^s, w/2^s)
            maps[f"scale{scale + 1}"] = F.avg_pool2d(energy, pool)
            if scale + 1 < SCALES:
                level = F.conv2d(F.pad(level, (2,) * 4, mode="reflect"), self.binomial, stride=2, groups=3)
        maps["colour"] = level  # three halvings: stride 8
        return maps


def build(layers: Sequence[str], *, pretrained: bool, weights: str | os.PathLike[str] | None, seed: int) -> Built:
    """The filter bank, see `blemish.features.backbones.Builder`; `pretrained` and `seed` change nothing.

    Raises:
        UsageError: for weights.
    """
    if weights is not None:
        raise UsageError(
            "backbone='filter_bank' is computed from formulas and takes no weights. Drop weights=, or name the timm "
            "model."
        )
    return Built(FilterBank(), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "formula", smallest=MINIMUM_SIDE)
