"""Names that are imported on first use (PEP 562).

Packages that need torch stay importable without it, and cheap: `import blemish` takes milliseconds. A module says
`__getattr__ = lazy(__name__, {"Name": "its.module"})`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from blemish.extras import needing_extras


def lazy(package: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """A module's `__getattr__` that looks names up in the modules that `home` gives for them.

    Raises:
        AttributeError: (when called) for other names.
        MissingExtraError: (when called) if the module needs a package that isn't installed.
    """

    def resolve(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}. Names: {', '.join(sorted(home))}.")
        with needing_extras():
            return getattr(importlib.import_module(home[name]), name)

    return resolve
