from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.errors import UsageError
from blemish.features.extractor import FeatureExtractor
from blemish.features.filter_bank import FilterBank, gabor_pairs


def pictures(n: int = 2, height: int = 64, width: int = 96) -> Tensor:
    return torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(0))


def test_filters_ignore_brightness_and_have_unit_gain() -> None:
    filters = gabor_pairs()
    assert filters.shape == (12, 1, 9, 9)
    torch.testing.assert_close(filters.sum(dim=(1, 2, 3)), torch.zeros(12), rtol=0, atol=1e-6)
    torch.testing.assert_close(filters.abs().sum(dim=(1, 2, 3)), torch.ones(12))


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (65, 71), (100, 67), (257, 64)])
def test_maps_have_stride_eight_rounded_up(size: tuple[int, int]) -> None:
    maps = FilterBank()(pictures(2, *size))
    expected = (-(-size[0] // 8), -(-size[1] // 8))
    assert {name: tuple(one.shape) for name, one in maps.items()} == {
        **{f"scale{i}": (2, 18, *expected) for i in range(1, 5)},
        "colour": (2, 3, *expected),
    }


def test_odd_sides_are_continued_by_their_border() -> None:
    image = pictures(1, 66, 70)
    whole = FilterBank()(F.pad(image, (0, 2, 0, 6), mode="replicate"))
    for name, one in FilterBank()(image).items():
        assert torch.equal(one, whole[name])


def test_two_banks_are_the_same_and_have_nothing_to_train() -> None:
    one, other = FilterBank(), FilterBank()
    assert not list(one.parameters())
    image = pictures(1)
    assert all(torch.equal(a, b) for a, b in zip(one(image).values(), other(image).values(), strict=True))


def test_an_image_does_not_depend_on_its_batch() -> None:
    images, bank = pictures(4), FilterBank()
    together = bank(images)
    for i, image in enumerate(images):
        for name, alone in bank(image[None]).items():
            torch.testing.assert_close(alone[0], together[name][i], rtol=0, atol=1e-6)


@pytest.mark.parametrize("direction", range(6))
def test_a_grating_answers_in_its_own_channel(direction: int) -> None:
    """Period and orientation of a filter on the finest octave: its luminance channel is the largest of them all."""
    angle = torch.tensor(torch.pi * direction / 6)
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    grating = 0.5 + 0.5 * torch.cos(torch.pi / 2 * (x * angle.cos() + y * angle.sin()))
    maps = FilterBank()(grating.expand(1, 3, -1, -1))
    strength = torch.stack([maps[f"scale{i}"][0, :, 3:9, 3:9].mean(dim=(1, 2)) for i in range(1, 5)])  # (4, 18)
    assert divmod(int(strength.argmax()), 18) == (0, direction)


def test_brightness_moves_the_color_layer_alone() -> None:
    image = pictures(1) * 0.5
    dark, bright = FilterBank()(image), FilterBank()(image + 0.3)
    torch.testing.assert_close(bright["colour"][:, 0], dark["colour"][:, 0] + 0.3)
    torch.testing.assert_close(bright["colour"][:, 1:], dark["colour"][:, 1:], rtol=0, atol=1e-5)
    for scale in range(1, 5):
        torch.testing.assert_close(bright[f"scale{scale}"], dark[f"scale{scale}"], rtol=0, atol=1e-3)


def test_features_grow_with_the_root_of_contrast() -> None:
    image = 0.5 + 0.4 * (pictures(1) - 0.5)
    strong, weak = FilterBank()(image), FilterBank()(0.5 + (image - 0.5) / 4)
    for scale in range(1, 5):
        ratio = strong[f"scale{scale}"].mean() / weak[f"scale{scale}"].mean()
        assert float(ratio) == pytest.approx(2.0, rel=0.05)


def test_as_a_backbone() -> None:
    extractor = FeatureExtractor("filter_bank")
    assert extractor.layers == ["scale1", "scale2", "scale3", "scale4", "colour"]
    assert extractor.channels == [18, 18, 18, 18, 3]
    assert extractor.strides == [8] * 5
    assert extractor.source == "formula"
    assert [tuple(one.shape) for one in extractor(pictures())] == [(2, c, 8, 12) for c in extractor.channels]
    assert extractor.checksum() == FeatureExtractor("filter_bank").checksum()


def test_some_layers_in_the_order_of_the_bank() -> None:
    extractor = FeatureExtractor("filter_bank", layers=["colour", "scale2"])
    assert extractor.layers == ["scale2", "colour"]
    image = pictures()
    maps = FilterBank()(image)
    assert all(torch.equal(a, b) for a, b in zip(extractor(image), (maps["scale2"], maps["colour"]), strict=True))


@pytest.mark.parametrize("layers", [["scale9"], ["scale1", "scale1"]])
def test_unknown_and_repeated_layers(layers: list[str]) -> None:
    with pytest.raises(UsageError, match=r"layers must be distinct names out of \['scale1', .*'colour'\] .* Got \['sc"):
        FeatureExtractor("filter_bank", layers=layers)


def test_it_takes_no_weights() -> None:
    with pytest.raises(UsageError, match=r"takes no weights. Drop weights=, or name the timm model"):
        FeatureExtractor("filter_bank", weights="x.pth")


def test_the_grid_and_the_smallest_image() -> None:
    extractor = FeatureExtractor("filter_bank")
    assert extractor.grid((64, 97)) == (8, 13)
    with pytest.raises(
        UsageError, match=r"image_size \(63, 100\) is too small .* both sides must be at least 64 pixels"
    ):
        extractor.grid((63, 100))
