"""The table of backbones: every row builds what it says, and says which layers to take."""

from __future__ import annotations

import pytest
import torch

from blemish.errors import UsageError
from blemish.features.backbones import BACKBONES, default_layers, find
from blemish.features.extractor import FeatureExtractor

FINE, MIDDLE = (4, 16), (8, 16)


@pytest.mark.parametrize("name", [*BACKBONES, "resnet18"])
def test_a_row_builds_the_layers_that_it_lists(name: str) -> None:
    layers = find(name).layers()
    extractor = FeatureExtractor(name, list(layers), pretrained=False)
    assert extractor.layers == list(layers)
    assert list(zip(extractor.channels, extractor.strides, strict=True)) == list(layers.values())
    for one, (channels, stride) in zip(extractor(torch.rand(2, 3, 64, 128)), layers.values(), strict=True):
        assert one.shape == (2, channels, 64 // stride, 128 // stride)


@pytest.mark.parametrize(
    ("name", "strides", "layers"),
    [
        ("bundled", FINE, ["layer1", "layer2", "filter_bank", "layer3"]),
        ("bundled", MIDDLE, ["layer2", "filter_bank", "layer3"]),
        ("filter_bank", FINE, ["scale1", "scale2", "scale3", "scale4", "colour"]),
        ("filter_bank", MIDDLE, ["scale1", "scale2", "scale3", "scale4", "colour"]),
        ("wide_resnet50_2", FINE, ["layer1", "layer2", "layer3"]),
        ("resnet18.tv_in1k", MIDDLE, ["layer2", "layer3"]),
    ],
)
def test_the_layers_to_take(name: str, strides: tuple[int, int], layers: list[str]) -> None:
    assert default_layers(name, strides) == layers


def test_no_layer_at_these_strides() -> None:
    with pytest.raises(
        UsageError, match=r"layers must be given for backbone 'resnet18', which has none at strides 3 to 3; it has \['a"
    ):
        default_layers("resnet18", (3, 3))


@pytest.mark.parametrize(("name", "license"), [("bundled", "apache-2.0"), ("filter_bank", None)])
def test_licenses(name: str, license: str | None) -> None:
    assert FeatureExtractor(name).license == license
    assert FeatureExtractor(name, pretrained=False).license is None
