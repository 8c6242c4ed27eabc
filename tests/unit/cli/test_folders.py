"""Folders of users, from the command line: what is asked about, what is passed over, what is remembered."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish import artifact
from blemish.cli.paths import expand
from blemish.errors import DataError
from blemish.runtime import load
from blemish.runtime.result import PICTURES
from known import known

SMALL = ("--backbone", "filter_bank", "--image-size", 64, "--bank-size", 200)
RNG = np.random.default_rng(11)


def part(path: Path, *, spot: bool = False, bits: int = 8) -> Path:
    """A gray part of 64 x 80 pixels; with bits above 8, in a file of 16 without being stretched."""
    light = 100 + 10 * np.sin(np.arange(80) / 4) + RNG.normal(0, 3, (64, 80))
    if spot:
        light[20:32, 30:44] += 90
    top = 2**bits - 1
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(light / 255 * top).astype(np.uint8 if bits == 8 else np.uint16)).save(path)
    return path


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    root = tmp_path / "osat"
    for i in range(12):
        part(root / f"hyvat/{i:02d}.png")
    for i in range(3):
        part(root / f"vialliset/{i}.png", spot=True)
    return root


SAID = ("--good", "hyvat", "--bad", "vialliset")


def test_a_folder_that_is_not_understood_is_not_learned(blemish: Any, parts: Path, inside: Path) -> None:
    for verb in (["data", "check", parts], ["fit", parts, "-o", "m.safetensors"], ["recommend", parts]):
        ran = blemish(*verb)
        assert ran.code == 3
        assert "the layout is not clear. Found hyvat/ (12), vialliset/ (3)." in ran.err
        assert "Say which are good with --good NAME" in ran.err
    assert list(inside.iterdir()) == []
    ran = blemish("data", "check", parts, *SAID)
    assert ran.code == 0
    assert "Taken as good: hyvat/ (12)." in ran.out
    everything = blemish("data", "check", parts, "--all-good", "--json").json
    assert everything["good_folders"] == {"hyvat": 12, "vialliset": 3}
    assert blemish("data", "check", parts, "--good", "hyvät").code == 3


def test_what_was_said_reaches_the_model_and_its_test(blemish: Any, parts: Path, inside: Path) -> None:
    part(parts / "hyvat/.hidden.png")
    ran = blemish("fit", parts, "-o", "m.safetensors", *SAID, *SMALL)
    assert ran.code == 0, ran.err
    assert "Good parts: hyvat/ (12)." in ran.err
    assert "Passed over: 1 hidden (hyvat/.hidden.png)." in ran.err
    record = known(artifact.read_manifest("m.safetensors").data)
    assert (record.good, record.bad, len(record.seen())) == (("hyvat",), ("vialliset",), 9)
    figures = blemish("test", "m.safetensors", parts, "--json").json
    assert figures["counts"] | {"with_masks": 0} == {"images": 6, "good": 3, "anomalous": 3, "with_masks": 0}
    for i in range(5):
        part(parts / f"hyvat/new{i}.png")
    grown = blemish("test", "m.safetensors", parts, "--json").json
    assert grown["counts"]["good"] == 3 + 5
    (parts / "hyvat").rename(parts / "hyviä")
    ran = blemish("test", "m.safetensors", parts)
    assert ran.code == 3
    assert "the layout is not clear" in ran.err
    again = blemish("test", "m.safetensors", parts, "--good", "hyviä", "--bad", "*", "--json").json
    assert again["counts"] == grown["counts"]


def test_predict_walks_as_fit_does_and_says_what_it_passes_over(blemish: Any, parts: Path, inside: Path) -> None:
    assert blemish("fit", parts / "hyvat", "-o", "m.safetensors", *SMALL).code == 0
    new = inside / "new"
    part(new / "a.png")
    part(new / "b.tmp.png").rename(new / "b.tif")  # content decides
    Image.open(part(inside / "elsewhere/c.png")).save(inside / "elsewhere/c.jp2")
    part(new / ".trash/d.png")
    os.symlink("../elsewhere", new / "monday")
    (new / "photo.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (new / "notes.txt").touch()
    ran = blemish("predict", "m.safetensors", "new", "--json", "--save", "mask,map", "--save-dir", "new/predictions")
    assert ran.code == 3
    content = ran.run
    assert [row["path"] for row in content["predictions"]] == [
        "new/a.png",
        "new/b.tif",
        "new/monday/c.jp2",
        "new/monday/c.png",
    ]
    assert [Path(failure["path"]).name for failure in content["failures"]] == ["photo.heic"]
    assert content["passed_over"] == {"hidden": [".trash"], "of no image format": ["notes.txt"]}
    (new / "photo.heic").unlink()
    again = blemish("predict", "m.safetensors", "new")
    assert again.code == 0
    assert "4 images inspected" in again.out
    assert "8 written by predict (predictions/a.png.map.png, predictions/a.png.mask.png, " in again.err
    learned = blemish("data", "check", new, "--all-good", "--json").json
    assert sum(learned["good_folders"].values()) == 4


def test_masks_below_a_folder_are_no_parts_and_a_folder_of_them_is_what_was_named(tmp_path: Path) -> None:
    for name in ("test/hole/0.png", "ground_truth/hole/0_mask.png", "Masks/1.png", "test/masks_of_plaster/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = expand([str(tmp_path)])
    assert [relative.as_posix() for _, relative in found.images] == ["test/hole/0.png", "test/masks_of_plaster/2.png"]
    assert found.passed_over == {"in folders of masks": ("Masks/1.png", "ground_truth/hole/0_mask.png")}
    assert len(expand([str(tmp_path / "ground_truth")]).images) == 1


def test_expand_knows_files_folders_and_patterns(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.png", "b/c.png.mask.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = expand([str(tmp_path / "a.png"), str(tmp_path / "b"), str(tmp_path / "**" / "*.png")])
    assert [relative.as_posix() for _, relative in found.images] == ["a.png", "c.png", "a.png", "b/c.png"]
    assert found.passed_over == {
        "of no image format": ("notes.txt",),
        "written by predict": ("c.png.mask.png", str(tmp_path / "b/c.png.mask.png")),
    }
    assert expand([str(tmp_path / "b/c.png.mask.png")]).images, "who names a file means it"
    (tmp_path / "b/c.png").unlink()
    (tmp_path / "b/c.png.mask.png").unlink()
    with pytest.raises(
        DataError, match=r"no pattern that matches\. Check the path\. Passed over: 1 of no image format"
    ):
        expand([str(tmp_path / "b")])


def test_files_of_several_pictures(blemish: Any, parts: Path, inside: Path) -> None:
    assert blemish("fit", parts / "hyvat", "-o", "m.safetensors", *SMALL).code == 0
    good, bad = (Image.open(parts / name) for name in ("hyvat/00.png", "vialliset/0.png"))
    (inside / "new").mkdir()
    good.save("new/stack.tif", save_all=True, append_images=[bad])
    good.save("new/moving.png", save_all=True, append_images=[bad])
    ran = blemish("predict", "m.safetensors", "new")
    assert ran.code == 3
    assert "0 images inspected, 0 anomalous, 2 could not be inspected." in ran.out
    assert ran.err.count("the file holds 2 pictures (pages or frames)") == 2
    ran = blemish("predict", "m.safetensors", "new", "--frames", "first", "--save", ",".join(PICTURES))
    assert ran.code == 0, ran.err
    assert "2 images inspected, 0 anomalous" in ran.out
    assert blemish("predict", "m.safetensors", "new", "--frames", "every").code == 2


def test_twelve_bits_are_noticed_remembered_and_read_alike(blemish: Any, inside: Path) -> None:
    for i in range(12):
        part(inside / f"parts/good/{i:02d}.png", bits=12)
    (inside / "parts/good/00.png").unlink()
    bright = part(inside / "parts/good/00.png", bits=12)
    pixels = np.asarray(Image.open(bright)).copy()
    pixels[0, 0] = 4095
    Image.fromarray(pixels).save(bright)
    new = part(inside / "new/a.png", bits=12)
    checked = blemish("data", "check", "parts/good")
    assert checked.code == 0
    assert "note: The 16-bit images use 12 bits" in checked.out
    ran = blemish("fit", "parts/good", "-o", "m.safetensors", *SMALL)
    assert "The 16-bit images use 12 bits: no good one has a sample above 4,095" in ran.err
    assert "The 16-bit" not in blemish("fit", "parts/good", "-o", "dark.safetensors", "--bit-depth", 16, *SMALL).err
    assert blemish("export", "m.safetensors", "--to", "onnx", "-o", "m.onnx", "--static", "1,64,80").code == 0
    scores = {name: load(name)(new)[0].raw_score for name in ("m.safetensors", "m.onnx", "dark.safetensors")}
    eight = Image.fromarray(np.rint(np.asarray(Image.open(new)) / 4095 * 255).astype(np.uint8))
    eight.save("eight.png")
    alike = load("m.safetensors")("eight.png")[0].raw_score
    assert scores["m.safetensors"] == pytest.approx(alike, rel=0.05)
    assert scores["m.onnx"] == pytest.approx(alike, rel=0.05)
    assert scores["dark.safetensors"] != pytest.approx(alike, rel=0.05)
    ran = blemish("predict", "m.safetensors", "new", "--save", "overlay")
    assert ran.code == 0, ran.err
    drawn = np.asarray(Image.open("predictions/a.png.overlay.png"))[:64]
    assert drawn.mean() == pytest.approx(np.asarray(eight).mean(), abs=8)
    Image.fromarray(np.asarray(Image.open(new)) * np.uint16(8)).save("new/bright.png")
    ran = blemish("predict", "m.safetensors", "new/bright.png")
    assert ran.code == 3
    assert "outside the expected range [0, 4095]" in ran.err


def test_one_bad_mask_costs_its_picture_and_not_the_test(
    blemish: Any, tiles: Path, model_file: Path, inside: Path
) -> None:
    root = inside / "tiles"
    shutil.copytree(tiles, root)
    first, second = sorted((root / "ground_truth").rglob("*.png"))[:2]
    Image.open(first).resize((20, 20)).save(first)
    second.write_bytes(second.read_bytes()[:40])
    checked = blemish("data", "check", root, "--json")
    assert checked.code == 3
    assert len(checked.json["broken_masks"]) == 2
    with pytest.warns(UserWarning, match="The pixels of an image are not measured"):
        ran = blemish("test", model_file, root, "--json")
    assert ran.code == 0
    whole = blemish("test", model_file, tiles, "--json").json
    assert ran.json["counts"]["with_masks"] == whole["counts"]["with_masks"] - 2
    assert ran.json["image_auroc"] == whole["image_auroc"]
    assert json.dumps(ran.json["pixel_auroc"]) != json.dumps(whole["pixel_auroc"])
