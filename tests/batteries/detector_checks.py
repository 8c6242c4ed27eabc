"""What every detector has to do, whatever it computes: one `check_*` function per promise.

A check takes a `Make`: a function that builds an unfitted detector and accepts further constructor arguments. Fitting
goes through the three verbs, without Lightning, so that a failure points at the detector.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.morphology import dilation, disk
from torch import Tensor

from blemish.artifact import load
from blemish.data.batch import InferenceBatch
from blemish.errors import NonFiniteError, NotCalibratedError, NotFittedError, UsageError
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.post_processing import DecisionModule, PostProcessor
from blemish.post_processing.calibration import Evidence
from blemish.synthetic.products import render
from known import known

Make = Callable[..., Detector]

SIZE = (96, 128)  # of the drawn parts: neither square, nor the (64, 96) that models under test see
MODEL_SIZE = (64, 96)
ULP = 1e-5  # relative: another batch may take another path through the matrix products


@cache
def parts(count: int, defect: str | None = None, first: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """(count, H, W, 3) uint8; part i with and without a defect is the same part."""
    return torch.from_numpy(np.stack([_draw(first + i, defect, size)[0] for i in range(count)]))


@cache
def masks(count: int, defect: str, first: int = 0, size: tuple[int, int] = SIZE) -> Tensor:
    """(count, H, W) bool: where the defects of `parts` lie."""
    return torch.from_numpy(np.stack([_draw(first + i, defect, size)[1] for i in range(count)]))


def _draw(seed: int, defect: str | None, size: tuple[int, int]) -> tuple[Any, Any]:
    return render("tile", size=size, rng=np.random.default_rng(1000 + seed), defect=defect)


def observe(model: Detector, images: Tensor, batch_size: int = 4) -> Detector:
    with torch.no_grad():
        for batch in images.split(batch_size):
            model.observe(model.features(model.pre_processor(batch)))
        model.finish()
    return model


def fitted_anew(make: Make, images: Tensor, batch_size: int = 4, **arguments: Any) -> Detector:
    model = make(**arguments)
    model.start()
    return observe(model, images, batch_size)


KEPT = 16
"""Fitted models: more than one detector and backbone needs for all checks."""

_fitted: dict[tuple[Any, ...], Detector] = {}


def fitted(make: Make, images: Tensor, batch_size: int = 4, **arguments: Any) -> Detector:
    """A copy, where the same was fitted to the same tensor before: that two fits are equal is a check of its own."""
    key = (make, images, batch_size, repr(sorted(arguments.items())))
    if key not in _fitted:
        if len(_fitted) == KEPT:
            del _fitted[next(iter(_fitted))]
        _fitted[key] = fitted_anew(make, images, batch_size, **arguments)
    return copy.deepcopy(_fitted[key])


def calibrate(model: Detector, images: Tensor) -> Detector:
    """Thresholds from images that are all good."""
    raw = model.inspect(model.pre_processor(images), (images.shape[1], images.shape[2])).batch()
    evidence = Evidence()
    evidence.add(replace(raw, gt_label=torch.zeros(len(images), dtype=torch.bool)), None)
    decision = model.calibrate(evidence)
    assert model.decider.decision == decision
    return model


TRAPEZE = [[(0.15, 0.1), (0.9, 0.2), (0.8, 0.95), (0.3, 0.8)]]


@cache
def model_with_region(name: str) -> Detector:
    """Fitted and calibrated; for several batteries, since its graph takes long to trace."""
    options: dict[str, Any] = {} if name == "patchcore" else {"n_features": 30}
    model = fitted(lambda: detectors()[name].build(image_size=MODEL_SIZE, roi=TRAPEZE, **options), parts(10))
    return calibrate(model, parts(4, first=20)).eval()


@torch.no_grad()
def raw(model: Detector, images: Tensor) -> tuple[Tensor, Tensor]:
    prediction = model.inspect(model.pre_processor(images), (images.shape[1], images.shape[2]))
    assert isinstance(prediction.maps, Tensor)
    return prediction.score, prediction.maps


def same_state(a: Detector, b: Detector) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(
        torch.equal(left[name].nan_to_num(-1.0), right[name].nan_to_num(-1.0)) for name in left
    )


# -------------------------------------------------------------------------------------------------------------- fitting


def check_unfitted(make: Make) -> None:
    """Whatever asks for a score before `fit` gets the error, not a number."""
    model = make()
    assert not model.is_fitted
    for ask in (model, lambda images: raw(model, images), lambda _: model.save("never.safetensors")):
        with pytest.raises(NotFittedError, match=f"This {model.Settings.title} "):
            ask(parts(1))
    with pytest.raises(NotFittedError, match="has not seen any good images yet"):
        model.resume()
    model.start()
    model.observe(model.features(model.pre_processor(parts(2))))
    with pytest.raises(NotFittedError):  # what was observed is not a model yet
        model(parts(1))


def check_two_fits_are_equal(make: Make) -> None:
    assert same_state(fitted_anew(make, parts(10)), fitted_anew(make, parts(10)))


def check_fit_ignores_batch_size(make: Make) -> None:
    """Features of a batch differ in the last bits, so states may; scores say whether that matters."""
    expected = raw(fitted(make, parts(10), batch_size=10), parts(3, "hole"))
    for batch_size in (1, 3):
        for got, want in zip(raw(fitted(make, parts(10), batch_size), parts(3, "hole")), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-3)


def check_second_fit_starts_afresh(make: Make) -> None:
    twice = fitted(make, parts(6))
    twice.start()
    observe(twice, parts(8, first=50))
    assert same_state(twice, fitted(make, parts(8, first=50)))


def check_abandoned_fit_leaves_nothing(make: Make) -> None:
    """An observation that never came to `finish` must not leak into the next fit."""
    model = make()
    model.start()
    model.observe(model.features(model.pre_processor(parts(3))))
    assert not model.is_fitted
    model.start()
    assert same_state(observe(model, parts(8, first=50)), fitted(make, parts(8, first=50)))


def check_update_adds(make: Make) -> None:
    """More good images of a new kind bring their scores down; the old kind stays known."""
    strange = 255 - parts(16)
    model = fitted(make, parts(8))
    before, known = raw(model, strange[:4])[0], raw(model, parts(8))[0]
    model.resume()
    observe(model, strange[4:])
    assert model.is_fitted
    after = raw(model, strange[:4])[0]
    assert (after < 0.7 * before).all(), (before, after)
    assert raw(model, parts(8))[0].max() < before.min()
    assert known.max() < before.min()


def check_nan_features(make: Make) -> None:
    model = make()
    model.start()
    images = model.pre_processor(parts(2))
    images[1, 0, 5, 5] = torch.nan
    with pytest.raises(NonFiniteError, match=r"returned features that are NaN or infinite. Check"):
        model.features(images)
    good = fitted(make, parts(6))
    with pytest.raises(NonFiniteError):
        good.inspect(images, SIZE)


def check_identical_images(make: Make) -> None:
    """A camera that sent the same frame over and over: no crash, no NaN, and a defect still stands out."""
    same = parts(1).expand(8, -1, -1, -1)
    model = calibrate(fitted(make, same), same)
    assert isinstance(model.post_processor, DecisionModule)
    assert model.post_processor.is_calibrated
    done: InferenceBatch = model(torch.cat([parts(1), parts(1, "hole")]))
    assert done.pred_score is not None
    assert done.raw_score is not None
    assert done.pred_score.isfinite().all()
    assert done.raw_score[1] > done.raw_score[0]


def check_global_random_state_unmoved(make: Make) -> None:
    def states() -> tuple[Any, ...]:
        numpy = np.random.get_state()  # noqa: NPY002 - the global state is what is watched
        return torch.random.get_rng_state().tolist(), str(numpy), random.getstate()

    before = states()
    model = calibrate(fitted_anew(make, parts(6)), parts(3, first=20))
    model(parts(1))
    assert states() == before


def check_inputs_unchanged(make: Make) -> None:
    images = parts(6).clone()
    model = fitted(make, images)
    features = model.features(model.pre_processor(images))
    kept = features.clone()
    model.score(features)
    model(images)
    assert torch.equal(images, parts(6))
    assert torch.equal(features, kept)


# -------------------------------------------------------------------------------------------------------------- scoring


def check_score_ignores_batch_mates(make: Make) -> None:
    """Within rounding: an image alone, and among others."""
    model = fitted(make, parts(8))
    images = torch.cat([parts(2, first=30), parts(2, "hole", first=30), parts(3)])
    together = raw(model, images)
    for i in range(len(images)):
        alone = raw(model, images[i : i + 1])
        torch.testing.assert_close(alone[0][0], together[0][i], rtol=ULP, atol=1e-4)
        torch.testing.assert_close(alone[1][0], together[1][i], rtol=ULP, atol=1e-4)


def check_evaluation_mode_changes_nothing(make: Make) -> None:
    """No arithmetic asks whether the module is training."""
    model = fitted(make, parts(8))
    trained = raw(model.train(), parts(2, "hole"))
    assert all(torch.equal(a, b) for a, b in zip(trained, raw(model.eval(), parts(2, "hole")), strict=True))


def check_defect_outranks_its_clean_twin(make: Make) -> None:
    model = fitted(make, parts(16))
    clean, marked = raw(model, parts(6, first=100))[0], raw(model, parts(6, "hole", first=100))[0]
    assert len(clean.unique()) == len(clean), clean
    assert (marked > clean).all(), (clean, marked)


def check_map_peaks_on_the_defect(make: Make) -> None:
    """In the pixels of the image, which is neither square nor of the model's size."""
    _assert_found(fitted(make, parts(10, size=(160, 224)), image_size=(160, 192)), (160, 224))


