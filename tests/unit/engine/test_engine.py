"""The engine on a tiny data set: what was fitted, what chose the threshold, and what is left when it fails."""

from __future__ import annotations

import copy
import io
import logging
import shutil
import signal
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import roc_auc_score
from torch import Tensor

from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.data.dataset import ImageDataset, Item
from blemish.engine import Engine, bars, module
from blemish.errors import CalibrationError, DataError, ImageReadError, NotCalibratedError, NotFittedError, UsageError
from blemish.models import cross_fit, detectors
from blemish.models.base import Detector
from blemish.models.patchcore import Patchcore
from blemish.post_processing import DecisionModule, PostProcessor
from blemish.synthetic.products import render
from known import known

SIZE = (64, 96)


def data(root: Path, **arguments: Any) -> ImageDataModule:
    return ImageDataModule(root, **{"num_workers": 0, **arguments})


def run() -> Engine:
    return Engine("cpu", progress=False)


def processor(model: Detector) -> DecisionModule:
    return model.decider


def draw(
    folder: Path, count: int, defect: str | None = None, size: tuple[int, int] = (96, 128), first: int = 0
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        image, _ = render("tile", size=size, rng=np.random.default_rng(i), defect=defect)
        Image.fromarray(image).save(folder / f"{defect}_{i:03d}.png")


@pytest.fixture
def validated(tiles: Path, tmp_path: Path) -> Path:
    """`tiles` with labeled validation images."""
    root = shutil.copytree(tiles, tmp_path / "validated")
    draw(root / "validation" / "good", 5, first=500)
    draw(root / "validation" / "hole", 4, "hole", first=600)
    return root


# -------------------------------------------------------------------------------------------------------------- fitting


@pytest.mark.parametrize("name", detectors())
def test_fit_and_test(name: str, model_files: dict[str, Path], tiles: Path) -> None:
    model = load(model_files[name])
    result = run().test(model, data(tiles))
    assert result.counts == {"images": 14, "good": 4, "anomalous": 10, "with_masks": 10}
    assert result.image_auroc.value is not None
    assert result.image_auroc.value >= 0.9
    assert result.pixel_auroc.value is not None
    assert result.pixel_auroc.value >= 0.85
    assert {row.defect for row in result.per_defect} == {"contamination", "crack", "hole", "scratch", "stain"}


def test_figures_are_those_of_predict(model: Detector, tiles: Path) -> None:
    """Scikit-learn on what `predict` returns gives what `test` reports."""
    result = run().test(model, data(tiles))
    found = {}
    for batch in run().predict(model, data(tiles)):
        assert batch.raw_score is not None
        found.update(zip(batch.path, batch.raw_score.tolist(), strict=True))
    assert len(found) == 12 + 14  # prediction takes every image of the folder, and no mask
    paths = [path for path in found if "/test/" in path]
    scores, labels = [found[path] for path in paths], ["/good/" not in path for path in paths]
    assert result.image_auroc.value == pytest.approx(roc_auc_score(labels, scores))
    threshold = processor(model).effective_image_threshold
    false_alarms = np.mean([score >= threshold for score, bad in zip(scores, labels, strict=True) if not bad])
    assert result.false_alarm_rate.value == pytest.approx(false_alarms)


def test_batch_size_changes_nothing(model: Detector, tiles: Path) -> None:
    """9 images to fit and 3 to calibrate on: neither 4 nor 5 divides them."""
    thresholds = []
    for batch_size in (1, 4, 5, 100):
        other = Patchcore(image_size=SIZE)
        run().fit(other, data(tiles, batch_size=batch_size))
        thresholds.append(processor(other).raw_image_threshold)
    assert thresholds == pytest.approx([processor(model).raw_image_threshold] * 4, rel=1e-3)


def test_held_out_policy_is_recorded(model: Detector) -> None:
    record = known(processor(model).record)
    assert (record.policy, record.source, record.normal, record.anomalous) == ("highest normal score", "held_out", 3, 0)
    assert record.f1 is None
    assert not record.oracle


def test_labeled_validation_images_give_the_f1_threshold(validated: Path) -> None:
    model = Patchcore(image_size=SIZE)
    run().fit(model, data(validated))
    record = known(processor(model).record)
    assert (record.policy, record.source, record.normal, record.anomalous) == ("maximum F1", "validation", 5, 4)
    assert record.certified_false_alarm_rate is None
    assert record.f1 is not None
    assert record.f1 > 0.8


def test_oracle_is_recorded(tiles: Path) -> None:
    model = Patchcore(image_size=SIZE)
    module = data(tiles, calibrate_on="test")
    run().fit(model, module)
    record = known(processor(model).record)
    assert record.oracle
    assert (record.policy, record.pixel_policy, record.source) == ("maximum F1", "maximum F1", "test")
    assert (record.normal, record.anomalous) == (4, 10)
    result = run().test(model, module)  # promise 2: F1 at the threshold is the best F1 on those images
    assert result.image_f1.value == pytest.approx(result.image_f1_max.value)
    assert record.f1 == pytest.approx(result.image_f1_max.value)


def test_wanted_false_alarm_rate(tiles: Path) -> None:
    model = Patchcore(image_size=SIZE, post_processor=PostProcessor(max_false_alarm_rate=0.5))
    run().fit(model, data(tiles))
    record = known(processor(model).record)
    assert (record.policy, record.certified_false_alarm_rate) == ("false-alarm rate", 0.5)
    with pytest.raises(CalibrationError, match="99"):  # n must be at least 1 / 0.01 - 1
        run().fit(Patchcore(image_size=SIZE, post_processor=PostProcessor(max_false_alarm_rate=0.01)), data(tiles))


def test_images_of_many_sizes(tmp_path: Path) -> None:
    root = tmp_path / "mixed"
    for i, size in enumerate([(96, 128), (128, 96), (70, 200), (96, 128)]):
        draw(root / "good", 3, size=size, first=10 * i)
    draw(root / "bad", 2, "hole", size=(100, 110), first=90)
    draw(root / "bad", 2, "hole", size=(110, 100), first=95)
    model = Patchcore(image_size=SIZE)
    module = data(root, batch_size=5)
    run().fit(model, module)
    run().test(model, module)
    for batch in run().predict(model, module):
        assert batch.anomaly_map is not None
        assert batch.pred_mask is not None
        for path, single, mask in zip(batch.path, batch.anomaly_map, batch.pred_mask, strict=True):
            with Image.open(path) as image:
                assert single.shape == mask.shape == (image.height, image.width)


def test_flat_folder_of_good_images(tmp_path: Path) -> None:
    draw(tmp_path / "parts", 6)
    model = Patchcore(image_size=SIZE)
    run().fit(model, data(tmp_path / "parts"))
    assert processor(model).is_calibrated
    with pytest.raises(DataError, match="nothing to test on"):
        run().test(model, data(tmp_path / "parts"))


@pytest.mark.parametrize("name", detectors())
def test_second_fit_starts_afresh(name: str, tiles: Path, tmp_path: Path) -> None:
    draw(tmp_path / "other", 8, first=300)
    twice, once = (detectors()[name].build(image_size=SIZE) for _ in range(2))
    run().fit(twice, data(tiles))
    run().fit(twice, data(tmp_path / "other"))
    run().fit(once, data(tmp_path / "other"))
    assert all(torch.equal(a, b) for a, b in zip(twice.state_dict().values(), once.state_dict().values(), strict=True))
    assert processor(twice).record == processor(once).record
    assert twice.data_record == once.data_record


@pytest.mark.parametrize("name", detectors())
def test_update_adds_and_calibrates_again(name: str, model_files: dict[str, Path], tmp_path: Path) -> None:
    """Parts of another product: strange before the update, known after it."""
    for i in range(8):
        image, _ = render("fabric", size=(96, 128), rng=np.random.default_rng(i))
        (tmp_path / "more").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "more" / f"{i}.png")
    model = load(model_files[name])
    before = processor(model).image_max
    strange = torch.cat([b.raw_score for b in run().predict(model, data(tmp_path / "more")) if b.raw_score is not None])
    run().update(model, data(tmp_path / "more"))
    after = torch.cat([b.raw_score for b in run().predict(model, data(tmp_path / "more")) if b.raw_score is not None])
    assert (strange > before).all()
    assert after.mean() < 0.5 * strange.mean()
    assert model.is_fitted
    assert processor(model).image_max != before


