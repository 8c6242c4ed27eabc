"""EfficientNet-Lite without timm is timm's, tensor by tensor and bit by bit. No test uses a network."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from blemish.errors import UsageError, WeightsError
from blemish.features.efficientnet_lite import SCALES, EfficientNetLite, layers_of, tensor_names
from blemish.features.extractor import FeatureExtractor
from blemish.features.timm_network import layers_of as timms_layers
from blemish.features.undrawn import private_random_state
from known import known

LITE0 = "tf_efficientnet_lite0"
LAYERS = ["blocks.1", "blocks.2", "blocks.4"]
SIZES = [(64, 64), (65, 98), (33, 47)]
"""Even and odd sides: the padding differs."""


def timms(number: int) -> Any:
    """The whole network, with random weights and statistics of normalization that are not those of an untrained one."""
    with private_random_state(number):
        network: Any = timm.create_model(f"tf_efficientnet_lite{number}", features_only=True)
        for name, buffer in network.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return network.eval()


def images(size: tuple[int, int]) -> Tensor:
    return 2 * torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) - 1


@pytest.mark.parametrize("number", SCALES)
def test_features_are_timms_to_the_bit(number: int) -> None:
    theirs = timms(number)
    layers = layers_of(number)
    assert list(layers.items()) == list(timms_layers(f"tf_efficientnet_lite{number}").items())
    ours = EfficientNetLite(number, list(layers)).eval()
    ours.load_state_dict(theirs.state_dict())
    for layout in (torch.contiguous_format, torch.channels_last):
        ours, theirs = ours.to(memory_format=layout), theirs.to(memory_format=layout)
        for size in SIZES:
            batch = images(size).contiguous(memory_format=layout)
            with torch.inference_mode():
                for got, want in zip(ours(batch), theirs(batch), strict=True):
                    assert torch.equal(got, want)


@pytest.mark.parametrize("number", SCALES)
def test_tensors_have_timms_names_in_timms_order(number: int) -> None:
    with torch.device("meta"):
        assert tensor_names(number) == list(timm.create_model(f"tf_efficientnet_lite{number}").state_dict())


@pytest.mark.parametrize(("layers", "stages"), [(["blocks.0"], 1), (["blocks.4", "blocks.1"], 5), (["blocks.6"], 7)])
def test_the_network_ends_with_the_last_layer(layers: list[str], stages: int) -> None:
    theirs = timms(0).to(memory_format=torch.channels_last)
    extractor = FeatureExtractor(LITE0, layers, pretrained=False)
    network: Any = extractor.network
    assert len(network.blocks) == stages
    network.load_state_dict(theirs.state_dict())  # as model files have it that were written with timm's network
    batch = images((64, 96)).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        everything = dict(zip(layers_of(0), theirs(batch), strict=True))
        for name, got in zip(extractor.layers, extractor(batch), strict=True):
            assert torch.equal(got, everything[name])


def test_only_later_stages_are_passed_over() -> None:
    state = timms(0).state_dict()
    network = EfficientNetLite(0, ["blocks.1"])
    for twin in (network, copy.deepcopy(network)):
        twin.load_state_dict(state)
        with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"blocks.1.7.bn1.weight\""):
            twin.load_state_dict({**state, "blocks.1.7.bn1.weight": torch.zeros(3)})
        with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: \"blocks.7.0.bn1.weight\""):
            twin.load_state_dict({**state, "blocks.7.0.bn1.weight": torch.zeros(3)})
    assert any(name.startswith("blocks.6") for name in state)  # what was given stays whole


def test_random_weights_come_from_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (FeatureExtractor(LITE0, LAYERS, pretrained=False, seed=seed) for seed in (1, 1, 2))
    assert first.checksum() == again.checksum() != other.checksum()
    assert (first.source, first.license) == ("random", None)
    assert torch.equal(torch.random.get_rng_state(), before)
    spread = known(first.network.state_dict()["blocks.4.0.conv_pwl.weight"]).std()
    torch.testing.assert_close(spread, torch.tensor(2 / 112).sqrt(), rtol=0.05, atol=0.0)
    with pytest.raises(UsageError, match=r"weights= was given together with pretrained=False"):
        FeatureExtractor(LITE0, LAYERS, weights="x.pth", pretrained=False)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    state: dict[str, Tensor] = timms(0).state_dict()

    def message(name: str, state: dict[str, Tensor]) -> str:
        save_file(state, tmp_path / name)
        with pytest.raises(WeightsError) as caught:
            FeatureExtractor(LITE0, LAYERS, weights=tmp_path / name)
        return str(caught.value)

    foreign = message("foreign.safetensors", {"something": torch.zeros(3)})
    assert re.search(
        rf"foreign.safetensors is not a state dict of backbone '{LITE0}': it has no weights for \d+ of its", foreign
    )
    partial = message("part.safetensors", {k: v for k, v in state.items() if k != "blocks.1.0.conv_pw.weight"})
    assert "no weights for 1 of its parameters, first blocks.1.0.conv_pw.weight." in partial
    other = {k: torch.zeros(3, 3) if k == "conv_stem.weight" else v for k, v in state.items()}
    assert "size mismatch for conv_stem.weight" in message("shape.safetensors", other)


def test_what_the_hub_left_in_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: list[str]) -> None:
    config = timm.get_pretrained_cfg("tf_efficientnet_lite2")
    repository = tmp_path / "hub" / f"models--{config.hf_hub_id.replace('/', '--')}"
    for folder in ("refs", "snapshots/abc"):
        (repository / folder).mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    state: dict[str, Tensor] = timms(2).state_dict()
    save_file(state, repository / "snapshots" / "abc" / "model.safetensors")
    monkeypatch.setattr("blemish.features.wheels.Wheel.state", lambda *_: None)  # as where the package isn't installed
    extractor = FeatureExtractor("tf_efficientnet_lite2", LAYERS)
    assert (extractor.source, extractor.license, no_network) == (config.hf_hub_id, config.license, [])
    assert (extractor.mean, extractor.std) == (config.mean, config.std)
    assert torch.equal(extractor.network.state_dict()["conv_stem.weight"], state["conv_stem.weight"])
