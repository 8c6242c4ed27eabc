from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from blemish.functional.maps import blur_weights, gaussian_kernel, smooth, upsample_weights
from blemish.functional.resize import apply_weights

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"


def mirror(index: int, size: int) -> int:
    """Walks back and forth along an axis whose border pixels aren't repeated."""
    if size == 1:
        return 0
    step = index % (2 * (size - 1))
    return step if step < size else 2 * (size - 1) - step


def naive_blur(row: list[float], sigma: float) -> list[float]:
    radius = int(4 * sigma + 0.5)
    taps = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in range(-radius, radius + 1)]
    return [
        sum(tap * row[mirror(i + offset - radius, len(row))] for offset, tap in enumerate(taps)) / sum(taps)
        for i in range(len(row))
    ]


@settings(max_examples=60)
@given(st.integers(1, 40), st.floats(0.05, 12))
@example(5, 4.0)  # the kernel reaches three times over the axis
@example(1, 4.0)
@example(2, 4.0)
def test_blur_along_an_axis_is_the_mirrored_sum(size: int, sigma: float) -> None:
    row = torch.randn(size, generator=torch.Generator().manual_seed(0))
    found = blur_weights(size, sigma) @ row
    torch.testing.assert_close(found, torch.tensor(naive_blur(row.tolist(), sigma)), rtol=0, atol=2e-6)


def test_smooth_is_the_two_dimensional_convolution() -> None:
    maps = torch.randn(2, 1, 40, 52, generator=torch.Generator().manual_seed(1))
    kernel = gaussian_kernel(4.0)
    assert len(kernel) == 33
    padded = F.pad(maps, (16,) * 4, mode="reflect")
    expected = F.conv2d(padded, (kernel[:, None] * kernel)[None, None])
    torch.testing.assert_close(smooth(maps, 4.0), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [(3, 4), (1, 9), (64, 2)])
def test_a_constant_map_stays_constant_even_where_the_kernel_is_larger(size: tuple[int, int]) -> None:
    torch.testing.assert_close(smooth(torch.full((1, *size), 7.0), 4.0), torch.full((1, *size), 7.0))


@pytest.mark.parametrize(("patches", "pixels"), [(7, 56), (9, 13), (1, 5), (28, 256)])
def test_upsampling_matrix_is_interpolation_then_blur(patches: int, pixels: int) -> None:
    scores = torch.rand(1, 1, patches, patches, generator=torch.Generator().manual_seed(2))
    weights = upsample_weights(patches, pixels, 4.0)
    torch.testing.assert_close(weights.sum(dim=1), torch.ones(pixels))
    expected = smooth(F.interpolate(scores, (pixels, pixels), mode="bilinear"), 4.0)
    torch.testing.assert_close(apply_weights(scores, weights, weights), expected, rtol=0, atol=2e-6)


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")
def test_numbers_of_another_library() -> None:
    with np.load(GOLDEN) as numbers:
        golden: dict[str, Tensor] = {
            name: torch.from_numpy(numbers[f"padim.{name}"]) for name in ("distance", "upsampled", "map")
        }
    torch.testing.assert_close(smooth(golden["upsampled"], 4.0), golden["map"], rtol=1e-5, atol=0)
    vertical, horizontal = upsample_weights(7, 56, 4.0), upsample_weights(9, 72, 4.0)
    found = apply_weights(golden["distance"][:, None], vertical, horizontal)
    torch.testing.assert_close(found, golden["map"], rtol=1e-5, atol=0)
