from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blemish.errors import NonFiniteError, UsageError
from blemish.functional.regions import find_regions
from blemish.synthetic.products import PRODUCTS, render
from blemish.visualization import overlay
from blemish.visualization.overlay import HEAT, PREDICTED, TRUTH, heat


def part(defect: str | None = "stain", size: tuple[int, int] = (90, 120)) -> tuple[np.ndarray, np.ndarray]:
    return render("tile", size=size, rng=np.random.default_rng(8), defect=defect)


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_normal_image_has_not_one_hot_pixel(product: str) -> None:
    image, _ = render(product, size=(64, 96), rng=np.random.default_rng(0))
    values = np.random.default_rng(1).uniform(0, np.nextafter(0.5, 0), (64, 96))
    picture = overlay(image, values, label="normal", score=0.31, score_threshold=0.5)
    np.testing.assert_array_equal(picture[:64], image)


@pytest.mark.parametrize(("product", "defect"), [(p, d) for p, spec in PRODUCTS.items() for d in spec.defects])
def test_a_planted_defect_is_hot_inside_its_mask_alone(product: str, defect: str) -> None:
    image, mask = render(product, size=(80, 80), rng=np.random.default_rng(2), defect=defect)
    picture = overlay(image, np.where(mask, 0.9, 0.4), caption=False)
    np.testing.assert_array_equal(picture[~mask], image[~mask])
    assert (picture[mask] != image[mask]).any(axis=-1).mean() > 0.95


