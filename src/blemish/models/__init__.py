"""Detectors. `detectors()` is the one place that knows them by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.models.base import AnomalyModule
    from blemish.models.padim import Padim as Padim
    from blemish.models.patchcore import Patchcore as Patchcore

__getattr__ = lazy(__name__, {"Padim": "blemish.models.padim", "Patchcore": "blemish.models.patchcore"})


def detectors() -> dict[str, type[AnomalyModule]]:
    """Name -> class of every detector."""
    from blemish.models.padim import Padim
    from blemish.models.patchcore import Patchcore

    return {"patchcore": Patchcore, "padim": Padim}
