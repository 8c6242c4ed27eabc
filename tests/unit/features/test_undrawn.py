"""What isn't drawn is the weights, and nothing else of a network."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blemish.artifact import load
from blemish.features.timm_network import untrained
from blemish.features.undrawn import private_random_state, undrawn


@pytest.mark.parametrize(("name", "layers"), [("resnet18", ["layer1"]), ("test_vit", ["blocks.2"])])
def test_nothing_is_drawn_and_the_rest_is_as_ever(name: str, layers: list[str]) -> None:
    with private_random_state(0):
        drawn = untrained(name, layers)
    before = torch.random.get_rng_state()
    with undrawn():
        network = untrained(name, layers)
        assert not torch.nn.Linear(3, 2).weight.is_meta
    assert torch.equal(torch.random.get_rng_state(), before) or name == "test_vit"  # truncated normals are drawn
    network.load_state_dict(drawn.state_dict())
    assert {key: tuple(one.shape) for key, one in network.named_buffers()} == {
        key: tuple(one.shape) for key, one in drawn.named_buffers()
    }
    images = torch.rand(1, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    for got, want in zip(network.eval()(images), drawn.eval()(images), strict=True):
        assert torch.equal(got, want)


def test_it_ends_with_its_block() -> None:
    with undrawn():
        pass
    with private_random_state(0):
        first, second = torch.nn.Linear(30, 20).weight, torch.nn.Linear(30, 20).weight
    assert not torch.equal(first, second)


def test_loading_draws_nothing(model_file: Path) -> None:
    before = torch.random.get_rng_state()
    load(model_file)
    assert torch.equal(torch.random.get_rng_state(), before)
