"""Brightness and sharpness against OpenCV and the plain mean."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from blemish.monitor.appearance import SIDE, brightness, sharpness
from blemish.synthetic.products import render


def part(side: int) -> Any:
    return render("tile", size=(side, side), rng=np.random.default_rng(0))[0]


def test_brightness_is_the_mean_and_sharpness_the_spread_of_the_laplacian() -> None:
    image = part(96)
    assert brightness(image) == pytest.approx(image.mean() / 255, rel=1e-5)
    gray = (image / 255).mean(axis=-1)
    expected = cv2.Laplacian(gray, cv2.CV_64F)[1:-1, 1:-1].std()
    assert sharpness(image) == pytest.approx(expected, rel=1e-4)


def test_depth_and_size_change_little() -> None:
    image = part(96)
    deep = image.astype(np.uint16) * 257
    real = image.astype(np.float32) / 255
    for other in (deep, real):
        assert brightness(other) == pytest.approx(brightness(image), rel=1e-5)
        assert sharpness(other) == pytest.approx(sharpness(image), rel=1e-4)
    large = np.tile(image, (12, 12, 1))  # more than SIDE
    assert min(large.shape[:2]) > SIDE
    assert brightness(large) == pytest.approx(brightness(image), rel=0.01)


def test_a_darker_lamp_and_a_lens_out_of_focus_are_seen() -> None:
    image = part(96)
    assert brightness(image // 2) < 0.55 * brightness(image)
    assert sharpness(cv2.GaussianBlur(image, (0, 0), 1.5)) < 0.5 * sharpness(image)


@pytest.mark.parametrize("shape", [(1, 1, 3), (2, 50, 3), (3, 3, 3), (1, 5000, 3)])
def test_small_and_even_pictures_have_no_detail(shape: tuple[int, int, int]) -> None:
    image = np.full(shape, 128, np.uint8)
    assert sharpness(image) == 0
    assert brightness(image) == pytest.approx(128 / 255)
