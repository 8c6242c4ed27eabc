"""How one option is written down, and everything that follows from that: its check, its error, its help.

    class MySettings(Settings):
        shots: int = option(5, "Good images to learn from.", ge=1)

    MySettings(shots=0)  ->  UsageError: shots must be at least 1. Got 0.

Types are strict: neither `True` nor 2.5 is a whole number, no text is a number.
"""

from __future__ import annotations

import difflib
import os
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from blemish.errors import UsageError, one_of

MAX_SIDE = 16_384
MAX_AREA = 2**24
"""Largest side, and largest area, that a size in pixels may have."""


def option(
    default: Any, help: str, *, allowed: str = "", note: str = "", zero_is_none: bool = False, **bounds: Any
) -> Any:
    """A field of settings.

    Args:
        default: what it is when nobody says otherwise.
        help: one sentence or two for `--help` and the guide.
        allowed: what an error says the value must be, where type and bounds don't say it well.
        note: what an error adds to the bounds, such as ", or None for no limit".
        zero_is_none: 0 stands for None in configurations and flags, where None stands for the default.
        bounds: `ge`, `gt`, `le`, `lt`, as pydantic's `Field` takes them.
    """
    extra: dict[str, Any] = {"allowed": allowed, "note": note, "zero_is_none": zero_is_none}
    return Field(default, description=help, json_schema_extra=extra, **bounds)


class Settings(BaseModel):
    """Base class: frozen, and every error is one `UsageError` in one line.

    A check is built when the first settings of its class are made: most processes make none of most classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_message(type(self), values, error)) from error


@dataclass(frozen=True)
class Option:
    """One option, as key of a configuration and as flag.

    Attributes:
        kind: int, float, bool, str, `Size` or `Names`.
        choices: the allowed texts; empty for all.
        allowed: which values of that kind, in words: "at least 1"; "" for all.
        zero_is_none: see `option`.
        detectors: names of those that have it; empty if it isn't one detector's own.
    """

    name: str
    kind: Any
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    allowed: str = ""
    zero_is_none: bool = False
    detectors: tuple[str, ...] = ()


def as_text(value: Any) -> str:
    """A setting as a flag takes it: lists with commas, squares as one side."""
    if not isinstance(value, (list, tuple)):
        return str(value)
    square = len(value) == 2 and value[0] == value[1] and isinstance(value[0], int)
    return str(value[0]) if square else ",".join(map(str, value))


def nearest(name: object, known: Iterable[str]) -> str:
    """' Did you mean ...?' with the nearest of `known`; "" where none is near."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _size(value: Any) -> Any:
    """One number or two become (height, width)."""
    if type(value) is int:
        value = (value, value)
    if not isinstance(value, Sequence) or len(value) != 2 or not all(type(side) is int for side in value):
        raise ValueError("not a size")
    if not all(1 <= side <= MAX_SIDE for side in value) or value[0] * value[1] > MAX_AREA:
        raise ValueError("too small or too large")
    return tuple(value)


def _names(value: Any) -> Any:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


Number: TypeAlias = float | int
"""A whole number stays one, so that the arguments of a model file come back as they were written."""
Size: TypeAlias = Annotated[tuple[int, int], BeforeValidator(_size)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_names)]
FilePath: TypeAlias = Annotated[str, BeforeValidator(_path)]


def option_of(settings: type[BaseModel], name: str) -> Option:
    """The field `name` of settings."""
    field = settings.model_fields[name]
    extra: Any = field.json_schema_extra
    kind, choices = _kind(field.annotation)
    bounds = {key: getattr(bound, key) for bound in field.metadata for key in _BOUNDS if hasattr(bound, key)}
    allowed = extra["allowed"] or (one_of(choices) if choices else _in_words(bounds) + extra["note"])
    if kind is Size:
        allowed = f"each between 1 and {MAX_SIDE}, at most {MAX_AREA} pixels"
    return Option(
        name, kind, field.default, field.description or "", choices, allowed, zero_is_none=extra["zero_is_none"]
    )


def _kind(annotation: Any) -> tuple[Any, tuple[str, ...]]:
    """The kind of an option, see `Option`, and its choices."""
    if typing.get_origin(annotation) is Literal:
        return str, typing.get_args(annotation)
    if typing.get_origin(annotation) is Annotated:
        return _kind(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        parts = [_kind(part) for part in typing.get_args(annotation) if part is not types.NoneType]
        return next((part for part in parts if part[0] is float), parts[0])  # a `Number` is a float or an int
    if typing.get_origin(annotation) is tuple:
        return (Names if annotation == tuple[str, ...] else Size), ()
    return (str if annotation is Any else annotation), ()


def _in_words(bounds: Mapping[str, float]) -> str:
    if bounds.keys() == {"ge", "le"} or bounds.keys() == {"gt", "lt"}:
        low, high = bounds.values()
        return f"between {low} and {high}" + (", both excluded" if "gt" in bounds else "")
    return " and ".join(f"{_BOUNDS[key]} {bound}" for key, bound in bounds.items())


def _message(settings: type[BaseModel], values: Mapping[str, Any], error: ValidationError) -> str:
    """What was given, what is allowed, for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])  # of a check over several fields, which has said it all
    name = str(first["loc"][0])
    if name not in settings.model_fields:
        known = settings.model_fields
        hint = nearest(name, known) or f" Known: {', '.join(known)}."
        return f"There is no setting {name!r}.{hint}"
    own, value = option_of(settings, name), values[name]
    if first["type"] in _OUT_OF_RANGE or own.choices:
        allowed = own.allowed
    else:
        comma = "," if own.allowed.startswith(("at ", "each ")) else ""
        allowed = f"{_WORDS[own.kind]}{comma} {own.allowed}".rstrip()
    return f"{name} must be {allowed}. Got {value!r:.200}.{nearest(value, own.choices)}"


_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
_OUT_OF_RANGE = {"greater_than_equal", "greater_than", "less_than_equal", "less_than"}
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Names: "a list of names",
    Size: "one number or (height, width)",
}