def test_update_needs_a_fit(tiles: Path) -> None:
    with pytest.raises(NotFittedError, match=r"Run Engine.fit\(model, datamodule\) first"):
        run().update(Patchcore(image_size=SIZE), data(tiles))


@pytest.mark.parametrize("verb", ["validate", "test", "predict"])
def test_unfitted(verb: str, tiles: Path) -> None:
    with pytest.raises(NotFittedError, match="has not seen any good images yet"):
        getattr(run(), verb)(Patchcore(image_size=SIZE), data(tiles))


def test_validate_calibrates_again_and_keeps_the_features(model: Detector, validated: Path) -> None:
    bank = model.get_buffer("bank.rows").clone()
    run().validate(model, data(validated))
    assert torch.equal(bank, model.get_buffer("bank.rows"))
    record = known(processor(model).record)
    assert record.policy == "maximum F1"


def test_without_post_processor(tiles: Path) -> None:
    model = Patchcore(image_size=SIZE, post_processor=False)
    run().fit(model, data(tiles))
    (first, *_) = run().predict(model, data(tiles))
    assert first.pred_label is None
    assert first.raw_score is None
    result = run().test(model, data(tiles))
    assert result.image_auroc.value is not None
    assert result.image_f1.value is None
    assert result.image_f1.reason == "no verdicts: the model is not calibrated"


