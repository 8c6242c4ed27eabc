from __future__ import annotations

from typing import Any, Literal, TypeAlias

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.resize import resize
from blemish.pre_processing import PreProcessor

Fit: TypeAlias = Literal["stretch", "letterbox"]
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def photograph(n: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def smooth_map(height: int, width: int) -> Tensor:
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return (torch.sin(3 * y) + torch.cos(2 * x))[None, None]


@pytest.mark.parametrize("size", [(61, 97), (16, 24), (1, 1), (5, 300)])
def test_images_are_resized_and_normalized(size: tuple[int, int]) -> None:
    images = photograph(2, *size)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    shrunk = resize(images.permute(0, 3, 1, 2).float() / 255, (16, 24))
    expected = (shrunk - mean[:, None, None]) / std[:, None, None]
    found = PreProcessor((16, 24))(images)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6)


def test_one_number_is_a_square() -> None:
    assert PreProcessor(32)(photograph(1, 50, 40)).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_bytes_and_floats_of_one_image_give_the_same(fit: Fit) -> None:
    images = photograph(2, 33, 47)
    preprocess = PreProcessor((16, 24), fit=fit)
    assert torch.equal(preprocess(images), preprocess(images.float() / 255))


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_an_image_does_not_depend_on_its_batch(fit: Fit) -> None:
    images = photograph(6, 33, 47)
    preprocess = PreProcessor((16, 24), fit=fit)
    together = preprocess(images)
    for image, expected in zip(images, together, strict=True):
        torch.testing.assert_close(preprocess(image[None])[0], expected, rtol=0, atol=1e-5)


def test_letterbox_pads_with_the_mean_color_and_keeps_the_aspect_ratio() -> None:
    images = torch.full((1, 40, 20, 3), 255, dtype=torch.uint8)
    found = PreProcessor(16, fit="letterbox")(images)
    assert not found[..., :4].any()  # the mean color is 0 after normalization
    assert not found[..., -4:].any()
    white = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found[0, :, :, 4:12], white[:, None, None].expand(3, 16, 8))