def check_letterbox(make: Make) -> None:
    """A tall image in a square model: the bars at its sides shift nothing."""
    model = fitted(make, parts(10, size=(224, 144)), image_size=(160, 160), fit_mode="letterbox")
    _assert_found(model, (224, 144))


def _assert_found(model: Detector, size: tuple[int, int]) -> None:
    _, maps = raw(model, parts(4, "hole", first=100, size=size))
    assert maps.shape == (4, *size)
    for single, mask in zip(maps, masks(4, "hole", first=100, size=size), strict=True):
        near = dilation(mask.numpy(), disk(4))
        assert near[np.unravel_index(int(single.argmax()), size)]
        assert near.mean() < 0.2  # or the test could not fail


def check_original_pixels(make: Make) -> None:
    """Maps and masks come back at the size of the image, whatever it is, alone or mixed."""
    model = calibrate(fitted(make, parts(6)), parts(3, first=20))
    for size in ((64, 96), (33, 201), (200, 70)):
        done = model(torch.randint(0, 256, (2, *size, 3), dtype=torch.uint8, generator=torch.Generator()))
        assert done.anomaly_map.shape == done.pred_mask.shape == (2, *size)
        assert done.pred_mask.dtype == torch.bool
    mixed = model.inspect(model.pre_processor(parts(2)), [(50, 60), (70, 80)])
    assert [tuple(one.shape) for one in mixed.maps] == [(50, 60), (70, 80)]


