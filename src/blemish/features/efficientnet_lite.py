"""EfficientNet-Lite as a backbone: the network of timm's `tf_efficientnet_lite0` to `2`, without timm.

EfficientNet (Tan and Le, ICML 2019, arXiv 1905.11946) widens and deepens one small network of inverted residuals. Lite
(Liu et al., "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020) leaves out its attention,
takes ReLU6 for swish, and keeps stem, first and last stage as they are, so that 8 bits are enough for it.

Every tensor has its name of timm's, every operation is timm's: files and weights are the same, and so are features, bit
by bit. Importing timm imports torchvision and all of their models, which takes longer than everything else that a first
verdict needs; and timm's network computes all stages, this one ends with the last that is asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.features.built import Built, Layers
from blemish.features.trained import Published, find_trained
from blemish.features.undrawn import private_random_state, undrawn
from blemish.features.wheels import Wheel


class Stage(NamedTuple):
    """A stage of Lite0: equal blocks, of which the first may halve the map."""

    blocks: int
    kernel: int
    stride: int
    widening: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
STEM = 32
"""Channels after the first convolution, which halves the image."""
ENDS = (0, 1, 2, 4, 6)
"""The stages after which the next halves the map, and the last: the layers that there are, by timm's count."""
SCALES = {0: (1.0, 1.0, 224), 1: (1.0, 1.1, 240), 2: (1.1, 1.2, 260)}
"""Lite0 to 2: channels and blocks times those of Lite0, and the side of the images that they were trained on."""
HEAD = (
    "conv_head.weight",
    *(f"bn2.{part}" for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
    "classifier.weight",
    "classifier.bias",
)
"""What timm's whole model has behind the stages, in timm's order."""
MEAN = STD = (0.5, 0.5, 0.5)
EPSILON = 1e-3
"""Of batch normalization, as in TensorFlow."""


def scaled(number: int) -> list[Stage]:
    """The stages of Lite `number`; the paper's rounding of channels, to eighths and down by a tenth at most."""
    width, depth, _ = SCALES[number]
    last = len(STAGES) - 1
    found = []
    for place, stage in enumerate(STAGES):
        wanted = stage.channels * width
        channels = max(8, int(wanted + 4) // 8 * 8)
        channels += 8 if channels < 0.9 * wanted else 0
        blocks = stage.blocks if place in (0, last) else math.ceil(stage.blocks * depth)
        found.append(stage._replace(blocks=blocks, channels=channels))
    return found


def layers_of(number: int) -> Layers:
    """Every layer of Lite `number` that can be returned."""
    stages, stride, found = scaled(number), 2, {}
    for place, stage in enumerate(stages):
        stride *= stage.stride
        if place in ENDS:
            found[f"blocks.{place}"] = (stage.channels, stride)
    return found


class Halving(nn.Conv2d):
    """A convolution of stride 2 that pads as TensorFlow does ("same"): the odd row and column at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, channels, ceil(h / 2), ceil(w / 2))."""
        height, width = (kernel - 2 + side % 2 for kernel, side in zip(self.kernel_size, x.shape[-2:], strict=True))
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return super().forward(x)


def _convolution(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    if stride == 2:
        return Halving(inputs, outputs, kernel, 2, groups=groups, bias=False)
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class DepthwiseSeparable(nn.Module):
    """The block of the first stage: a filter for each channel, then a mixture of channels."""

    def __init__(self, inputs: int, stage: Stage) -> None:
        super().__init__()
        self.conv_dw = _convolution(inputs, inputs, stage.kernel, stage.stride, groups=inputs)
        self.bn1 = _norm(inputs)
        self.conv_pw = _convolution(inputs, stage.channels)
        self.bn2 = _norm(stage.channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, channels, h / stride, w / stride)."""
        x = F.relu6(self.bn1(self.conv_dw(x)), inplace=True)
        return self.bn2(self.conv_pw(x))  # type: ignore[no-any-return]


class InvertedResidual(nn.Module):
    """Wider, a filter for each channel, narrow again (MobileNetV2, Sandler et al., CVPR 2018, arXiv 1801.04381)."""

    def __init__(self, inputs: int, stage: Stage) -> None:
        super().__init__()
        wide = inputs * stage.widening
        self.conv_pw = _convolution(inputs, wide)
        self.bn1 = _norm(wide)
        self.conv_dw = _convolution(wide, wide, stage.kernel, stage.stride, groups=wide)
        self.bn2 = _norm(wide)
        self.conv_pwl = _convolution(wide, stage.channels)
        self.bn3 = _norm(stage.channels)
        self.adds = stage.stride == 1 and inputs == stage.channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, channels, h / stride, w / stride)."""
        wide = F.relu6(self.bn1(self.conv_pw(x)), inplace=True)
        wide = F.relu6(self.bn2(self.conv_dw(wide)), inplace=True)
        narrow: Tensor = self.bn3(self.conv_pwl(wide))
        return narrow + x if self.adds else narrow


class EfficientNetLite(nn.Module):
    """`forward` maps (N, 3, h, w) float32, normalized by `MEAN` and `STD`, to the maps of layers.

    Args:
        number: 0, 1 or 2.
        layers: names out of `layers_of(number)`; weights are random, as for training, until others are loaded.
    """

    def __init__(self, number: int, layers: Sequence[str]) -> None:
        super().__init__()
        self.ends = {int(name.removeprefix("blocks.")) for name in layers}
        self.conv_stem = _convolution(3, STEM, 3, stride=2)
        self.bn1 = _norm(STEM)
        channels, stages = STEM, []
        for stage in scaled(number)[: max(self.ends) + 1]:
            block = DepthwiseSeparable if stage.widening == 1 else InvertedResidual
            blocks = [block(channels, stage)]
            blocks += [block(stage.channels, stage._replace(stride=1)) for _ in range(stage.blocks - 1)]
            stages.append(nn.Sequential(*blocks))
            channels = stage.channels
        self.blocks = nn.Sequential(*stages)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # He et al. (2015), by outputs
                size = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
                nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / size))
        self.register_load_state_dict_pre_hook(_without_later_stages)  # type: ignore[no-untyped-call]

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, h, w) -> (N, channels, h / stride, w / stride) of each layer, rounded up, finest first."""
        x = F.relu6(self.bn1(self.conv_stem(images)), inplace=True)
        maps = []
        for place, stage in enumerate(self.blocks):
            x = stage(x)
            if place in self.ends:
                maps.append(x)
        return maps


def tensor_names(number: int) -> list[str]:
    """Of timm's whole model, classifier included, in timm's order."""
    with torch.device("meta"):
        return [*EfficientNetLite(number, [f"blocks.{ENDS[-1]}"]).state_dict(), *HEAD]


def _without_later_stages(network: Any, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Model files from when this was timm's network hold all stages, also those that no layer needs."""
    needed = len(network.blocks)
    later = tuple(f"{prefix}blocks.{place}." for place in range(needed, len(STAGES)))
    for name in [name for name in state if name.startswith(later)]:
        del state[name]


