"""Every setting once: name, type, default, range and help.

Configuration keys, flags of `blemish fit`, the arguments in a model file, constructors and the table in the guide
derive from the classes here and from those beside each detector (`blemish.models.<detector>.settings`); nothing else
repeats a default or a range. Settings are values: frozen, torch-free, checked when they are made; how, says
`blemish.options`. What depends on the backbone or the images (which layers there are, how many channels) is checked by
the parts that know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from pydantic import model_validator

from blemish.errors import UsageError, one_of
from blemish.options import FilePath, Names, Number, Option, Settings, Size, nearest, option, option_of

if TYPE_CHECKING:
    from typing_extensions import Self

_SEED: Any = option(
    0, "For splits, coreset and channel choice.", allowed="from 0 to 2**63 - 1", ge=0, lt=2**63
)  # one key for all that draws


class DetectorSettings(Settings):
    """What every detector can be told; each adds its own in a class beside it.

    Attributes:
        name: what configurations and model files call the detector. title: what texts call it.
        layer_strides: least and most input pixels per cell of the layers that are used by default, see
            `features.backbones.default_layers`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    layer_strides: ClassVar[tuple[int, int]]

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
    grid_stride: int | None = option(
        None, "Least pixels per patch; finer layers are averaged. Default: the finest layer's.", ge=1
    )
    worst_share: Number | None = option(
        None, "Image score: mean of this share of the worst patches. Default: the detector's own.", gt=0, le=1
    )
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

    @classmethod
    def takes(cls, name: str, values: Mapping[str, Any]) -> bool:
        """Whether a setting called `name` would change anything beside other `values`."""
        return name in cls.model_fields

    def arguments(self) -> dict[str, Any]:
        """JSON values that, with the weights, rebuild the detector: all but `BUILDING_ONLY`.

        Of settings that are `resolved`, so that another version's defaults don't make another detector of a file.
        """
        return self.model_dump(mode="json", exclude=set(self.BUILDING_ONLY))

    def resolved(self, **found: Any) -> Self:
        """These settings with what building the detector found: its layers, the run lengths of its region..."""
        return type(self)(**{**dict(self), **found})


class DecisionSettings(Settings):
    """How scores become verdicts."""

    max_false_alarm_rate: Number | None = option(None, "Wanted share of good parts called anomalous.", gt=0, lt=1)
    miss_cost: Number | None = option(
        None, "What a missed defect counts, a false alarm counting 1. Default: 1 with --defects, else F1.", gt=0
    )
    image_sensitivity: Number = option(0.5, "0 to 1; higher calls more images anomalous.", ge=0, le=1)
    pixel_sensitivity: Number = option(0.5, "0 to 1; higher marks more pixels.", ge=0, le=1)


class FolderSettings(Settings):
    """What lies in a folder, where names don't tell, and what its files hold, where they don't say."""

    good: Names | None = option(
        None, "Folders of good parts, or patterns for names such as 'ok_*', comma-separated. Default: by usual names."
    )
    bad: Names | None = option(None, "The same of bad parts; '*' for all others.")
    all_good: bool = option(False, "Every image shows a good part, whatever folders are called.")
    exclude: FilePath | None = option(None, "Text file with names of images to leave out; `data audit` writes one.")
    frames: Literal["refuse", "first"] = option("refuse", "What to do with files of several pictures.")
    bit_depth: int | None = option(
        None, "Bits that images in 16-bit files use, such as 12. Default: as the good ones show.", ge=1, le=16
    )


class DataSettings(Settings):
    """Which images fit, choose the thresholds, and test."""

    calibrate_on: Literal["auto", "cross", "held_out", "validation", "test"] = option(
        "auto", "Which images choose the threshold; cross: all good ones, each scored by a model that didn't see it."
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


class ProbeSettings(Settings):
    """What the threshold is held against."""

    defects: FilePath | None = option(
        None, "Folder with a few images of defects: never fitted on, they move the threshold. See miss_cost."
    )
    planted: int = option(
        0, "How many defects to plant into good images, to tell how many the threshold finds.", ge=0, le=10_000
    )


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
    probe: ProbeSettings
    loading: LoadingSettings
    run: RunSettings


_SHARED: dict[str, type[Settings]] = {
    "decision": DecisionSettings,
    "folder": FolderSettings,
    "data": DataSettings,
    "probe": ProbeSettings,
    "loading": LoadingSettings,
    "run": RunSettings,
}

Detectors: TypeAlias = Mapping[str, type[DetectorSettings]]
"""Name -> settings of each detector: `blemish.models.DETECTORS`."""


def options(detectors: Detectors) -> dict[str, Option]:
    """All keys of a configuration: the detector, what all detectors share, each one's own, then the rest."""
    names = tuple(detectors)
    found = {"detector": Option("detector", str, names[0], "Detector.", names, one_of(names))}
    found |= {name: option_of(DetectorSettings, name) for name in DetectorSettings.model_fields}
    for settings in detectors.values():
        for name in [name for name in settings.model_fields if name not in found]:
            owners = tuple(one for one, other in detectors.items() if name in other.model_fields)
            found[name] = replace(option_of(settings, name), detectors=owners)
    for group in _SHARED.values():
        found |= {name: option_of(group, name) for name in group.model_fields}
    return found


def sections(detectors: Detectors) -> dict[str, list[str]]:
    """Title -> keys of a configuration, each of `options` once: how help and documents group them."""
    known, shared = options(detectors), [*DetectorSettings.model_fields]
    return {
        "Every detector": ["detector", *shared],
        **{
            own.title: [key for key in own.model_fields if own.name in known[key].detectors[:1]]
            for own in detectors.values()
        },
        "Verdicts": [*DecisionSettings.model_fields],
        "Images": [key for key in DataSettings.model_fields if key not in shared],
        "Probes": [*ProbeSettings.model_fields],
        "Folders": [*FolderSettings.model_fields],
        "Reading": [*LoadingSettings.model_fields],
        "Running": [*RunSettings.model_fields],
    }


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
        if known[key].zero_is_none and type(value) is int and value == 0:
            given[key] = None

    def part(settings: type[Settings]) -> Any:
        return settings(**{key: value for key, value in given.items() if key in settings.model_fields})

    return FitSettings(part(detectors[name]), **{group: part(settings) for group, settings in _SHARED.items()})
