"""The bundled backbone: learned layers and the filter bank side by side.

The layers learned structure from drawn pictures; the filter bank keeps contrast and color, which learning throws away
where it did not help. Both are compressed: the layers by square roots of their activations, the filter bank by square
roots of its magnitudes. Of layer2 and layer3 the leading principal components on drawn pictures are kept: the search
for neighbors takes time by the channel, and finds no more with all of them. What is found with which stands on the
card beside the weights.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.features.built import Built
from blemish.features.filter_bank import MINIMUM_SIDE, FilterBank
from blemish.features.resnet18 import ResNet18
from blemish.features.undrawn import private_random_state, undrawn

ARCHITECTURE = "resnet18"
FILTERS = "filter_bank"
LAYERS = {"layer1": (64, 4), "layer2": (64, 8), FILTERS: (75, 8), "layer3": (32, 16)}
"""Channels and stride of each layer, finest first."""
LEARNED_CHANNELS = {"layer2": 128, "layer3": 256}
"""Channels of the layers that are projected, before they are."""

FILE = Path(__file__).parent / "bundled" / f"{ARCHITECTURE}.safetensors"
"""State dict of a timm `ARCHITECTURE` up to layer3, and `projections` of layers; float16."""

LICENSE = "apache-2.0"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of RGB in [0, 1]: ImageNet's, which timm's ResNets expect."""
FILTER_SCALE = 32.0
"""Brings the filter bank to a deviation of about 2 on drawn pictures."""
FLOOR = 0.05
"""Activations below it hardly count; keeps the slope of the root finite."""


class BundledNetwork(nn.Module):
    """`forward` maps (N, 3, h, w) float32, normalized by `MEAN` and `STD`, to named maps.

    Args:
        learned: returns the maps of the learned ones among `layers`, in order; None where there are none.
        layers: names out of `LAYERS`.

    Attributes:
        projections: by layer, a 1 x 1 convolution onto orthonormal directions; random until weights are loaded.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, learned: nn.Module | None, layers: Sequence[str]) -> None:
        super().__init__()
        self.learned = learned
        self.names = [name for name in layers if name != FILTERS]
        self.projections = nn.ModuleDict(
            {
                name: nn.Conv2d(LEARNED_CHANNELS[name], LAYERS[name][0], 1, bias=False)
                for name in self.names
                if name in LEARNED_CHANNELS
            }
        )
        self.filters = FilterBank() if FILTERS in layers else None
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(N, 3, h, w) -> {name: (N, channels, ~h / stride, ~w / stride)}."""
        learned = self.learned(images) if self.learned is not None else []
        maps = {name: compress(one) for name, one in zip(self.names, learned, strict=True)}
        maps |= {name: projection(maps[name]) for name, projection in self.projections.items()}
        if self.filters is not None:
            energies = self.filters(images * self.std + self.mean)
            maps[FILTERS] = FILTER_SCALE * torch.cat(list(energies.values()), dim=1)
        return maps


def compress(maps: Tensor) -> Tensor:
    """Square roots of activations >= 0, of any shape (power normalization, Perronnin et al., ECCV 2010).

    Distances between roots depend less on how strong a texture is. NaN stays NaN.
    """
    return (maps + FLOOR).sqrt()


def build(
    layers: Sequence[str],
    *,
    pretrained: bool,
    weights: str | os.PathLike[str] | None,
    seed: int,
    file: Path = FILE,
) -> Built:
    """The bundled backbone, see `blemish.features.backbones.Builder`; its weights are in `file`.

    Raises:
        UsageError: for weights of one's own.
    """
    if weights is not None:
        raise UsageError(
            f"backbone='bundled' has its weights. Drop weights=, or pass backbone={ARCHITECTURE!r} with it."
        )
    learned = [name for name in layers if name != FILTERS]
    smallest = MINIMUM_SIDE if FILTERS in layers else None
    with private_random_state(seed):
        if not (learned and pretrained):
            network = ResNet18(learned) if learned else None
            source = "bundled" if pretrained else "random"
            bundled = BundledNetwork(network, layers)
            return Built(bundled, MEAN, STD, source, None, smallest, _full_precision(bundled))
        with torch.device("meta"), undrawn():
            network = ResNet18(learned)
        bundled = BundledNetwork(network, layers)
    stored = load_file(file)
    network.load_state_dict({name: stored[name] for name in network.state_dict()}, assign=True)
    network.float()
    projections = bundled.projections
    projections.load_state_dict({name: stored[f"projections.{name}"] for name in projections.state_dict()})
    return Built(bundled, MEAN, STD, "bundled", LICENSE, smallest, _full_precision(bundled))


def _full_precision(network: BundledNetwork) -> tuple[nn.Module, ...]:
    """Differences of the filter bank and of projections are too fine for 8 bits."""
    filters = () if network.filters is None else (network.filters,)
    return (*filters, *network.projections.values())
