"""Transformers as backbones: the tokens of patches, after any of the blocks, as maps.

A vision transformer cuts the image into patches of 14 or 16 pixels and keeps their number through all of its blocks:
every block is a layer, and all have one stride. Tokens that belong to no patch (class, registers) are dropped. The
final normalization was trained for the last block, and the field applies it to others as well (DINOv2's
`get_intermediate_layers`): a layer named "blocks.5+norm" is "blocks.5" after it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

NORM = "+norm"


class Blocks(nn.Module):
    """The outputs of some blocks of a timm transformer.

    Args:
        model: from timm, with `forward_intermediates`; what no layer needs is cut off.
        layers: names of blocks, with or without `NORM`.
        blocks: names of all blocks, in order.
    """

    model: Any

    def __init__(self, model: nn.Module, layers: Sequence[str], blocks: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.pretrained_cfg = self.model.pretrained_cfg
        self.layers = list(layers)
        self.blocks = sorted({layer.removesuffix(NORM) for layer in layers}, key=blocks.index)
        self.indices = [blocks.index(block) for block in self.blocks]
        self.model.prune_intermediate_layers(self.indices, prune_norm=self.blocks == self.layers)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, h, w) -> (N, channels, h / patch, w / patch) for each layer."""
        maps = self.model.forward_intermediates(images, indices=self.indices, intermediates_only=True)
        by_block = dict(zip(self.blocks, maps, strict=True))
        return [
            by_block[layer] if layer in by_block else self._normalized(by_block[layer.removesuffix(NORM)])
            for layer in self.layers
        ]

    def _normalized(self, maps: Tensor) -> Tensor:
        normalized: Tensor = self.model.norm(maps.permute(0, 2, 3, 1))  # (N, gh, gw, channels)
        return normalized.permute(0, 3, 1, 2)  # (N, channels, gh, gw)
