"""Names that are imported on first use (PEP 562).

Packages that need torch stay importable without it, and cheap: `import blemish` takes milliseconds. A module says
`__getattr__ = lazy(__name__, {"Name": "its.module"})`, or "its.module:other_name" for what is called otherwise there.
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
            module, _, other = home[name].partition(":")
            return getattr(importlib.import_module(module), other or name)

    return resolve