def test_predict_goes_on_after_an_unreadable_image(model: Detector, tmp_path: Path) -> None:
    draw(tmp_path, 3)
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    module = data(tmp_path)
    batches = run().predict(model, module)
    assert sum(len(batch.path) for batch in batches) == 3
    assert [Path(error.path).name for error in module.unreadable] == ["cut.png"]


# -------------------------------------------------------------------------------------------------------------- failing


def test_unreadable_image_stops_the_fit(tiles: Path, tmp_path: Path) -> None:
    root = shutil.copytree(tiles, tmp_path / "broken")
    victim = data(root).split.fit[4].path
    victim.write_bytes(victim.read_bytes()[:100])
    model = Patchcore(image_size=SIZE)
    with pytest.raises(ImageReadError, match=victim.name):
        run().fit(model, data(root))
    assert not model.is_fitted


@pytest.mark.parametrize("name", detectors())
def test_interrupted_fit(name: str, tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while features are taken: no model, Ctrl-C still works, and the next fit is a whole one."""
    model, whole = (detectors()[name].build(image_size=SIZE) for _ in range(2))
    observe, handler = model.observe, signal.getsignal(signal.SIGINT)
    calls = []

    def stop(features: torch.Tensor) -> None:
        observe(features)
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(model, "observe", stop)
        with pytest.raises(KeyboardInterrupt):
            run().fit(model, data(tiles, batch_size=3))
    assert not model.is_fitted
    assert signal.getsignal(signal.SIGINT) is handler
    with pytest.raises(NotFittedError):
        model(torch.zeros(1, 96, 128, 3))
    run().fit(model, data(tiles, batch_size=3))
    run().fit(whole, data(tiles, batch_size=3))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), whole.state_dict().values(), strict=True))


def test_thresholds_of_an_earlier_fit_do_not_survive_a_failed_one(
    model: Detector, tiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New features with old thresholds would give verdicts that mean nothing."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise CalibrationError("no")

    monkeypatch.setattr(DecisionModule, "calibrate", fail)
    with pytest.raises(CalibrationError):
        run().fit(model, data(tiles))
    assert not processor(model).is_calibrated
    assert processor(model).record is None
    with pytest.raises(NotCalibratedError):
        processor(model).threshold_batch(model(torch.zeros(1, 96, 128, 3)))


@pytest.mark.parametrize("verb", ["fit", "update"])
def test_unusable_folder_leaves_the_model_as_it_was(verb: str, model: Detector, tmp_path: Path) -> None:
    before = copy.deepcopy(model.state_dict())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images"):
        getattr(run(), verb)(model, data(tmp_path / "empty"))
    draw(tmp_path / "one", 1)
    with pytest.raises(DataError, match=r"1 good image\(s\) to fit on; at least 2 are needed"):
        getattr(run(), verb)(model, data(tmp_path / "one"))
    assert model.is_fitted
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_padim_needs_two_images_after_the_split(tmp_path: Path) -> None:
    draw(tmp_path / "two", 2)
    with pytest.raises(DataError, match=r"PaDiM needs at least 2 good images to estimate a covariance. Got 1"):
        run().fit(detectors()["padim"].build(image_size=SIZE), data(tmp_path / "two"))


def test_all_identical_images(tmp_path: Path) -> None:
    image, _ = render("tile", size=(96, 128), rng=np.random.default_rng(0))
    for i in range(8):
        (tmp_path / "same").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "same" / f"{i}.png")
    for kind in detectors().values():
        model = kind.build(image_size=SIZE)
        run().fit(model, data(tmp_path / "same"))
        done = model(torch.from_numpy(image)[None])
        assert done.pred_score.isfinite().all()
        assert done.anomaly_map.isfinite().all()


# ------------------------------------------------------------------------------------------------------------- manners


def test_leaves_no_trace(tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """No files, nothing printed, no filters or levels left behind, no global random state moved."""
    monkeypatch.chdir(tmp_path)
    before = (warnings.filters[:], logging.getLogger("lightning.pytorch").level, torch.random.get_rng_state().tolist())
    numpy = str(np.random.get_state())  # noqa: NPY002 - the global state is what is watched
    model = Patchcore(image_size=SIZE)
    run().fit(model, data(tiles))
    run().test(model, data(tiles))
    after = (warnings.filters[:], logging.getLogger("lightning.pytorch").level, torch.random.get_rng_state().tolist())
    assert before == after
    assert numpy == str(np.random.get_state())  # noqa: NPY002
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().out == ""


def test_a_bar_for_every_long_phase(tiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    console = bars.Console(file=terminal, force_terminal=True, width=100)
    monkeypatch.setattr(bars, "Console", lambda **_: console)
    seen: dict[str, list[tuple[int, int]]] = {}
    show = bars.ProgressBars.show

    def watch(self: Any, phase: str, done: int, total: int) -> None:
        seen.setdefault(phase, []).append((done, total))
        show(self, phase, done, total)

    monkeypatch.setattr(bars.ProgressBars, "show", watch)
    model = Patchcore(image_size=SIZE)
    engine = Engine("cpu")
    engine.fit(model, data(tiles, batch_size=4))
    engine.test(model, data(tiles, batch_size=4))
    assert seen["features"] == [(4, 9), (8, 9), (9, 9)]
    assert seen["calibration"] == [(3, 3)]
    assert seen["test"][-1] == (14, 14)
    assert seen["coreset"][-1][0] <= seen["coreset"][-1][1] == 87  # 10 % of 9 x 96 patches
    text = terminal.getvalue()
    assert all(phase in text for phase in ("features", "coreset", "calibration", "test", "9/9", "/s"))


def test_a_function_is_told_of_every_long_phase(tiles: Path) -> None:
    seen: dict[str, list[tuple[int, int]]] = {}

    def told(phase: str, done: int, total: int) -> None:
        seen.setdefault(phase, []).append((done, total))

    Engine("cpu", progress=told).fit(Patchcore(image_size=SIZE), data(tiles, batch_size=4))
    assert seen["features"] == [(4, 9), (8, 9), (9, 9)]
    assert seen["calibration"] == [(3, 3)]
    assert seen["coreset"][-1][0] <= seen["coreset"][-1][1] == 87


def test_unknown_accelerator_leaves_the_model_as_it_was(model: Detector, tiles: Path) -> None:
    with pytest.raises(UsageError, match="accelerator 'abacus' can't be used: "):
        Engine("abacus", progress=False).update(model, data(tiles))
    assert model.is_fitted


# ---------------------------------------------------------------------------------------------------------- real images


@pytest.mark.realdata
def test_cookies(realdata: Any) -> None:
    """31 good cookies, 32 cracked ones, with the features that need no download."""
    root = realdata("cookies")
    model = Patchcore(image_size=160, bank_size=1500)
    run().fit(model, data(root))
    result = run().test(model, data(root))
    assert result.image_auroc.value is not None
    assert result.image_auroc.value >= 0.9
    assert known(processor(model).record).source == "held_out"


@pytest.mark.parametrize(("room", "passes"), [(2**30, 1), (5 * 8 * 8 * 8 * 4, None), (0, 2)])
def test_images_that_cross_calibrate_go_through_the_backbone_once(
    tiles: Path, room: int, passes: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are resized once for that, as far as there is room for features, which changes no threshold."""
    monkeypatch.setattr(module, "KEPT_BYTES", room)
    loaded: list[str] = []

    def counted(self: ImageDataset, index: int, get: Any = ImageDataset.__getitem__) -> Item:
        item = get(self, index)
        loaded.extend([item.sample.relative] * (item.image.shape == (3, 64, 64)))  # others are compared, or spared
        return item

    monkeypatch.setattr(ImageDataset, "__getitem__", counted)
    model = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
    seen: list[int] = []
    model.extractor.register_forward_hook(lambda _, images, __: seen.append(len(images[0])))
    run().fit(model, data(tiles, calibrate_on="cross", planted=0, batch_size=4))
    count = len(data(tiles, calibrate_on="cross").split.fit)
    assert sum(seen) == len(loaded) == (2 * count - 5 if passes is None else passes * count)
    assert len(set(loaded)) == count
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    again = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
    run().fit(again, data(tiles, calibrate_on="cross", planted=0))
    assert processor(model).decision == processor(again).decision


@pytest.mark.parametrize("room", [2**30, 5 * 8 * 8 * 8 * 4])
def test_folds_that_are_scored_in_batches_say_the_same(tiles: Path, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they are on a GPU, which would wait for each image."""
    records, scored = [], []
    for at_once in ({"cpu": 1}, {}):
        monkeypatch.setattr(cross_fit, "AT_ONCE", at_once)
        monkeypatch.setattr(module, "KEPT_BYTES", room)
        model = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
        dealt = data(tiles, calibrate_on="cross", planted=4, batch_size=5, defects=tiles / "test" / "hole")
        dealt.split = replace(dealt.split, folds=tuple(i % 3 for i in range(12)))

        def counted(self: Detector, features: Tensor, size: Any, inspect: Any = Detector.inspect_features) -> Any:
            scored.append(len(features))
            return inspect(self, features, size)

        with monkeypatch.context() as patch:
            patch.setattr(Detector, "inspect_features", counted)
            run().fit(model, dealt)
        records.append(known(processor(model).record))
    single, batched = records
    assert scored == [1] * 14 + [4, 1, 3, 2, 2, 2]
    assert batched.names == single.names
    assert batched.scores == pytest.approx(single.scores, rel=1e-5)
    assert batched.defect_scores == pytest.approx(single.defect_scores, rel=1e-5)
    assert [each.score for each in batched.planted] == [each.score for each in single.planted]


def test_cross_calibration_again_takes_new_images_alone(tiles: Path, tmp_path: Path) -> None:
    """An image never calibrates a model that was fitted on it, and the data module stays as it was."""
    draw(tmp_path / "more", 9)
    model = detectors()["padim"].build(backbone="filter_bank", image_size=64, n_features=8)
    fitted = data(tiles, calibrate_on="cross")
    run().fit(model, fitted)
    assert processor(model).record is not None
    assert processor(model).record.source == "cross"
    before = processor(model).decision
    with pytest.raises(UsageError, match=r"The detector was made from 12 of these images, so they can't calibrate it"):
        run().validate(model, data(tiles, calibrate_on="cross"))
    assert processor(model).decision == before
    new = data(tmp_path / "more", calibrate_on="cross")
    run().validate(model, new)
    assert (processor(model).record.source, processor(model).record.normal) == ("held_out", 9)
    assert (new.policy, len(new.split.fit)) == ("cross", 9)
