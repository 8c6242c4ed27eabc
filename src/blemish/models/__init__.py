"""Detectors. `DETECTORS` is the one place that knows them by name; a new one is a folder and a line here.

This module loads no torch: settings are values, and a detector is imported when `detectors` is called or its name used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy
from blemish.models.padim.settings import PadimSettings
from blemish.models.patchcore.settings import PatchcoreSettings

if TYPE_CHECKING:
    from blemish.models.base import AnomalyModule
    from blemish.models.padim import Padim as Padim
    from blemish.models.patchcore import Patchcore as Patchcore
    from blemish.settings import DetectorSettings

DETECTORS: dict[str, type[DetectorSettings]] = {one.name: one for one in (PatchcoreSettings, PadimSettings)}
"""Name -> settings of every detector; `settings.detector()` is its class."""

__getattr__ = lazy(__name__, {"Padim": "blemish.models.padim", "Patchcore": "blemish.models.patchcore"})


def detectors() -> dict[str, type[AnomalyModule]]:
    """Name -> class of every detector."""
    return {name: settings.detector() for name, settings in DETECTORS.items()}
