"""Explanations name true places: compared with naive loops, and with images that the bank knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from blemish import runtime
from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import read_image
from blemish.engine import Engine
from blemish.errors import NotCalibratedError, NotFittedError, UsageError
from blemish.functional.regions import find_regions
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.runtime.session import Session
from blemish.runtime.torch_session import TorchBackend
from blemish.synthetic.products import render
from known import known

Image = npt.NDArray[np.uint8]

SMALL: dict[str, Any] = {"image_size": (64, 96), "backbone": "filter_bank", "grid_stride": 8}
ENGINE = Engine("cpu", progress=False)


def drawn(seed: int, defect: str | None = None) -> Image:
    image: Image = render("tile", size=(96, 128), rng=np.random.default_rng(seed), defect=defect)[0]
    return image


def doubled(image: Image) -> Image:
    return np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)


def fitted(images: list[Image], names: str, detector: str = "patchcore", **arguments: Any) -> Detector:
    model = detectors()[detector].build(**SMALL, **arguments)
    ENGINE.fit(model, ImageDataModule.from_arrays(images, names=list(names), calibrate_on="cross"))
    return model


def names(model: Detector) -> list[str]:
    return [image.name for image in model.good_images.images]


@pytest.fixture(scope="module")
def everything() -> Detector:
    """A bank of all patches of images "a" to "f", of which "b" is twice as large as the others."""
    images = [drawn(i) for i in range(6)]
    return fitted([images[0], doubled(images[1]), *images[2:]], "abcdef", coreset_sampling_ratio=1.0)


def test_a_patch_that_the_bank_knows_is_found_in_its_place(everything: Detector) -> None:
    [finding] = everything.explain(drawn(2), regions=()).findings
    first = finding.good[0]
    assert first.image is not None
    assert (first.image.name, first.image.size, first.box) == ("c", (96, 128), finding.box)
    assert first.distance == pytest.approx(0, abs=1e-3)


def test_boxes_are_in_the_pixels_of_their_own_images(everything: Detector) -> None:
    [finding] = everything.explain(doubled(drawn(1)), regions=(), count=6).findings
    first, *others = finding.good
    assert first.image is not None
    assert (first.image.name, first.image.size, first.box) == ("b", (192, 256), finding.box)
    width = finding.box[2] - finding.box[0]
    for patch in others:
        assert patch.box is not None
        assert patch.box[2] - patch.box[0] == pytest.approx(width / 2, abs=1)


def test_neighbors_are_those_of_a_loop_over_all_patches_one_of_each_image(everything: Detector) -> None:
    image = drawn(40, "hole")
    [finding] = everything.explain(image, regions=(), count=4).findings
    with torch.no_grad():
        features = everything.features(everything.pre_processor(torch.from_numpy(image)[None]))[0]  # (D, 8, 12)
    x0, y0, x1, y1 = finding.box
    row, column = (y0 + y1) * 8 // (2 * 96), (x0 + x1) * 12 // (2 * 128)
    wanted = features[:, row, column].numpy()
    closest: dict[str, float] = {}
    bank = everything.bank  # type: ignore[attr-defined]
    for place, other in zip(bank.origin.tolist(), (bank.rows + bank.center).numpy(), strict=True):
        name = "abcdef"[place[0]]
        closest[name] = min(closest.get(name, np.inf), float(np.linalg.norm(other - wanted)))
    expected = sorted(closest.items(), key=lambda item: item[1])[:4]
    found = [(patch.image and patch.image.name, patch.distance) for patch in finding.good]
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert [distance for _, distance in found] == pytest.approx([distance for _, distance in expected], rel=1e-4)


@pytest.mark.parametrize("name", detectors())
def test_every_region_of_the_result_is_explained(name: str, model_files: dict[str, Path], tiles: Path) -> None:
    session = runtime.load(model_files[name])
    path = tiles / "test/hole/000.png"
    [result] = session(path)
    model = load(model_files[name])
    explanation = session.explain(result)
    assert [finding.region for finding in explanation.findings] == list(result.regions) != []
    assert explanation == model.explain(read_image(path))
    assert explanation.threshold == session.decision.pixel.effective_threshold
    remembers = name == "patchcore"
    assert explanation.basis == ("nearest patches" if remembers else "same place")
    for finding in explanation.findings:
        assert finding.region is not None
        x0, y0, x1, y1 = finding.box
        left, top, right, bottom = finding.region.box
        assert max(x0, left) < min(x1, right)
        assert max(y0, top) < min(y1, bottom)
        assert finding.value >= explanation.threshold
        assert len(finding.good) == min(3, len(model.good_images.images))
        for patch in finding.good:
            assert patch.image is not None
            assert (tiles / patch.image.name).is_file()
            assert "good" in patch.image.name
            assert patch.image.size == (96, 128)
            assert (patch.distance is not None) == remembers
            assert remembers or patch.box == finding.box


def test_values_are_plain_numbers(model: Detector) -> None:
    [finding, *_] = model.explain(drawn(7)).findings
    assert type(finding.value) is float
    assert all(type(end) is int for end in finding.box)
    assert type(finding.good[0].distance) is float


def test_without_a_region_the_highest_value_is_explained(model: Detector) -> None:
    image = drawn(3)
    tolerant = model.decider.decision.replace(pixel_threshold=1e6)
    explanation = model.explain(image, decision=tolerant)
    [finding] = explanation.findings
    assert (finding.region, explanation.threshold) == (None, 1e6)
    with torch.no_grad():
        prediction = model.inspect(model.pre_processor(torch.from_numpy(image)[None]), (96, 128))
    assert finding.value == float(prediction.maps[0].max())


def test_a_region_that_is_saturated_is_explained_where_its_raw_value_is_highest(model: Detector) -> None:
    image = drawn(5, "hole")
    strict = model.decider.decision.replace(pixel_threshold=0.0)
    [result] = Session(TorchBackend(model), decision=strict)(image)
    [region] = find_regions(result.mask, np.ones_like(result.anomaly_map))
    [finding] = model.explain(image, [region], strict).findings
    with torch.no_grad():
        prediction = model.inspect(model.pre_processor(torch.from_numpy(image)[None]), (96, 128))
    assert finding.value == float(prediction.maps[0].max())
    y, x = divmod(int(prediction.maps[0].argmax()), 128)
    assert finding.box[0] <= x < finding.box[2]
    assert finding.box[1] <= y < finding.box[3]


def test_an_update_names_images_of_both_fits() -> None:
    model = fitted([drawn(i) for i in range(4)], "abcd", coreset_sampling_ratio=0.5)
    before = {image.number: image.name for image in model.good_images.images}
    ENGINE.update(
        model, ImageDataModule.from_arrays([drawn(i) + np.uint8(40) for i in (4, 5)], names=["e", "f"]), thumbnails=True
    )
    after = {image.number: image.name for image in model.good_images.images}
    assert before == {0: "a", 1: "b", 2: "c", 3: "d"}
    assert before.items() <= after.items()
    assert set(after.values()) - set(before.values()) <= {"e", "f"}
    assert len(after) > len(before)
    assert {image.name for image in model.good_images.images if image.picture} == set(after.values()) - set("abcd")
    [finding] = model.explain(drawn(4) + np.uint8(40), regions=()).findings
    assert finding.good[0].image is not None
    assert finding.good[0].image.name in "ef"


def test_images_that_shape_the_bank_most_come_first() -> None:
    model = fitted([drawn(i) for i in range(6)], "abcdef")
    rows = model.remembered_images()
    counts = [rows[image.number] for image in model.good_images.images]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == len(model.bank.rows)  # type: ignore[attr-defined]


def test_a_detector_without_a_bank_names_ordinary_images() -> None:
    odd = drawn(2)
    odd[20:70, 30:90] = (255, 0, 255)
    model = fitted([drawn(0), drawn(1), odd, drawn(3), drawn(4)], "abcde", "padim", n_features=10)
    record = known(model.decider.decision.record)
    scores = dict(zip(record.names, record.scores, strict=True))
    assert names(model) == sorted(scores, key=scores.__getitem__)[:3]
    assert "c" not in names(model)


def test_a_second_fit_forgets_the_names_of_the_first(tiles: Path) -> None:
    model = fitted([drawn(i) for i in range(4)], "abcd")
    model.start()
    assert names(model) == []


def test_patches_of_images_that_nobody_named_have_distances_alone(model: Detector, tiles: Path) -> None:
    with_names = model.explain(drawn(7)).findings[0].good
    model.good_images = type(model.good_images)()
    without = model.explain(drawn(7)).findings[0].good
    assert [(patch.image, patch.box) for patch in without] == [(None, None)] * 3
    assert [patch.distance for patch in without] == [patch.distance for patch in with_names]


def test_what_cannot_be_explained(model: Detector) -> None:
    with pytest.raises(UsageError, match=r"count must be at least 1. Got 0."):
        model.explain(drawn(0), count=0)
    model.decider.forget()
    with pytest.raises(NotCalibratedError):
        model.explain(drawn(0))
    with pytest.raises(NotFittedError):
        detectors()["patchcore"].build(**SMALL).explain(drawn(0))
