"""Lightning lives here: `Engine`, the hooks that drive detectors, and the post-processor as a callback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.engine.engine import Engine as Engine
    from blemish.engine.module import AnomalyModule as AnomalyModule
    from blemish.engine.module import Driver as Driver
    from blemish.engine.module import Fused as Fused
    from blemish.engine.module import Padim as Padim
    from blemish.engine.module import Patchcore as Patchcore
    from blemish.engine.module import Subspace as Subspace

_DETECTORS = ("AnomalyModule", "Driver", "Fused", "Padim", "Patchcore", "Subspace")

# Processes that work on a fit import what defects are planted by, and don't wait for Lightning.
__getattr__ = lazy(__name__, {"Engine": "blemish.engine.engine", **dict.fromkeys(_DETECTORS, "blemish.engine.module")})
