"""Processes that work together must run the same programs: another torch rounds differently, another blemish decides
differently, and nobody would see which row came from which.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from blemish._version import __version__
from blemish.errors import UsageError

LIBRARIES = ("torch", "onnxruntime", "openvino")
"""What scores come from; compared where both sides have it."""


def versions() -> dict[str, str]:
    """Name -> version of this library and of `LIBRARIES`, as far as they are installed here."""
    found = {"blemish": __version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def require_same(sender: Mapping[str, str]) -> None:
    """Refuses to work for a process of other versions.

    Raises:
        UsageError: naming the first difference.
    """
    own = versions()
    for name, version in sender.items():
        if own.get(name, version) != version:
            raise UsageError(
                f"This worker has {name} {own[name]}, and the process that sent it the work has {name} {version}: "
                f"their results could differ. Install the same version on both."
            )
