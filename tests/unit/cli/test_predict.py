"""`blemish predict`: reads what it is given, writes what it is asked for, and goes on after a bad file."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from blemish import artifact
from blemish.cli.predict import min_pixels
from blemish.predictions.rows import COLUMNS
from blemish.runtime import load
from processes import Script


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.fixture
def pile(tiles: Path, tmp_path: Path) -> Path:
    """New images in nested folders with awkward names."""
    root = tmp_path / "Stücke 図"
    for source, target in (
        ("test/good/000.png", "a/gut.PNG"),
        ("test/hole/000.png", "a/b/Loch ü.png"),
        ("test/stain/001.png", "x.png"),
    ):
        (root / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tiles / source, root / target)
    Image.open(tiles / "test/hole/001.png").resize((201, 90)).save(root / "wide.JPG", quality=95)
    (root / "notes.txt").write_text("no image")
    (root / ".hidden.png").write_text("no image")
    return root


NAMES = ["a/b/Loch ü.png", "a/gut.PNG", "wide.JPG", "x.png"]


def test_folder(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, pile)
    assert ran.code == 0, ran.err
    assert "4 images inspected, 3 anomalous, 0 could not be inspected." in ran.out
    assert listing(inside) == []  # nothing was asked for


def test_json(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    content = blemish("predict", model_file, pile, "--json").run
    assert set(content) == {"inspected", "anomalous", "predictions", "failures", "passed_over"}
    assert content["passed_over"] == {"hidden": [".hidden.png"], "of no image format": ["notes.txt"]}
    assert (content["inspected"], content["anomalous"]) == (4, 3)
    rows = {Path(row["path"]).relative_to(pile).as_posix(): row for row in content["predictions"]}
    assert sorted(rows) == NAMES
    for row in rows.values():
        assert set(row) == set(COLUMNS)
        assert row["label"] == ("anomalous" if row["raw_score"] >= row["threshold"] else "normal")
        assert 0 <= row["score"] <= 1
    assert rows["a/gut.PNG"]["label"] == "normal"
    assert (rows["wide.JPG"]["height"], rows["wide.JPG"]["width"]) == (90, 201)
    (region, *_) = rows["a/b/Loch ü.png"]["regions"]
    assert set(region) == {"box", "area", "area_mm2", "peak", "peak_score", "mean_score", "polygon", "good_patches"}
    assert {row["model"] for row in rows.values()} == {hashlib.sha256(model_file.read_bytes()).hexdigest()[:16]}
    assert {row["pixel_threshold"] for row in rows.values()} == {0.5}


def test_columns_the_issue_asks_for() -> None:
    assert COLUMNS[:5] == ("path", "label", "raw_score", "score", "threshold")


def test_all_formats_hold_the_same(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]

    for suffix in ("csv", "jsonl", "parquet"):
        assert blemish("predict", model_file, pile, "--out", f"new/rows.{suffix}").code == 0
    assert listing(inside) == ["new", "new/rows.csv", "new/rows.jsonl", "new/rows.parquet"]
    lines = [json.loads(line) for line in Path("new/rows.jsonl").read_text(encoding="utf-8").splitlines()]
    with Path("new/rows.csv").open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert list(table[0]) == list(COLUMNS)
    for row in table:
        row["regions"] = json.loads(row["regions"])
        for key in ("raw_score", "score", "threshold", "pixel_threshold", "height", "width"):
            row[key] = json.loads(row[key])
    assert len(lines) == 4
    assert untimed(lines) == untimed(table)
    assert untimed(lines) == untimed(pq.read_table("new/rows.parquet").to_pylist())
    expected = load(model_file)(pile / "x.png")[0]
    assert lines[3]["raw_score"] == pytest.approx(expected.raw_score, rel=1e-5)
    assert lines[3]["threshold"] == expected.threshold


def test_verdicts_alone(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    whole = blemish("predict", model_file, pile, "--json").run["predictions"]
    ran = blemish("predict", model_file, pile, "--json", "--verdict-only")
    unlike = ("seconds", "regions")
    assert [{**row, **dict.fromkeys(unlike)} for row in ran.run["predictions"]] == [
        {**row, **dict.fromkeys(unlike)} for row in whole
    ]
    assert {row["regions"] for row in ran.run["predictions"]} == {None}
    for suffix in ("csv", "parquet"):
        assert blemish("predict", model_file, pile, "--verdict-only", "--out", f"rows.{suffix}").code == 0
    with Path("rows.csv").open(encoding="utf-8", newline="") as file:
        assert {row["regions"] for row in csv.DictReader(file)} == {""}
    assert set(pq.read_table("rows.parquet")["regions"].to_pylist()) == {None}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--explain",), "Verdicts alone have no maps, so there are no pictures, explanations or COCO files"),
        (("--out", "coco.json"), "Verdicts alone have no maps"),
        (("--min-area", 5), "--min-area is not for --verdict-only, which makes no maps and regions. Drop one of them."),
        (("--mm-per-pixel", 0.1), "--mm-per-pixel is not for --verdict-only"),
        (("--save", "mask"), "--save is not for --verdict-only"),
        (("--save", "mask", "--ray"), "--save is not for --verdict-only"),
    ],
)
def test_what_needs_maps_is_refused_with_verdicts_alone(
    options: tuple[Any, ...], message: str, blemish: Any, model_file: Path, pile: Path, inside: Path
) -> None:
    ran = blemish("predict", model_file, pile, "--verdict-only", *options)
    assert ran.code == 2
    assert message in ran.err
    assert listing(inside) == []


def test_coco(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, pile, "--output", "coco.json", "--json")
    assert set(ran.json) == {"inspected", "anomalous", "output", "failures", "passed_over"}
    content = json.loads(Path("coco.json").read_text(encoding="utf-8"))
    assert [Path(image["file_name"]).relative_to(pile).as_posix() for image in content["images"]] == NAMES
    result = load(model_file)(pile / "x.png")[0]
    found = [one for one in content["annotations"] if one["image_id"] == 4]
    assert [one["area"] for one in found] == [region.area for region in result.regions]
    assert listing(inside) == ["coco.json"]


def test_small_regions_are_left_out(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    def areas(*options: object) -> list[tuple[int, float | None]]:
        (row,) = blemish("predict", model_file, pile / "x.png", "--json", *options).run["predictions"]
        return [(region["area"], region["area_mm2"]) for region in row["regions"]]

    largest = max(area for area, _ in areas())
    assert areas("--min-area", largest) == [(largest, None)]
    assert areas("--min-area", largest + 1) == []
    scale = ("--mm-per-pixel", 0.1)
    assert areas("--min-area", f"{largest / 100}mm2", *scale) == [(largest, pytest.approx(largest / 100))]
    assert areas("--min-area", f"{largest / 100 + 0.001}mm2", *scale) == []


@pytest.mark.parametrize("pixels", range(1, 60))
def test_a_whole_number_of_pixels_is_not_rounded_up(pixels: int) -> None:
    for side in (0.1, 0.3, 0.07, 1 / 3):
        assert min_pixels(f"{pixels * side * side:.17f}mm2", side) == pixels
        assert min_pixels(f"{(pixels - 0.5) * side * side:.17f}mm2", side) == pixels


def test_files_and_globs(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    rows = blemish("predict", model_file, pile / "x.png", f"{pile}/**/*.PNG", "--json").run["predictions"]
    assert [Path(row["path"]).name for row in rows] == ["x.png", "gut.PNG"]


def test_goes_on_after_unreadable_images(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    (pile / "empty.png").touch()
    (pile / "fake.png").write_text("text, no image")
    (pile / "cut.png").write_bytes((pile / "x.png").read_bytes()[:300])
    ran = blemish("predict", model_file, pile, "--out", "rows.csv", "--fail-on-anomaly")
    assert ran.code == 3
    assert "4 images inspected, 3 anomalous, 3 could not be inspected." in ran.out
    first, *end = ran.err.strip().splitlines()
    assert first == "Passed over: 1 hidden (.hidden.png); 1 of no image format (notes.txt)."
    assert len(end) == 3
    for line, name in zip(end, ("cut.png", "empty.png", "fake.png"), strict=True):
        assert line.startswith("error: ")
        assert name in line
    assert len(Path("rows.csv").read_text(encoding="utf-8").splitlines()) == 5
    failures = blemish("predict", model_file, pile, "--json").run["failures"]
    assert [Path(one["path"]).name for one in failures] == ["cut.png", "empty.png", "fake.png"]
    assert failures[1]["reason"] == "the file is empty (0 bytes)"


def test_every_picture_of_a_file(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    """A good first page stands for no other."""
    first, second = (Image.open(pile / name) for name in ("a/gut.PNG", "x.png"))
    first.save("pages.tif", save_all=True, append_images=[second])
    refused = blemish("predict", model_file, "pages.tif", pile / "x.png", "--json")
    assert [one["path"] for one in refused.run["failures"]] == ["pages.tif"]
    (only,) = blemish("predict", model_file, "pages.tif", "--frames", "first", "--json").run["predictions"]
    assert (only["path"], only["label"]) == ("pages.tif", "normal")
    ran = blemish("predict", model_file, "pages.tif", pile / "x.png", "--frames", "all", "--json", "--save", "overlay")
    rows = ran.run["predictions"]
    assert [(row["path"], row["label"]) for row in rows] == [
        ("pages.tif#0", "normal"),
        ("pages.tif#1", "anomalous"),
        (str(pile / "x.png"), "anomalous"),
    ]
    assert rows[1]["raw_score"] == pytest.approx(rows[2]["raw_score"])
    drawn = [read_pixels(f"predictions/{name}.overlay.png") for name in ("pages.tif#1", "x.png")]
    np.testing.assert_array_equal(drawn[0][:96], drawn[1][:96])
    assert "frames must be one of refuse, first, all" in blemish("predict", model_file, pile, "--frames", "x").err


def test_fail_on_anomaly(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    assert blemish("predict", model_file, pile, "--fail-on-anomaly").code == 1
    assert blemish("predict", model_file, pile / "a" / "gut.PNG", "--fail-on-anomaly").code == 0


def test_pictures_mirror_the_tree(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, pile, "--save", "overlay,mask,map", "--save-dir", "seen")
    assert ran.code == 0, ran.err
    files = [name for name in listing(inside) if Path(name).suffix]
    assert files == sorted(f"seen/{name}.{kind}.png" for name in NAMES for kind in ("overlay", "mask", "map"))
    result = load(model_file)(pile / "wide.JPG")[0]
    mask, anomaly_map, overlay = (read_pixels(f"seen/wide.JPG.{kind}.png") for kind in ("mask", "map", "overlay"))
    np.testing.assert_array_equal(mask > 0, result.mask)
    np.testing.assert_allclose(anomaly_map / 65535, result.anomaly_map, atol=1e-4)
    assert overlay.shape == (90, 201, 3)
    with Image.open(pile / "a/b/Loch ü.png") as image:
        marked = read_pixels("seen/a/b/Loch ü.png.overlay.png")[:96] != np.asarray(image)
    found = load(model_file)(pile / "a/b/Loch ü.png")[0].mask
    reach = binary_dilation(found, iterations=2, structure=np.ones((3, 3)))
    for region in load(model_file)(pile / "a/b/Loch ü.png")[0].regions:
        x0, y0, x1, y1 = region.box
        reach[max(y0 - 2, 0) : y1 + 2, max(x0 - 2, 0) : x1 + 2] = True
    assert marked.any()
    assert not marked[~reach].any()


def test_pictures_of_good_parts_show_the_parts(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    """Of the parts that chose the thresholds, one pixel reaches the pixel threshold: that which is it."""
    good = tiles / "train" / "good"
    assert blemish("predict", model_file, good, "--save", "overlay,mask").code == 0
    touched = 0
    for path in sorted(good.iterdir()):
        drawn, mask = (read_pixels(f"predictions/{path.name}.{kind}.png") for kind in ("overlay", "mask"))
        if (drawn[:96, :128] != read_pixels(str(path))).any():
            touched += 1
            assert (mask > 0).sum() == 1
    assert touched == 1


def read_pixels(path: str) -> Any:
    with Image.open(path) as image:
        return np.asarray(image)


def test_nothing_is_overwritten(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    (inside / "predictions").mkdir()
    (inside / "predictions" / "x.png.mask.png").write_text("precious")
    ran = blemish("predict", model_file, pile, "--save", "mask")
    assert ran.code == 2
    assert "x.png.mask.png exists. Replace it with --overwrite, or choose an empty folder with --save-dir." in ran.err
    assert (inside / "predictions" / "x.png.mask.png").read_text() == "precious"
    assert listing(inside) == ["predictions", "predictions/x.png.mask.png"]  # found out before the first picture
    assert blemish("predict", model_file, pile, "--save", "mask", "--overwrite").code == 0
    assert read_pixels("predictions/x.png.mask.png").shape == (96, 128)


def test_two_images_for_one_picture(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, pile / "x.png", pile / "x.png", "--save", "mask")
    assert ran.code == 2
    assert "x.png.mask.png" in ran.err
    assert listing(inside) == []


def test_globs_mirror_the_tree(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    """Files of one name in several folders are told apart."""
    ran = blemish("predict", model_file, f"{tiles}/test/*/000.png", "--save", "mask", "--save-dir", "seen")
    assert ran.code == 0, ran.err
    names = ("contamination", "crack", "good", "hole", "scratch", "stain")
    assert [n for n in listing(inside) if Path(n).suffix] == [f"seen/{name}/000.png.mask.png" for name in names]


HANGING = """
import time
from blemish.cli import main
from blemish.data import image_io

