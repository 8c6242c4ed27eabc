"""ResNet-18 (He et al., CVPR 2016, arXiv 1512.03385) up to a layer, for the backbone that ships with the package.

Every tensor has its name of timm's, every operation is timm's. Other ResNets come from timm itself, whose import takes
longer than everything else that a first verdict needs.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = {"layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
"""Of all layers; the first has stride 4, each further one twice that of the one before."""


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Block(nn.Module):
    """Two convolutions of 3 x 3 beside a shortcut, a convolution of its own where shapes change."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _convolution(inputs, outputs, 3, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = _convolution(outputs, outputs, 3, 1)
        self.bn2 = nn.BatchNorm2d(outputs)
        same = inputs == outputs
        self.downsample = (
            None if same else nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, inputs, h, w) -> (N, outputs, h / stride, w / stride), rounded up."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += x if self.downsample is None else self.downsample(x)
        return F.relu(y, inplace=True)


class ResNet18(nn.Module):
    """`forward` maps (N, 3, h, w) float32 to the maps of `layers`, names out of `CHANNELS`, finest first.

    Weights are random until others are loaded.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        super().__init__()
        self.layers = frozenset(layers)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        names = list(CHANNELS)
        self.names = names[: max(map(names.index, layers)) + 1]
        inputs = 64
        for name in self.names:
            outputs = CHANNELS[name]
            stride = 1 if inputs == outputs else 2
            setattr(self, name, nn.Sequential(Block(inputs, outputs, stride), Block(outputs, outputs, 1)))
            inputs = outputs

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, h, w) -> (N, channels, h / stride, w / stride) of each layer, rounded up."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = F.max_pool2d(x, 3, 2, padding=1)
        maps = []
        for name in self.names:
            x = getattr(self, name)(x)
            if name in self.layers:
                maps.append(x)
        return maps
