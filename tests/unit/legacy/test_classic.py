"""The classic pictures against OpenCV, scikit-image and stored numbers of earlier releases."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blemish.errors import NonFiniteError, UsageError
from blemish.visualization import (
    add_anomalous_label,
    add_normal_label,
    anomaly_map_to_color_map,
    compute_mask,
    superimpose_anomaly_map,
)

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"


def example(seed: int, height: int = 23, width: int = 31) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (height, width, 3), dtype=np.uint8), rng.random((height, width), dtype=np.float32)


def test_all_256_colors_are_those_of_opencv() -> None:
    steps = np.arange(256, dtype=np.uint8)
    expected = cv2.cvtColor(cv2.applyColorMap(steps[None], cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    # 0.5 keeps the value clear of the rounding of step / 255 * 255.
    ours = anomaly_map_to_color_map((steps[None] + 0.5) / 256 * (256 / 255), normalize=False)
    np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_a_color_map_is_that_of_opencv(seed: int, normalize: bool) -> None:
    values = example(seed)[1] * 0.8
    scaled = (values - values.min()) / np.ptp(values) if normalize else values
    expected = cv2.cvtColor(cv2.applyColorMap((scaled * 255).astype(np.uint8), cv2.COLORMAP_JET), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(anomaly_map_to_color_map(values, normalize=normalize), expected)


@given(seed=st.integers(0, 2**32), alpha=st.floats(0, 1), gamma=st.integers(-300, 300), normalize=st.booleans())
@settings(max_examples=60)
def test_a_superimposition_is_the_weighted_sum_of_opencv(seed: int, alpha: float, gamma: int, normalize: bool) -> None:
    image, values = example(seed, 9, 7)
    colors = anomaly_map_to_color_map(values, normalize=normalize)
    expected = cv2.addWeighted(colors, alpha, image, 1 - alpha, gamma)
    ours = superimpose_anomaly_map(values, image, alpha, gamma, normalize)
    # Where the exact sum lies half-way between two integers, the order of float32 operations decides.
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1
    exact = alpha * colors.astype(np.float64) + (1 - alpha) * image + gamma
    clear = np.abs(exact - np.floor(exact) - 0.5) > 1e-3
    np.testing.assert_array_equal(ours[clear], expected[clear])


@pytest.mark.parametrize("shape", [(20, 30), (3, 5), (1, 1), (2, 40)])
@pytest.mark.parametrize("kernel_size", [0, 1, 2, 4, 7])
def test_a_mask_is_opened_as_by_scikit_image(shape: tuple[int, int], kernel_size: int) -> None:
    morphology = pytest.importorskip("skimage.morphology")
    for seed in range(10):
        values = cv2.GaussianBlur(example(seed, *shape)[1], (0, 0), 1.5)
        threshold = float(np.quantile(values, 0.3))
        expected = morphology.opening(values >= np.float32(threshold), morphology.disk(kernel_size))
        mask = compute_mask(values, threshold, kernel_size)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected * 255)


def test_a_pixel_at_the_threshold_is_anomalous() -> None:
    values = np.array([[0.25, 0.5], [0.75, 0.5]])
    np.testing.assert_array_equal(compute_mask(values, 0.5, 0), [[0, 255], [255, 255]])


def test_constant_maps_get_the_lowest_color_or_their_own() -> None:
    constant = np.full((4, 5), 0.5)
    assert np.unique(anomaly_map_to_color_map(constant).reshape(-1, 3), axis=0).tolist() == [[0, 0, 128]]
    assert np.unique(anomaly_map_to_color_map(constant, normalize=False).reshape(-1, 3), axis=0).tolist() == [
        [126, 255, 130]
    ]


@pytest.mark.parametrize(("value", "color"), [(-3.0, [0, 0, 128]), (7.0, [128, 0, 0])])
def test_values_outside_the_unit_range_get_the_nearest_color(value: float, color: list[int]) -> None:
    assert anomaly_map_to_color_map(np.full((1, 1), value), normalize=False)[0, 0].tolist() == color


def test_every_documented_shape_gives_the_same_picture() -> None:
    image, values = example(3)
    for shaped in (values[None], values[..., None]):
        np.testing.assert_array_equal(anomaly_map_to_color_map(shaped), anomaly_map_to_color_map(values))
        np.testing.assert_array_equal(compute_mask(shaped, 0.5, 1), compute_mask(values, 0.5, 1))
    gray = image[..., 0]
    expected = superimpose_anomaly_map(values, np.repeat(gray[..., None], 3, axis=2))
    np.testing.assert_array_equal(superimpose_anomaly_map(values, gray), expected)
    np.testing.assert_array_equal(superimpose_anomaly_map(values, gray[..., None]), expected)


@pytest.mark.parametrize("label", [add_normal_label, add_anomalous_label])
@pytest.mark.parametrize("shape", [(12, 9, 3), (80, 100, 3), (81, 63), (300, 400, 1)])
def test_a_label_covers_a_corner_and_leaves_the_rest(label: Any, shape: tuple[int, ...]) -> None:
    image = np.full(shape, 77, dtype=np.uint8)
    labeled = label(image, 0.87)
    assert labeled.shape == (*shape[:2], 3)
    changed = (labeled != 77).any(axis=-1)
    assert changed[0, 0]
    if min(shape[:2]) > 20:
        assert not changed[shape[0] // 2 :].any()


def test_a_label_says_the_verdict_in_its_color_and_the_confidence_in_words() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    normal, anomalous = add_normal_label(image)[0, 0].astype(int), add_anomalous_label(image)[0, 0].astype(int)
    assert normal.argmax() == 1, "normal is green"
    assert anomalous.argmax() == 0, "anomalous is red"
    assert (add_anomalous_label(image, 0.5) != add_anomalous_label(image, 0.9)).any()
    assert (add_anomalous_label(image, 0.5) != add_anomalous_label(image)).any()


def test_inputs_are_not_modified() -> None:
    image, values = example(1)
    image.flags.writeable = values.flags.writeable = False
    for shaped in (values, values[None]):
        superimpose_anomaly_map(shaped, image, normalize=True)
        anomaly_map_to_color_map(shaped)
        compute_mask(shaped, 0.5)
    add_normal_label(image, 0.4)
    add_anomalous_label(image[..., 0], 0.4)
    assert superimpose_anomaly_map(values, image).flags.writeable


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda i, m: superimpose_anomaly_map(m[:5], i),
            UsageError,
            r"anomaly_map must .* 23 x 31\. Got 5 x 31\.",
        ),
        (
            lambda i, m: superimpose_anomaly_map(m, i, alpha=1.5),
            UsageError,
            r"alpha must lie .* Got 1\.5\.",
        ),
        (
            lambda i, m: superimpose_anomaly_map(m, i / 255),
            UsageError,
            r"must be uint8 .* Got float64 of shape",
        ),
        (
            lambda i, m: superimpose_anomaly_map(m, i[..., :2]),
            UsageError,
            r"of shape .* Got uint8 of shape",
        ),
        (
            lambda i, m: anomaly_map_to_color_map(i),
            UsageError,
            r"An anomaly map must .* Got \(23, 31, 3\)\.",
        ),
        (lambda i, m: anomaly_map_to_color_map(m * np.nan), NonFiniteError, r"713 of 713 values of the anomaly map"),
        (lambda i, m: anomaly_map_to_color_map(m.astype(complex)), UsageError, r"must hold real numbers\. Got complex"),
        (lambda i, m: compute_mask(m, 0.5, -1), UsageError, r"kernel_size must be at least 0\. Got -1\."),
        (lambda i, m: compute_mask(m, float("nan")), UsageError, r"threshold must be a number\. Got NaN\."),
        (lambda i, m: compute_mask(m + np.inf, 0.5), NonFiniteError, r"713 of 713 values"),
        (lambda i, m: add_normal_label(i, 1.2), UsageError, r"confidence must lie between 0 and 1\. Got 1\.2\."),
    ],
)
def test_a_wrong_argument_is_named(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(*example(0))


@pytest.mark.skipif(not GOLDEN.exists(), reason="the stored numbers are not on this machine")
def test_the_pictures_of_earlier_releases_are_met_exactly() -> None:
    with np.load(GOLDEN) as stored:
        golden = {name.removeprefix("classic."): stored[name] for name in stored if name.startswith("classic.")}
    image, values = golden["image"], golden["anomaly_map"]
    ours = {
        "color_map": anomaly_map_to_color_map(values),
        "color_map_raw": anomaly_map_to_color_map(0.7 * values, normalize=False),
        "superimposed": superimpose_anomaly_map(values, image),
        "superimposed_a6_g10_n": superimpose_anomaly_map(3 * values, image, alpha=0.6, gamma=10, normalize=True),
        # Earlier releases cut with `>`, we cut with `>=`; no value of this map lies on the threshold.
        "mask_t50_k4": compute_mask(values, 0.5),
        "mask_t50_k1": compute_mask(values, 0.5, kernel_size=1),
    }
    assert ours.keys() == golden.keys() - {"image", "anomaly_map"}
    for name, picture in ours.items():
        np.testing.assert_array_equal(picture, golden[name], err_msg=name)
