from __future__ import annotations

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from blemish.functional.resize import apply_weights, axis_weights, covered, letterbox_geometry, resize, resize_rows

SIDE = st.integers(1, 40)
VALUE = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def interpolate(image: Tensor, size: tuple[int, int]) -> Tensor:
    if size[1] == 1:  # torch 2.15 gives wrong pixels for an output of width 1, but not for one of height 1
        turned = F.interpolate(image.mT, (1, size[0]), mode="bilinear", antialias=True, align_corners=False)
        return turned.mT
    return F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)


@settings(max_examples=150)
@given(SIDE, SIDE, SIDE, SIDE)
@example(1, 1, 7, 5)  # one pixel, grown
@example(31, 40, 1, 1)  # shrunk to one pixel
@example(17, 23, 17, 23)  # unchanged
@example(13, 29, 40, 3)  # grown in one direction, shrunk in the other
def test_resize_is_the_antialiased_bilinear_one(height: int, width: int, new_height: int, new_width: int) -> None:
    image = picture(2, 3, height, width)
    expected = interpolate(image.double(), (new_height, new_width))
    torch.testing.assert_close(resize(image, (new_height, new_width)).double(), expected, rtol=0, atol=5e-6)


@pytest.mark.parametrize(("old", "new"), [(4000, 256), (1999, 224), (3, 1000)])
def test_resize_of_large_images(old: int, new: int) -> None:
    image = picture(1, 1, old, 5)
    expected = interpolate(image.double(), (new, 5))
    torch.testing.assert_close(resize(image, (new, 5)).double(), expected, rtol=0, atol=2e-5)


@settings(max_examples=100)
@given(SIDE, SIDE, VALUE, VALUE)
def test_resize_stays_in_the_range_of_its_input(old: int, new: int, one: float, other: float) -> None:
    low, high = sorted((one, other))
    image = low + (high - low) * (picture(old, old) > 0.5)
    found = resize(image, (new, new))
    slack = 4e-6 * max(abs(low), abs(high))  # rounding of at most 80 products and sums
    assert float(found.min()) >= float(image.min()) - slack
    assert float(found.max()) <= float(image.max()) + slack


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.integers(1, 40), st.floats(-60, 60))
@example(1, 1, 1, 1, 0.0)
@example(7, 1, 1, 40, 0.0)  # grown 40 times
@example(90, 3, 40, 1, -50.0)  # hardly anything inside
def test_blocks_of_rows_are_the_whole_product(old: int, new: int, whole: int, parts: int, start: float) -> None:
    image = picture(2, old, 3)
    for ratio, begin in ((None, 0.0), ((whole, parts), start)):
        scale = old / new if ratio is None else whole / parts
        weights = axis_weights(old, new, scale=scale, start=begin)
        found = resize_rows(image, new, ratio=ratio, start=begin)
        assert found.shape == (2, new, 3)
        torch.testing.assert_close(found, weights @ image, rtol=0, atol=3e-5)
        inside = covered(old, new, scale=scale, start=begin, device=image.device)
        assert torch.equal(inside, weights.any(dim=1))
        assert not found[:, ~inside].any()


def test_rows_of_bytes_are_those_of_numbers() -> None:
    image = (255 * picture(2, 3, 50, 7)).to(torch.uint8)
    assert torch.equal(resize_rows(image, 16), resize_rows(image.float(), 16))


@given(SIDE, SIDE)
def test_weights_are_means(old: int, new: int) -> None:
    weights = axis_weights(old, new)
    assert weights.shape == (new, old)
    assert bool((weights >= 0).all())
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(new))
    torch.testing.assert_close(weights, weights.flip(0, 1), rtol=0, atol=1e-5)  # nothing shifts to one side


def test_the_same_size_is_the_same_image() -> None:
    image = picture(3, 9, 11)
    assert torch.equal(resize(image, (9, 11)), image)


def test_weights_outside_the_input_are_zero() -> None:
    weights = axis_weights(4, 8, scale=1.0, start=-2.0)
    assert weights.tolist() == torch.cat([torch.zeros(2, 4), torch.eye(4), torch.zeros(2, 4)]).tolist()


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 100), st.integers(1, 100))
def test_letterbox_fits_the_longer_side_and_centers_the_other(height: int, width: int, h: int, w: int) -> None:
    (whole, parts), (top, left) = letterbox_geometry((height, width), (h, w))
    scale = whole / parts
    fitted = (height / scale, width / scale)
    assert min(top, left) == pytest.approx(0, abs=1e-9)
    assert fitted[0] + 2 * top == pytest.approx(h)
    assert fitted[1] + 2 * left == pytest.approx(w)


def test_rounding_does_not_decide_whether_a_row_is_padding() -> None:
    """Half a pixel of padding puts the center of a row on the edge of the image; graphs round otherwise than torch."""
    scale = 80 / 72
    for nudge in (-1e-6, 0.0, 1e-6):
        weights = axis_weights(80, 72, scale=scale, start=-7.5 * scale + nudge)
        assert not weights[:8].any()
        assert weights[8:].any(dim=1).all()


def test_an_image_does_not_depend_on_its_batch() -> None:
    images = picture(5, 3, 37, 53)
    together = resize(images, (16, 24))
    for image, expected in zip(images, together, strict=True):
        torch.testing.assert_close(resize(image[None], (16, 24))[0], expected, rtol=0, atol=1e-6)


def test_apply_weights_is_the_double_sum() -> None:
    image, vertical, horizontal = picture(2, 5, 7), picture(3, 5, seed=1), picture(4, 7, seed=2)
    expected = torch.einsum("hy,nyx,wx->nhw", vertical, image, horizontal)
    torch.testing.assert_close(apply_weights(image, vertical, horizontal), expected)
