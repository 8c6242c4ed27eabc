"""Planted defects: exact masks, nothing changed outside, the same for the same seed, where the part is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from blemish.data.image_io import read_image, read_mask, write_png
from blemish.data.index import Sample
from blemish.errors import UsageError
from blemish.synthetic.planting import KINDS, plant, plant_files
from blemish.synthetic.products import MIN_SIDE, PRODUCTS, render


def photo(seed: int = 0, size: tuple[int, int] = (120, 160), product: str = "plate") -> npt.NDArray[np.uint8]:
    return render(product, size=size, rng=np.random.default_rng(seed))[0]


def planted(image: npt.NDArray[Any], kind: str, seed: int = 0, **settings: Any) -> tuple[npt.NDArray[Any], Any]:
    return plant(image, rng=np.random.default_rng(seed), kind=kind, **settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_the_picture_changes_inside_the_mask_and_nowhere_else(kind: str, product: str) -> None:
    for seed in range(4):
        image = photo(seed, product=product)
        before = image.copy()
        found, mask = planted(image, kind, seed)
        assert (found.shape, found.dtype, mask.dtype) == (image.shape, np.uint8, np.bool_)
        np.testing.assert_array_equal(image, before)
        np.testing.assert_array_equal(found[~mask], image[~mask])
        assert 0.0002 < mask.mean() < 0.2
        change = np.abs(found[mask].astype(int) - image[mask]).max(axis=-1)
        assert change.mean() > 6, f"seed {seed}: a mean change of {change.mean():.1f} gray levels can't be seen"


def test_strength_is_opacity() -> None:
    image = photo()
    half, _ = planted(image, "hole", strength=0.5)
    full, mask = planted(image, "hole", strength=1.0)
    np.testing.assert_allclose(half[mask], (image[mask].astype(float) + full[mask]) / 2, atol=1.01)


def test_size_is_the_share_of_the_shorter_side() -> None:
    image = photo(size=(200, 300))
    for kind in KINDS:
        for size in (0.2, 0.9):
            rows, columns = np.nonzero(planted(image, kind, size=size)[1])
            assert np.ptp(rows) < size * 200
            assert np.ptp(columns) < size * 200
        assert planted(image, kind, size=0.9)[1].sum() > 3 * planted(image, kind, size=0.2)[1].sum()


def test_gray_stays_gray_and_deep_stays_deep() -> None:
    gray = np.repeat(photo().mean(axis=2, keepdims=True), 3, axis=2).astype(np.float32) / np.float32(255)
    for kind in KINDS:
        found, mask = planted(gray, kind)
        assert found.dtype == np.float32
        assert (found == found[..., :1]).all()
        assert found.min() >= 0
        assert found.max() <= 1
        np.testing.assert_array_equal(found[~mask], gray[~mask])


def test_defects_lie_on_the_part_rather_than_on_the_ground() -> None:
    """The ground has a little grain; a quarter of the area holds the part."""
    rng = np.random.default_rng(0)
    image = rng.integers(118, 124, (160, 160, 3), dtype=np.uint8)
    image[40:120, 40:120] = photo(size=(80, 80), product="board")
    hits = 0
    for seed in range(60):
        rows, columns = np.nonzero(planted(image, "hole", seed, size=0.2)[1])
        hits += 30 <= rows.mean() < 130 and 30 <= columns.mean() < 130
    assert hits >= 48


def test_a_region_of_interest_holds_every_defect() -> None:
    region = np.zeros((6, 8), np.bool_)
    region[3:, 2:5] = True  # over a picture of 120 x 160: rows from 60 on, columns 40 to 100
    for kind in KINDS:
        for seed in range(4):
            image = photo()
            found, mask = planted(image, kind, seed, roi=region)
            assert mask.any()
            assert not mask[:60].any()
            assert not mask[:, :40].any()
            assert not mask[:, 100:].any()
            np.testing.assert_array_equal(found[~mask], image[~mask])
    nowhere = np.zeros((120, 160), np.bool_)
    with pytest.raises(UsageError, match="leaves no room for a defect"):
        planted(photo(), "hole", roi=nowhere | (np.indices((120, 160)).sum(axis=0) == 0), size=0.05)


def test_a_picture_in_which_nothing_can_be_seen_ends_the_search() -> None:
    black = np.zeros((64, 64, 3), np.uint8)
    found, _ = planted(black, "displaced")
    assert not found.any()


@pytest.mark.parametrize("size", [(MIN_SIDE, MIN_SIDE), (33, 400), (301, 40)])
def test_any_size_of_picture(size: tuple[int, int]) -> None:
    for kind in KINDS:
        assert planted(photo(size=size, product="fabric"), kind, size=1.0)[1].shape == size


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "dent"}, r"kind must be one of scratch, .*, displaced\. Got 'dent'\."),
        ({"size": 0.0}, r"size must be above 0 and at most 1\. Got 0\.0\."),
        ({"size": 1.1}, r"size must be above 0"),
        ({"strength": 0.0}, r"strength must be above 0 and at most 1\. Got 0\.0\."),
        ({"image": np.zeros((31, 64, 3), np.uint8)}, r"at least 32 x 32 pixels\. Got \(31, 64\)\."),
    ],
)
def test_arguments_out_of_range(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        plant(**{"image": photo(), "rng": np.random.default_rng(0), "kind": "hole", **arguments})


@pytest.fixture
def good(tmp_path: Path) -> list[Sample]:
    samples = []
    for number in range(3):
        path = tmp_path / f"{number}.png"
        write_png(path, photo(number, size=(64, 80)))
        samples.append(Sample(path, f"good/{number}.png", False, "good"))
    return samples


def test_files(good: list[Sample], tmp_path: Path) -> None:
    found = list(plant_files(good, tmp_path / "a", count=12))
    assert {sample.defect for sample in found} == set(KINDS)
    assert len({sample.relative for sample in found}) == 12
    for number, sample in enumerate(found):
        assert (sample.label, sample.subset) == (True, "test")
        assert sample.mask is not None
        mask = read_mask(sample.mask, (64, 80))
        assert mask.any()
        np.testing.assert_array_equal(read_image(sample.path)[~mask], read_image(good[number % 3].path)[~mask])
    again = list(plant_files(good, tmp_path / "b", count=15))
    assert [s.path.read_bytes() for s in again[:12]] == [s.path.read_bytes() for s in found]
    other = list(plant_files(good, tmp_path / "c", count=12, seed=1))
    assert all(s.path.read_bytes() != o.path.read_bytes() for s, o in zip(found, other, strict=True))


def test_files_of_deep_pictures(tmp_path: Path) -> None:
    deep = np.repeat(photo().mean(axis=2).astype(np.uint16)[None], 1, axis=0)[0] * 257 + 3
    write_png(tmp_path / "deep.png", deep)
    (sample,) = plant_files([Sample(tmp_path / "deep.png", "deep.png", False, "good")], tmp_path / "out", count=1)
    assert sample.mask is not None
    mask = read_mask(sample.mask, deep.shape)  # type: ignore[arg-type]
    stored = read_image(sample.path)
    assert stored.dtype == np.float32
    np.testing.assert_allclose(stored[~mask], read_image(tmp_path / "deep.png")[~mask], atol=1e-6)
