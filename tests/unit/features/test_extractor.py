"""The extractor over timm's backbones and the bundled one: truncation, order, randomness. No test uses a network."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor

from blemish.errors import UsageError
from blemish.features.bundled_network import FILE, FILTER_SCALE, FLOOR
from blemish.features.extractor import FeatureExtractor
from blemish.features.filter_bank import FilterBank
from blemish.features.resnet18 import CHANNELS, ResNet18
from blemish.features.undrawn import private_random_state

LAYERS = ["layer1", "layer2"]


def pictures(n: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def random() -> FeatureExtractor:
    return FeatureExtractor("resnet18", LAYERS, pretrained=False)


def test_maps_are_timms(random: FeatureExtractor) -> None:
    network = timm.create_model("resnet18", pretrained=False, features_only=True, out_indices=(1, 2)).eval()
    network.load_state_dict(random.network.state_dict())
    images = pictures(height=64, width=96)
    maps = random(images)
    assert [tuple(one.shape) for one in maps] == [(2, 64, 16, 24), (2, 128, 8, 12)]
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(maps, network(images), strict=True))
    assert random.channels == [64, 128]
    assert random.strides == [4, 8]
    assert random.mean == (0.485, 0.456, 0.406)
    assert random.source == "random"


def test_the_network_ends_after_the_last_layer(random: FeatureExtractor) -> None:
    names = [name for name, _ in random.named_parameters()]
    assert any("layer2" in name for name in names)
    assert not any("layer3" in name or "layer4" in name or "fc" in name for name in names)
    deeper = FeatureExtractor("resnet18", ["layer3"], pretrained=False)
    assert not any("layer4" in name for name, _ in deeper.named_parameters())


def test_layers_come_finest_first_whatever_their_order() -> None:
    extractor = FeatureExtractor("resnet18", ["layer2", "layer1"], pretrained=False)
    assert extractor.layers == LAYERS
    assert [one.shape[1] for one in extractor(pictures(1))] == [64, 128]


def test_it_stays_in_evaluation_mode_and_asks_for_no_gradient(random: FeatureExtractor) -> None:
    parent = torch.nn.ModuleList([random])
    before = random.checksum()
    parent.train()
    assert not any(module.training for module in random.modules())
    assert not any(parameter.requires_grad for parameter in random.parameters())
    assert not any(one.requires_grad for one in random(pictures()))
    assert random.checksum() == before  # running statistics included


def test_an_image_does_not_depend_on_its_batch(random: FeatureExtractor) -> None:
    images = pictures(3)
    for i, image in enumerate(images):
        for alone, together in zip(random(image[None]), random(images), strict=True):
            torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-5)


def test_random_weights_come_from_the_seed_and_move_no_global_state() -> None:
    state = torch.random.get_rng_state()
    one, same, other = (FeatureExtractor("resnet18", LAYERS, pretrained=False, seed=s) for s in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    again = FeatureExtractor("resnet18", LAYERS, pretrained=False, seed=3)
    assert one.checksum() == same.checksum() == again.checksum() != other.checksum()


def test_random_weights_never_touch_the_network(no_network: list[str]) -> None:
    FeatureExtractor("resnet18", LAYERS, pretrained=False)
    FeatureExtractor("filter_bank")
    assert no_network == []


# --- the bundled backbone


@pytest.fixture(scope="module")
def bundled() -> FeatureExtractor:
    return FeatureExtractor()


def test_the_bundled_backbone_needs_no_network(no_network: list[str]) -> None:
    extractor = FeatureExtractor("bundled")
    assert no_network == []
    assert extractor.source == "bundled"
    assert extractor.layers == ["layer1", "layer2", "filter_bank", "layer3"]
    assert (extractor.channels, extractor.strides) == ([64, 64, 75, 32], [4, 8, 8, 16])
    assert not any("layer4" in name for name, _ in extractor.named_parameters())


def test_the_bundled_file_is_the_cards(bundled: FeatureExtractor) -> None:
    assert bundled.checksum() in FILE.with_name("CARD.md").read_text(encoding="utf-8")
    assert FILE.stat().st_size <= 12_000_000
    stored = load_file(FILE)
    assert {value.dtype for value in stored.values() if value.is_floating_point()} == {torch.float16}


def test_the_bundled_layers_are_projected_roots_of_timms_resnet18(bundled: FeatureExtractor) -> None:
    stored = {name: value.float() for name, value in load_file(FILE).items()}
    directions = [stored.pop(f"projections.layer{number}.weight")[:, :, 0, 0] for number in (2, 3)]
    network = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3)).eval()
    network.load_state_dict(stored)
    first, second, filters, third = bundled(pictures())
    with torch.no_grad():
        roots = [(one + FLOOR).sqrt() for one in network(pictures())]
    torch.testing.assert_close(first, roots[0], rtol=1e-5, atol=1e-5)
    for ours, theirs, rows in zip((second, third), roots[1:], directions, strict=True):
        torch.testing.assert_close(ours, torch.einsum("dc,nchw->ndhw", rows, theirs), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-3)  # as far as float16 goes
    mean, std = (torch.tensor(one).view(3, 1, 1) for one in (bundled.mean, bundled.std))
    energies = torch.cat(list(FilterBank()(pictures() * std + mean).values()), dim=1)
    assert torch.equal(filters, FILTER_SCALE * energies)
    assert all(value.dtype == torch.float32 for value in bundled.parameters())


@pytest.mark.parametrize("layers", [("layer1",), ("layer2", "layer3"), ("layer1", "layer4")])
def test_resnet18_without_timm_is_timms_to_the_bit(layers: tuple[str, ...]) -> None:
    names = list(CHANNELS)
    with private_random_state(0):
        indices = [1 + names.index(name) for name in layers]
        theirs = timm.create_model("resnet18", features_only=True, out_indices=indices, zero_init_last=False).eval()
    ours = ResNet18(layers).eval()
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    images = torch.rand(2, 3, 65, 98, generator=torch.Generator().manual_seed(0))
    for layout in (torch.contiguous_format, torch.channels_last):
        with torch.inference_mode():
            expected = theirs.to(memory_format=layout)(images.contiguous(memory_format=layout))
            for got, want in zip(
                ours.to(memory_format=layout)(images.contiguous(memory_format=layout)), expected, strict=True
            ):
                assert torch.equal(got, want)


def test_the_bundled_backbone_is_cut_too(bundled: FeatureExtractor) -> None:
    short = FeatureExtractor("bundled", ["layer2"])
    assert not any("layer3" in name for name, _ in short.named_parameters())
    assert torch.equal(short(pictures())[0], bundled(pictures())[1])
    filters = FeatureExtractor("bundled", ["filter_bank"])
    assert list(filters.parameters()) == []
    assert torch.equal(filters(pictures())[0], bundled(pictures())[2])


def test_the_bundled_backbone_without_its_weights(bundled: FeatureExtractor) -> None:
    one, same, other = (FeatureExtractor("bundled", pretrained=False, seed=s) for s in (3, 3, 4))
    assert one.source == "random"
    assert one.checksum() == same.checksum() != other.checksum()
    one.load_state_dict(bundled.state_dict())
    assert one.checksum() == bundled.checksum()


def test_the_bundled_backbone_takes_no_other_weights_and_layers() -> None:
    with pytest.raises(UsageError, match=r"has its weights. Drop weights=, or pass backbone='resnet18' with it"):
        FeatureExtractor("bundled", weights="mine.safetensors")
    with pytest.raises(
        UsageError, match=r"\['layer1', 'layer2', 'filter_bank', 'layer3'\] for backbone 'bundled'. Got \['layer4'\]"
    ):
        FeatureExtractor("bundled", ["layer4"])


# --- what can be asked for


def test_an_unknown_backbone_names_the_nearest() -> None:
    with pytest.raises(
        UsageError,
        match=r"'bundled', 'filter_bank' or the name of a timm model. Got 'resnet_18'. Did you mean 'resnet18'",
    ):
        FeatureExtractor("resnet_18", LAYERS)
    with pytest.raises(UsageError, match=r"Got 'filterbank'. Did you mean 'filter_bank'"):
        FeatureExtractor("filterbank")
    with pytest.raises(UsageError, match=r"Got 'qqqqqqqq'\.$"):
        FeatureExtractor("qqqqqqqq", LAYERS)
    with pytest.raises(UsageError, match=r"'resnet18.nobody'.*Invalid pretrained tag"):
        FeatureExtractor("resnet18.nobody", LAYERS)


@pytest.mark.parametrize("layers", [["layer5"], [], ["layer1", "layer1"]])
def test_unknown_layers_list_what_there_is(layers: list[str]) -> None:
    message = (
        r"layers must be distinct names out of \['act1', 'layer1', 'layer2', 'layer3', 'layer4'\] for backbone "
        rf"'resnet18'. Got {re.escape(str(layers))}"
    )
    with pytest.raises(UsageError, match=message):
        FeatureExtractor("resnet18", layers, pretrained=False)


def test_layers_that_are_not_named_are_those_at_strides_4_to_16() -> None:
    assert FeatureExtractor("resnet18", pretrained=False).layers == ["layer1", "layer2", "layer3"]


def test_the_grid_and_an_image_that_is_too_small(random: FeatureExtractor) -> None:
    assert random.grid((64, 100)) == (16, 25)
    with pytest.raises(
        UsageError, match=r"image_size \(64, 15\) is too small for layers .* must be at least 16 pixels"
    ):
        random.grid((64, 15))


def test_a_network_that_returns_other_maps_than_it_says() -> None:
    extractor = FeatureExtractor("resnet18", ["layer2"], pretrained=False)
    for strange in (torch.nn.AvgPool2d(2), torch.nn.Conv2d(128, 64, 1), torch.nn.Flatten(2)):
        extractor.network = torch.nn.Sequential(FeatureExtractor("resnet18", ["layer2"], pretrained=False), Of(strange))
        with pytest.raises(
            UsageError,
            match=r"'resnet18' returned \(1, .* for layer 'layer2' of images \(1, 3, 64, 128\), not 128 channels at "
            r"stride 8 as timm says. Choose another layer or backbone\.",
        ):
            extractor.grid((64, 128))


class Of(torch.nn.Module):
    """A module of every map in a list."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        return [self.module(one) for one in maps]
