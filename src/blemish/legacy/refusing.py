"""Arguments of the older library that have no meaning here: refused, with the way to say it now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from blemish.errors import UsageError
from blemish.options import nearest

T = TypeVar("T")


def refuse(who: str, arguments: Mapping[str, Any], spellings: Mapping[str, str]) -> None:
    """Checks arguments that no signature names. One that is None says nothing.

    Args:
        who: whose they are.
        arguments: name -> value.
        spellings: name -> what to do instead.

    Raises:
        UsageError: for the first one that says something.
    """
    for name, value in arguments.items():
        if value is not None:
            advice = spellings.get(name) or f"It is not known here.{nearest(name, spellings)}"
            raise UsageError(f"{who} doesn't take {name}={value!r}. {advice}")


def chosen(name: str, value: T, known: Iterable[T]) -> T:
    """The value, if it is known. Members of an enumeration count by their value.

    Raises:
        UsageError: otherwise.
    """
    plain: T = getattr(value, "value", value)
    if plain not in tuple(known):
        raise UsageError(f"{name} must be {', '.join(repr(one) for one in known)}. Got {value!r}.")
    return plain
