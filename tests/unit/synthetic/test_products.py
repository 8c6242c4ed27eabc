from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from blemish.errors import UsageError
from blemish.synthetic.products import DEFECTS, MIN_SIDE, PRODUCTS, render, write_dataset

TINY = (MIN_SIDE, MIN_SIDE)
CASES = [(product, defect) for product, spec in PRODUCTS.items() for defect in spec.defects]


def drawn(
    product: str, defect: str | None, seed: int, size: tuple[int, int] = (96, 96)
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    return render(product, size=size, rng=np.random.default_rng(seed), defect=defect)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("product", "defect"), CASES)
def test_a_defect_changes_nothing_outside_its_mask_and_is_seen_inside(product: str, defect: str) -> None:
    for seed in range(8):
        clean, nothing = drawn(product, None, seed)
        flawed, mask = drawn(product, defect, seed)
        assert not nothing.any()
        assert 0.0005 < mask.mean() < 0.2, f"seed {seed}: the mask covers {mask.mean():.2%}"
        np.testing.assert_array_equal(flawed[~mask], clean[~mask])
        change = np.abs(flawed[mask].astype(int) - clean[mask]).max(axis=-1)
        assert change.mean() > 12, f"seed {seed}: a mean change of {change.mean():.1f} gray levels can't be seen"
        assert (change > 3).mean() > 0.6, f"seed {seed}: the mask is larger than the defect"


def test_every_defect_befalls_some_product_and_every_named_defect_exists() -> None:
    assert {defect for _, defect in CASES} == set(DEFECTS)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("size", [(MIN_SIDE, MIN_SIDE), (48, 131), (120, 61)])
def test_any_size_and_aspect_ratio_gives_pictures_with_every_defect(product: str, size: tuple[int, int]) -> None:
    for defect in PRODUCTS[product].defects:
        image, mask = drawn(product, defect, seed=5, size=size)
        assert image.shape == (*size, 3)
        assert mask.shape == size
        assert image.dtype == np.uint8
        assert mask.dtype == np.bool_
        assert mask.any()


@pytest.mark.parametrize("product", PRODUCTS)
def test_good_parts_vary_but_resemble_one_another(product: str) -> None:
    parts = np.stack([drawn(product, None, seed)[0] for seed in range(6)]).astype(float)
    spread = np.abs(parts - parts.mean(axis=0)).mean()
    assert 2 < spread < 45
    assert 40 < parts.mean() < 215


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_larger_picture_shows_the_same_kind_of_part(product: str) -> None:
    small = np.mean([drawn(product, None, seed, (64, 64))[0].mean() for seed in range(4)])
    large = np.mean([drawn(product, None, seed, (256, 256))[0].mean() for seed in range(4)])
    assert large == pytest.approx(small, rel=0.15)


def test_the_generator_decides_everything_and_the_global_state_nothing() -> None:
    first, _ = drawn("board", "scratch", 3)
    np.random.default_rng().normal()
    again, _ = drawn("board", "scratch", 3)
    other, _ = drawn("board", "scratch", 4)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_a_dataset_has_the_layout_of_mvtec_ad(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path, product="plate", good_train=3, good_test=2, per_defect=1, size=(40, 56), seed=9)
    assert folder == tmp_path / "plate"
    expected = {f"train/good/{i:03d}.png" for i in range(3)} | {f"test/good/{i:03d}.png" for i in range(2)}
    for defect in PRODUCTS["plate"].defects:
        expected |= {f"test/{defect}/000.png", f"ground_truth/{defect}/000_mask.png"}
    assert set(digests(folder)) == expected
    with (
        Image.open(folder / "test/hole/000.png") as image,
        Image.open(folder / "ground_truth/hole/000_mask.png") as mask,
    ):
        assert (image.mode, image.size) == ("RGB", (56, 40))
        assert (mask.mode, mask.size) == ("L", (56, 40))
        assert set(np.unique(np.asarray(mask))) == {0, 255}


def test_more_pictures_leave_the_earlier_ones_as_they_were(tmp_path: Path) -> None:
    few = digests(write_dataset(tmp_path / "few", product="tile", good_train=1, good_test=1, per_defect=1, size=TINY))
    many = digests(write_dataset(tmp_path / "many", product="tile", good_train=3, good_test=2, per_defect=2, size=TINY))
    assert few.items() <= many.items()
    images = [digest for name, digest in many.items() if "ground_truth" not in name]
    assert len(set(images)) == len(images), "two pictures are the same"
    other = write_dataset(
        tmp_path / "other", product="tile", good_train=1, good_test=1, per_defect=1, size=TINY, seed=1
    )
    assert not set(digests(other).values()) & set(few.values())


def test_another_process_writes_the_same_bytes(tmp_path: Path) -> None:
    arguments = "product='knob', good_train=1, good_test=0, per_defect=1, size=(32, 32), seed=2"
    there = str(tmp_path / "there")
    code = f"from blemish.synthetic.products import write_dataset; write_dataset({there!r}, {arguments})"
    subprocess.run([sys.executable, "-c", code], check=True)
    here = write_dataset(tmp_path / "here", product="knob", good_train=1, good_test=0, per_defect=1, size=TINY, seed=2)
    assert digests(here) == digests(tmp_path / "there" / "knob")


def test_a_folder_that_holds_something_is_not_written_into(tmp_path: Path) -> None:
    (tmp_path / "tile").mkdir()
    (tmp_path / "tile" / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(UsageError, match=r"tile is not empty\. Choose another folder"):
        write_dataset(tmp_path, product="tile", size=TINY)
    assert list(digests(tmp_path)) == ["tile/notes.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"product": "spoon"}, r"product must be one of fabric, tile, plate, board, knob\. Got 'spoon'\."),
        (
            {"defect": "missing"},
            r"defect of 'tile' must be one of scratch, .*, or None .*Got 'missing'\.",
        ),
        ({"size": (31, 64)}, r"size must be at least 32 x 32 pixels\. Got 31 x 64\."),
    ],
)
def test_a_wrong_argument_of_render_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        render(**{"product": "tile", "size": (64, 64), "rng": np.random.default_rng(0), **arguments})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"product": "spoon"}, r"product must be one of .*\. Got 'spoon'\."),
        ({"good_train": -1}, r"good_train must not be negative\. Got -1\."),
        ({"seed": -3}, r"seed must not be negative\. Got -3\."),
    ],
)
def test_a_wrong_argument_of_write_dataset_is_named_before_anything_is_written(
    tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        write_dataset(tmp_path, **{"product": "tile", "size": (32, 32), **arguments})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())