def check_verdict_is_the_threshold_rule(make: Make) -> None:
    model = calibrate(fitted(make, parts(10)), parts(6, first=20))
    done = model(torch.cat([parts(6, first=20), parts(4, "hole", first=100)]))
    assert torch.equal(done.pred_label, done.raw_score >= model.post_processor.effective_image_threshold)
    assert int(done.pred_label[:6].sum()) == 1  # the highest normal score is the threshold, and reaches it
    assert done.pred_label[6:].all()


# -------------------------------------------------------------------------------------------------------------- merging


def watching(make: Make, images: Tensor, first: int, **arguments: Any) -> Detector:
    """A detector that has observed images with numbers from `first`, and isn't finished."""
    model = make(**arguments)
    model.start()
    with torch.no_grad():
        for at in range(0, len(images), 4):
            batch = images[at : at + 4]
            numbers = range(first + at, first + at + len(batch))
            model.observe(model.features(model.pre_processor(batch)), numbers)
    return model


def check_two_halves_merged_equal_one_pass(make: Make) -> None:
    """In either order, as detectors and as plain tensors; the half that was merged stays as it was."""
    images = parts(12)
    expected = fitted(make, images)
    first, second = watching(make, images[:4], 0), watching(make, images[4:], 4)
    together = make()
    together.start()
    for half in (second, first):
        together.merge({name: tensor.clone() for name, tensor in half.observed_state().items()})
    before = second.observed_state()
    first.merge(second)
    for model in (first, together):
        model.finish()
        assert same_state(model, expected)
    after = second.observed_state()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def check_merging_refuses_what_does_not_belong_together(make: Make) -> None:
    model, other = watching(make, parts(4), 0), watching(make, parts(4), 4, sigma=3.0)
    with pytest.raises(UsageError, match=r"Only detectors of one kind with the same settings can be merged."):
        model.merge(other)
    with pytest.raises(UsageError, match=r"Parts that are merged must have seen different images."):
        model.merge(watching(make, parts(4), 0))
    done = fitted(make, parts(4))
    with pytest.raises(UsageError, match=r"Only a detector that observes can merge another."):
        done.merge(model)


