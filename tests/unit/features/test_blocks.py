"""Transformers as backbones: blocks, grids, sizes, and weights through every door. No test uses a network."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from blemish.errors import UsageError
from blemish.features.backbones import default_layers, find
from blemish.features.extractor import FeatureExtractor
from known import known

SMALL = "test_vit"  # 6 blocks, 64 channels, patches of 16
DINO = "vit_small_patch14_reg4_dinov2"
FAMILIES = (SMALL, "vit_small_patch14_dinov2", DINO, "vit_small_patch16_dinov3", "deit_tiny_distilled_patch16_224")


def pictures(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def model_of(name: str) -> Any:
    """A whole model of timm's with random weights, for any image size."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = timm.create_model(name, dynamic_img_size=True).eval()
        for value in model.parameters():  # position embeddings and scales are drawn small, or not at all
            value.data.add_(0.05 * torch.randn(value.shape))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_are_those_of_timm(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    patch = model.patch_embed.patch_size[0]
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    layers = ["blocks.1", "blocks.4", "blocks.4+norm", "blocks.5+norm"]
    extractor = FeatureExtractor(name, layers, weights=tmp_path / "weights.pth")
    images = pictures(4 * patch, 7 * patch)
    with torch.no_grad():
        plain, normed = (model.forward_intermediates(images, norm=norm)[1] for norm in (False, True))
    expected = [plain[1], plain[4], normed[4], normed[5]]
    for one, theirs in zip(extractor(images), expected, strict=True):
        assert one.shape == (2, extractor.channels[0], 4, 7)
        torch.testing.assert_close(one, theirs, rtol=1e-4, atol=1e-4)
    assert extractor.strides == [patch] * 4
    assert extractor.grid((4 * patch, 7 * patch)) == (4, 7)


@pytest.mark.parametrize("name", [SMALL, DINO])
def test_a_cell_lies_where_its_patch_does(name: str) -> None:
    extractor = FeatureExtractor(name, ["blocks.0"], pretrained=False)
    patch = extractor.strides[0]
    images = pictures(4 * patch, 6 * patch)
    changed = images.clone()
    changed[:, :, patch : 2 * patch, 3 * patch : 4 * patch] += 3
    moved = (extractor(changed)[0] - extractor(images)[0]).abs().sum(dim=1)  # (2, 4, 6)
    assert moved.flatten(1).argmax(dim=1).tolist() == [1 * 6 + 3] * 2


def test_the_size_that_it_was_trained_at_moves_nothing(tmp_path: Path) -> None:
    model = timm.create_model(SMALL).eval()  # takes 160 x 160 and nothing else
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    extractor = FeatureExtractor(SMALL, ["blocks.3"], weights=tmp_path / "weights.pth")
    with torch.no_grad():
        expected = model.forward_intermediates(pictures(160, 160), indices=[3])[1][0]
    torch.testing.assert_close(extractor(pictures(160, 160))[0], expected, rtol=1e-5, atol=1e-5)


def test_all_blocks_can_be_taken_and_the_rest_is_cut_off() -> None:
    layers = find(SMALL).layers()
    assert list(layers)[:3] == ["blocks.0", "blocks.0+norm", "blocks.1"]
    assert len(layers) == 12
    short = FeatureExtractor(SMALL, ["blocks.2"], pretrained=False)
    names = [name for name, _ in short.named_parameters()]
    assert any("blocks.2." in name for name in names)
    assert not any(re.search(r"blocks\.[345]\.|\.norm\.|head", name) for name in names)
    assert "model.norm.weight" in FeatureExtractor(SMALL, ["blocks.2+norm"], pretrained=False).network.state_dict()


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        (SMALL, ["blocks.2", "blocks.3"]),
        (DINO, ["blocks.5", "blocks.8"]),
        ("vit_small_patch16_dinov3", ["blocks.5", "blocks.8"]),
        ("vit_large_patch14_dinov2", ["blocks.11", "blocks.17"]),
    ],
)
def test_the_layers_to_take(name: str, layers: list[str]) -> None:
    assert default_layers(name, (8, 16)) == default_layers(name, (4, 16)) == layers


