"""Recipes for a benchmark: the defaults of this library, and what papers published.

A recipe is a name and the keys of a configuration of `blemish fit`. What of a paper can't be said in these keys isn't
imitated: each recipe says what it does otherwise. The table in the guide, `docs/benchmarking.md`, is made from here.
"""

from __future__ import annotations

from dataclasses import dataclass

from blemish.models import DETECTORS
from blemish.options import as_text
from blemish.settings import Configuration


@dataclass(frozen=True)
class Recipe:
    """What a paper did, as far as settings can say it.

    Attributes:
        arxiv: number of the paper.
        own: its settings by name.
        differs: what it does and this recipe doesn't, in half sentences.
    """

    arxiv: str
    own: Configuration
    differs: tuple[str, ...]

    @property
    def configuration(self) -> Configuration:
        """Papers measure rankings, which need no threshold, and fit on every training image: nothing is held out."""
        return {**self.own, "sigma": 4.0, "calibrate_on": "test"}


_CENTER: Configuration = {"image_size": 224, "crop_from": 256}
_PATCHCORE: Configuration = {
    "detector": "patchcore",
    "backbone": "wide_resnet50_2.tv_in1k",
    "layers": ["layer2", "layer3"],
    **_CENTER,
    "bank_size": 0,
    "selection_channels": 128,
}
_PADIM: Configuration = {"detector": "padim", "layers": ["layer1", "layer2", "layer3"], **_CENTER, "epsilon": 0.01}
_RESIZED = "resizes the shorter side to 256"
_POOLED = "pools each layer, and their union, to 1024 channels"
_DRAWN = "draws other channels: another random generator"
_MEANS = "compares patches, not means of 3 x 3 of them"
_FEW = "fits on a few images and turned copies of them"


def _patchcore(share: float) -> Recipe:
    return Recipe("2106.08265", {**_PATCHCORE, "coreset_sampling_ratio": share}, (_RESIZED, _POOLED))


def _padim(backbone: str, channels: int) -> Recipe:
    return Recipe("2011.08785", {**_PADIM, "backbone": backbone, "n_features": channels}, (_RESIZED, _DRAWN))


PAPERS: dict[str, Recipe] = {
    "patchcore-25": _patchcore(0.25),
    "patchcore-10": _patchcore(0.1),
    "patchcore-1": _patchcore(0.01),
    "padim-r18": _padim("resnet18.tv_in1k", 100),
    "padim-wr50": _padim("wide_resnet50_2.tv_in1k", 550),
    "anomalydino": Recipe(
        "2405.14529",
        {
            "detector": "patchcore",
            "backbone": "vit_small_patch14_dinov2.lvd142m",
            "layers": ["blocks.11+norm"],
            "image_size": 448,
            "distance": "cosine",
            "coreset_sampling_ratio": 1.0,
            "bank_size": 0,
            "worst_share": 0.01,
        },
        (_FEW, _MEANS, "masks the background by a first component"),
    ),
    "superadd": Recipe(
        "2605.14808",
        {
            "detector": "patchcore",
            "backbone": "vit_huge_plus_patch16_dinov3.lvd1689m",
            "layers": ["blocks.7", "blocks.15", "blocks.23", "blocks.31"],
            "image_size": 1024,
            "tile_size": 640,
            "tile_stride": 384,
            "coreset_sampling_ratio": 1.0,
            "bank_size": 100_000,
            "worst_share": 0.001,
        },
        (
            "has a bank per layer, and adds their distances",
            _MEANS,
            "cuts tiles where they overlap, and doesn't blur",
            "scales images by 0.625, whatever their size",
            "varies brightness while fitting",
            "closes and fills the regions it found",
        ),
    ),
    "subspacead": Recipe(
        "2602.23013",
        {
            "detector": "subspace",
            "backbone": "vit_giant_patch14_reg4_dinov2.lvd142m",
            "layers": ["blocks.25"],
            "image_size": 672,
            "variance": 0.99,
            "worst_share": 0.01,
        },
        (_FEW, "averages blocks 22 to 28, of which this is the middle one"),
    ),
}
"""Name -> recipe. Backbones are those of timm with the weights that the papers took."""

PRESETS: dict[str, dict[str, Configuration]] = {
    "default": {name: {"detector": name} for name in DETECTORS},
    "paper": {name: recipe.configuration for name, recipe in PAPERS.items()},
}
"""Preset -> recipe -> configuration."""


def papers_table() -> str:
    """The papers' recipes in Markdown."""
    lines = ["| recipe | paper | settings | what the paper does otherwise |", "|---|---|---|---|"]
    for name, recipe in PAPERS.items():
        settings = ", ".join(f"`{key}` {as_text(value)}" for key, value in recipe.own.items())
        paper = f"[{recipe.arxiv}](https://arxiv.org/abs/{recipe.arxiv})"
        lines.append(f"| `{name}` | {paper} | {settings} | {'; '.join(recipe.differs)} |")
    return "\n".join(lines)
