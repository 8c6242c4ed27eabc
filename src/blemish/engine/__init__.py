"""Lightning lives here: `Engine`, the hooks that drive detectors, and the post-processor as a callback."""

from blemish.engine.engine import Engine
from blemish.engine.module import AnomalyModule, Driver, Fused, Padim, Patchcore, Subspace

__all__ = ["AnomalyModule", "Driver", "Engine", "Fused", "Padim", "Patchcore", "Subspace"]
