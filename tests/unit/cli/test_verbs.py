"""The other verbs, exit codes, streams, and what the command line loads."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from blemish import __version__
from blemish import cli as blemish_cli
from blemish.artifact import load
from blemish.synthetic.products import PRODUCTS
from blemish.trials import demo as story
from known import known
from processes import Script

REQUIRED = [
    *("image_auroc", "pixel_auroc", "image_ap", "image_f1", "image_f1_max"),
    *("false_alarm_rate", "miss_rate", "per_defect", "counts"),
]


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


# ----------------------------------------------------------------------------------------------------------------- test


def test_test(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    ran = blemish("test", model_file, tiles)
    assert ran.code == 0, ran.err
    assert "14 test images: 4 good, 10 anomalous" in ran.out
    assert all(defect in ran.out for defect in PRODUCTS["tile"].defects)
    assert listing(inside) == []


def test_test_json(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    figures = blemish("test", model_file, tiles, "--json").json
    assert set(REQUIRED) <= set(figures)
    assert figures["counts"] == {"images": 14, "good": 4, "anomalous": 10, "with_masks": 10}
    assert 0.9 <= figures["image_auroc"] <= 1.0
    assert figures["calibration"]["source"] == "held_out"
    assert figures["calibration"]["oracle"] is False
    assert figures["reasons"] == {}


def test_figures_that_cannot_be_given_are_null_with_a_reason(
    blemish: Any, model_file: Path, tiles: Path, inside: Path, tmp_path: Path
) -> None:
    root = shutil.copytree(tiles, tmp_path / "bare")
    shutil.rmtree(root / "ground_truth")
    figures = blemish("test", model_file, root, "--json").json
    assert figures["pixel_auroc"] is None
    assert figures["reasons"]["pixel_auroc"] == "no defect masks"
    assert figures["image_auroc"] is not None
    ran = blemish("test", model_file, root)
    assert ran.code == 0
    assert "no defect masks" in ran.out


def test_test_folder_alone(blemish: Any, model_file: Path, tiles: Path, inside: Path, tmp_path: Path) -> None:
    """Who only tests needs no images to fit on; who fits is told what is missing."""
    whole = json.loads(blemish("test", model_file, tiles, "--json").out)
    for name in ("test", "ground_truth"):
        shutil.copytree(tiles / name, tmp_path / "alone" / name)
    alone = json.loads(blemish("test", model_file, tmp_path / "alone", "--json").out)
    assert alone["counts"] == whole["counts"]
    assert alone["pixel_auroc"] == whole["pixel_auroc"]
    ran = blemish("fit", tmp_path / "alone", "-o", "none.safetensors")
    assert ran.code == 3
    assert "0 good image(s) to fit on; at least 2 are needed" in ran.err


def test_test_needs_labeled_images(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    ran = blemish("test", model_file, tiles / "train")
    assert ran.code == 3
    assert "nothing to test on" in ran.err


def test_test_without_verdicts(blemish: Any, model_file: Path, tiles: Path, inside: Path, tmp_path: Path) -> None:
    model = load(model_file)
    model.post_processor = None
    model.save(tmp_path / "raw.safetensors")
    ran = blemish("test", tmp_path / "raw.safetensors", tiles)
    assert ran.code == 2
    assert "This needs a detector with blemish.PostProcessor; this patchcore has none." in ran.err


# -------------------------------------------------------------------------------------------------------------- inspect


def test_inspect(blemish: Any, model_files: dict[str, Path], inside: Path) -> None:
    for name, path in model_files.items():
        ran = blemish("inspect", path)
        assert ran.code == 0, ran.err
        assert name in ran.out
        assert "raw_image_threshold" in ran.out
        content = blemish("inspect", path, "--json").json
        assert content["detector"] == name
        assert content["calibration"]["normal"] == 3
        assert content["bytes"] == path.stat().st_size
        assert content["thresholds"]["image_sensitivity"] == 0.5
    assert listing(inside) == []


def test_inspect_uncalibrated(blemish: Any, model_file: Path, tmp_path: Path) -> None:
    model = load(model_file)
    model.post_processor = None
    model.save(tmp_path / "raw.safetensors")
    ran = blemish("inspect", tmp_path / "raw.safetensors")
    assert ran.code == 0
    assert "Not calibrated." in ran.out


def test_inspect_damaged(blemish: Any, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"junk")
    ran = blemish("inspect", tmp_path / "m.safetensors")
    assert ran.code == 3
    assert ran.err.startswith("error: ")
    assert "is not a model file, or it is damaged" in ran.err


# ----------------------------------------------------------------------------------------------------------- data check


def test_data_check(blemish: Any, tiles: Path, inside: Path) -> None:
    ran = blemish("data", "check", tiles)
    assert ran.code == 0, ran.out + ran.err
    assert "mvtec layout" in ran.out
    assert "96" in ran.out
    for more, fitted in (((), 12), (("--calibrate-on", "held_out"), 9)):
        content = blemish("data", "check", tiles, "--json", *more).json
        assert content["sets"]["fit"]["images"] == fitted
    assert listing(inside) == []


def test_data_check_finds_trouble(blemish: Any, tiles: Path, inside: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiles, tmp_path / "bad")
    (root / "train" / "good" / "zero.png").touch()
    Image.new("L", (5, 5)).save(root / "ground_truth" / "hole" / "000_mask.png")
    ran = blemish("data", "check", root)
    assert ran.code == 3
    assert "zero.png" in ran.out
    assert "000_mask.png" in ran.out


def test_data_check_of_an_empty_folder(blemish: Any, tmp_path: Path) -> None:
    ran = blemish("data", "check", tmp_path)
    assert ran.code == 3
    assert "no images" in ran.err


# --------------------------------------------------------------------------------------------------------- doctor, demo


def test_doctor(blemish: Any, inside: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "resnet18.safetensors").touch()
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "store"))
    ran = blemish("doctor")
    assert ran.code == 0, ran.err
    assert "torch" in ran.out
    content = blemish("doctor", "--json").json
    assert content["blemish"] == __version__
    assert content["packages"]["torch"]
    assert content["stored_weights"] == "resnet18.safetensors"
    assert content["devices"].startswith("cpu")
    assert listing(inside) == []


def test_demo(blemish: Any, inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one product and a handful of small pictures; the whole demo is for people."""
    small = {"good": 6, "good_test": 2, "per_defect": 1, "size": (96, 96)}
    monkeypatch.setattr(story, "demonstrate", partial(story.demonstrate, products=("tile",), **small))
    ran = blemish("demo", "-o", "shown")
    assert ran.code == 0, ran.err
    assert "tile" in ran.out
    assert known(load("shown/tile.safetensors").decider.record).source == "cross"  # as fit does
    assert len(known(load("shown/tile.safetensors").decider.record).planted) == 30
    assert "Nothing is downloaded. Fitted as `blemish fit --preset fast --planted 30`." in ran.err
    assert "shown/tile.safetensors" in listing(inside)
    assert "shown/pictures/tile/hole.overlay.png" in listing(inside)
    again = blemish("demo", "-o", "shown")
    assert again.code == 2
    assert "is not empty" in again.err


