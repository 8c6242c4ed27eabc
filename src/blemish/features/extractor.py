"""Images to feature maps, by one frozen network cut off after the last layer that is needed.

`FeatureExtractor` hides which network it is: the one that ships with the package, the filter bank, or any timm model
that can return feature maps. It stays in evaluation mode whatever its parents do, and has no parameter that asks for a
gradient: a detector's features must not depend on the batch they came in.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from contextlib import contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from blemish.errors import UsageError, WeightsError
from blemish.extras import require
from blemish.features import bundled_network
from blemish.features.filter_bank import MINIMUM_SIDE, FilterBank
from blemish.features.weights import checksum, find_cached, find_local, missing_message, require_connection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

BUNDLED, FILTER_BANK = "bundled", "filter_bank"
_LOADING_SEED = 0x1EAF5EED  # no weight file was ever drawn from it, see `_still_equal`
Rgb: TypeAlias = tuple[float, float, float]
IDENTITY_NORM: tuple[Rgb, Rgb] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


class FeatureExtractor(nn.Module):
    """A frozen backbone that returns the maps of the named layers, finest first.

    Args:
        backbone: "bundled", a ResNet-18 up to layer3 whose weights ship with the package, with the filter bank as one
            more layer; "filter_bank"; or the name of a timm model ("resnet18", "wide_resnet50_2", ...).
        layers: names of the layers to return, as timm's `feature_info` has them ("layer1", "layer2", ... for ResNets).
            None takes all layers of the bundled backbone and of the filter bank, and is an error for timm models.
        pretrained: load trained weights. False leaves a network at random weights drawn from `seed`, without any
            network use; an artifact that is being loaded fills them afterwards.
        weights: state-dict file for `backbone`; None looks into the local store (see `features.weights`), then asks the
            hub.
        seed: seed of random weights; only used when `pretrained` is False.

    Attributes:
        layers: the layer names. channels: their channel counts. strides: input pixels per map pixel.
        mean, std: RGB normalization that the backbone was trained with, for inputs in [0, 1].
        source: "bundled", "formula", "random", a file name, or the hub's identifier: where the weights came from.

    Raises:
        UsageError: for an unknown backbone or layer; the message lists what there is.
        WeightsError: when weights can't be found, read, or don't fit.
    """

    def __init__(
        self,
        backbone: str = BUNDLED,
        layers: Sequence[str] | None = None,
        *,
        pretrained: bool = True,
        weights: str | os.PathLike[str] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        if backbone == FILTER_BANK:
            if weights is not None:
                raise UsageError(
                    "backbone='filter_bank' is computed from formulas and takes no weights. Drop weights=, or name "
                    "the timm model."
                )
            self.network: nn.Module = FilterBank()
            available = {**{f"scale{i}": (18, 8) for i in range(1, 5)}, "colour": (3, 8)}
            self.layers = _check_layers(backbone, list(available) if layers is None else layers, list(available))
            self.mean, self.std = IDENTITY_NORM
            self.source = "formula"
        elif backbone == BUNDLED:
            if weights is not None:
                raise UsageError(
                    f"backbone='bundled' has its weights. Drop weights=, or pass "
                    f"backbone={bundled_network.ARCHITECTURE!r} with it."
                )
            available = bundled_network.LAYERS
            self.layers = _check_layers(backbone, list(available) if layers is None else layers, list(available))
            self.network = _bundled_network(self.layers, pretrained, seed)
            self.source = "bundled" if pretrained else "random"
            self.mean, self.std = bundled_network.MEAN, bundled_network.STD
        else:
            available = _timm_layers(backbone)
            if layers is None:
                raise UsageError(f"layers must be given for backbone {backbone!r}; it has {list(available)}.")
            self.layers = _check_layers(backbone, layers, list(available))
            self.network, self.source = _timm_network(backbone, self.layers, list(available), pretrained, weights, seed)
            config: Any = self.network.pretrained_cfg
            self.mean, self.std = tuple(config["mean"]), tuple(config["std"])
        self.license: str | None = None
        self.channels = [available[name][0] for name in self.layers]
        self.strides = [available[name][1] for name in self.layers]
        self.requires_grad_(False)
        self.eval()
        # Channels last: convolutions on the CPU run faster, and patches lie in memory as rows.
        self.network.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode: batch statistics would tie an image's features to its neighbors in the batch."""
        return super().train(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """(N, 3, h, w) float32, normalized -> maps (N, channels[i], ~h/strides[i], ~w/strides[i])."""
        maps = self.network(images.contiguous(memory_format=torch.channels_last))
        return [maps[name] for name in self.layers] if isinstance(maps, dict) else list(maps)

    @torch.no_grad()
    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the finest layer for an input of `image_size` (h, w).

        Raises:
            UsageError: if the image is too small for the backbone.
        """
        filters = self.backbone == FILTER_BANK or bundled_network.FILTERS in self.layers
        smallest = MINIMUM_SIDE if filters else 2 * max(self.strides)
        if min(image_size) < smallest:
            raise UsageError(
                f"image_size {image_size} is too small for layers {self.layers} of {self.backbone!r}: both sides must "
                f"be at least "
                f"{smallest} pixels. Use a larger image_size or an earlier layer."
            )
        try:
            weight = next(chain(self.network.parameters(), self.network.buffers()))  # either may be empty
            maps = self(torch.zeros(1, 3, *image_size, device=weight.device))
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"backbone {self.backbone!r} does not accept image_size {image_size}: {error}") from error
        return (maps[0].shape[-2], maps[0].shape[-1])

    def full_precision_modules(self) -> list[nn.Module]:
        """Those that an export in 8-bit integers leaves alone: little time goes there, and 8 bits would round their
        differences away.
        """
        if not isinstance(self.network, bundled_network.BundledNetwork):
            return []
        filters = [] if self.network.filters is None else [self.network.filters]
        return [*filters, *self.network.projections.values()]

    def checksum(self) -> str:
        """SHA-256 of the weights in use, see `features.weights.checksum`."""
        return checksum(self)


def _check_layers(backbone: str, layers: Sequence[str], available: Sequence[str]) -> list[str]:
    unknown = [name for name in layers if name not in available]
    if unknown or not layers or len(set(layers)) != len(layers):
        raise UsageError(
            f"layers must be distinct names out of {list(available)} for backbone {backbone!r}. Got {list(layers)}."
        )
    return sorted(layers, key=list(available).index)


def _timm_layers(backbone: str) -> dict[str, tuple[int, int]]:
    """Channels and stride of every layer that a timm model can return."""
    timm = require("timm")
    if not timm.is_model(backbone.partition(".")[0]):
        near = difflib.get_close_matches(backbone, [BUNDLED, FILTER_BANK, *timm.list_models()], n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(
            f"backbone must be 'bundled', 'filter_bank' or the name of a timm model. Got {backbone!r}.{hint}"
        )
    try:
        with torch.device("meta"), _private_random_state(0):
            info = timm.create_model(backbone, pretrained=False, features_only=True).feature_info
    except (RuntimeError, AttributeError) as error:
        raise UsageError(f"backbone {backbone!r} can't return feature maps: {error}") from error
    return {
        name: (channels, stride)
        for name, channels, stride in zip(info.module_name(), info.channels(), info.reduction(), strict=True)
    }


def _bundled_network(layers: list[str], pretrained: bool, seed: int) -> nn.Module:
    learned = [name for name in layers if name != bundled_network.FILTERS]

    def build() -> nn.Module:
        order = ["act1", "layer1", "layer2", "layer3"]
        return _timm_network(bundled_network.ARCHITECTURE, learned, order, False, None, seed)[0]

    with _private_random_state(seed):
        if not (learned and pretrained):
            return bundled_network.BundledNetwork(build() if learned else None, layers)
        with torch.device("meta"):  # drawing weights that are replaced at once would take longer than everything else
            network = build()
        bundled = bundled_network.BundledNetwork(network, layers)
    stored = load_file(bundled_network.FILE)
    network.load_state_dict({name: stored[name] for name in network.state_dict()}, assign=True)
    network.float()
    projections = bundled.projections
    projections.load_state_dict({name: stored[f"projections.{name}"] for name in projections.state_dict()})
    return bundled


def _timm_network(
    backbone: str,
    layers: list[str],
    available: list[str],
    pretrained: bool,
    weights: str | os.PathLike[str] | None,
    seed: int,
) -> tuple[nn.Module, str]:
    """A timm feature network that ends at the last needed layer, and where its weights came from."""
    timm = require("timm")
    options: dict[str, Any] = {"features_only": True, "out_indices": [available.index(name) for name in layers]}
    with _private_random_state(_LOADING_SEED if pretrained else seed):
        if not pretrained:
            if weights is not None:
                raise UsageError("weights= was given together with pretrained=False. Give one of the two.")
            return timm.create_model(backbone, pretrained=False, **options), "random"
        hub_id = timm.get_pretrained_cfg(backbone).hf_hub_id
        local = find_local(backbone, weights) or (find_cached(hub_id) if hub_id else None)
        if local is not None:
            try:
                overlay = {"file": str(local)}
                network = timm.create_model(backbone, pretrained=True, pretrained_cfg_overlay=overlay, **options)
            except Exception as error:  # safetensors, torch.load and load_state_dict each raise their own kinds
                raise WeightsError(f"{local} is not a state dict of backbone {backbone!r}: {error}") from error
            torch.default_generator.manual_seed(_LOADING_SEED)
            absent = _still_equal(network, timm.create_model(backbone, pretrained=False, **options))
            if absent:
                raise WeightsError(
                    f"{local} is not a state dict of backbone {backbone!r}: it has no weights for {len(absent)} of its "
                    f"parameters, first {absent[0]}."
                )
            return network, local.name
        try:
            require_connection()
            return timm.create_model(backbone, pretrained=True, **options), hub_id or "hub"
        except Exception as error:  # whatever huggingface_hub, urllib or the socket layer raise
            raise WeightsError(missing_message(backbone, error)) from error


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


@contextmanager
def _private_random_state(seed: int) -> Iterator[None]:
    """Timm draws initial weights from the global generator: give it a seeded one, and put the global state back."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