read = image_io.read_image
image_io.read_image = lambda source, **how: time.sleep(600) if str(source) == "6.png" else read(source, **how)
main()
"""


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_killed_run_is_continued(suffix: str, blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    """The seventh of ten images is never read: there the process hangs, and is killed."""
    names = [f"{i}.png" for i in range(10)]
    for i, name in enumerate(names):
        shutil.copy(pile / ("x.png", "a/gut.PNG", "wide.JPG", "a/b/Loch ü.png")[i % 4 if i % 3 else 0], name)
    Path("3.png").write_text("no image")
    options = [*names, "--batch-size", "2", "--save", "mask", "--save-dir", "seen"]
    assert blemish("predict", model_file, *options, "--out", f"whole.{suffix}", "--save-dir", "whole").code == 3
    command = ["predict", str(model_file), *options, "--out", f"rows.{suffix}"]
    with Script(HANGING, *command) as process:
        record, deadline = Path(f"rows.{suffix}.unfinished"), time.monotonic() + 300
        while not (record.exists() and '"images": 6' in record.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.05)
        process.signal(signal.SIGKILL)
        assert process.wait(10)[0] == -signal.SIGKILL
    assert not Path(f"rows.{suffix}").exists()
    shutil.copy("seen/0.png.mask.png", "seen/7.png.mask.png")  # as if it had come as far as the next batch's pictures

    assert "is unfinished. Continue it with --resume" in blemish(*command).err
    for other in (["--batch-size", "3"], ["--min-area", "5"], ["--save", "map"], ["--mm-per-pixel", "1"]):
        ran = blemish(*command, *other, "--resume")
        assert ran.code == 2
        assert f"was begun with {other[0][2:].replace('-', '_')}" in ran.err
    assert "was begun with model" in blemish("predict", other_model(model_file), *command[2:], "--resume").err

    ran = blemish(*command, "--resume")
    assert ran.code == 3
    assert "9 images inspected, 7 anomalous, 1 could not be inspected." in ran.out
    assert "3.png: not an image" in ran.err
    assert rows_of(Path(f"rows.{suffix}")) == rows_of(Path(f"whole.{suffix}"))
    assert [path.name for path in sorted(inside.glob("rows*"))] == [f"rows.{suffix}"]
    pictures = {path.name: path.read_bytes() for path in Path("whole").iterdir()}
    assert len(pictures) == 9
    assert {path.name: path.read_bytes() for path in Path("seen").iterdir()} == pictures
    assert "is complete: there is nothing to resume" in blemish(*command, "--resume").err


def other_model(path: Path) -> Path:
    model = artifact.load(path)
    model.decider.image_sensitivity = 0.6
    model.save("other.safetensors")
    return Path("other.safetensors")


def rows_of(path: Path) -> Any:
    """All that is in a file but the times."""
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".parquet":
        return pq.read_table(path).drop_columns("seconds").to_pylist()
    if path.suffix == ".jsonl":
        return [{**json.loads(line), "seconds": 0} for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [{**row, "seconds": 0} for row in csv.DictReader(file)]


USAGE: list[tuple[list[str], str]] = [
    (["--out", "rows.txt"], "Predictions are written to .csv, .jsonl, .parquet, .json files. Got 'rows.txt'."),
    (["--save", "overlay,heat"], "--save takes a list out of overlay, heatmap, panel, mask, map. Got 'overlay,heat'."),
    (["--resume"], "--resume continues a file of predictions. Name it with --out."),
    (["--min-area", "0"], "min_area must be at least 1. Got 0."),
    (["--min-area", "2cm2"], "--min-area must be pixels, as in 20, or square millimetres, as in 0.5mm2. Got '2cm2'."),
    (["--min-area", "2mm2"], "--min-area 2mm2 needs a scale. Give the side of a pixel with --mm-per-pixel."),
    (["--mm-per-pixel", "0"], "--mm-per-pixel must be above 0. Got 0.0."),
    (["--batch-size", "0"], "batch_size must be at least 1. Got 0."),
    (["--device", "abacus"], "device 'abacus' can't be used"),
]


UNWRITABLE: list[tuple[list[str], str]] = [
    (["--out", "file/rows.csv"], "file/rows.csv can't be written"),
    (["--out", "folder.csv"], "folder.csv can't be written"),
    (["--out", "folder.parquet"], "folder.parquet can't be written"),
    (["--save", "mask", "--save-dir", "file"], "can't be written"),
]
CASES = [*((*one, 2) for one in USAGE), *((*one, 3) for one in UNWRITABLE)]


@pytest.mark.parametrize(("arguments", "message", "code"), CASES, ids=[" ".join(one[0]) for one in CASES])
def test_bad_arguments(
    arguments: list[str], message: str, code: int, blemish: Any, model_file: Path, pile: Path, inside: Path
) -> None:
    """All of them before the first image is inspected."""
    (inside / "file").touch()
    (inside / "folder.csv").mkdir()
    (inside / "folder.parquet").mkdir()
    before = listing(inside)
    ran = blemish("predict", model_file, pile, *arguments)
    assert ran.code == code, ran
    assert message in ran.err
    assert "anomalous" not in ran.out
    assert listing(inside) == before


def test_bad_input(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    (pile / "none").mkdir()
    for named in ("absent.png", f"{pile}/*.webp", pile / "none"):
        ran = blemish("predict", model_file, named)
        assert ran.code == 3
        assert "is no file, no folder with images and no pattern that matches. Check the path." in ran.err
    ran = blemish("predict", "absent.safetensors", pile)
    assert ran.code == 3
    assert "There is no model file at absent.safetensors." in ran.err


def test_pixel_limit(blemish: Any, model_file: Path, pile: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, pile, "--max-pixels", 96 * 128)
    assert ran.code == 3
    assert "3 images inspected" in ran.out
    assert "wide.JPG: 90 x 201 = 18,090 pixels are more than max_pixels = 12,288" in ran.err
