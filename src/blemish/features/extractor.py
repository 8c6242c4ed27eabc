"""Images to feature maps, by one frozen network cut off after the last layer that is needed.

`FeatureExtractor` hides which network it is: the one that ships with the package, the filter bank, or any timm model
that can return feature maps. It stays in evaluation mode whatever its parents do, and has no parameter that asks for a
gradient: a detector's features must not depend on the batch they came in.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.features.backbones import ALIASES, default_layers, find
from blemish.features.built import Layers
from blemish.features.weights import checksum

if TYPE_CHECKING:
    from typing_extensions import Self

STRIDES = (4, 16)
"""Least and greatest of the layers that are taken where none are named."""


class FeatureExtractor(nn.Module):
    """A frozen backbone that returns the maps of the named layers, finest first.

    Args:
        backbone: "bundled", a ResNet-18 up to layer3 whose weights ship with the package, with the filter bank as one
            more layer; "filter_bank"; "efficientnet_lite0" to "2", whose weights are in packages; or the name of a timm
            model ("resnet18", "vit_small_patch14_dinov2", ...).
        layers: names of the layers to return, as timm's `feature_info` has them ("layer1", "layer2", ... for ResNets).
            "blocks.5+norm" is a block of a transformer after the final normalization. None takes those at strides from
            4 to 16, see `default_layers`.
        pretrained: load trained weights. False leaves a network at random weights drawn from `seed`, without any
            network use; an artifact that is being loaded fills them afterwards.
        weights: state-dict file for `backbone`; None looks into the local store (see `features.weights`), then asks the
            hub.
        seed: seed of random weights; only used when `pretrained` is False.

    Attributes:
        layers: the layer names. channels: their channel counts. strides: input pixels per map pixel.
        mean, std: RGB normalization that the backbone was trained with, for inputs in [0, 1].
        source: where the weights came from: "bundled", "formula", "random", a file name, a package and its version, or
            the hub's identifier.
        license: of the weights, as whoever published them names it; None where it isn't known.

    Raises:
        UsageError: for an unknown backbone or layer; the message lists what there is.
        WeightsError: when weights can't be found, read, or don't fit.
    """

    def __init__(
        self,
        backbone: str = "bundled",
        layers: Sequence[str] | None = None,
        *,
        pretrained: bool = True,
        weights: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        # Without weights the name stays timm's: a model file from before `ALIASES` holds timm's network of that name.
        self.backbone = backbone = ALIASES.get(backbone, backbone) if pretrained else backbone
        row = find(backbone)
        available = row.layers()
        self.layers = _ordered(backbone, default_layers(backbone, STRIDES) if layers is None else layers, available)
        built = row.build(self.layers, pretrained=pretrained, weights=weights, seed=seed)
        self.network = built.network
        self.mean, self.std = built.mean, built.std
        self.source, self.license = built.source, built.license
        self.channels = [available[name][0] for name in self.layers]
        self.strides = [available[name][1] for name in self.layers]
        self._smallest = built.smallest or 2 * max(self.strides)
        self._made_for, self._channels_last = built.made_for, built.channels_last
        self._full_precision = built.full_precision
        self.requires_grad_(False)
        self.eval()
        # Channels last: convolutions on the CPU run faster, and patches lie in memory as rows.
        self.network.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: batch statistics would tie an image's features to its neighbors in the batch."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, h, w) float32, normalized -> maps (N, channels[i], ~h/strides[i], ~w/strides[i]).

        Raises:
            UsageError: if the backbone returns other maps than it said.
        """
        maps = self.network(images.contiguous(memory_format=torch.channels_last))
        found: list[Tensor] = [maps[name] for name in self.layers] if isinstance(maps, dict) else list(maps)
        if self._channels_last:
            found = [one.permute(0, 3, 1, 2) for one in found]  # (N, h, w, channels) -> (N, channels, h, w)
        for name, one, channels, stride in zip(self.layers, found, self.channels, self.strides, strict=True):
            cells = [(side / stride, rows) for side, rows in zip(images.shape[-2:], one.shape[-2:], strict=True)]
            # Borders without padding cost cells, so it can't be exact; the next layer would have half as many.
            if one.ndim != 4 or one.shape[1] != channels or any(abs(n - rows) > n / 4 + 1 for n, rows in cells):
                raise UsageError(
                    f"backbone {self.backbone!r} returned {tuple(one.shape)} for layer {name!r} of images "
                    f"{tuple(images.shape)}, not {channels} channels at stride {stride} as timm says. Choose another "
                    f"layer or backbone."
                )
        return found

    @torch.no_grad()
    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the finest layer for an input of `image_size` (h, w), after a try.

        Raises:
            UsageError: if the backbone doesn't take images of this size, or returns other maps than it said; the
                message has the nearest sizes that it takes.
        """
        if min(image_size) < self._smallest:
            raise UsageError(
                f"image_size {image_size} is too small for layers {self.layers} of {self.backbone!r}: both sides must "
                f"be at least {self._smallest} pixels. Use a larger image_size or an earlier layer."
            )
        try:
            return self._try(image_size)
        except UsageError:
            raise
        except Exception as error:  # networks find out in their own ways
            sizes = " and ".join(map(str, self._sizes_near(image_size)))
            advice = f"The nearest that it accepts: {sizes}" if sizes else "Choose another backbone"
            raise UsageError(
                f"backbone {self.backbone!r} does not accept image_size {image_size}: {str(error).rstrip('.')}. "
                f"{advice}."
            ) from error

    def _try(self, image_size: tuple[int, int]) -> tuple[int, int]:
        weight = next(chain(self.network.parameters(), self.network.buffers()))  # either may be empty
        maps = self(torch.zeros(1, 3, *image_size, device=weight.device))
        return (maps[0].shape[-2], maps[0].shape[-1])

    def _sizes_near(self, image_size: tuple[int, int]) -> list[tuple[int, int]]:
        """Whole cells below and above as far as the backbone accepts them, else the size that it was made for."""
        cell, (height, width) = max(self.strides), image_size
        below = height // cell * cell, width // cell * cell
        above = -(-height // cell) * cell, -(-width // cell) * cell
        return [size for size in (below, above) if self._works(size)] or [
            size for size in (self._made_for,) if size and self._works(size)
        ]

    def _works(self, image_size: tuple[int, int]) -> bool:
        with suppress(Exception):
            self._try(image_size)
            return True
        return False

    def full_precision_modules(self) -> tuple[nn.Module, ...]:
        """Those that an export in 8-bit integers leaves alone: little time goes there, and 8 bits would round their
        differences away.
        """
        return self._full_precision

    def checksum(self) -> str:
        """SHA-256 of the weights in use, see `features.weights.checksum`."""
        return checksum(self)


def _ordered(backbone: str, layers: Sequence[str], available: Layers) -> list[str]:
    """The layers in the order of the backbone."""
    unknown = [name for name in layers if name not in available]
    if unknown or not layers or len(set(layers)) != len(layers):
        raise UsageError(
            f"layers must be distinct names out of {list(available)} for backbone {backbone!r}. Got {list(layers)}."
        )
    return sorted(layers, key=list(available).index)