def check_a_detector_that_saw_nothing_merges_to_nothing(make: Make) -> None:
    model, nothing = watching(make, parts(4), 0), watching(make, parts(4)[:0], 0)
    model.merge(nothing)
    nothing.merge(model)
    for one in (model, nothing):
        one.finish()
        assert same_state(one, fitted(make, parts(4)))


# ---------------------------------------------------------------------------------------------------------------- state


def check_state_loads_into_fresh_instance(make: Make, folder: Path) -> None:
    model = calibrate(fitted(make, parts(8)), parts(3, first=20))
    model.save(folder / "model.safetensors")
    again = load(folder / "model.safetensors")
    assert again.is_fitted
    assert not again.training
    assert same_state(model, again)
    assert again.arguments() == model.arguments()
    fresh = make()
    fresh.load_state_dict(model.state_dict())
    for other in (again, fresh):
        expected, got = model(parts(2, "hole")), other(parts(2, "hole"))
        for name in ("raw_score", "pred_score", "pred_label", "anomaly_map", "pred_mask"):
            assert torch.equal(getattr(expected, name), getattr(got, name)), name


def check_loaded_model_can_be_updated(make: Make, folder: Path) -> None:
    """Everything an update needs is in the file."""
    model = fitted(make, parts(6))
    model.save(folder / "model.safetensors")
    again = load(folder / "model.safetensors")
    for one in (model, again):
        one.resume()
        observe(one, parts(6, first=40))
    assert same_state(model, again)


def check_without_post_processor(make: Make) -> None:
    """Raw scores, no verdicts, and no way to get one by accident."""
    model = fitted(make, parts(6), post_processor=False)
    done = model(parts(2))
    assert done.pred_label is None
    assert done.pred_mask is None
    with pytest.raises(NotCalibratedError, match="has no thresholds yet"):
        PostProcessor().threshold_batch(done)


# --------------------------------------------------------------------------------------------------------------- tiling


