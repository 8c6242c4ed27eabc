"""Sizes and depths of pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from blemish.errors import UsageError
from blemish.functional.pixels import height_width, to_uint8, under_center


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_level_survives(kind: type[Any]) -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(2, 128)
    assert (to_uint8((levels / 255).astype(kind)) == levels).all()
    assert to_uint8(np.array([0.0, 0.0019, 0.0021, 1.0], dtype=kind)).tolist() == [0, 0, 1, 255]


def test_uint8_is_not_copied() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    assert to_uint8(image) is image


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (5, (5, 5)),
        ([5, 7], (5, 7)),
        ((np.int64(5), 7), (5, 7)),
        (torch.Size([5, 7]), (5, 7)),
        ("5", (5, 5)),
        ("5, 7", (5, 7)),
    ],
)
def test_sizes(value: Any, size: tuple[int, int]) -> None:
    assert height_width("size", value) == size


@pytest.mark.parametrize("value", [0, -1, (), (1, 2, 3), (5, 0), 5.0, (5.5, 5), None, ["5", "5"]])
def test_what_is_no_size(value: Any) -> None:
    with pytest.raises(UsageError, match=r"side must be one number or \(height, width\), each at least 1. Got"):
        height_width("side", value)


@pytest.mark.parametrize("value", ["", "big", "0", "5x7", "5,", "5,7,9", "5.5"])
def test_text_that_is_no_size(value: str) -> None:
    with pytest.raises(UsageError, match=r"side must be a number, or HEIGHT,WIDTH, each at least 1. Got '"):
        height_width("side", value)


@pytest.mark.parametrize("own", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("side", [1, 2, 5, 7, 20])
def test_the_pixel_under_the_center(own: int, side: int) -> None:
    centers = (np.arange(side) + 0.5) / side * own
    exact = [int(np.floor(center + 1e-9)) for center in centers]
    assert under_center(np.arange(side), own, side).tolist() == exact
    assert under_center(torch.arange(side), own, side).tolist() == exact
