"""Every setting once: name, type, default, range and help.

Configuration keys, flags of `blemish fit`, the arguments in a model file, constructors and the table in the guide
derive from the classes here and from those beside each detector (`blemish.models.<detector>.settings`); nothing else
repeats a default or a range. Settings are values: frozen, torch-free, checked when they are made.

    class MySettings(DetectorSettings):
        shots: int = option(5, "Good images to learn from.", ge=1)

    MySettings(shots=0)  ->  UsageError: shots must be at least 1. Got 0.

Types are strict: neither `True` nor 2.5 is a whole number, no text is a number. What depends on the backbone or the
images (which layers there are, how many channels) is checked by the parts that know.
"""

from __future__ import annotations

import difflib
import os
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from blemish.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self

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


class Settings(BaseModel):
    """Base class: frozen, and every error is one `UsageError` in one line."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(_message(type(self), values, error)) from error


_SEED: Any = option(
    0, "For splits, coreset and channel choice.", allowed="from 0 to 2**63 - 1", ge=0, lt=2**63
)  # one key for all that draws


class DetectorSettings(Settings):
    """What every detector can be told; each adds its own in a class beside it.

    Attributes:
        name: what configurations and model files call the detector. title: what texts call it.
        timm_layers: the layers used by default of timm's backbones.
        layers_of: the same for backbones that have other layers; None takes all of them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    timm_layers: ClassVar[tuple[str, ...]]
    layers_of: ClassVar[Mapping[str, tuple[str, ...] | None]] = types.MappingProxyType({"filter_bank": None})

    backbone: str = option("bundled", "'bundled', 'filter_bank', or the name of a timm model.")
    layers: Names | None = option(None, "Layers of the backbone, comma-separated. Default: the paper's.")
    weights: FilePath | None = option(None, "State-dict file for the backbone. Default: local store, then hub.")
    pretrained: bool = option(True, "Use trained weights; no: random ones drawn from the seed.")
    image_size: Size = option((256, 256), "Side, or HEIGHT,WIDTH, in pixels that the backbone sees.")
    fit_mode: Literal["stretch", "letterbox"] = option("stretch", "How images are brought to that size.")
    crop_from: Size | None = option(None, "Resize to this, cut image_size from its center. Default: no cut.")
    roi: Any = option(
        None, "Region of interest: image, white inside, or .json with polygons. Default: everything."
    )  # all that `blemish.data.roi.read_roi` takes, which checks it
    tile_size: Size | None = option(None, "Inspect in tiles of this side, or HEIGHT,WIDTH.")
    tile_stride: Size | None = option(None, "Distance between tiles. Default: half a tile.")
    sigma: Number = option(
        4.0, "Blur of the map in pixels of the image size.", allowed="above 0, at most the longer side"
    )
    seed: int = _SEED

    BUILDING_ONLY: ClassVar[frozenset[str]] = frozenset({"weights", "pretrained"})
    """What matters while a detector is built and is no part of it: its file holds the weights."""

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.tile_size is None and self.tile_stride is not None:
            raise UsageError("tile_stride was given without tile_size. Give both, or neither.")
        longer = max(self.image_size)
        if not 0.0 < self.sigma <= longer:
            raise UsageError(
                f"sigma must be above 0 and at most {longer} pixels, the longer side of image_size. Got {self.sigma}."
            )
        return self

    @classmethod
    def from_arguments(cls, arguments: Mapping[str, Any]) -> Self:
        """Settings from the arguments in a model file: see `arguments`.

        Keys that an earlier version didn't write take their defaults. Neither weights nor the name of a region's file
        are taken, so nothing else is ever read.

        Raises:
            UsageError: for anything that `arguments` doesn't write.
        """
        for key in sorted(cls.BUILDING_ONLY & arguments.keys()):
            raise UsageError(f"{key} is no argument of a model file: its weights are inside.")
        if "image_size" not in arguments:
            raise UsageError("image_size is missing.")
        roi = arguments.get("roi")
        if roi is not None and not (isinstance(roi, Mapping) and "counts" in roi):
            raise UsageError(f"roi must be run lengths. Got {roi!r:.80}.")
        return cls(**arguments, pretrained=False)

    def arguments(self) -> dict[str, Any]:
        """JSON values that, with the weights, rebuild the detector: all but `BUILDING_ONLY`.

        Of settings that are `resolved`, so that another version's defaults don't make another detector of a file.
        """
        return self.model_dump(mode="json", exclude=set(self.BUILDING_ONLY))

    def resolved(self, **found: Any) -> Self:
        """These settings with what building the detector found: its layers, the run lengths of its region..."""
        return type(self)(**{**dict(self), **found})

    def layers_of_backbone(self) -> tuple[str, ...] | None:
        """The layers to use: those given, or the detector's usual ones of this backbone; None takes all it has."""
        return self.layers if self.layers is not None else self.layers_of.get(self.backbone, self.timm_layers)


