"""`blemish fit`: keys are flags, flags are keys, and nothing is left behind when it fails."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.artifact import load, read_manifest
from blemish.cli.flags import OPTIONS, help_of, parse_flag
from blemish.cli.verbs import command_of
from blemish.data.datamodule import ImageDataModule
from blemish.errors import UsageError
from blemish.models import DETECTORS
from blemish.models.patchcore.detector import PatchcoreDetector
from blemish.settings import DataSettings, LoadingSettings, fit_settings
from blemish.trials.work import build_data, build_model

SMALL = ("--image-size", "64,96", "--preset", "plain")


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ------------------------------------------------------------------------------------------------------- configuration


def test_flags_are_the_keys() -> None:
    fit = command_of("fit")
    own = {"directory", "output", "config", "preset", "overwrite", "with_thumbnails", "as_json"}
    own |= {"devices", "ray", "address", "print_config"}
    assert {p.name for p in fit.params} - own == OPTIONS.keys()
    for parameter in fit.params:
        if parameter.name in OPTIONS:
            assert f"--{parameter.name.replace('_', '-')}" in parameter.opts
            assert parameter.default is None  # an absent flag must not overrule the file


def test_help_says_whose_a_flag_is_its_choices_and_its_default() -> None:
    told = "PatchCore and Fused: most patches to keep; 0 sets no limit. Default: 10000."
    assert help_of(OPTIONS["bank_size"]) == told
    assert help_of(OPTIONS["fit_mode"]).endswith("to that size. One of stretch, letterbox. Default: stretch.")
    assert help_of(OPTIONS["image_size"]).endswith("the backbone sees. Default: 256.")
    told = "Detector. One of patchcore, padim, subspace, fused. Default: patchcore. The default preset takes padim."
    assert help_of(OPTIONS["detector"]) == told
    assert help_of(OPTIONS["group"]).endswith("stay in one set.")


def test_parse_flag() -> None:
    assert parse_flag("layers", "layer1, layer2") == ["layer1", "layer2"]
    assert parse_flag("image_size", "64") == 64
    assert parse_flag("tile_size", "64,96") == [64, 96]
    assert parse_flag("backbone", "a,b") == "a,b"
    with pytest.raises(
        UsageError, match=r"tile_stride must be a number, or HEIGHT,WIDTH, each at least 1. Got '64x96'."
    ):
        parse_flag("tile_stride", "64x96")


GIVEN: dict[str, Any] = {
    "layers": ["layer1", "layer2"],
    "image_size": (64, 96),
    "fit_mode": "letterbox",
    "crop_from": (80, 112),
    "tile_size": 64,
    "tile_stride": 32,
    "sigma": 2.0,
    "seed": 5,
}


@pytest.mark.parametrize(
    "own",
    [
        {"coreset_sampling_ratio": 0.5, "bank_size": 7, "bank_dtype": "float16", "num_neighbors": 2},
        {"neighbor_search": "faiss"},
        {"detector": "padim", "n_features": 9, "epsilon": 0.5},
    ],
)
def test_keys_reach_the_detector(own: dict[str, Any]) -> None:
    model = build_model(fit_settings({**GIVEN, **own}, DETECTORS))
    arguments = model.arguments()
    for key, value in {**GIVEN, **own}.items():
        if key != "detector":
            shown = tuple(arguments[key]) if isinstance(arguments[key], list) else arguments[key]
            assert shown in (value, (value, value), tuple(value) if isinstance(value, list) else value), key


def test_a_region_of_interest(blemish: Any, tiles: Path, inside: Path) -> None:
    """From the flag into the file: what is outside is never marked."""
    Path("roi.json").write_text('{"size": [96, 128], "polygons": [[[10, 20], [100, 20], [100, 80], [10, 80]]]}')
    Path("settings.yaml").write_text("roi: roi.json\npixel_sensitivity: 1.0\n")
    ran = blemish("fit", tiles, "-o", "m.safetensors", "--config", "settings.yaml", *SMALL)
    assert ran.code == 0, ran.err
    model = load("m.safetensors")
    assert model.arguments()["roi"]["size"] == [96, 128]
    assert "43.9% of 96 x 128" in blemish("inspect", "m.safetensors").out
    part = tiles / "test/hole/000.png"
    row = blemish("predict", "m.safetensors", part, "--save", "overlay,mask", "--json").run["predictions"][0]
    with Image.open("predictions/000.png.overlay.png") as drawn, Image.open(part) as image:
        np.testing.assert_array_equal(np.asarray(drawn)[84:96, :128], np.rint(0.4 * np.asarray(image)[84:]))
    with Image.open("predictions/000.png.mask.png") as mask:
        assert mask.getbbox() == (10, 20, 100, 80)
    (region,) = row["regions"]
    assert all(10 <= x <= 100 and 20 <= y <= 80 for x, y in region["polygon"][0])
    figures = blemish("test", "m.safetensors", tiles, "--json").json
    assert 0 < figures["pixel_auroc"] <= 1
    ran = blemish("fit", tiles, "-o", "n.safetensors", "--roi", "none.png", *SMALL)
    assert (ran.code, Path("n.safetensors").exists()) == (3, False)
    assert "none.png: no such file" in ran.err


def test_keys_reach_post_processor_and_data(tmp_path: Path) -> None:
    given: dict[str, Any] = {"max_false_alarm_rate": 0.25, "image_sensitivity": 0.75, "pixel_sensitivity": 0.25}
    processor = build_model(fit_settings({**given, "image_size": 64}, DETECTORS)).post_processor
    assert {key: getattr(processor, key) for key in given} == given
    given = {
        "batch_size": 3,
        "num_workers": 1,
        "calibration_fraction": 0.3,
        "test_fraction": 0.1,
        "group": "a(.)",
        "seed": 4,
        "calibrate_on": "test",
        "max_pixels": 99,
    }
    module = build_data(fit_settings(given, DETECTORS), tmp_path)
    assert {key: getattr(module, key) for key in given} == given
    assert given.keys() == DataSettings.model_fields.keys() | LoadingSettings.model_fields.keys()


# -------------------------------------------------------------------------------------------------------------- running


@pytest.mark.parametrize("detector", DETECTORS)
def test_fit(detector: str, blemish: Any, tiles: Path, inside: Path) -> None:
    ran = blemish("fit", tiles, "-o", "out/model.safetensors", "--detector", detector, *SMALL)
    assert ran.code == 0, ran.err
    assert listing(inside) == ["out", "out/model.safetensors"]
    assert f"Fitted {detector} on 9 good images" in ran.out
    assert re.search(r"Threshold \S+: highest normal score on 3 good images \(held out\)\.", ran.out)
    assert "3 images certify at most 25.00% false alarms on average" in ran.out
    assert "one such calibration in 20 may give more than 63.16%." in ran.out  # 1 - 0.05 ** (1 / 3)
    assert ran.err == "Good parts: train/good/ (12).\n"
    assert load("out/model.safetensors").is_fitted


def test_fit_says_where_features_are_not_learned(blemish: Any, tiles: Path, inside: Path) -> None:
    ran = blemish("fit", tiles, "-o", "model.safetensors", "--backbone", "filter_bank", *SMALL)
    assert ran.code == 0, ran.err
    assert "filter bank, no learned weights" in ran.err


def test_same_bytes_as_python(blemish: Any, tiles: Path, inside: Path, model_file: Path) -> None:
    assert blemish("fit", tiles, "-o", "m.safetensors", *SMALL).code == 0
    assert Path("m.safetensors").read_bytes() == model_file.read_bytes()


def test_json(blemish: Any, tiles: Path, inside: Path) -> None:
    content = blemish("fit", tiles, "-o", "m.safetensors", *SMALL, "--json").json
    known = {"model", "detector", "fitted_on", "calibration", "threshold", "seconds", "bytes"}
    assert set(content) == known | {"planted_found", "warnings"}
    assert content["bytes"] == Path("m.safetensors").stat().st_size
    assert content["calibration"]["oracle"] is False


def test_config_file_and_flags_that_win(blemish: Any, tiles: Path, inside: Path) -> None:
    config = inside / "fit.yaml"
    config.write_text("detector: padim\nimage_size: [64, 96]\nn_features: 12\nsigma: 3\nlayers: [layer1, layer3]\n")
    ran = blemish("fit", tiles, "-o", "m.safetensors", "--config", config, "--sigma", "2")
    assert ran.code == 0, ran.err
    arguments = read_manifest("m.safetensors").arguments
    assert (arguments["n_features"], arguments["sigma"], arguments["layers"]) == (12, 2.0, ["layer1", "layer3"])


def test_no_limit_for_the_bank(blemish: Any, tiles: Path, inside: Path) -> None:
    assert blemish("fit", tiles, "-o", "m.safetensors", *SMALL, "--bank-size", 0).code == 0
    assert read_manifest("m.safetensors").arguments["bank_size"] is None


def test_oracle_is_shouted(blemish: Any, tiles: Path, inside: Path) -> None:
    ran = blemish("fit", tiles, "-o", "m.safetensors", *SMALL, "--calibrate-on", "test")
    assert "ORACLE: test images chose the threshold" in ran.out


USAGE: list[tuple[list[str], str]] = [
    (["--image-sise", "64"], "No such option"),
    (["--image-size", "big"], "image_size must be a number, or HEIGHT,WIDTH, each at least 1. Got 'big'."),
    (["--detector", "x"], "detector must be one of patchcore, padim, subspace, fused. Got 'x'."),
    (["--n-features", "5"], "n_features has no meaning for detector 'patchcore'."),
    (["--sigma", "0"], "sigma must be above 0"),
    (["--sigma", "wide"], "Invalid value for '--sigma'"),
    (["--max-false-alarm-rate", "2"], "max_false_alarm_rate must be between 0 and 1"),
    (["--calibration-fraction", "1"], "calibration_fraction must be between 0 and 1"),
    (["--batch-size", "0"], "batch_size must be at least 1. Got 0."),
    (["--backbone", "resnet19"], "Did you mean 'resnet"),
    (["--accelerator", "abacus"], "accelerator 'abacus' can't be used"),
    (["--config", "absent.yaml"], "The configuration absent.yaml can't be read"),
    (["-o", "model.pkl"], "The output must end in .safetensors. Got 'model.pkl'."),
    (["-o", "taken.safetensors"], "taken.safetensors can't be written"),
    (["-o", "file/model.safetensors"], "can't be written"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(a) for a, _ in USAGE])
def test_usage_errors(arguments: list[str], message: str, blemish: Any, tiles: Path, inside: Path) -> None:
    (inside / "taken.safetensors").mkdir()
    (inside / "file").touch()
    before = listing(inside)
    ran = blemish("fit", tiles, "-o", "m.safetensors", *SMALL, *arguments)
    assert ran.code == 2, ran
    assert message in " ".join(ran.err.split())
    assert "Traceback" not in ran.err
    assert listing(inside) == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image_sise: 64", "Unknown configuration key 'image_sise'. Did you mean 'image_size'?"),
        ("- a\n- b", "must be a mapping of keys to values. Got list."),
        ("", "must be a mapping of keys to values. Got NoneType."),
        ("a: [", "can't be read"),
        ("a: !!python/object/apply:os.getcwd []", "can't be read"),
    ],
)
def test_bad_config_files(text: str, message: str, blemish: Any, tiles: Path, inside: Path, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    ran = blemish("fit", tiles, "-o", "m.safetensors", "--config", tmp_path / "c.yaml")
    assert ran.code == 2
    assert message in ran.err
    assert listing(inside) == []


def test_bad_input(blemish: Any, tiles: Path, inside: Path, tmp_path: Path) -> None:
    empty, one = tmp_path / "empty", tmp_path / "one"
    empty.mkdir()
    one.mkdir()
    shutil.copy(tiles / "train" / "good" / "000.png", one)
    broken = shutil.copytree(tiles, tmp_path / "broken")
    victim = ImageDataModule(broken).split.fit[0].path
    for make, message in (
        (lambda: victim.write_bytes(victim.read_bytes()[:200]), "truncated"),
        (lambda: victim.write_bytes(b""), "the file is empty (0 bytes)"),
        (lambda: victim.write_text("not an image at all"), "not an image"),
    ):
        make()
        ran = blemish("fit", broken, "-o", "m.safetensors", *SMALL)
        assert (ran.code, victim.name in ran.err, message in ran.err) == (3, True, True), ran.err
    for folder, message in (
        (empty, "no images"),
        (one, "1 good image(s) to fit on; at least 2 are needed"),
        (tmp_path / "absent", "absent"),
    ):
        ran = blemish("fit", folder, "-o", "m.safetensors", *SMALL)
        assert ran.code == 3
        assert message in ran.err
    ran = blemish("fit", tiles, "-o", "m.safetensors", *SMALL, "--max-pixels", 1000)
    assert ran.code == 3
    assert "12,288 pixels are more than max_pixels = 1,000" in ran.err
    ran = blemish("fit", tiles, "-o", "m.safetensors", *SMALL, "--max-false-alarm-rate", 0.001)
    assert ran.code == 3
    assert "999" in ran.err
    assert listing(inside) == []


def test_mask_of_another_size(blemish: Any, tiles: Path, inside: Path, tmp_path: Path, model_file: Path) -> None:
    root = shutil.copytree(tiles, tmp_path / "masks")
    mask = root / "ground_truth" / "hole" / "000_mask.png"
    Image.open(mask).resize((10, 10)).save(mask)
    message = (
        r"The pixels of an image are not measured: .*000_mask.png: the mask is 10 x 10 \(height x width\), its image"
    )
    with pytest.warns(UserWarning, match=message):
        assert blemish("test", model_file, root).code == 0


def test_interrupted_fit_leaves_no_file(
    blemish: Any, tiles: Path, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(self: PatchcoreDetector, features: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(PatchcoreDetector, "observe", stop)
    ran = blemish("fit", tiles, "-o", "m.safetensors", *SMALL)
    assert ran.code == 130
    assert listing(inside) == []
