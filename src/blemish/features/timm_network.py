"""timm's models as backbones: which layers they have, and networks that end after the last one needed."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from blemish.errors import UsageError
from blemish.extras import require
from blemish.features.blocks import NORM, Blocks
from blemish.features.built import Built, Layers
from blemish.features.trained import Published, Trained, find_trained
from blemish.features.undrawn import private_random_state, undrawn

_LOADING_SEED = 0x1EAF5EED  # no weight file was ever drawn from it, see `_still_equal`


def is_model(name: str) -> bool:
    """Whether timm has a model of this name, or of the part before a point: "resnet18.a1_in1k" names weights too."""
    return bool(require("timm").is_model(name.partition(".")[0]))


def names() -> list[str]:
    """All of timm's models."""
    return list(require("timm").list_models())


@dataclass(frozen=True)
class _Facts:
    """What timm says of a model.

    Attributes:
        layers: channels and stride of everything that it can return, in timm's order; what can't be returned after all
            has no name.
        norm: whether all layers are blocks of a transformer, with a final normalization that can be applied to each.
        channels_last: whether maps come as (N, h, w, channels).
    """

    layers: Layers
    norm: bool
    channels_last: bool


@contextmanager
def _unmade() -> Iterator[None]:
    """Networks that are made inside have shapes, and no numbers."""
    require("timm")  # before: importing it imports torch._dynamo, which with torch 2.7 calculates
    with torch.device("meta"), undrawn(), private_random_state(0):
        yield


@cache
def _facts(name: str) -> _Facts:
    """See `_Facts`.

    Raises:
        UsageError: if the model can't return feature maps.
    """
    try:
        with _unmade():
            network: Any = _create(name, features_only=True)
            layers = _labeled(network.feature_info.info)
            equal = len({stride for _, stride in layers.values()}) == 1 and hasattr(network, "model")
            norm = getattr(_create(name, num_classes=0), "norm", None) if equal else None
    except Exception as error:  # timm says so with RuntimeError, AttributeError, AssertionError and others
        raise UsageError(f"backbone {name!r} can't return feature maps: {error}") from error
    channels_last = getattr(network, "output_fmt", None) == "NHWC"
    return _Facts(layers, isinstance(norm, nn.Module) and not isinstance(norm, nn.Identity), channels_last)


def _labeled(info: Sequence[dict[str, Any]]) -> Layers:
    """By module; those of one module by their strides as well: "blocks.0@12" (CrossViT)."""
    times = Counter(one["module"] for one in info)
    labels = [one["module"] + (f"@{one['reduction']}" if times[one["module"]] > 1 else "") for one in info]
    return {label: (one["num_chs"], one["reduction"]) for label, one in zip(labels, info, strict=True)}


def layers_of(name: str) -> Layers:
    """Every layer that a timm model can return.

    Raises:
        UsageError: if it can't return feature maps.
    """
    facts = _facts(name)
    suffixes = ("", NORM) if facts.norm else ("",)
    return {layer + suffix: what for layer, what in facts.layers.items() if layer for suffix in suffixes}


def build(
    name: str,
    layers: Sequence[str],
    *,
    pretrained: bool,
    weights: str | os.PathLike[str] | None,
    seed: int,
) -> Built:
    """A timm model up to the last of `layers`, see `blemish.features.backbones.Builder`.

    Raises:
        UsageError: for weights that are given and not wanted.
        WeightsError: when weights can't be found, read, or don't fit.
    """
    if pretrained:
        trained = find_trained(name, weights, _published(name))
        network = _load(name, layers, trained)
        source, license = trained.source, trained.license
    else:
        if weights is not None:
            raise UsageError("weights= was given together with pretrained=False. Give one of the two.")
        with private_random_state(seed):
            network = untrained(name, layers)
        source, license = "random", None
    config: Any = network.pretrained_cfg
    return Built(
        network,
        tuple(config["mean"]),
        tuple(config["std"]),
        source,
        license,
        made_for=tuple(config["input_size"][1:]),
        channels_last=_facts(name).channels_last,
    )


def untrained(name: str, layers: Sequence[str]) -> nn.Module:
    """A timm model up to the last of `layers`, with weights from the global random state."""
    return _network(name, layers, pretrained=False)


def _network(name: str, layers: Sequence[str], **options: Any) -> nn.Module:
    facts = _facts(name)
    order = list(facts.layers)
    if facts.norm:
        return Blocks(_create(name, num_classes=0, **options), layers, order)
    return _create(name, features_only=True, out_indices=[order.index(layer) for layer in layers], **options)


def _create(name: str, **options: Any) -> nn.Module:
    """A timm model, one for any image size where there is the choice."""
    timm = require("timm")
    if timm.get_pretrained_cfg(name).fixed_input_size:
        with suppress(TypeError):  # a family that knows no such option
            return timm.create_model(name, dynamic_img_size=True, **options)  # type: ignore[no-any-return]
    return timm.create_model(name, **options)  # type: ignore[no-any-return]


def _published(name: str) -> Published:
    config = require("timm").get_pretrained_cfg(name)
    license = None if config.license == "unknown" else config.license
    return Published(config.hf_hub_id, config.hf_hub_filename or "model.safetensors", config.url, license)


def _load(name: str, layers: Sequence[str], trained: Trained) -> nn.Module:
    """A network with these weights, which timm converts where their authors named them otherwise."""
    with private_random_state(_LOADING_SEED):
        fresh = untrained(name, layers)
    needed = fresh.state_dict().keys()
    state = trained.state
    if needed <= state.keys():  # timm would log a line for each that is left over, such as the classifier's
        state = {key: state[key] for key in needed}
    overlay = {"state_dict": state}
    with private_random_state(_LOADING_SEED):
        try:
            network = _network(name, layers, pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # conversions of a state dict that doesn't fit raise whatever they meet
            raise trained.unfit(name, error) from error
    absent = _still_equal(network, fresh)
    if absent:
        raise trained.lacking(name, absent)
    for module in network.modules():  # timm keeps its configuration, and in it a second copy of all weights
        for config in (getattr(module, "pretrained_cfg", None), getattr(module, "default_cfg", None)):
            if isinstance(config, dict):
                config.pop("state_dict", None)
    return network


def _still_equal(network: nn.Module, fresh: nn.Module) -> list[str]:
    """Parameters that loading left as they were drawn: timm passes over what a file lacks, with a log line.

    Constants don't count; normalization layers may rightly be at their initial 0 or 1.
    """
    drawn = dict(fresh.named_parameters())
    return [
        name
        for name, value in network.named_parameters()
        if bool((value != value.flatten()[0]).any()) and torch.equal(value, drawn[name])
    ]
