"""Backbones from timm: truncation, randomness, and where weights come from. No test here uses a network."""

from __future__ import annotations

import hashlib
import re
import socket
from pathlib import Path
from typing import Any, NoReturn

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from blemish.errors import UsageError, WeightsError
from blemish.features import weights as weights_module
from blemish.features.bundled_network import FILE, FILTER_SCALE, FLOOR
from blemish.features.extractor import FeatureExtractor
from blemish.features.filter_bank import FilterBank
from blemish.features.weights import checksum, find_local, store

LAYERS = ["layer1", "layer2"]


def pictures(n: int = 2, height: int = 64, width: int = 64) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def random() -> FeatureExtractor:
    return FeatureExtractor("resnet18", LAYERS, pretrained=False)


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """A whole state dict, classifier included, as a user has it."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state: dict[str, Tensor] = timm.create_model("resnet18", pretrained=False).state_dict()
    return state


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Every attempt to look up a host or to connect fails, and is listed. Store and hub cache are empty."""
    attempts: list[str] = []

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        attempts.append(repr(args))
        raise OSError("the network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(weights_module, "getproxies", dict)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "store"))
    return attempts


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


def test_layers_must_be_named() -> None:
    with pytest.raises(UsageError, match=r"layers must be given for backbone 'resnet18'; it has \['act1', 'layer1'"):
        FeatureExtractor("resnet18", pretrained=False)


def test_the_grid_and_an_image_that_is_too_small(random: FeatureExtractor) -> None:
    assert random.grid((64, 100)) == (16, 25)
    with pytest.raises(
        UsageError, match=r"image_size \(64, 15\) is too small for layers .* must be at least 16 pixels"
    ):
        random.grid((64, 15))


def test_a_backbone_with_a_fixed_input_size_says_so() -> None:
    vit = FeatureExtractor("vit_tiny_patch16_224", ["blocks.9"], pretrained=False)
    assert vit.grid((224, 224)) == (14, 14)
    with pytest.raises(UsageError, match=r"'vit_tiny_patch16_224' does not accept image_size \(256, 256\)"):
        vit.grid((256, 256))


# --- weights


def load(**arguments: Any) -> FeatureExtractor:
    return FeatureExtractor("resnet18", LAYERS, **arguments)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("place", ["file", "store"])
def test_local_weights(
    tmp_path: Path, trained: dict[str, Tensor], no_network: list[str], suffix: str, place: str
) -> None:
    folder = tmp_path / place
    folder.mkdir()
    path = folder / f"resnet18{suffix}"
    if suffix == ".pth":
        torch.save(trained, path)
    else:
        save_file(trained, path)
    state = torch.random.get_rng_state()
    extractor = load(weights=path if place == "file" else None)
    assert extractor.source == path.name
    assert no_network == []
    assert torch.equal(torch.random.get_rng_state(), state)
    loaded = extractor.network.state_dict()
    assert loaded
    assert all(torch.equal(value, trained[name]) for name, value in loaded.items())


def test_a_given_file_goes_before_the_store(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    (tmp_path / "store").mkdir()
    save_file({name: value + 1 for name, value in trained.items()}, tmp_path / "store" / "resnet18.safetensors")
    save_file(trained, tmp_path / "mine.safetensors")
    assert load(weights=tmp_path / "mine.safetensors").source == "mine.safetensors"
    assert load().source == "resnet18.safetensors"
    assert load().checksum() != load(weights=tmp_path / "mine.safetensors").checksum()


def test_the_store_is_named_by_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert store() == tmp_path / "store"
    monkeypatch.delenv("BLEMISH_WEIGHTS")
    assert store() == Path.home() / ".cache" / "blemish" / "weights"
    with pytest.raises(WeightsError, match=r"There is no weight file at .*gone.pth. Give the path of a .safetensors"):
        find_local("resnet18", tmp_path / "gone.pth")


def test_files_that_do_not_fit(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    def message(name: str, state: dict[str, Tensor]) -> str:
        save_file(state, tmp_path / name)
        with pytest.raises(WeightsError) as caught:
            load(weights=tmp_path / name)
        return str(caught.value)

    foreign = message("foreign.safetensors", {"something": torch.zeros(3)})
    assert re.search(
        r"foreign.safetensors is not a state dict of backbone 'resnet18': it has no weights for 10 of", foreign
    )
    partial = message("part.safetensors", {k: v for k, v in trained.items() if not k.startswith("layer2.0.conv2")})
    assert "no weights for 1 of its parameters, first layer2.0.conv2.weight" in partial
    other = {k: torch.zeros(3, 3) if k == "conv1.weight" else v for k, v in trained.items()}
    assert "size mismatch for conv1.weight" in message("shape.safetensors", other)


@pytest.mark.parametrize("name", ["broken.safetensors", "broken.pth"])
def test_a_damaged_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x10\x00\x00\x00 this is no model")
    with pytest.raises(WeightsError, match=rf"{name} is not a state dict of backbone 'resnet18'"):
        load(weights=tmp_path / name)


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_read_as_tensors_only(tmp_path: Path) -> None:
    torch.save({"conv1.weight": _Trap(tmp_path / "ran")}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match=r"trap.pth is not a state dict"):
        load(weights=tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_without_network_one_error_says_which_file_and_where_to_put_it(tmp_path: Path, no_network: list[str]) -> None:
    state = torch.random.get_rng_state()
    with pytest.raises(WeightsError) as caught:
        load()
    message = str(caught.value)
    place = tmp_path / "store" / "resnet18.safetensors"
    assert message.startswith("The weights of backbone 'resnet18' could not be downloaded (the network is unreachable)")
    assert f"put it at {place}, or pass weights=FILE" in message
    assert "BLEMISH_WEIGHTS" in message
    assert len(no_network) == 1  # no minute of retries
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_and_random_exclude_each_other() -> None:
    with pytest.raises(UsageError, match=r"weights= was given together with pretrained=False. Give one of the two."):
        load(weights="x.pth", pretrained=False)


def test_the_checksum_covers_names_shapes_and_bytes() -> None:
    module = torch.nn.Linear(2, 3)
    with torch.no_grad():
        module.weight.copy_(torch.arange(6.0).view(3, 2))
        module.bias.zero_()
    expected = hashlib.sha256()
    expected.update(b"bias:(3,):torch.float32" + module.bias.detach().numpy().tobytes())
    expected.update(b"weight:(3, 2):torch.float32" + module.weight.detach().numpy().tobytes())
    assert checksum(module) == expected.hexdigest()