def build(
    number: int,
    wheel: Wheel,
    layers: Sequence[str],
    *,
    pretrained: bool,
    weights: str | os.PathLike[str] | None,
    seed: int,
) -> Built:
    """Lite `number` up to the last of `layers`, see `blemish.features.backbones.Builder`; `wheel` has its weights.

    Raises:
        UsageError: for weights that are given and not wanted.
        WeightsError: when weights can't be found, read, or don't fit.
    """
    side = SCALES[number][2]
    if not pretrained:
        if weights is not None:
            raise UsageError("weights= was given together with pretrained=False. Give one of the two.")
        with private_random_state(seed):
            return Built(EfficientNetLite(number, layers), MEAN, STD, "random", made_for=(side, side))
    name = f"tf_efficientnet_lite{number}"
    published = Published(f"timm/{name}.in1k", license="apache-2.0")
    trained = find_trained(name, weights, published, wheel, lambda: tensor_names(number))
    with undrawn():
        network = EfficientNetLite(number, layers)
    absent = [one for one, _ in network.named_parameters() if one not in trained.state]
    if absent:
        raise trained.lacking(name, absent)
    try:
        network.load_state_dict({one: trained.state[one] for one in network.state_dict() if one in trained.state})
    except RuntimeError as error:
        raise trained.unfit(name, error) from error
    return Built(network, MEAN, STD, trained.source, trained.license, made_for=(side, side))
