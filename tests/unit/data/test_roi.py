"""A region of interest in all its forms is one mask."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from blemish.data.roi import RELATIVE_SIZE, cells_inside, read_roi, run_lengths
from blemish.errors import DataError, ImageReadError, UsageError

MASKS = arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)).filter(np.any)
SQUARE = np.zeros((8, 10), bool)
SQUARE[2:6, 1:5] = True


@given(MASKS)
def test_run_lengths_are_those_of_coco(mask: np.ndarray) -> None:
    coded = run_lengths(mask)
    assert read_roi(json.loads(json.dumps(coded))).tolist() == mask.tolist()
    flat: list[bool] = []
    for number, count in enumerate(coded["counts"]):
        flat += [number % 2 == 1] * count
    assert np.array(flat).reshape(mask.shape[::-1]).T.tolist() == mask.tolist(), "column by column, outside first"
    assert all(count > 0 for count in coded["counts"][1:])


def test_one_region_in_every_form(tmp_path: Path) -> None:
    Image.fromarray(SQUARE.astype(np.uint8) * 255).save(tmp_path / "gray.png")
    Image.fromarray(np.where(SQUARE, 40_000, 20_000).astype(np.uint16)).save(tmp_path / "deep.png")
    soft = np.where(SQUARE, 240, 12).astype(np.uint8)
    Image.fromarray(np.repeat(soft[..., None], 3, axis=2)).save(tmp_path / "noisy.jpg", quality=95)
    pixels = {"size": [8, 10], "polygons": [[[1, 2], [5, 2], [5, 6], [1, 6]]]}
    (tmp_path / "pixels.json").write_text(json.dumps(pixels))
    halves = {"size": [8, 10], "polygons": [[[1, 2], [3, 2], [3, 6], [1, 6]], [[2.6, 2], [5, 2], [5, 6], [2.6, 6]]]}
    forms: list[Any] = [SQUARE, SQUARE * 0.2, pixels, halves, run_lengths(SQUARE)]
    forms += [tmp_path / "gray.png", str(tmp_path / "deep.png"), tmp_path / "noisy.jpg", tmp_path / "pixels.json"]
    for form in forms:
        mask = read_roi(form)
        assert mask.dtype == np.bool_
        np.testing.assert_array_equal(mask, SQUARE, err_msg=str(form))


def test_relative_polygons_fit_pictures_of_any_size(tmp_path: Path) -> None:
    polygon = [(0.1, 0.25), (0.5, 0.25), (0.5, 0.75), (0.1, 0.75)]
    mask = read_roi([polygon])
    assert mask.shape == RELATIVE_SIZE
    assert mask.mean() == pytest.approx(0.2, abs=0.001)
    (tmp_path / "roi.json").write_text(json.dumps([polygon]))
    np.testing.assert_array_equal(read_roi(tmp_path / "roi.json"), mask)


@given(mask=MASKS, rows=st.integers(1, 7), columns=st.integers(1, 7), crop=st.booleans())
def test_a_cell_is_inside_where_a_pixel_is(mask: np.ndarray, rows: int, columns: int, crop: bool) -> None:
    """Against every pair of a cell and a pixel, as rectangles."""
    full, cut = ((1.5, 2.0), (0.25, 0.5)) if crop else ((1, 1), (0, 0))
    got = cells_inside(mask, (rows, columns), full, cut)

    def overlap(side: int, cells: int, whole: float, start: float, cell: int, pixel: int) -> bool:
        low, high = cell / cells + start, (cell + 1) / cells + start
        return bool(min(high, (pixel + 1) * whole / side) - max(low, pixel * whole / side) > 1e-9)

    for r in range(rows):
        for c in range(columns):
            expected = any(
                overlap(mask.shape[0], rows, full[0], cut[0], r, y)
                and overlap(mask.shape[1], columns, full[1], cut[1], c, x)
                for y, x in np.argwhere(mask)
            )
            assert got[r, c] == expected, (r, c)


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        (
            np.zeros((3, 4)),
            r"The region of interest is empty. White, or the inside of a polygon, is what is inspected.",
        ),
        (np.ones((3, 4, 3)), r"roi must be a file, an \(H, W\) array, polygons"),
        (5, r"roi must be a file.* Got 5."),
        ([], r"roi must be a file.* Got \[\]."),
        ([[(0, 0), (1, 1)]], r"roi must be a file"),
        ([[(0, 0, 0), (1, 1, 0), (1, 0, 0)]], r"roi must be a file"),
        ([["a", "b", "c"]], r"roi must be a file"),
        ([[(0, 0), (30, 0), (30, 40)]], r"must lie between \(0, 0\) and \(1, 1\). .* Points in pixels need the size"),
        ([[(0, 0), (1, 0), (1, float("nan"))]], r"must lie between"),
        ({"size": [8, 10], "polygons": [[(0, 0), (11, 0), (5, 8)]]}, r"must lie between \(0, 0\) and \(10, 8\)"),
        ({"size": [8], "polygons": []}, r"size of a region of interest must be \[H, W\], .* at most .* Got \[8\]."),
        ({"size": [0, 4], "counts": []}, r"size of a region of interest must be"),
        ({"size": [10**6, 10**6], "counts": []}, r"size of a region of interest must be"),
        ({"size": [2, 2], "counts": [1, -1, 4]}, r"whole numbers that add up to 2 x 2"),
        ({"size": [2, 2], "counts": [1, 2]}, r"whole numbers that add up to 2 x 2"),
        ({"size": [2, 2]}, r"roi must be .* Got keys \['size'\]."),
        ({"polygons": [[(0, 0), (1, 0), (1, 1)]]}, r"size of a region of interest must be .* Got None."),
        ({"size": [True, True], "polygons": [[(0, 0), (1, 0), (1, 1)]]}, r"size .* Got \[True, True\]."),
        ({"size": [1, 200_000_000], "counts": [0, 200_000_000]}, r"size .* whole numbers from 1 to 131,072"),
        ({"size": [1, 1], "counts": [False, True]}, r"whole numbers that add up to 1 x 1"),
        ({"size": [1, 3], "counts": [0] * 4 + [0, 3]}, r"at most one more than there are pixels"),
        ([[(10**4000, 0), (1, 1), (0, 1)]], r"roi must be a file"),
        ([[(i % 2, i % 3 / 2) for i in range(20_001)]], r"may have 20,000 points together. Got 20,001. Simplify them"),
        (
            {"size": [14_000, 14_000], "polygons": [[(0, 0), (14_000, 0), (0, 14_000)]] * 3},
            r"come to 589,680,000 pixels, at most 400,000,000 are drawn. Give the region as an image",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "roi",
)
def test_other_forms_are_refused(roi: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_roi(roi)


def test_files_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"none.png: no such file"):
        read_roi(tmp_path / "none.png")
    with pytest.raises(DataError, match=r"The region of interest .*none.json can't be read: .*No such file"):
        read_roi(tmp_path / "none.json")
    for text, error, message in (
        ("[[", DataError, "roi.json can't be read"),
        ('"other.png"', UsageError, "roi must be a file"),
        ("7", UsageError, "roi must be a file"),
        ("9" * 10_000, DataError, "roi.json can't be read"),
        ("[" * 100_000, DataError, "roi.json can't be read"),
        (f"[[[{'9' * 4000}, 0], [1, 1], [0, 1]]]", UsageError, "roi must be a file"),
        ("[" + " " * 2**24, DataError, "roi.json can't be read"),
    ):
        (tmp_path / "roi.json").write_text(text)
        with pytest.raises(error, match=message):
            read_roi(tmp_path / "roi.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_a_pipe_is_no_region(tmp_path: Path) -> None:
    for name in ("roi.json", "roi.png"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="not a regular file"):
            read_roi(tmp_path / name)
