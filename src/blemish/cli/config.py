"""The settings of a fit, once: the fields of `FitConfig` are the keys of a configuration file and the flags of
`blemish fit`.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from blemish.errors import UsageError
from blemish.functional.pixels import height_width


def _key(text: str, default: Any = None) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class FitConfig:
    """Everything `blemish fit` can be told. None means the default of the class that takes the value."""

    detector: Literal["patchcore", "padim"] = _key("Detector.", "patchcore")
    backbone: str = _key("'bundled', 'filter_bank', or the name of a timm model.", "bundled")
    layers: list[str] | None = _key("Layers of the backbone, comma-separated. Default: the paper's.")
    weights: str | None = _key("State-dict file for the backbone. Default: local store, then hub.")
    pretrained: bool = _key("Use trained weights; no: random ones drawn from the seed.", True)
    image_size: int | tuple[int, int] = _key("Side, or HEIGHT,WIDTH, in pixels that the backbone sees.", 256)
    fit_mode: Literal["stretch", "letterbox"] = _key("How images are brought to that size.", "stretch")
    crop_from: int | tuple[int, int] | None = _key("Resize to this, cut image_size from its center. Default: no cut.")
    roi: str | None = _key("Region of interest: image, white inside, or .json with polygons. Default: everything.")
    tile_size: int | tuple[int, int] | None = _key("Inspect in tiles of this side, or HEIGHT,WIDTH.")
    tile_stride: int | tuple[int, int] | None = _key("Distance between tiles. Default: half a tile.")
    sigma: float = _key("Blur of the map in pixels of the image size.", 4.0)
    coreset_sampling_ratio: float | None = _key("PatchCore: share of the patches to keep. Default: 0.1.")
    bank_size: int | None = _key("PatchCore: most patches to keep; 0 sets no limit. Default: 10000.")
    selection_channels: int | None = _key("PatchCore: select in a random projection to so many channels. Default: off.")
    bank_dtype: Literal["float32", "float16"] | None = _key("PatchCore: how the bank is stored. Default: float32.")
    num_neighbors: int | None = _key("PatchCore: neighbors of the score's re-weighting. Default: 9.")
    neighbor_search: Literal["exact", "faiss"] | None = _key("PatchCore: faiss is approximate. Default: exact.")
    n_features: int | None = _key("PaDiM: channels to keep. Default: the paper's, at most 100.")
    epsilon: float | None = _key("PaDiM: added to the diagonal of covariances. Default: 0.01.")
    factor_dtype: Literal["float32", "float16"] | None = _key("PaDiM: how factors are kept. Default: float32.")
    max_false_alarm_rate: float | None = _key("Wanted share of good parts called anomalous.")
    image_sensitivity: float = _key("0 to 1; higher calls more images anomalous.", 0.5)
    pixel_sensitivity: float = _key("0 to 1; higher marks more pixels.", 0.5)
    calibrate_on: Literal["auto", "held_out", "validation", "test"] = _key("Which images choose the threshold.", "auto")
    calibration_fraction: float = _key("Share of the good images held out to choose the threshold.", 0.2)
    test_fraction: float = _key("Share of the good images held out for testing, where no test set exists.", 0.2)
    group: str | None = _key("Regular expression; images with the same match stay in one set.")
    batch_size: int = _key("Images per step.", 8)
    num_workers: int | None = _key("Processes that read images. Default: by the number of cores.")
    max_pixels: int = _key("Refuse larger images.", 200_000_000)
    seed: int = _key("For splits, coreset and channel choice.", 0)
    accelerator: str = _key("'auto', 'cpu', 'cuda' or 'mps'.", "auto")


PATCHCORE_ONLY = (
    "coreset_sampling_ratio",
    "bank_size",
    "selection_channels",
    "bank_dtype",
    "num_neighbors",
    "neighbor_search",
)
PADIM_ONLY = ("n_features", "epsilon", "factor_dtype")
MODEL_KEYS = (
    *(
        "backbone",
        "layers",
        "weights",
        "pretrained",
        "image_size",
        "fit_mode",
        "crop_from",
        "roi",
        "tile_size",
        "tile_stride",
        "sigma",
        "seed",
    ),
    *PATCHCORE_ONLY,
    *PADIM_ONLY,
)
PROCESSOR_KEYS = ("max_false_alarm_rate", "image_sensitivity", "pixel_sensitivity")
DATA_KEYS = (
    *(
        "batch_size",
        "num_workers",
        "calibration_fraction",
        "test_fraction",
        "group",
        "seed",
        "calibrate_on",
        "max_pixels",
    ),
)


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UsageError: if the file can't be read or isn't a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"The configuration {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"The configuration {path} must be a mapping of keys to values. Got {type(content).__name__}.")
    return content


def make_config(values: Mapping[str, Any]) -> FitConfig:
    """Checks keys and types; numbers are checked by the classes that take them.

    Raises:
        UsageError: for an unknown key (naming the nearest one), a wrong type, or a key of the other detector.
    """
    from pydantic import TypeAdapter, ValidationError

    known = [one.name for one in fields(FitConfig)]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known keys: {', '.join(known)}."
            raise UsageError(f"Unknown configuration key {key!r}.{hint}")
    try:
        config = TypeAdapter(FitConfig).validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]}: {first['msg']}. Got {first['input']!r}.") from error
    for key in PADIM_ONLY if config.detector == "patchcore" else PATCHCORE_ONLY:
        if getattr(config, key) is not None:
            raise UsageError(
                f"{key} has no meaning for detector {config.detector!r}. Drop it, or choose the other detector."
            )
    return config


def pick(config: FitConfig, keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of `keys` that are set, as keyword arguments."""
    return {key: value for key in keys if (value := getattr(config, key)) is not None}


def parse_flag(name: str, value: Any) -> Any:
    """A flag's text as a configuration value: lists and sizes are comma-separated."""
    if name == "layers" and isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    if name in ("image_size", "crop_from", "tile_size", "tile_stride") and isinstance(value, str):
        size = height_width(name, value)
        return size if "," in value else size[0]
    return value
