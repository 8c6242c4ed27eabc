"""Which configurations are tried: a short list, in the order of what is most worth knowing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blemish.models import DETECTORS
from blemish.settings import Configuration
from blemish.trials.presets import PAPERS

USUAL, SMALL, LARGE = 256, 128, 384
SMALL_BANK = 1000


def grid(
    layers: Mapping[str, Sequence[str]], longest_side: int, *, usual: int = USUAL, small: int = SMALL
) -> list[Configuration]:
    """The configurations to try.

    Args:
        layers: backbone -> the layers it is used with by default. The first backbone is tried in all variants, the
            others with the most telling ones, and with those of the papers that took this backbone.
        longest_side: of the images, in pixels; larger models than images need are not tried.
        usual: image size of most.
        small: image size of the fast ones.
    """
    sizes = [small, usual, *([LARGE] if longest_side > usual else [])]
    found: list[Configuration] = []
    for number, (backbone, own) in enumerate(layers.items()):
        common: Configuration = {"backbone": backbone}
        patchcore, padim = {"detector": "patchcore", **common}, {"detector": "padim", **common}
        found += [{"detector": name, **common, "image_size": usual} for name in DETECTORS]
        found += [{**patchcore, "image_size": small}]
        if number == 0:
            found += [{**patchcore, "image_size": usual, "bank_size": SMALL_BANK}]
            found += [{**patchcore, "image_size": LARGE}] if LARGE in sizes else []
            found += [{**padim, "image_size": small}]
            found += [{**patchcore, "image_size": usual, "layers": part} for part in _parts(own)]
            found += [{**padim, "image_size": LARGE}] if LARGE in sizes else []
            found += [{**patchcore, "image_size": small, "bank_size": SMALL_BANK}]
            found += [{**padim, "image_size": usual, "layers": part} for part in _parts(own)]
        found += [{**recipe.own} for recipe in PAPERS.values() if recipe.own["backbone"] == backbone]
    return found


def describe(settings: Mapping[str, Any], layers: Mapping[str, Sequence[str]]) -> str:
    """Configuration in a few words, with `layers` as given to `grid`: 'patchcore 256, bank 1000'."""
    for name, recipe in PAPERS.items():
        if settings == recipe.own:
            return name
    backbone = settings["backbone"]
    words = [f"{settings['detector']} {settings['image_size']}"]
    if backbone != next(iter(layers)):
        words.append(backbone)
    if "bank_size" in settings:
        words.append(f"bank {settings['bank_size']}")
    if "layers" in settings:
        words.append("no " + "+".join(name for name in layers[backbone] if name not in settings["layers"]))
    return ", ".join(words)


def relative_cost(settings: Mapping[str, Any]) -> float:
    """Roughly how long a trial takes beside one of the usual size."""
    side = float(settings["image_size"])
    return (side / USUAL) ** 2


def _parts(layers: Sequence[str]) -> list[list[str]]:
    """All layers but the finest, and all but the last."""
    return [list(layers[1:]), list(layers[:-1])] if len(layers) > 1 else []
