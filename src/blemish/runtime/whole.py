"""An exported file with everything that its graph gives, to be compared after an export, and described."""

from __future__ import annotations

import importlib
from pathlib import Path

from blemish.extras import needing_extras
from blemish.runtime import OPENERS
from blemish.runtime.graph_session import GraphBackend


def open_whole(path: Path) -> GraphBackend:
    """As `load` opens it, but with maps and masks as the graph makes them; raises the same."""
    with needing_extras():
        opener = importlib.import_module(OPENERS[path.suffix.lower()])
    backend: GraphBackend = opener.open_session(path, "cpu", None, 1, False, whole=True).backend
    return backend
