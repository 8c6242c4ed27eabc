"""COCO files, checked against the format's definition and rasterised again by another reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.measure import points_in_poly

from blemish.functional.regions import find_regions
from blemish.predictions.coco import write_coco
from blemish.predictions.rows import row_of
from blemish.runtime.result import Maps
from blemish.runtime.session import Result


def row(mask: np.ndarray, path: str = "a.png") -> dict[str, Any]:
    values = np.where(mask, 0.5 + np.arange(mask.size).reshape(mask.shape) / (4 * mask.size), 0.1).astype(np.float32)
    maps = Maps(values, mask, tuple(find_regions(mask, values)))
    found = Result(path, "anomalous", 2.0, 0.9, 1.0, mask.shape, maps, {"read": 0.1})
    return row_of(found, model="0123456789abcdef", pixel_threshold=0.5)


def written(rows: list[dict[str, Any]], folder: Path) -> Any:
    write_coco(rows, folder / "coco.json")
    return json.loads((folder / "coco.json").read_text(encoding="utf-8"))


def rasterised(polygon: list[int], shape: tuple[int, ...]) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    centers = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=1)
    return np.asarray(points_in_poly(centers, np.array(polygon).reshape(-1, 2))).reshape(shape)


def assert_coco(content: Any) -> None:
    """The data format of cocodataset.org for object detection."""
    assert set(content) == {"info", "licenses", "categories", "images", "annotations"}
    assert [(one["id"], one["name"]) for one in content["categories"]] == [(1, "defect")]
    for part in ("images", "annotations"):
        numbers = [one["id"] for one in content[part]]
        assert numbers == sorted(set(numbers))
        assert all(type(number) is int and number > 0 for number in numbers)
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    assert all(isinstance(image["file_name"], str) for image in content["images"])
    for one in content["annotations"]:
        height, width = sizes[one["image_id"]]
        assert (one["category_id"], one["iscrowd"]) == (1, 0)
        x, y, w, h = one["bbox"]
        assert x >= 0
        assert y >= 0
        assert 0 < w <= width - x
        assert 0 < h <= height - y
        (polygon,) = one["segmentation"]
        assert len(polygon) >= 8
        assert len(polygon) % 2 == 0
        assert 0 < one["area"] <= w * h
        assert (min(polygon[::2]), min(polygon[1::2])) == (x, y)
        assert (max(polygon[::2]), max(polygon[1::2])) == (x + w, y + h)


@given(mask=arrays(bool, (12, 14), elements=st.booleans()), solid=st.booleans())
@settings(max_examples=40)
def test_polygons_rasterised_again_are_the_mask(
    mask: np.ndarray, solid: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    mask = np.repeat(np.repeat(mask, 2, axis=0), 2, axis=1) | solid * (
        np.add.outer(np.arange(24), np.arange(28)) % 5 > 1
    )
    content = written([row(mask)], tmp_path_factory.mktemp("coco"))
    assert_coco(content)
    again = np.zeros_like(mask)
    for one in content["annotations"]:
        filled = rasterised(one["segmentation"][0], mask.shape)
        assert filled.sum() == one["area"]
        assert not (again & filled).any()
        again |= filled
    np.testing.assert_array_equal(again, mask)


def test_images_without_regions_are_listed_and_names_are_kept(tmp_path: Path) -> None:
    ring = np.ones((5, 6), bool)
    ring[2, 2:4] = False
    content = written([row(np.zeros((3, 4), bool), "gut ü.png"), row(ring, "b/ring.png")], tmp_path)
    assert_coco(content)
    assert [image["file_name"] for image in content["images"]] == ["gut ü.png", "b/ring.png"]
    assert content["images"][0]["label"] == "anomalous"
    (one,) = content["annotations"]
    assert (one["image_id"], one["bbox"], one["area"]) == (2, [0, 0, 6, 5], 28)
    assert one["score"] == pytest.approx(0.5 + 29 / 120)
    assert_coco(written([], tmp_path))