@settings(max_examples=50)
@given(st.integers(1, 60), st.integers(1, 60), st.sampled_from(["stretch", "letterbox"]))
def test_restored_maps_have_the_size_and_stay_in_the_range(height: int, width: int, fit: Fit) -> None:
    maps = torch.rand(2, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    restored = PreProcessor((16, 24), fit=fit).restore(maps, (height, width))
    assert isinstance(restored, Tensor)
    assert restored.shape == (2, height, width)
    assert float(restored.min()) >= float(maps.min()) - 1e-5
    assert float(restored.max()) <= float(maps.max()) + 1e-5


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
@pytest.mark.parametrize("size", [(120, 90), (50, 200), (48, 64)])
def test_there_and_back_again(size: tuple[int, int], fit: Fit) -> None:
    """A smooth picture goes to the size of the model and returns to where it was."""
    original = smooth_map(*size)
    preprocess = PreProcessor((48, 64), **PLAIN, fit=fit)
    inside = preprocess(original[0, 0, None, :, :, None].expand(-1, -1, -1, 3))
    restored = preprocess.restore(inside[:, :1], size)
    assert isinstance(restored, Tensor)
    inner = (..., slice(2, -2), slice(2, -2))  # border pixels mix with the padding of a letterbox
    torch.testing.assert_close(restored[:, None][inner], original[inner], rtol=0, atol=0.05)
    if size == (48, 64):
        torch.testing.assert_close(restored[:, None], original, rtol=0, atol=1e-5)


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_spot_returns_to_its_place(fit: Fit) -> None:
    image = torch.zeros(1, 90, 210, 3)
    image[0, 60:66, 150:156] = 1.0
    preprocess = PreProcessor(128, **PLAIN, fit=fit)
    restored = preprocess.restore(preprocess(image)[:, :1], (90, 210))
    assert isinstance(restored, Tensor)
    row, column = divmod(int(restored.argmax()), 210)
    assert 60 <= row < 66
    assert 150 <= column < 156


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_crop_is_the_center_of_the_whole(fit: Fit) -> None:
    images = photograph(2, 61, 97)
    whole = PreProcessor((48, 64), fit=fit)(images)
    found = PreProcessor((32, 24), fit=fit, crop_from=(48, 64))(images)
    torch.testing.assert_close(found, whole[..., 8:40, 20:44], rtol=0, atol=2e-5)
    torch.testing.assert_close(
        PreProcessor((48, 64), fit=fit, crop_from=(48, 64))(images),
        whole,
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_a_cropped_map_returns_to_its_place_and_is_0_outside(fit: Fit) -> None:
    size = (61, 97)
    cropped = PreProcessor((32, 24), fit=fit, crop_from=(48, 64))
    rows, columns = torch.zeros(2, 1, 1, 48, 64)
    rows[..., 8:40, :] = 1.0
    columns[..., 20:44] = 1.0
    whole = PreProcessor((48, 64), fit=fit)
    seen = (whole.restore(rows, size) > 0.5) & (whole.restore(columns, size) > 0.5)  # type: ignore[operator]
    restored = cropped.restore(torch.ones(1, 1, 32, 24), size)
    torch.testing.assert_close(restored, seen.float(), rtol=0, atol=1e-6)
    inner = (slice(None), slice(12, 50), slice(32, 64))  # far from the cut, where its edge pixels are continued
    values = torch.rand(1, 1, 48, 64, generator=torch.Generator().manual_seed(0))
    there, here = whole.restore(values, size), cropped.restore(values[..., 8:40, 20:44], size)
    assert isinstance(there, Tensor)
    assert isinstance(here, Tensor)
    torch.testing.assert_close(here[inner], there[inner], rtol=0, atol=1e-5)


def test_restoring_to_one_size_or_to_many() -> None:
    maps = torch.rand(3, 1, 8, 8)
    preprocess = PreProcessor(8)
    stacked = preprocess.restore(maps, [(10, 12)] * 3)
    assert isinstance(stacked, Tensor)
    assert torch.equal(stacked, preprocess.restore(maps, (10, 12)))  # type: ignore[arg-type]
    mixed = preprocess.restore(maps, [(10, 12), (5, 6), (8, 8)])
    assert isinstance(mixed, list)
    assert [tuple(one.shape) for one in mixed] == [(10, 12), (5, 6), (8, 8)]
    torch.testing.assert_close(mixed[0], stacked[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(mixed[2], maps[2, 0])


@pytest.mark.parametrize(
    ("images", "got"),
    [
        (torch.zeros(2, 3, 8, 8), r"Got shape \(2, 3, 8, 8\), torch.float32"),
        (torch.zeros(8, 8, 3), r"Got shape \(8, 8, 3\)"),
        (torch.zeros(1, 8, 8, 1, dtype=torch.uint8), r"Got shape \(1, 8, 8, 1\), torch.uint8"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.float64), "torch.float64"),
        (torch.zeros(1, 8, 8, 3, dtype=torch.int32), "torch.int32"),
    ],
)
def test_other_layouts_and_dtypes_are_refused(images: Tensor, got: str) -> None:
    with pytest.raises(UsageError, match=rf"images must be \(N, H, W, 3\) RGB, uint8 or float32 in \[0, 1\]. .*{got}"):
        PreProcessor(8)(images)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size must be one number or .* each at least 1. Got 0."),
        ({"image_size": (8, 0)}, r"Got \(8, 0\)."),
        ({"image_size": (8, 8, 8)}, r"Got \(8, 8, 8\)."),
        ({"std": (1.0, 0.0, 1.0)}, "std above 0. Got .*std="),
        ({"mean": (0.5,)}, "need 3 numbers each"),
        ({"fit": "crop"}, "fit must be 'stretch' or 'letterbox'. Got 'crop'."),
        ({"image_size": (8, 9), "crop_from": 8}, r"crop_from must be at least image_size, \(8, 9\). Got 8."),
        ({"image_size": 8, "crop_from": (9, 9, 9)}, r"crop_from must be one number or .* Got \(9, 9, 9\)."),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PreProcessor(**arguments)


def test_its_state_travels_and_its_settings_are_shown() -> None:
    one, other = PreProcessor(8, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), PreProcessor(8)
    other.load_state_dict(one.state_dict())
    images = photograph(1, 9, 9)
    assert torch.equal(one(images), other(images))
    shown = "PreProcessor(image_size=(8, 9), fit='letterbox', crop_from=(9, 9))"
    assert repr(PreProcessor((8, 9), fit="letterbox", crop_from=9)) == shown


@pytest.mark.parametrize("size", [(96, 128), (37, 300), (7, 5)])
@pytest.mark.parametrize(
    "arguments",
    [{}, {"fit": "letterbox"}, {"crop_from": (48, 72)}, {"fit": "letterbox", "crop_from": (48, 72)}],
    ids=str,
)
def test_cells_know_the_pixels_under_them(arguments: dict[str, Any], size: tuple[int, int]) -> None:
    """What a cell's box shows is what the map makes bright that the cell alone has a value in."""
    pre_processor, grid = PreProcessor((32, 64), **arguments), (4, 8)
    for cell in [(0, 0), (1, 5), (2, 3), (3, 7)]:
        maps = torch.zeros(1, 1, 32, 64)
        maps[..., cell[0] * 8 : cell[0] * 8 + 8, cell[1] * 8 : cell[1] * 8 + 8] = 1
        restored = pre_processor.restore(maps, size)
        assert isinstance(restored, Tensor)
        x0, y0, x1, y1 = pre_processor.cell_box(cell, grid, size)
        assert 0 <= x0 < x1 <= size[1]
        assert 0 <= y0 < y1 <= size[0]
        for y, x in (restored[0] > 0.75).nonzero().tolist():
            assert x0 <= x < x1
            assert y0 <= y < y1
            row, column = pre_processor.place_in_grid(x, y, grid, size)
            assert (round(row), round(column)) == cell
