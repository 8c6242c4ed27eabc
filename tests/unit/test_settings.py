"""Settings: one list, strict types, one line for every error, and nothing that says something else beside them."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import MAX_PIXELS
from blemish.engine import Engine
from blemish.errors import UsageError
from blemish.models import DETECTORS, detectors
from blemish.models.padim.settings import PadimSettings
from blemish.models.patchcore.settings import PatchcoreSettings
from blemish.options import Names, Settings, Size
from blemish.post_processing import PostProcessor
from blemish.settings import (
    DataSettings,
    DecisionSettings,
    DetectorSettings,
    FolderSettings,
    LoadingSettings,
    ProbeSettings,
    RunSettings,
    fit_settings,
    options,
)

SIZES = r"must be one number or \(height, width\), each between 1 and 16384, at most 16777216 pixels. Got "

# ---------------------------------------------------------------------------------------------------------- one setting

REFUSED: list[tuple[type[Settings], dict[str, Any], str]] = [
    (
        PatchcoreSettings,
        {"coreset_sampling_ratio": 0.0},
        r"^coreset_sampling_ratio must be above 0 and at most 1. Got 0",
    ),
    (PatchcoreSettings, {"coreset_sampling_ratio": 1.1}, r"Got 1.1\.$"),
    (PatchcoreSettings, {"bank_size": 0}, r"^bank_size must be at least 1, or None for no limit. Got 0\.$"),
    (
        PatchcoreSettings,
        {"bank_size": 2.0},
        r"^bank_size must be a whole number, at least 1, or None for .* Got 2.0\.$",
    ),
    (PatchcoreSettings, {"bank_size": True}, r"^bank_size must be a whole number, .* Got True\.$"),
    (PatchcoreSettings, {"selection_channels": 0}, r"^selection_channels must be at least 1, or None. Got 0\.$"),
    (PatchcoreSettings, {"bank_dtype": "int8"}, r"^bank_dtype must be 'float32' or 'float16'. Got 'int8'\.$"),
    (PatchcoreSettings, {"bank_dtype": "float15"}, r"Got 'float15'. Did you mean 'float16'\?$"),
    (PatchcoreSettings, {"num_neighbors": 0}, r"^num_neighbors must be at least 1. Got 0\.$"),
    (PatchcoreSettings, {"neighbor_search": "hnsw"}, r"^neighbor_search must be 'exact' or 'faiss'. Got 'hnsw'\.$"),
    (PatchcoreSettings, {"bank_sise": 5}, r"^There is no setting 'bank_sise'. Did you mean 'bank_size'\?$"),
    (PatchcoreSettings, {"zzz": 5}, r"^There is no setting 'zzz'. Known: backbone, layers, .*, num_neighbors\.$"),
    (PadimSettings, {"bank_size": 5}, r"^There is no setting 'bank_size'"),
    (PadimSettings, {"factor_dtype": 16}, r"^factor_dtype must be 'float32' or 'float16'. Got 16\.$"),
    (PadimSettings, {"epsilon": 0.0}, r"^epsilon must be above 0, or covariances can't be inverted. Got 0.0\.$"),
    (PadimSettings, {"epsilon": float("nan")}, r"^epsilon must be a number above 0, .* Got nan\.$"),
    (PadimSettings, {"epsilon": float("inf")}, r"^epsilon must be a number above 0, .* Got inf\.$"),
    (
        PadimSettings,
        {"n_features": 1.5},
        r"^n_features must be a whole number from 1 to the channels of the .* Got 1.5",
    ),
    (PadimSettings, {"seed": "x"}, r"^seed must be a whole number from 0 to 2\*\*63 - 1. Got 'x'\.$"),
    (PadimSettings, {"seed": 2**63}, r"^seed must be from 0 to 2\*\*63 - 1. Got 9223372036854775808\.$"),
    (PadimSettings, {"seed": -1}, r"Got -1\.$"),
    (PadimSettings, {"seed": False}, r"Got False\.$"),
    (PadimSettings, {"sigma": 0.0, "image_size": 96}, r"^sigma must be above 0 and at most 96 pixels, the longer side"),
    (PadimSettings, {"sigma": 97.0, "image_size": (64, 96)}, r"Got 97.0\.$"),
    (PadimSettings, {"sigma": "wide"}, r"^sigma must be a number above 0, at most the longer side. Got 'wide'\.$"),
    (PadimSettings, {"sigma": True}, r"Got True\.$"),
    (PadimSettings, {"image_size": (64, 96, 3)}, rf"^image_size {SIZES}\(64, 96, 3\)\.$"),
    (PadimSettings, {"image_size": "64"}, rf"^image_size {SIZES}'64'\.$"),
    (PadimSettings, {"image_size": True}, rf"^image_size {SIZES}True\.$"),
    (PadimSettings, {"image_size": 64.0}, rf"^image_size {SIZES}64.0\.$"),
    (PadimSettings, {"image_size": 0}, rf"^image_size {SIZES}0\.$"),
    (PadimSettings, {"image_size": [10**9, 96]}, rf"^image_size {SIZES}\[1000000000, 96\]\.$"),
    (PadimSettings, {"image_size": [16384, 16384]}, rf"^image_size {SIZES}\[16384, 16384\]\.$"),
    (PadimSettings, {"crop_from": (0, 3)}, rf"^crop_from {SIZES}\(0, 3\)\.$"),
    (PadimSettings, {"tile_size": [64, True]}, rf"^tile_size {SIZES}\[64, True\]\.$"),
    (PadimSettings, {"tile_stride": 64}, r"^tile_stride was given without tile_size. Give both, or neither\.$"),
    (PadimSettings, {"layers": "layer1"}, r"^layers must be a list of names. Got 'layer1'\.$"),
    (PadimSettings, {"layers": ["layer1", 2]}, r"^layers must be a list of names. Got \['layer1', 2\]\.$"),
    (PadimSettings, {"layers": {"a": 1}}, r"^layers must be a list of names. Got \{'a': 1\}\.$"),
    (PadimSettings, {"fit_mode": "crop"}, r"^fit_mode must be 'stretch' or 'letterbox'. Got 'crop'\.$"),
    (PadimSettings, {"backbone": 5}, r"^backbone must be text. Got 5\.$"),
    (PadimSettings, {"weights": 5}, r"^weights must be text. Got 5\.$"),
    (PadimSettings, {"pretrained": 1}, r"^pretrained must be true or false. Got 1\.$"),
    (
        DecisionSettings,
        {"max_false_alarm_rate": 1.0},
        r"^max_false_alarm_rate must be between 0 and 1, both excluded. Go",
    ),
    (DecisionSettings, {"image_sensitivity": 1.1}, r"^image_sensitivity must be between 0 and 1. Got 1.1\.$"),
    (
        DecisionSettings,
        {"pixel_sensitivity": float("nan")},
        r"^pixel_sensitivity must be a number between 0 and 1. Got",
    ),
    (
        DataSettings,
        {"calibration_fraction": 1.0},
        r"^calibration_fraction must be between 0 and 1, both excluded. Got 1",
    ),
    (DataSettings, {"test_fraction": -0.1}, r"^test_fraction must be at least 0 and below 1. Got -0.1\.$"),
    (
        DataSettings,
        {"test_fraction": 0.8},
        r"^calibration_fraction \+ test_fraction must be below 1, .* Got 0.2 \+ 0.8\.$",
    ),
    (
        DataSettings,
        {"calibrate_on": "train"},
        r"^calibrate_on must be one of auto, cross, held_out, validation, test. Got 'tr",
    ),
    (DataSettings, {"group": "("}, r"^group must be a regular expression. Got '\(': "),
    (LoadingSettings, {"batch_size": 0}, r"^batch_size must be at least 1. Got 0\.$"),
    (LoadingSettings, {"num_workers": -1}, r"^num_workers must be at least 0. Got -1\.$"),
    (LoadingSettings, {"max_pixels": 0}, r"^max_pixels must be at least 1. Got 0\.$"),
    (RunSettings, {"accelerator": None}, r"^accelerator must be text. Got None\.$"),
]


@pytest.mark.parametrize(("kind", "values", "message"), REFUSED, ids=[str(values) for _, values, _ in REFUSED])
def test_refused_in_one_line(kind: type[Settings], values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message) as error:
        kind(**values)
    assert "\n" not in str(error.value)


def test_one_form_for_what_can_be_written_in_several() -> None:
    settings = PatchcoreSettings(image_size=64, tile_size=[32, 64], layers=["layer2"], weights=Path("a") / "b")
    assert settings.image_size == (64, 64)
    assert settings.tile_size == (32, 64)
    assert settings.layers == ("layer2",)
    assert settings.weights == str(Path("a") / "b")
    assert settings == PatchcoreSettings(image_size=(64, 64), tile_size=(32, 64), layers=("layer2",), weights="a/b")


def test_frozen() -> None:
    settings = PatchcoreSettings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.sigma = 2.0  # type: ignore[misc]


# ------------------------------------------------------------------------------------------------------------ one table


@pytest.mark.parametrize(("name", "kind"), DETECTORS.items(), ids=DETECTORS)
def test_a_detector_and_its_settings_belong_together(name: str, kind: type[DetectorSettings]) -> None:
    assert kind.name == name
    assert detectors()[name].Settings is kind
    assert all(field.description for field in kind.model_fields.values())


def defaults(kind: Any) -> dict[str, Any]:
    return {name: p.default for name, p in inspect.signature(kind).parameters.items()}


@pytest.mark.parametrize(
    ("kind", "groups"),
    [
        (PostProcessor, [DecisionSettings]),
        (ImageDataModule, [FolderSettings, DataSettings, ProbeSettings, LoadingSettings]),
        (Engine, [RunSettings]),
    ],
)
def test_signatures_say_the_same(kind: Any, groups: list[type[Settings]]) -> None:
    """Classes that spell their options out have the names and defaults of the settings."""
    own = {name: field.default for group in groups for name, field in group.model_fields.items()}
    shown = defaults(kind)
    workers = {"strategy", "devices", "address"}  # who shares the work, which changes no result: flags of `fit` alone
    assert own.keys() == shown.keys() - {"root", "progress"} - workers
    for name, default in own.items():
        assert shown[name] == default or (shown[name], default) == (None, 0.5), name


def test_limits_of_images_agree() -> None:
    assert LoadingSettings().max_pixels == MAX_PIXELS


def test_options_of_all_detectors() -> None:
    known = options(DETECTORS)
    assert next(iter(known)) == "detector"
    assert known["detector"].choices == tuple(DETECTORS)
    assert known["bank_size"].detectors == ("patchcore", "fused")
    assert known["seed"].detectors == ()
    assert (known["image_size"].kind, known["layers"].kind, known["sigma"].kind) == (Size, Names, float)
    assert (known["roi"].kind, known["pretrained"].kind, known["num_workers"].kind) == (str, bool, int)
    assert known["calibrate_on"].choices == ("auto", "cross", "held_out", "validation", "test")


# -------------------------------------------------------------------------------------------------- a file of settings


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image_sise": 64}, r"Unknown configuration key 'image_sise'. Did you mean 'image_size'\?"),
        ({"zzz": 1}, r"Unknown configuration key 'zzz'. Known keys: detector, backbone, "),
        ({7: 1}, r"Unknown configuration key 7."),
        (
            {"detector": "patchcorr"},
            r"detector must be one of patchcore, padim, .*\. Got 'patchcorr'. Did you mean 'patchc",
        ),
        ({"detector": ["padim"]}, r"detector must be one of .*\. Got \['padim'\]."),
        ({"sigma": "wide"}, r"sigma must be a number .* Got 'wide'."),
        (
            {"n_features": 5},
            r"n_features has no meaning for detector 'patchcore'. Drop it, or choose detector 'padim' or 'fused'.",
        ),
        ({"detector": "padim", "bank_size": 5}, r"bank_size has no meaning for detector 'padim'."),
    ],
)
def test_a_configuration_that_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit_settings(values, DETECTORS)


def test_keys_go_where_they_belong() -> None:
    given = {"detector": "padim", "epsilon": 1, "seed": 4, "group": "a", "batch_size": 2, "accelerator": "cpu"}
    found = fit_settings({**given, "image_sensitivity": 0.25}, DETECTORS)
    assert found.model == PadimSettings(epsilon=1, seed=4)
    assert found.data == DataSettings(group="a", seed=4)
    assert found.loading == LoadingSettings(batch_size=2)
    assert found.decision == DecisionSettings(image_sensitivity=0.25)
    assert found.run == RunSettings(accelerator="cpu")


def test_nothing_means_the_default_and_zero_no_limit() -> None:
    assert fit_settings({"bank_size": None, "layers": None}, DETECTORS).model == PatchcoreSettings()
    found = fit_settings({"bank_size": 0}, DETECTORS).model
    assert isinstance(found, PatchcoreSettings)
    assert found.bank_size is None
    with pytest.raises(UsageError, match="bank_size must be a whole number"):
        fit_settings({"bank_size": False}, DETECTORS)


# --------------------------------------------------------------------------------------------------------- model files

ROI = {"size": [1, 2], "counts": [1, 1]}


@pytest.mark.parametrize("kind", DETECTORS.values(), ids=DETECTORS)
def test_arguments_come_back_as_they_were(kind: type[DetectorSettings]) -> None:
    settings = kind(image_size=64, sigma=2, seed=3, layers=["a", "b"], pretrained=False, weights="x").resolved(roi=ROI)
    arguments = json.loads(json.dumps(settings.arguments()))
    assert not {"weights", "pretrained"} & arguments.keys()
    assert (arguments["image_size"], arguments["layers"], arguments["roi"]) == ([64, 64], ["a", "b"], ROI)
    assert repr(arguments["sigma"]) == "2"  # as it was given: files keep their bytes
    again = kind.from_arguments(arguments)
    assert again.arguments() == arguments
    assert again == settings.resolved(weights=None)


def test_arguments_that_an_earlier_version_did_not_write_take_their_defaults() -> None:
    assert PatchcoreSettings.from_arguments({"image_size": [64, 96]}) == PatchcoreSettings(
        image_size=(64, 96), pretrained=False
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"run_me": 1}, r"There is no setting 'run_me'"),
        ({"pretrained": True}, r"pretrained is no argument of a model file"),
        ({"weights": "/etc/passwd"}, r"weights is no argument of a model file"),
        ({"roi": "roi.png"}, r"roi must be run lengths. Got 'roi.png'\."),
        ({"roi": [[[0, 0], [1, 0], [1, 1]]]}, r"roi must be run lengths."),
        ({"image_size": None}, rf"image_size {SIZES}None"),
        ({"num_neighbors": 0}, r"num_neighbors must be at least 1. Got 0"),
    ],
)
def test_arguments_that_no_model_wrote(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PatchcoreSettings.from_arguments({**PatchcoreSettings().arguments(), **change})


def test_arguments_without_a_size() -> None:
    with pytest.raises(UsageError, match="image_size is missing"):
        PatchcoreSettings.from_arguments({})


# ------------------------------------------------------------------------------------- defaults that depend on others


@pytest.mark.parametrize(
    ("backbone", "given", "channels", "kept"),
    [
        ("resnet18.tv_in1k", None, 448, 100),
        ("wide_resnet50_2.tv_in1k", None, 1792, 550),
        ("bundled", None, 235, 100),
        ("tiny", None, 64, 64),
        ("bundled", 235, 235, 235),
    ],
)
def test_channels_by_backbone(backbone: str, given: int | None, channels: int, kept: int) -> None:
    assert PadimSettings(backbone=backbone, n_features=given).features_of(channels) == kept


@pytest.mark.parametrize("given", [0, 524, -1])
def test_channels_that_there_are_not(given: int) -> None:
    message = rf"n_features must be between 1 and 235, the channels of these layers. Got {given}\."
    with pytest.raises(UsageError, match=message):
        PadimSettings(n_features=given).features_of(235)