def check_tiling(make: Make) -> None:
    """Away from seams, tiles see what the whole image shows."""
    images = parts(2, size=(128, 320))
    whole = make(image_size=(128, 320))
    tiled = make(image_size=(128, 320), tile_size=(128, 192), tile_stride=(128, 128))
    assert tiled.grid == whole.grid
    want, got = (model.features(model.pre_processor(images)) for model in (whole, tiled))
    cell = 320 // whole.grid[1]
    # Columns 0..127 are seen by the left tile alone, 192..319 by the right one. These are 128 pixels from where their
    # tile is cut off: a cell of layer3 sees 105 pixels to each side.
    for columns in (slice(0, 64 // cell), slice(256 // cell, None)):
        torch.testing.assert_close(got[..., columns], want[..., columns], rtol=1e-4, atol=1e-4)
    assert not torch.equal(got, want)


def check_tiling_any_size(make: Make) -> None:
    """Sizes that are no multiple of the tile, its stride or the backbone's: a defect is still found."""
    arguments = {"image_size": (100, 150), "tile_size": 64, "tile_stride": 32}
    model = calibrate(fitted(make, parts(12), **arguments), parts(4, first=20))
    done = model(parts(4, "hole", first=100))
    assert done.anomaly_map.shape == (4, *SIZE)
    assert done.pred_label.all()
    for single, mask in zip(done.raw_map, masks(4, "hole", first=100), strict=True):
        assert dilation(mask.numpy(), disk(12))[np.unravel_index(int(single.argmax()), SIZE)]


# --------------------------------------------------------------------------------------------------- region of interest

ROI = [[(0.2, 0.15), (0.9, 0.25), (0.75, 0.9), (0.1, 0.7)], [(0.8, 0.7), (0.95, 0.7), (0.95, 0.95)]]


def in_region(make: Make, **arguments: Any) -> Detector:
    return calibrate(fitted(make, parts(12), roi=ROI, **arguments), parts(6, first=20)).eval()


def check_nothing_outside_the_region_matters(make: Make) -> None:
    """To the last bit: noise, white, NaN."""
    model = in_region(make)
    images = torch.cat([parts(2, "hole", first=100), parts(1, first=100)])
    inside = known(model.pre_processor.inside(SIZE))
    assert 0.3 < float(inside.float().mean()) < 0.6
    noise = torch.randint(0, 256, images.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    for other in (noise, torch.full_like(images, 255)):
        got = model(torch.where(inside[..., None], images, other))
        for name in ("raw_score", "pred_score", "pred_label", "raw_map", "anomaly_map", "pred_mask"):
            assert torch.equal(getattr(got, name), getattr(expected, name)), name
    floats = images / 255
    broken = torch.where(inside[..., None], floats, torch.nan)
    assert torch.equal(model(broken).raw_score, model(floats).raw_score)
    again = fitted(make, torch.where(inside[..., None], parts(12), noise[:1]), roi=ROI)
    assert same_state(again, fitted(make, parts(12), roi=ROI))


def check_outside_the_region_is_neutral(make: Make) -> None:
    """0 in both maps and nothing marked, at any sensitivity and any size of the image."""
    model = in_region(make)
    processor = model.post_processor
    assert isinstance(processor, DecisionModule)
    for sensitivity in (0.5, 1.0):
        processor.pixel_sensitivity = sensitivity
        for size in (SIZE, (33, 201)):
            done = model(parts(2, "hole", size=size))
            inside = known(model.pre_processor.inside(size))
            for values in (done.raw_map, done.anomaly_map, done.pred_mask):
                assert not values[:, ~inside].any()
            assert torch.equal(done.pred_mask[:, inside].all(), torch.tensor(sensitivity == 1.0))
            assert (done.raw_map[:, inside] > 0).all()
    mixed = model.inspect(model.pre_processor(parts(2)), [(50, 60), (70, 80)])
    assert [tuple(one.shape) for one in mixed.roi] == [(50, 60), (70, 80)]
    assert not processor(mixed).pred_mask[1][~mixed.roi[1]].any()


def check_a_defect_counts_where_it_is_inside(make: Make) -> None:
    """Against the same part without it: inside it raises score and map, outside it changes nothing."""
    model = in_region(make)
    marked, clean = model(parts(12, "hole", first=100)), model(parts(12, first=100))
    where = masks(12, "hole", first=100)
    inside = known(model.pre_processor.inside(SIZE))
    share = (where & inside).sum(dim=(1, 2)) / where.sum(dim=(1, 2))
    assert (share == 0).any()  # or nothing is tested
    assert (share == 1).any()
    for i in range(len(where)):
        if share[i] == 0:
            assert torch.equal(marked.raw_score[i], clean.raw_score[i])
            assert torch.equal(marked.raw_map[i], clean.raw_map[i])
        elif share[i] == 1:
            assert marked.raw_score[i] > clean.raw_score[i]
            assert marked.raw_map[i][where[i]].mean() > clean.raw_map[i][where[i]].mean()


def check_verdicts_without_maps_are_the_same(make: Make) -> None:
    model, images = in_region(make, worst_share=0.1), torch.cat([parts(2, "hole"), parts(2)])
    alone, whole = model.judge(images), model(images)
    for name in ("raw_score", "pred_score", "pred_label"):
        assert torch.equal(getattr(alone, name), getattr(whole, name)), name
    assert alone.anomaly_map is alone.pred_mask is alone.raw_map is None


def check_the_region_is_calibrated_alone(make: Make) -> None:
    """The zeros outside are no scores: the lowest pixel is one inside."""
    model = in_region(make)
    processor = model.post_processor
    assert isinstance(processor, DecisionModule)
    _, maps = raw(model, parts(6, first=20))
    inside = known(model.pre_processor.inside(SIZE))
    assert processor.pixel_min == float(maps[:, inside].min()) > 0
    assert processor.pixel_max == processor.raw_pixel_threshold == float(maps[:, inside].max())


def check_the_region_travels_in_the_artifact(make: Make, folder: Path) -> None:
    model = in_region(make)
    model.save(folder / "model.safetensors")
    again = load(folder / "model.safetensors")
    assert again.arguments() == model.arguments()
    assert torch.equal(again.pre_processor.roi, model.pre_processor.roi)
    assert torch.equal(again(parts(2, "hole")).raw_map, model(parts(2, "hole")).raw_map)
    assert (
        len(model.map_maker.patches(model.features(model.pre_processor(parts(1))))[0]) < model.grid[0] * model.grid[1]
    )


def check_region_with_tiles_and_a_crop(make: Make) -> None:
    model = in_region(make, image_size=(96, 96), crop_from=(104, 112), tile_size=64)
    inside = known(model.pre_processor.inside(SIZE))
    images = parts(2, "hole")
    got = model(torch.where(inside[..., None], images, 255 - images))
    assert torch.equal(got.raw_map, model(images).raw_map)
    assert not got.raw_map[:, ~inside].any()