@given(threshold=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_hot_is_at_or_over_the_threshold(threshold: float, seed: int) -> None:
    values = np.random.default_rng(seed).random((16, 16))
    values[0, 0] = threshold
    picture = overlay(np.full((16, 16, 3), 10, np.uint8), values, threshold=threshold, opacity=1)
    np.testing.assert_array_equal((picture != 10).any(axis=-1), values >= threshold)


def test_a_color_means_the_same_on_every_image() -> None:
    values = np.full((40, 40), 0.2)
    values[10:30, 10:30] = 0.8
    alone = overlay(np.zeros((40, 40, 3), np.uint8), values, opacity=1)
    values[12:16, 12:16] = 1.0
    beside_a_hotter_one = overlay(np.zeros((40, 40, 3), np.uint8), values, opacity=1)
    np.testing.assert_array_equal(alone[20:28, 20:28], beside_a_hotter_one[20:28, 20:28])
    np.testing.assert_array_equal(alone[25, 25], np.rint(heat(np.array(0.8), 0.5)))


def test_the_ramp_starts_at_the_threshold_ends_at_one_and_gets_darker_throughout() -> None:
    for threshold in (0.0, 0.3, 0.5, 0.9):
        ramp = heat(np.linspace(threshold, 1, 200), threshold)
        np.testing.assert_allclose(ramp[[0, -1]], HEAT[[0, -1]])
        lightness = cv2.cvtColor(np.float32(ramp[None] / 255), cv2.COLOR_RGB2LAB)[0, :, 0]
        assert (np.diff(lightness) < 0).all()
    np.testing.assert_allclose(heat(np.array([1.0]), 1.0), HEAT[-1:])


def test_hot_pixels_are_blended_by_the_opacity() -> None:
    image, values = np.full((30, 30, 3), 100, np.uint8), np.full((30, 30), 0.5)
    inner = overlay(image, values, opacity=0.25, mask=np.zeros((30, 30), bool))[15, 15]
    np.testing.assert_array_equal(inner, np.rint(0.75 * 100 + 0.25 * HEAT[0]))
    np.testing.assert_array_equal(overlay(image, values, opacity=0, mask=np.zeros((30, 30), bool)), image)


def test_outlines_lie_on_the_rim_of_the_masks_and_boxes_around_their_regions() -> None:
    image, values = np.zeros((60, 60, 3), np.uint8), np.zeros((60, 60))
    predicted, truth = np.zeros((2, 60, 60), bool)
    predicted[10:20, 12:30] = truth[40:50, 30:50] = True
    picture = overlay(
        image, values, mask=predicted, gt_mask=truth, regions=find_regions(predicted, values), caption=False
    )
    # Lines are two pixels wide: a box outside of its region, outlines inside, by disks of that radius.
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
    grown = cv2.dilate(predicted.astype(np.uint8), np.ones((5, 5))).astype(bool)
    shrunk = cv2.erode(predicted.astype(np.uint8), disk).astype(bool)
    np.testing.assert_array_equal((picture == PREDICTED).all(-1), grown & ~shrunk)
    rim = truth & ~cv2.erode(truth.astype(np.uint8), disk).astype(bool)
    np.testing.assert_array_equal((picture == TRUTH).all(-1), rim)


def test_the_true_outline_shows_on_every_ground() -> None:
    truth = np.zeros((60, 60), bool)
    truth[20:40, 20:40] = True
    for ground in (0, 255, TRUTH):
        image = np.broadcast_to(np.array(ground, np.uint8), (60, 60, 3))
        picture = overlay(image, np.zeros((60, 60)), gt_mask=truth, caption=False)
        assert (picture[20, 20:40] == TRUTH).all()
        assert not picture[19, 20:40].any(), "a dark line beside it"


def test_what_was_not_inspected_is_darkened() -> None:
    image, _ = part()
    inside = np.zeros((90, 120), bool)
    inside[20:60, 30:100] = True
    for threshold in (0.5, 0.0):
        picture = overlay(image, np.zeros((90, 120)), threshold=threshold, roi=inside, caption=False)
        assert (picture[inside] == image[inside]).all() == (threshold > 0)
        np.testing.assert_array_equal(picture[~inside], np.rint(0.4 * image[~inside]))


def test_boxes_reach_no_further_than_the_picture() -> None:
    mask = np.ones((20, 20), bool)
    picture = overlay(np.zeros((20, 20, 3), np.uint8), np.zeros((20, 20)), regions=find_regions(mask, mask * 1.0))
    assert not picture.any(), "the box of a region that fills the picture lies outside it"


@pytest.mark.parametrize("size", [(300, 400), (200, 320), (500, 300), (900, 1400)])
def test_a_caption_is_added_below_and_the_picture_keeps_its_pixels(size: tuple[int, int]) -> None:
    image, mask = part(size=size)
    arguments: dict[str, Any] = {"label": "anomalous", "score": 0.91, "score_threshold": 0.5, "gt_mask": mask}
    plain = overlay(image, mask * 0.7, caption=False, **arguments)
    captioned = overlay(image, mask * 0.7, **arguments)
    assert plain.shape == image.shape
    np.testing.assert_array_equal(captioned[: size[0]], plain)
    assert 15 <= len(captioned) - size[0] <= size[0] / 2


def test_the_caption_shows_what_it_is_told() -> None:
    image = np.zeros((300, 400, 3), np.uint8)

    def strip(**arguments: Any) -> np.ndarray:
        return overlay(image, np.zeros((300, 400)), **arguments)[300:]

    base = strip(label="normal", score=0.25, score_threshold=0.5)
    for other in ({"label": "anomalous"}, {"score": 0.26}, {"score_threshold": 0.4}, {"threshold": 0.6}):
        changed = strip(**{"label": "normal", "score": 0.25, "score_threshold": 0.5, **other})
        assert not np.array_equal(changed, base), other
    assert TRUTH in {tuple(pixel) for pixel in strip(gt_mask=np.zeros((300, 400))).reshape(-1, 3)}


def test_the_canvas_of_a_narrow_picture_is_as_wide_as_its_caption() -> None:
    """A verdict that isn't there would be missed; squeezed or cut words could not be read."""
    image, mask = part(size=(300, 90))
    arguments: dict[str, Any] = {"label": "anomalous", "score": 2.5, "score_threshold": 1.25, "gt_mask": mask}
    picture = overlay(image, mask * 0.7, **arguments)
    wide = overlay(
        np.zeros((300, picture.shape[1], 3), np.uint8),
        np.zeros((300, picture.shape[1])),
        **{**arguments, "mask": np.eye(300, picture.shape[1]), "gt_mask": np.eye(300, picture.shape[1])},
    )
    assert 90 < picture.shape[1] < 250
    np.testing.assert_array_equal(picture[:300, :90], overlay(image, mask * 0.7, caption=False, **arguments))
    np.testing.assert_array_equal(picture[300:], wide[300:])
    assert len(np.unique(picture[:300, 90:].reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("size", [(80, 100), (20, 500), (1, 1)])
def test_a_caption_higher_than_half_the_picture_is_left_out(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    assert overlay(image, np.zeros(size), label="anomalous", score=0.9).shape == image.shape


@pytest.mark.parametrize("threshold", [0.0, 1.0])
def test_the_ends_of_the_threshold_are_allowed(threshold: float) -> None:
    values = np.linspace(0, 1, 300 * 400).reshape(300, 400)
    assert len(overlay(np.zeros((300, 400, 3), np.uint8), values, threshold=threshold)) > 300


def test_inputs_are_not_modified_and_gray_images_are_welcome() -> None:
    image, mask = part()
    values = mask * 0.8
    for array in (image, mask, values):
        array.flags.writeable = False
    overlay(image, values, mask=mask, gt_mask=mask)
    gray = np.ascontiguousarray(image[..., 0])
    color = np.repeat(gray[..., None], 3, axis=-1)
    np.testing.assert_array_equal(overlay(gray, values), overlay(color, values[None]))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"anomaly_map": np.zeros((9, 9))}, UsageError, r"anomaly_map must have .* 90 x 120\. Got 9 x 9\."),
        ({"mask": np.zeros((9, 120))}, UsageError, r"mask must have the height and width .* Got 9 x 120\."),
        ({"roi": np.zeros((90, 9))}, UsageError, r"roi must have .* Got 90 x 9\."),
        ({"gt_mask": np.zeros((90, 9))}, UsageError, r"gt_mask must have .* Got 90 x 9\."),
        ({"threshold": 1.5}, UsageError, r"threshold must lie between 0 and 1\. Got 1\.5\."),
        ({"threshold": float("nan")}, UsageError, r"threshold must lie between 0 and 1\. Got nan\."),
        ({"opacity": -0.1}, UsageError, r"opacity must lie between 0 and 1\. Got -0\.1\."),
        ({"label": "bad"}, UsageError, r"label must be \"normal\" or \"anomalous\"\. Got 'bad'\."),
        ({"anomaly_map": np.full((90, 120), np.nan)}, NonFiniteError, r"10800 of 10800 values"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        overlay(**{"image": part()[0], "anomaly_map": np.zeros((90, 120)), **arguments})


def test_an_anomalous_image_without_marks_says_so_in_its_caption() -> None:
    image, values = np.zeros((300, 400, 3), np.uint8), np.zeros((300, 400))
    yellow = (255, 214, 92)

    def colors_of(**arguments: Any) -> set[tuple[int, ...]]:
        strip = overlay(image, values, **arguments)[300:]
        return {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}

    marked = np.zeros((300, 400), bool)
    marked[10:30, 10:30] = True
    assert yellow in colors_of(label="anomalous")
    assert yellow not in colors_of(label="normal")
    assert yellow not in colors_of(label="anomalous", mask=marked)
    assert yellow in colors_of(label="anomalous", mask=marked, gt_mask=np.roll(marked, 100)), "in the wrong place"
    assert yellow not in colors_of(label="anomalous", mask=marked, gt_mask=np.roll(marked, 10))
