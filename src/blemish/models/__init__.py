"""Detectors. `DETECTORS` is the one place that knows them by name; a new one is a folder and a line here.

This module loads no torch: settings are values, and a detector is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from blemish._lazy import lazy
from blemish.models.fused.settings import FusedSettings
from blemish.models.padim.settings import PadimSettings
from blemish.models.patchcore.settings import PatchcoreSettings
from blemish.models.subspace.settings import SubspaceSettings

if TYPE_CHECKING:
    from blemish.engine.module import Fused as Fused
    from blemish.engine.module import Padim as Padim
    from blemish.engine.module import Patchcore as Patchcore
    from blemish.engine.module import Subspace as Subspace
    from blemish.models.base import Detector
    from blemish.settings import DetectorSettings

_TABLE: tuple[tuple[type[DetectorSettings], str, str], ...] = (
    (PatchcoreSettings, "blemish.models.patchcore.detector", "PatchcoreDetector"),
    (PadimSettings, "blemish.models.padim.detector", "PadimDetector"),
    (SubspaceSettings, "blemish.models.subspace.detector", "SubspaceDetector"),
    (FusedSettings, "blemish.models.fused.detector", "FusedDetector"),
)

DETECTORS: dict[str, type[DetectorSettings]] = {settings.name: settings for settings, _, _ in _TABLE}
"""Name -> settings of every detector; the first is the default."""

__getattr__ = lazy(__name__, dict.fromkeys(("Fused", "Padim", "Patchcore", "Subspace"), "blemish.engine.module"))


def detectors() -> dict[str, type[Detector]]:
    """Name -> class of every detector; needs torch."""
    return {settings.name: getattr(importlib.import_module(home), name) for settings, home, name in _TABLE}
