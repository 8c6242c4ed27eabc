"""Pictures of good images are found by name and bytes, never outside of the folder; missing ones are named."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.data.datamodule import ImageDataModule
from blemish.data.explanation import GoodImage
from blemish.data.good_images import (
    MOST_IMAGES,
    MOST_PICTURES,
    SIDE,
    GoodImages,
    GoodPictures,
    select,
    small_picture,
)
from blemish.data.image_io import read_image, write_png

PICTURE = np.random.default_rng(0).integers(0, 256, (30, 40, 3)).astype(np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_png(tmp_path / "parts/train/good/a.png", PICTURE)
    write_png(tmp_path / "outside.png", PICTURE)
    return tmp_path / "parts"


def named(root: Path, name: str = "train/good/a.png", **changes: Any) -> GoodImage:
    digest = hashlib.sha256((root / "train/good/a.png").read_bytes()).hexdigest()[:12]
    return GoodImage(**{"number": 0, "name": name, "size": (30, 40), "digest": digest, **changes})


@pytest.mark.parametrize("below", [".", "train", "train/good"])
def test_found_below_the_folder_of_the_fit_and_folders_within(below: str, root: Path) -> None:
    image = named(root)
    find = GoodPictures(GoodImages((image,)), root / below)
    np.testing.assert_array_equal(find(image), PICTURE)
    assert find.missing == {}


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("train/good/b.png", "not found below "),
        ("../outside.png", "its name leads out of "),
        ("train/../../outside.png", "its name leads out of "),
    ],
)
def test_missing_pictures_are_named(name: str, reason: str, root: Path) -> None:
    image = named(root, name)
    find = GoodPictures(GoodImages((image,)), root)
    assert find(image) is None
    assert find.missing == {name: f"{reason}{root}"}


def test_an_absolute_name_is_not_followed(root: Path) -> None:
    image = named(root, str(root.parent / "outside.png"))
    find = GoodPictures(GoodImages((image,)), root)
    assert find(image) is None
    assert "leads out of" in find.missing[image.name]


def test_another_picture_of_the_same_name_is_not_shown(root: Path) -> None:
    image = named(root)
    write_png(root / "train/good/a.png", 255 - PICTURE)
    find = GoodPictures(GoodImages((image,)), root)
    assert find(image) is None
    assert find.missing == {"train/good/a.png": f"{root / 'train/good/a.png'} is another picture by now"}


def test_without_a_folder_the_small_picture_is_taken_where_there_is_one(root: Path) -> None:
    images = [named(root, number=0), named(root, "b.png", number=1), named(root, "c.png", number=2)]
    pictures = [small_picture(PICTURE[:, :20]), b"", small_picture(PICTURE)]
    kept = select(images, lambda image: pictures[image.number])
    find = GoodPictures(kept)
    shapes = [None if (picture := find(image)) is None else picture.shape for image in kept.images]
    assert shapes == [(30, 20, 3), None, (30, 40, 3)]
    assert find.missing == {"b.png": "its folder wasn't named"}


def test_small_pictures_are_small() -> None:
    smooth = np.full((500, 1000, 3), 0.25, np.float32)
    assert read_image(small_picture(smooth)).shape == (SIDE // 2, SIDE, 3)
    assert len(small_picture(PICTURE)) < PICTURE.nbytes


def test_names_and_pictures_are_bounded(root: Path) -> None:
    image = named(root)
    kept = select((image for _ in range(MOST_IMAGES + 5)), lambda _: b"jpeg")
    assert len(kept.images) == MOST_IMAGES
    assert kept.pictures == b"jpeg" * MOST_PICTURES
    assert [bool(each.picture) for each in kept.images] == [i < MOST_PICTURES for i in range(MOST_IMAGES)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"picture": 3}, r"good_images tell of 3 bytes of pictures. Got 2."),
        ({"picture": -2}, r"good_images tell of -2 bytes of pictures. Got 2."),
        ({"picture": 2, "size": (0, 4)}, r"The sides of good_images must be at least 1."),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str, root: Path) -> None:
    with pytest.raises(ValueError, match=message):
        GoodImages((named(root, **changes),), b"ab")


def test_a_damaged_small_picture_is_missing(root: Path) -> None:
    image = named(root, picture=4)
    find = GoodPictures(GoodImages((image,), b"junk"))
    assert find(image) is None
    assert list(find.missing) == [image.name]


def test_arrays_are_named_as_files_are(root: Path) -> None:
    data = ImageDataModule.from_arrays([PICTURE, PICTURE[:20]], names=["a", "b"])
    images = [data.good_image(number, sample) for number, sample in enumerate(data.index.samples)]
    assert [(image.name, image.size) for image in images] == [("a", (30, 40)), ("b", (20, 40))]
    np.testing.assert_array_equal(data.pixels(data.index.samples[1]), PICTURE[:20])
