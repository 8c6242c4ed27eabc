from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from blemish.data.explanation import Explanation, Finding, GoodImage, GoodPatch
from blemish.functional.regions import find_regions
from blemish.visualization.overlay import PREDICTED
from blemish.visualization.side_by_side import COMPARED, MOST, side_by_side

Picture = npt.NDArray[np.uint8]

SIZE = (100, 200)
SPOT = (16, 8, 24, 16)  # of the good images: a cell that is red
GOOD = GoodImage(0, "train/good/a.png", SIZE, "")


def picture(box: tuple[int, int, int, int], scale: int = 1) -> Picture:
    drawn = np.full((SIZE[0] * scale, SIZE[1] * scale, 3), 90, np.uint8)
    x0, y0, x1, y1 = (scale * end for end in box)
    drawn[y0:y1, x0:x1] = (220, 20, 20)
    return drawn


def explanation(findings: int = 1, *, with_region: bool = True, **patch: Any) -> Explanation:
    mask = np.zeros(SIZE, np.bool_)
    mask[40:50, 100:115] = True
    [region] = find_regions(mask, mask)
    good = GoodPatch(**{"image": GOOD, "box": SPOT, "distance": 2.5, **patch})
    finding = Finding(region if with_region else None, (104, 40, 112, 48), 3.5, (good, good))
    return Explanation("nearest patches", "What this shows, in words that are long enough.", 3.0, (finding,) * findings)


def has(part: Picture, color: tuple[int, int, int]) -> bool:
    return bool((part == color).all(axis=-1).any())


def inside_frame(tile: Picture) -> Picture:
    """What lies within the frame around the patch."""
    rows, columns = np.nonzero((tile == COMPARED).all(axis=-1))
    return tile[rows.min() + 3 : rows.max() - 2, columns.min() + 3 : columns.max() - 2]


@pytest.mark.parametrize("scale", [1, 2])
def test_compared_patches_are_framed_whatever_size_a_picture_has(scale: int) -> None:
    drawn = side_by_side(picture((104, 40, 112, 48)), explanation(), lambda _: picture(SPOT, scale))
    tiles = [drawn[8:248, 8 + 248 * column : 248 + 248 * column] for column in range(3)]
    for tile in tiles:
        assert np.abs(inside_frame(tile)[4:-4, 4:-4].astype(int) - (220, 20, 20)).max() < 30
    assert has(tiles[0], PREDICTED)
    assert not has(tiles[1], PREDICTED)
    assert drawn.shape[1] == 3 * 248 + 8


def test_places_are_shown_as_large_as_what_was_found() -> None:
    large = GoodImage(1, "b.png", (200, 400), "")
    big = tuple(2 * end for end in SPOT)
    drawn = side_by_side(picture((104, 40, 112, 48)), explanation(image=large, box=big), lambda _: picture(SPOT, 2))
    frames = [inside_frame(drawn[8:248, 8 + 248 * column : 248 + 248 * column]).shape for column in range(2)]
    np.testing.assert_allclose(frames[0], frames[1], atol=2)


@pytest.mark.parametrize("patch", [{}, {"image": None, "box": None}])
def test_what_is_missing_is_a_plain_tile(patch: dict[str, Any]) -> None:
    drawn = side_by_side(picture(SPOT), explanation(**patch), lambda _: None)
    assert has(drawn[8:248, 8:248], COMPARED)
    assert not has(drawn[8:248, 256:496], COMPARED)
    assert len(np.unique(drawn[8:248, 256:496].reshape(-1, 3), axis=0)) > 2, "words"


def test_without_a_region_nothing_is_outlined() -> None:
    drawn = side_by_side(picture(SPOT), explanation(with_region=False), lambda _: picture(SPOT))
    assert not has(drawn, PREDICTED)
    assert has(drawn[8:248, 8:248], COMPARED)


def test_many_findings_are_counted_not_drawn() -> None:
    heights = [len(side_by_side(picture(SPOT), explanation(n), lambda _: None)) for n in (MOST, MOST + 1, MOST + 50)]
    assert heights[0] < heights[1] == heights[2] < heights[0] + 100


def test_the_image_is_left_alone_and_may_be_gray() -> None:
    image = picture(SPOT)[..., 0]
    before = image.copy()
    assert side_by_side(image, explanation(), lambda _: picture(SPOT)).shape[2] == 3
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (500, 3)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    good = GoodImage(0, "ü" * 300, size, "")
    finding = Finding(None, (0, 0, 1, 1), 1.0, (GoodPatch(good, (0, 0, 1, 1), None),))
    shown = Explanation("same place", "Words.", 1.0, (finding,))
    drawn = side_by_side(np.zeros((*size, 3), np.uint8), shown, lambda _: np.zeros((1, 1, 3), np.uint8))
    assert drawn.dtype == np.uint8