class DecisionSettings(Settings):
    """How scores become verdicts."""

    max_false_alarm_rate: Number | None = option(None, "Wanted share of good parts called anomalous.", gt=0, lt=1)
    image_sensitivity: Number = option(0.5, "0 to 1; higher calls more images anomalous.", ge=0, le=1)
    pixel_sensitivity: Number = option(0.5, "0 to 1; higher marks more pixels.", ge=0, le=1)


class FolderSettings(Settings):
    """What lies in a folder, where names don't tell, and what its files hold, where they don't say."""

    good: Names | None = option(
        None, "Folders of good parts, or patterns for names such as 'ok_*', comma-separated. Default: by usual names."
    )
    bad: Names | None = option(None, "The same of bad parts; '*' for all others.")
    all_good: bool = option(False, "Every image shows a good part, whatever folders are called.")
    frames: Literal["refuse", "first"] = option("refuse", "What to do with files of several pictures.")
    bit_depth: int | None = option(
        None, "Bits that images in 16-bit files use, such as 12. Default: as the good ones show.", ge=1, le=16
    )


class DataSettings(Settings):
    """Which images fit, choose the thresholds, and test."""

    calibrate_on: Literal["auto", "held_out", "validation", "test"] = option(
        "auto", "Which images choose the threshold."
    )
    calibration_fraction: Number = option(0.2, "Share of the good images held out to choose the threshold.", gt=0, lt=1)
    test_fraction: Number = option(
        0.2, "Share of the good images held out for testing, where no test set exists.", ge=0, lt=1
    )
    group: str | None = option(None, "Regular expression; images with the same match stay in one set.")
    seed: int = _SEED

    @model_validator(mode="after")
    def _leaves_something(self) -> Self:
        if self.calibration_fraction + self.test_fraction >= 1:
            raise UsageError(
                f"calibration_fraction + test_fraction must be below 1, or nothing is left to fit on. Got "
                f"{self.calibration_fraction} + {self.test_fraction}."
            )
        if self.group is not None:
            try:
                re.compile(self.group)
            except re.error as error:
                raise UsageError(f"group must be a regular expression. Got {self.group!r}: {error}.") from error
        return self


class LoadingSettings(Settings):
    """How images are read; nothing here changes a result."""

    batch_size: int = option(8, "Images per step.", ge=1)
    num_workers: int | None = option(None, "Processes that read images. Default: by the number of cores.", ge=0)
    max_pixels: int = option(200_000_000, "Refuse larger images.", ge=1)


class RunSettings(Settings):
    """Where to compute."""

    accelerator: str = option("auto", "'auto', 'cpu', 'cuda' or 'mps'.")


Configuration: TypeAlias = dict[str, Any]
"""Flat keys and values, as a YAML file for `blemish fit` holds them; what isn't named keeps its default."""


@dataclass(frozen=True)
class FitSettings:
    """Everything `blemish fit` can be told. Made by `fit_settings` from the flat keys of a configuration."""

    model: DetectorSettings
    decision: DecisionSettings
    folder: FolderSettings
    data: DataSettings
    loading: LoadingSettings
    run: RunSettings


