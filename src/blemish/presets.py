"""What `blemish fit` does when nobody says how: settings chosen together, by evidence.

Classes keep the papers' defaults; a preset is what was measured to decide best on several real sets at once, with good
images only. Nothing in it is particular to one set. No torch.

    default   PaDiM on EfficientNet-Lite0 (ImageNet), 32 x 32 patches, each position's covariance mixed with the mean
              one, the worst half percent of the patches as score; every good image fits and calibrates; one in ten good
              parts may be called anomalous, because few images with an odd one among them decide uselessly otherwise
    fast      the same on fewer than half the pixels, 22 x 22 patches
    accurate  PatchCore's distances to a bank, by cosine, added to PaDiM's (`fused`): more time for an image, and
              several times as much for fitting
    plain     the detector's own defaults, thresholds from images that are held out
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from blemish.errors import UsageError

_DEFAULT: dict[str, Any] = {
    "detector": "padim",
    "backbone": "efficientnet_lite0",
    "grid_stride": 8,
    "shrinkage": 0.1,
    "worst_share": 0.005,
    "calibrate_on": "cross",
    "max_false_alarm_rate": 0.1,
    "planted": 100,
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": _DEFAULT,
    "fast": {**_DEFAULT, "image_size": 176},
    "accurate": {
        **_DEFAULT,
        "detector": "fused",
        "distance": "cosine",
        "coreset_sampling_ratio": 0.02,
        "bank_size": 500,
    },
    "plain": {},
}
"""Name -> keys of a configuration of `blemish fit`."""


def with_preset(given: Mapping[str, Any], preset: str | None) -> tuple[dict[str, Any], frozenset[str]]:
    """A configuration completed by a preset, and the keys that came from it.

    What was given wins. Where another detector was asked for, the usual preset has nothing to say.

    Args:
        given: keys of a configuration.
        preset: one of `PRESETS`; None for "default" where that fits.

    Raises:
        UsageError: for an unknown preset, or one of another detector than the one asked for.
    """
    name = preset or "default"
    if name not in PRESETS:
        raise UsageError(f"preset must be one of {', '.join(PRESETS)}. Got {name!r}.")
    values = PRESETS[name]
    if given.get("detector", values.get("detector")) != values.get("detector"):
        if preset is not None and values:
            raise UsageError(
                f"preset {name!r} is for detector {values['detector']!r}. Got {given['detector']!r}: drop one of them."
            )
        values = {}
    return {**values, **given}, frozenset(values.keys() - given.keys())
