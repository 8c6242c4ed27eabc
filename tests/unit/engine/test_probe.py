"""Planted defects while calibrating: scored by detectors that haven't seen the image, the same every time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.engine import Engine
from blemish.engine.recalibrating import recalibrate
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.post_processing.decision import CalibrationRecord
from blemish.settings import LoadingSettings
from blemish.synthetic.planting import KINDS, draw, plant
from blemish.synthetic.products import render
from known import known


def fitted(root: Path, **arguments: Any) -> Detector:
    model = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
    Engine("cpu", progress=False).fit(model, ImageDataModule(root, num_workers=0, **arguments))
    return model


def record_of(model: Detector) -> CalibrationRecord:
    return known(model.decider.record)


def test_the_detector_of_a_fold_is_made_once(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, finished = detectors()["padim"], []

    def counted(self: Detector, images: int, finish: Any = kind.finish_for) -> None:
        finished.append(images)
        finish(self, images)

    monkeypatch.setattr(kind, "finish_for", counted)
    fitted(tiles, calibrate_on="cross", planted=30, batch_size=5)
    folds = set(ImageDataModule(tiles, num_workers=0, calibrate_on="cross").split.folds)
    assert len(finished) == len(folds)


def test_each_is_scored_by_a_detector_that_has_not_seen_its_image(tiles: Path) -> None:
    data = ImageDataModule(tiles, num_workers=0, calibrate_on="cross", planted=30, batch_size=5)
    model = fitted(tiles, calibrate_on="cross", planted=30, batch_size=5)
    found = record_of(model).planted
    assert len(found) == 30
    assert {defect.kind for defect in found} == set(KINDS)
    split = data.split
    number = split.by_fold[0]  # the first calibration image; 30 defects over 12 images: it gets two
    others = [sample.path for sample, fold in zip(split.fit, split.folds, strict=True) if fold != split.folds[number]]
    alone = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
    alone.start()
    with torch.no_grad():
        for path in others:
            picture = torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).copy())[None]
            alone.observe(alone.features(alone.pre_processor(picture)))
        alone.finish()
        for turn in range(2):
            each = draw(split.fit[number].relative, turn, turn, 0)
            image = data.pixels(split.fit[number])
            planted, _ = plant(image, rng=each.rng, kind=each.kind, size=each.size, strength=each.strength)
            score = alone.inspect(alone.pre_processor(torch.from_numpy(planted)[None]), (96, 128)).score
            assert (found[turn].kind, found[turn].size) == (each.kind, each.size)
            assert found[turn].score == pytest.approx(float(score), rel=1e-3)


def test_thresholds_do_not_depend_on_it_and_files_carry_it(tiles: Path, tmp_path: Path) -> None:
    with_it, without = fitted(tiles, planted=7), fitted(tiles)
    assert with_it.decider.decision.image == without.decider.decision.image
    assert record_of(without).planted == ()
    with_it.save(tmp_path / "model.safetensors")
    assert record_of(load(tmp_path / "model.safetensors")) == record_of(with_it)
    again = fitted(tiles, planted=7, batch_size=3)
    assert record_of(again).planted == record_of(with_it).planted
    assert len(record_of(with_it).planted) == 7


def test_nothing_outside_a_region_of_interest_is_planted_or_scored(tiles: Path) -> None:
    roi = np.zeros((96, 128), np.uint8)
    roi[:, :64] = 255
    model = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8, roi=roi)
    data = ImageDataModule(tiles, num_workers=0, calibrate_on="cross", planted=12)
    Engine("cpu", progress=False).fit(model, data)
    assert len(record_of(model).planted) == 12
    whole = fitted(tiles, calibrate_on="cross", planted=12)
    assert record_of(model).planted != record_of(whole).planted


def test_pictures_too_small_for_a_defect_get_none(tmp_path: Path) -> None:
    for i in range(5):
        part, _ = render("tile", size=(40, 40), rng=np.random.default_rng(i))
        Image.fromarray(part[:24, :24]).save(tmp_path / f"{i}.png")
    assert record_of(fitted(tmp_path, planted=5)).planted == ()


def test_a_few_defects_move_the_threshold(tiles: Path, tmp_path: Path) -> None:
    """Where a threshold between good and bad exists, one of least cost finds it."""
    model = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
    model.decider.miss_cost = 1.0
    data = ImageDataModule(tiles, num_workers=0, calibrate_on="cross", defects=tiles / "test" / "hole")
    Engine("cpu", progress=False).fit(model, data)
    record = record_of(model)
    assert (record.policy, record.normal, record.anomalous, record.source) == ("lowest cost", 12, 2, "cross")
    assert record.certified_false_alarm_rate is None
    assert len(record.defect_scores) == 2
    threshold = model.decider.raw_image_threshold
    cost = record.alarms(threshold) / 12 + sum(score < threshold for score in record.defect_scores) / 2
    assert cost <= min(record.alarms(s) / 12 + sum(d < s for d in record.defect_scores) / 2 for s in record.scores)
    assert not any(sample.label for sample in data.split.fit)


def test_good_images_alone_calibrate_what_defects_had_calibrated(tiles: Path, tmp_path: Path) -> None:
    model = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
    model.decider.miss_cost = 1.0
    defects = ImageDataModule(tiles, num_workers=0, calibrate_on="cross", defects=tiles / "test" / "hole")
    Engine("cpu", progress=False).fit(model, defects)
    for i in range(100, 104):
        part, _ = render("tile", size=(96, 128), rng=np.random.default_rng(i))
        Image.fromarray(part).save(tmp_path / f"{i}.png")
    recalibrate(model, tmp_path, LoadingSettings(num_workers=0), "cpu")
    assert (record_of(model).policy, record_of(model).normal) == ("highest normal score", 4)