_SHARED: dict[str, type[Settings]] = {
    "decision": DecisionSettings,
    "folder": FolderSettings,
    "data": DataSettings,
    "loading": LoadingSettings,
    "run": RunSettings,
}

Detectors: TypeAlias = Mapping[str, type[DetectorSettings]]
"""Name -> settings of each detector: `blemish.models.DETECTORS`."""


@dataclass(frozen=True)
class Option:
    """One key of a configuration, which is one flag.

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


def options(detectors: Detectors) -> dict[str, Option]:
    """All keys of a configuration: the detector, what all detectors share, each one's own, then the rest."""
    names = tuple(detectors)
    found = {"detector": Option("detector", str, names[0], "Detector.", names, _one_of(names))}
    found |= {name: _option(DetectorSettings, name) for name in DetectorSettings.model_fields}
    for settings in detectors.values():
        for name in [name for name in settings.model_fields if name not in found]:
            owners = tuple(one for one, other in detectors.items() if name in other.model_fields)
            found[name] = replace(_option(settings, name), detectors=owners)
    for group in _SHARED.values():
        found |= {name: _option(group, name) for name in group.model_fields}
    return found


def fit_settings(values: Mapping[str, Any], detectors: Detectors) -> FitSettings:
    """The settings that the flat keys of a configuration stand for. None stands for the default.

    Raises:
        UsageError: for an unknown key (naming the nearest one), a key of another detector, or a value out of range.
    """
    known = options(detectors)
    for key in values:
        if key not in known:
            hint = nearest(key, known) or f" Known keys: {', '.join(known)}."
            raise UsageError(f"Unknown configuration key {key!r}.{hint}")
    given = {key: value for key, value in values.items() if value is not None}
    name = given.pop("detector", known["detector"].default)
    if not isinstance(name, str) or name not in detectors:
        raise UsageError(f"detector must be {known['detector'].allowed}. Got {name!r}.{nearest(name, detectors)}")
    for key, value in given.items():
        owners = known[key].detectors
        if owners and name not in owners:
            others = " or ".join(map(repr, owners))
            raise UsageError(f"{key} has no meaning for detector {name!r}. Drop it, or choose detector {others}.")
        if known[key].zero_is_none and value == 0:
            given[key] = None

    def part(settings: type[Settings]) -> Any:
        return settings(**{key: value for key, value in given.items() if key in settings.model_fields})

    return FitSettings(part(detectors[name]), **{group: part(settings) for group, settings in _SHARED.items()})


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


def _option(settings: type[Settings], name: str) -> Option:
    field = settings.model_fields[name]
    extra: Any = field.json_schema_extra
    kind, choices = _kind(field.annotation)
    bounds = {key: getattr(bound, key) for bound in field.metadata for key in _BOUNDS if hasattr(bound, key)}
    allowed = extra["allowed"] or (_one_of(choices) if choices else _in_words(bounds) + extra["note"])
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


def _one_of(choices: Sequence[str]) -> str:
    return " or ".join(map(repr, choices)) if len(choices) < 3 else f"one of {', '.join(choices)}"


def _message(settings: type[Settings], values: Mapping[str, Any], error: ValidationError) -> str:
    """What was given, what is allowed, for the first thing that is wrong."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:
        return str(first["ctx"]["error"])  # of a check over several fields, which has said it all
    name = str(first["loc"][0])
    if name not in settings.model_fields:
        known = settings.model_fields
        hint = nearest(name, known) or f" Known: {', '.join(known)}."
        return f"There is no setting {name!r}.{hint}"
    own, value = _option(settings, name), values[name]
    if first["type"] in _OUT_OF_RANGE or own.choices:
        allowed = own.allowed
    else:
        comma = "," if own.allowed.startswith(("at ", "each ")) else ""
        allowed = f"{_WORDS[own.kind]}{comma} {own.allowed}".rstrip()
    return f"{name} must be {allowed}. Got {value!r}.{nearest(value, own.choices)}"


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
