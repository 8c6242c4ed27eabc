"""The whole map in color, on one scale for all images of a model."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from blemish.errors import UsageError
from blemish.visualization.heatmap import COLD, TILE, colors, heatmap, panel
from blemish.visualization.overlay import HEAT, TRUTH


def test_cold_below_the_threshold_and_the_overlays_ramp_from_it() -> None:
    for threshold in (0.3, 0.5, 0.8):
        ramp = colors(np.array([0.0, np.nextafter(threshold, 0), threshold, 1.0]), threshold)
        np.testing.assert_allclose(ramp, [COLD[0], COLD[-1], HEAT[0], HEAT[-1]], atol=1e-6)
        below = np.float32(colors(np.linspace(0, threshold - 1e-6, 100), threshold)[None] / 255)
        assert (np.diff(cv2.cvtColor(below, cv2.COLOR_RGB2LAB)[0, :, 0]) > 0).all(), "lighter up to the threshold"
    np.testing.assert_allclose(colors(np.array([-1.0, 2.0]), 0.5), [COLD[0], HEAT[-1]])


def test_what_lies_below_the_threshold_can_be_seen() -> None:
    values = np.zeros((60, 80))
    values[20:30, 20:30] = 0.4
    picture = heatmap(values, caption=False)
    assert picture.shape == (60, 80, 3)
    assert abs(picture[25, 25].astype(int) - picture[5, 5]).max() > 60


def test_truth_and_region_of_interest_are_drawn() -> None:
    values, truth, inside = np.zeros((60, 80)), np.zeros((60, 80), bool), np.ones((60, 80), bool)
    truth[20:40, 20:40] = True
    inside[:10] = False
    picture = heatmap(values, gt_mask=truth, roi=inside, caption=False)
    assert (picture[20, 20:40] == TRUTH).all()
    assert picture[5].sum() < picture[15].sum()
    with pytest.raises(UsageError, match="gt_mask must have the height and width of the image"):
        heatmap(values, gt_mask=truth[:30])


def test_ticks_stand_on_the_bar() -> None:
    values = np.zeros((300, 400))
    one, other = (heatmap(values, ticks=((0.0, text), (1.0, "9")))[300:] for text in ("1.5", "2.5"))
    assert one.shape == other.shape
    assert (one != other).any()


@pytest.mark.parametrize(
    ("size", "truth", "columns", "rows"),
    [((90, 80), False, 3, 1), ((90, 80), True, 4, 1), ((60, 200), False, 1, 3), ((60, 200), True, 2, 2)],
)
def test_a_panel_has_a_picture_for_every_view(size: tuple[int, int], truth: bool, columns: int, rows: int) -> None:
    image, values = np.full((*size, 3), 200, np.uint8), np.zeros(size)
    mask = np.zeros(size, bool)
    mask[10:20, 10:20] = True
    picture = panel(image, values, gt_mask=mask if truth else None, label="normal", score=1.0, score_threshold=2.0)
    assert columns * size[1] <= picture.shape[1] <= columns * (size[1] + 120)
    assert rows * size[0] <= picture.shape[0] <= rows * (size[0] + 30) + 160
    assert (picture == 200).all(axis=-1).sum() > size[0] * size[1], "the photo, and the overlay where nothing is marked"


def test_a_panel_of_a_large_picture_is_no_poster() -> None:
    assert panel(np.zeros((3000, 2000, 3), np.uint8), np.zeros((3000, 2000))).shape[1] < 3 * (TILE + 40)
