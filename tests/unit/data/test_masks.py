"""Masks lying among pictures: told from them, paired where it is clear, listed where it isn't."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data.image_io import looks_like_a_mask, read_mask, write_png
from blemish.data.index import Index, index_folder

RNG = np.random.default_rng(3)
SIZE = (12, 16)


def picture(path: Path, *, two_values: bool = False) -> None:
    pixels = RNG.integers(0, 256, SIZE, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((pixels > 99) * np.uint8(255) if two_values else pixels).save(path)


def mask(path: Path, value: int = 255) -> None:
    pixels = np.zeros(SIZE, np.uint8)
    pixels[3:6, 2:9] = value
    write_png(path, pixels)


def pairs(index: Index) -> dict[str, str | None]:
    """Anomalous picture -> its mask, below the root."""
    return {
        s.relative: s.mask and s.mask.relative_to(index.root).as_posix() for s in index.samples if s.label is not False
    }


def problems(index: Index) -> dict[str, str]:
    return {problem.path: problem.reason for problem in index.problems}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for i in range(4):
        picture(tmp_path / f"train/good/{i}.png")
    for i in range(2):
        picture(tmp_path / f"test/good/{i}.png")
        picture(tmp_path / f"test/spot/{i}.png")
    return tmp_path


PLACES: dict[str, Callable[[int], str]] = {
    "beside, by a word": lambda i: f"test/spot/{i}_mask.png",
    "beside, by a word in capitals": lambda i: f"test/spot/{i}_MASK.PNG",
    "beside, by a word in front": lambda i: f"test/spot/mask_{i}.png",
    "beside, by another word": lambda i: f"test/spot/{i}-label.bmp",
    "beside, by an ending nobody knows": lambda i: f"test/spot/{i}_xyz.png",
    "beside, by the suffix": lambda i: f"test/spot/{i}.bmp",
    "in a folder below": lambda i: f"test/spot/masks/{i}.png",
    "in a folder below, with a word": lambda i: f"test/spot/GT/{i}_gt.png",
    "in a folder below, of any name": lambda i: f"test/spot/xyz/{i}.png",
    "in a folder of the kind": lambda i: f"ground_truth/spot/{i}_mask.png",
    "in a folder of the kind and set": lambda i: f"ground_truth/test/spot/{i}.png",
    "in a folder of the set": lambda i: f"test/ground_truth/spot/{i}.png",
    "mask/<kind>/": lambda i: f"mask/spot/{i}.png",
    "all in one folder": lambda i: f"masks/{i}.png",
    "a folder per picture": lambda i: f"ground_truth/spot/{i}/000.png",
}


@pytest.mark.parametrize("where", PLACES)
def test_masks_are_no_test_pictures(root: Path, where: str) -> None:
    for i in range(2):
        mask(root / PLACES[where](i))
    index = index_folder(root)
    assert index.layout == "mvtec"
    expected = {f"test/spot/{i}.png": PLACES[where](i) for i in range(2)}
    if where == "a folder per picture":
        expected = {name: str(Path(path).parent.as_posix()) for name, path in expected.items()}
    assert pairs(index) == expected
    assert problems(index) == {}
    assert sum(sample.label is False for sample in index.samples) == 6
    for sample in index.samples:
        if sample.mask is not None:
            assert read_mask(sample.mask, SIZE).sum() == 21


def test_folders_of_pictures_and_folders_of_masks_side_by_side(tmp_path: Path) -> None:
    for i in range(3):
        picture(tmp_path / f"train/normal/images/{i}.png")
        picture(tmp_path / f"test/normal/images/{i}.png")
        picture(tmp_path / f"test/anomalous/images/{i}.png")
        mask(tmp_path / f"test/anomalous/masks/{i}.png")
    index = index_folder(tmp_path)
    assert pairs(index) == {f"test/anomalous/images/{i}.png": f"test/anomalous/masks/{i}.png" for i in range(3)}
    assert problems(index) == {}


def test_pictures_and_masks_of_good_and_bad_parts(tmp_path: Path) -> None:
    """As magnetic tiles come: a jpg and a png of each, the good ones with an empty mask."""
    for i in range(3):
        for folder, value in (("MT_Free/Imgs", 0), ("MT_Blowhole/Imgs", 255)):
            picture(tmp_path / f"{folder}/{i}.jpg")
            mask(tmp_path / f"{folder}/{i}.png", value)
    index = index_folder(tmp_path, good=["MT_Free"], bad=["MT_*"])
    assert len(index.samples) == 6
    assert pairs(index) == {f"MT_Blowhole/Imgs/{i}.jpg": f"MT_Blowhole/Imgs/{i}.png" for i in range(3)}
    assert {s.path.suffix for s in index.samples} == {".jpg"}


def test_several_masks_of_one_picture_lie_in_its_folder(root: Path) -> None:
    """As MVTec LOCO has them."""
    mask(root / "ground_truth/spot/0/000.png")
    mask(root / "ground_truth/spot/0/001.png")
    index = index_folder(root)
    assert pairs(index) == {"test/spot/0.png": "ground_truth/spot/0", "test/spot/1.png": None}
    assert problems(index) == {"test/spot/1.png": "anomalous, but no mask has its name"}


def test_masks_that_could_belong_to_several_pictures_are_listed(root: Path) -> None:
    picture(root / "test/dent/0.png")
    mask(root / "masks/0.png")
    mask(root / "masks/1.png")
    index = index_folder(root)
    assert pairs(index) == {"test/dent/0.png": None, "test/spot/0.png": None, "test/spot/1.png": "masks/1.png"}
    unclear = "its mask is not clear, none is used: masks/0.png"
    assert problems(index) == {"test/dent/0.png": unclear, "test/spot/0.png": unclear}


def test_a_folder_of_masks_without_pictures_of_their_own_is_no_kind_of_defect(root: Path) -> None:
    picture(root / "test/dent/0.png")
    for i in range(2):
        mask(root / f"test/xyz/{i}.png")
    index = index_folder(root)
    assert {sample.defect for sample in index.samples} == {"good", "spot", "dent"}
    assert pairs(index)["test/spot/1.png"] == "test/xyz/1.png"
    assert "its mask is not clear" in problems(index)["test/spot/0.png"]


def test_pictures_of_the_same_names_are_pictures(root: Path) -> None:
    for i in range(2):
        picture(root / f"test/dent/{i}.png")
        picture(root / f"test/spot/deeper/{i}.png")
        picture(root / f"test/spot/{i}_2.png")
        picture(root / f"test/spot/{i}.jpg")
    assert len(pairs(index_folder(root))) == 10


def test_a_camera_of_two_values_takes_pictures(tmp_path: Path) -> None:
    for i in range(3):
        for folder in ("train/good", "test/good", "test/spot", "test/spot/more"):
            picture(tmp_path / f"{folder}/{i}.png", two_values=True)
    index = index_folder(tmp_path)
    assert len(pairs(index)) == 6
    assert set(pairs(index).values()) == {None}


def test_a_mask_without_a_picture_is_known_by_its_look(root: Path) -> None:
    mask(root / "test/spot/9_mask.png")
    picture(root / "test/spot/gas_mask.png")  # a picture of a mask
    index = index_folder(root)
    assert list(pairs(index)) == ["test/spot/0.png", "test/spot/1.png", "test/spot/gas_mask.png"]
    assert problems(index)["test/spot/9_mask.png"] == "no image has the name of this mask"


def test_what_looks_like_a_mask(tmp_path: Path) -> None:
    pixels = np.zeros((*SIZE, 3), np.uint8)
    cases: dict[str, tuple[np.ndarray, bool]] = {"empty": (pixels, True), "gray": (pixels[..., 0], True)}
    pixels = pixels.copy()
    pixels[2:4] = 200
    cases["white"] = (pixels, True)
    pixels = pixels.copy()
    pixels[2:4, :, 0] = 0
    cases["colored"] = (pixels, False)
    kinds = np.zeros(SIZE, np.uint8)
    kinds[:4] = np.arange(4)[:, None]
    cases["kinds of defects"] = (kinds, True)
    cases["three grays"] = (kinds * 60, False)
    cases["dark picture"] = (RNG.integers(0, 30, SIZE, dtype=np.uint8), False)
    for name, (array, expected) in cases.items():
        write_png(tmp_path / "x.png", array)
        assert looks_like_a_mask(tmp_path / "x.png") == expected, name
    assert not looks_like_a_mask(tmp_path / "absent.png")