@pytest.mark.parametrize(
    ("name", "size", "near"),
    [
        (DINO, (256, 256), "(252, 252) and (266, 266)"),
        (DINO, (98, 100), "(98, 98) and (98, 112)"),
        (SMALL, (100, 64), "(96, 64) and (112, 64)"),
    ],
)
def test_an_impossible_size_names_those_nearest_to_it(name: str, size: tuple[int, int], near: str) -> None:
    message = rf"{name}' does not accept image_size {re.escape(str(size))}: .* The nearest that it accepts: "
    with pytest.raises(UsageError, match=message + re.escape(near) + r"\.$"):
        FeatureExtractor(name, ["blocks.0"], pretrained=False).grid(size)


def test_a_backbone_with_a_fixed_size_says_which() -> None:
    cait = FeatureExtractor("cait_xxs24_224", ["blocks.3"], pretrained=False)
    assert cait.grid((224, 224)) == (14, 14)
    with pytest.raises(UsageError, match=r"does not accept image_size \(250, 250\): .* accepts: \(224, 224\)\."):
        cait.grid((250, 250))


@pytest.mark.parametrize("place", ["file", "store", "hub"])
def test_weights_from_everywhere(place: str, tmp_path: Path, no_network: list[str]) -> None:
    model = model_of(SMALL)
    repository = tmp_path / "hub" / "models--timm--test_vit.r160_in1k"
    path = {
        "file": tmp_path / "mine.safetensors",
        "store": tmp_path / "store" / f"{SMALL}.safetensors",
        "hub": repository / "snapshots" / "abc" / "model.safetensors",
    }[place]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), path)
    if place == "hub":
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text("abc")
    extractor = FeatureExtractor(SMALL, ["blocks.5+norm"], weights=path if place == "file" else None)
    expected = {"file": "mine.safetensors", "store": f"{SMALL}.safetensors", "hub": "timm/test_vit.r160_in1k"}
    assert (extractor.source, no_network) == (expected[place], [])
    with torch.no_grad():
        theirs = model.forward_intermediates(pictures(48, 80), norm=True)[1][5]
    torch.testing.assert_close(extractor(pictures(48, 80))[0], theirs, rtol=1e-4, atol=1e-4)


def test_the_file_that_dinov2s_authors_publish(tmp_path: Path) -> None:
    """Other names, a position for the class token, and a token for training alone: timm converts them."""
    model = model_of(DINO)
    state = model.state_dict()
    theirs = {name: value for name, value in state.items() if name not in ("reg_token", "pos_embed", "cls_token")}
    theirs["register_tokens"] = state["reg_token"]
    theirs["pos_embed"] = torch.cat([torch.ones(1, 1, 384), state["pos_embed"]], dim=1)
    theirs["cls_token"] = state["cls_token"] - 1
    theirs["mask_token"] = torch.zeros(1, 384)
    torch.save(theirs, tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    extractor = FeatureExtractor(DINO, ["blocks.3"], weights=tmp_path / "dinov2_vits14_reg4_pretrain.pth")
    with torch.no_grad():
        expected = model.forward_intermediates(pictures(56, 70), indices=[3])[1][0]
    torch.testing.assert_close(extractor(pictures(56, 70))[0], expected, rtol=1e-4, atol=1e-4)


def test_dinov3_has_a_license_of_its_own(tmp_path: Path) -> None:
    name = "vit_small_patch16_dinov3"
    (tmp_path / "store").mkdir()
    save_file(model_of(name).state_dict(), tmp_path / "store" / f"{name}.safetensors")
    license = known(FeatureExtractor(name, ["blocks.0"]).license)
    assert license.startswith("dinov3")
