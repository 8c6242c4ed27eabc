"""Where weights come from, and what happens to files that are damaged, foreign or hostile. No test uses a network."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from blemish.errors import UsageError, WeightsError
from blemish.features.extractor import FeatureExtractor
from blemish.features.weights import checksum, find_local, read_state, store

LAYERS = ["layer1", "layer2"]


@pytest.fixture(scope="module")
def trained() -> dict[str, Tensor]:
    """A whole state dict, classifier included, as a user has it."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        state: dict[str, Tensor] = timm.create_model("resnet18", pretrained=False).state_dict()
    return state


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


def test_what_the_hub_left_in_its_cache(tmp_path: Path, trained: dict[str, Tensor], no_network: list[str]) -> None:
    repository = tmp_path / "hub" / "models--timm--resnet18.a1_in1k"
    for folder in ("refs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    save_file(trained, repository / "snapshots" / "abc" / "model.safetensors")
    extractor = load()
    license = timm.get_pretrained_cfg("resnet18").license
    assert (extractor.source, extractor.license, no_network) == ("timm/resnet18.a1_in1k", license, [])
    assert torch.equal(extractor.network.state_dict()["conv1.weight"], trained["conv1.weight"])


def test_whose_license_a_file_has(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    """In the store a name stands for timm's weights; a file that is given may hold anybody's."""
    (tmp_path / "store").mkdir()
    for name in ("resnet18", "resnet18.tv_in1k"):
        save_file(trained, tmp_path / "store" / f"{name}.safetensors")
    for name in ("resnet18", "resnet18.tv_in1k"):
        assert FeatureExtractor(name, LAYERS).license == timm.get_pretrained_cfg(name).license
    assert load(weights=tmp_path / "store" / "resnet18.safetensors").license is None
    assert load(pretrained=False).license is None


def test_loaded_weights_are_held_once(tmp_path: Path, trained: dict[str, Tensor]) -> None:
    save_file(trained, tmp_path / "mine.safetensors")
    for module in load(weights=tmp_path / "mine.safetensors").modules():
        assert "state_dict" not in getattr(module, "pretrained_cfg", {})


def test_nothing_is_said_about_tensors_that_are_not_needed(
    tmp_path: Path, trained: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    save_file(trained, tmp_path / "mine.safetensors")
    load(weights=tmp_path / "mine.safetensors")
    assert caplog.records == []


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
@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00 this is no model", b"PK\x03\x04 nor is this"])
def test_a_damaged_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name} is not a state dict: it is damaged, or something else. Give a"):
        load(weights=tmp_path / name)


@pytest.mark.parametrize("content", [{}, [torch.zeros(3)], {"conv1.weight": 3}, {"state_dict": {"a": [1]}}, None])
def test_a_file_of_something_else(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"other.pth is not a state dict: it must hold tensors by name, and nothing"):
        load(weights=tmp_path / "other.pth")


@pytest.mark.parametrize("key", ["state_dict", "model", "model_ema"])
def test_what_training_programs_write(tmp_path: Path, trained: dict[str, Tensor], key: str) -> None:
    parallel = {f"module.{name}": value for name, value in trained.items()}
    torch.save({"epoch": 3, key: parallel}, tmp_path / "checkpoint.pth")
    state = read_state(tmp_path / "checkpoint.pth")
    assert state.keys() == trained.keys()
    assert all(torch.equal(value, trained[name]) for name, value in state.items())


class Trap:
    """Leaves a folder behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
@pytest.mark.parametrize("place", ["file", "store"])
@pytest.mark.parametrize("written", ["by torch", "by torch before 1.6", "by pickle", "nested"])
def test_a_hostile_pickle_runs_nothing(tmp_path: Path, suffix: str, place: str, written: str) -> None:
    (tmp_path / place).mkdir()
    path, trap = tmp_path / place / f"resnet18{suffix}", Trap(tmp_path / "ran")
    if written == "by pickle":
        path.write_bytes(pickle.dumps(trap, protocol=2))
    else:
        content: Any = {"state_dict": {"conv1.weight": [trap]}} if written == "nested" else {"conv1.weight": trap}
        torch.save(content, path, _use_new_zipfile_serialization=written != "by torch before 1.6")
    with pytest.raises(WeightsError) as caught:
        load(weights=path if place == "file" else None)
    assert not (tmp_path / "ran").exists()
    assert f"{path} is not a state dict: " in str(caught.value)
    assert "weights_only" not in str(caught.value)  # torch's advice is to switch the protection off


def test_a_refused_pickle_is_named(tmp_path: Path) -> None:
    torch.save({"conv1.weight": Trap(tmp_path / "ran")}, tmp_path / "trap.pth")
    with pytest.raises(WeightsError, match=r"trap.pth is not a state dict: it asks for \w+.mkdir, but only tensors"):
        read_state(tmp_path / "trap.pth")


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
