"""What every builder of a backbone returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import nn

Rgb: TypeAlias = tuple[float, float, float]
Layers: TypeAlias = Mapping[str, tuple[int, int]]
"""Channels, and input pixels per map pixel, of every layer of a backbone, in the order of its layers."""


@dataclass(frozen=True)
class Built:
    """A network that is ready for use.

    Attributes:
        network: images (N, 3, h, w) float32, normalized -> the maps of the layers that it was built for: a list in the
            order of the backbone's layers, or a dict by name.
        mean, std: RGB normalization that the network expects, for inputs in [0, 1].
        source: where the weights came from, see `FeatureExtractor`.
        license: of the weights, in the words of who published them; None where that isn't known.
        full_precision: modules of the network that 8-bit integers would ruin, see `FeatureExtractor`.
        smallest: least side of an image in pixels; None where the strides decide.
        made_for: height and width of the images that it was trained on; None where any do.
        channels_last: whether maps come as (N, h, w, channels) instead of (N, channels, h, w).
    """

    network: nn.Module
    mean: Rgb
    std: Rgb
    source: str
    license: str | None = None
    smallest: int | None = None
    full_precision: tuple[nn.Module, ...] = ()
    made_for: tuple[int, int] | None = None
    channels_last: bool = False
