"""Recipes for a benchmark: the defaults of this library, and what the papers published.

A recipe is a name and the keys of a configuration of `blemish fit`. What of a paper can't be said in these keys is
listed in the guide, `docs/benchmarking.md`.
"""

from __future__ import annotations

from blemish.models import DETECTORS
from blemish.settings import Configuration

_CENTER: Configuration = {"image_size": 224, "crop_from": 256}
# Papers measure rankings, which need no threshold, and fit on every training image: nothing is held out.
_ALL_TRAINING_IMAGES: Configuration = {"calibrate_on": "test"}
_PATCHCORE: Configuration = {
    "detector": "patchcore",
    "backbone": "wide_resnet50_2.tv_in1k",
    "layers": ["layer2", "layer3"],
    **_CENTER,
    "bank_size": 0,
    "selection_channels": 128,
    "sigma": 4.0,
    **_ALL_TRAINING_IMAGES,
}
_PADIM: Configuration = {
    "detector": "padim",
    "layers": ["layer1", "layer2", "layer3"],
    **_CENTER,
    "epsilon": 0.01,
    "sigma": 4.0,
    **_ALL_TRAINING_IMAGES,
}

PRESETS: dict[str, dict[str, Configuration]] = {
    "default": {name: {"detector": name} for name in DETECTORS},
    "paper": {
        "patchcore-25": {**_PATCHCORE, "coreset_sampling_ratio": 0.25},
        "patchcore-10": {**_PATCHCORE, "coreset_sampling_ratio": 0.1},
        "patchcore-1": {**_PATCHCORE, "coreset_sampling_ratio": 0.01},
        "padim-r18": {**_PADIM, "backbone": "resnet18.tv_in1k", "n_features": 100},
        "padim-wr50": {**_PADIM, "backbone": "wide_resnet50_2.tv_in1k", "n_features": 550},
    },
}
"""Preset -> recipe -> configuration."""
