"""What is there, for type checkers and for readers: an `Optional` that must not be None."""

from __future__ import annotations

from typing import TypeVar

_Any = TypeVar("_Any")


def known(value: _Any | None) -> _Any:
    """`value`, which isn't None, or the test fails."""
    assert value is not None
    return value