# ----------------------------------------------------------------------------------------------- the program as a whole


def test_version(blemish: Any) -> None:
    assert blemish("--version").out.strip() == __version__


@pytest.mark.parametrize("verb", ["fit", "test", "predict", "inspect", "doctor", "demo", "data"])
def test_help(verb: str, blemish: Any) -> None:
    ran = blemish(verb, "--help")
    assert ran.code == 0
    assert "Usage:" in ran.out


def test_verbs_do_no_work_of_their_own() -> None:
    """They parse, call and print: what needs arrays belongs into the library."""
    for path in Path(blemish_cli.__file__).parent.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        named += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
        assert not {name.partition(".")[0] for name in named} & {"torch", "lightning", "numpy", "PIL"}, path


def test_unknown_verb(blemish: Any) -> None:
    assert blemish("fitt").code == 2


def python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
sys.argv = ["blemish", "--help"]
from blemish.cli import main
try:
    main()
except SystemExit:
    print(sorted({"torch", "lightning", "timm", "pyarrow"} & set(sys.modules)), file=sys.stderr)
"""
    done = python(code)
    assert "Usage:" in done.stdout
    assert done.stderr.strip() == "[]"


WITHOUT = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Block())
sys.argv = ["blemish", *sys.argv[1:]]
from blemish.cli import main
main()
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "{tiles}", "-o", "m.safetensors"],
        ["test", "{model}", "{tiles}"],
        ["predict", "{model}", "{tiles}"],
        ["demo", "-o", "shown"],
    ],
    ids=lambda a: a[0],
)
def test_missing_extra_prints_the_command(arguments: list[str], tiles: Path, model_file: Path, inside: Path) -> None:
    words = [word.format(tiles=tiles, model=model_file) for word in arguments]
    done = python(WITHOUT.format(blocked={"torch", "lightning", "timm"}), *words)
    assert done.returncode == 2, done.stderr
    assert 'which is not installed. Run: pip install "blemish[train]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert listing(inside) == []


def test_missing_parquet(tiles: Path, model_file: Path, inside: Path) -> None:
    code = WITHOUT.format(blocked={"pyarrow"})
    with Script(code, "predict", model_file, tiles / "test" / "good", "--out", "rows.parquet") as process:
        ended, errors = process.wait(60)
    assert ended == 2, errors
    assert 'This needs pyarrow, which is not installed. Run: pip install "blemish[parquet]"' in errors
    assert listing(inside) == []


@pytest.mark.parametrize("verb", [["doctor", "--json"], ["data", "check", "{tiles}", "--json"]], ids=lambda v: v[0])
def test_base_install_is_enough_for(verb: list[str], tiles: Path) -> None:
    code = WITHOUT.format(blocked={"torch", "lightning", "timm", "torchvision", "pyarrow"})
    done = python(code, *(word.format(tiles=tiles) for word in verb))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)


@pytest.mark.realdata
def test_cookies(realdata: Any, blemish: Any, inside: Path) -> None:
    """The three commands of the README on photographs: the first model ranks and decides. Nothing is said but that few
    defects are planted, which decides nothing.
    """
    root = realdata("cookies")
    assert blemish("fit", root, "-o", "c.safetensors", "--planted", 5).code == 0
    figures = blemish("test", "c.safetensors", root, "--json").json
    assert figures["image_auroc"] >= 0.99
    assert figures["false_alarm_rate"] + figures["miss_rate"] <= 0.14
    (row,) = blemish("predict", "c.safetensors", next((root / "test" / "cracked").iterdir()), "--json").run[
        "predictions"
    ]
    assert row["regions"] is not None
