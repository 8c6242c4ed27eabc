"""Calibration, verdicts and properties of the default post-processor, hook by hook; `test_post_processor_trainer` runs
them under Lightning.
"""

from __future__ import annotations

import copy
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_curve
from torch import Tensor, nn

from blemish.data.batch import InferenceBatch, PerImage
from blemish.errors import CalibrationError, NonFiniteError, NotCalibratedError, UsageError
from blemish.post_processing import OneClassPostProcessor, PostProcessor
from known import known

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"
NAN, INF = torch.nan, torch.inf
BIN = 2.0**-11
"""Relative width of the bins in which pixel values are counted."""


class Stacked(InferenceBatch):
    """A batch of scores, maps and labels in which nothing is missing and all maps are of one size."""

    pred_score: Tensor
    anomaly_map: Tensor
    gt_label: Tensor
    gt_mask: PerImage | None


def labeled(n: int = 30, seed: int = 0) -> Stacked:
    """Overlapping scores and maps of normal and anomalous images, with masks."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 3 == 0
    mask = torch.zeros(n, 8, 9, dtype=torch.bool)
    mask[label, 2:5, 3:7] = True
    return Stacked(
        pred_score=3 + torch.randn(n, generator=generator) + 1.5 * label,
        anomaly_map=2 + 0.5 * torch.randn(n, 8, 9, generator=generator) + mask,
        gt_label=label,
        gt_mask=mask,
        path=[f"part{i}.png" for i in range(n)],
    )


def normal(n: int = 20) -> Stacked:
    batch = labeled(n)
    batch.gt_label, batch.gt_mask = torch.zeros(n, dtype=torch.bool), None
    return batch


def parts(batch: InferenceBatch, size: int) -> Iterator[InferenceBatch]:
    fields = {name: value for name, value in vars(batch).items() if value is not None and len(value)}
    for start in range(0, max(map(len, fields.values())), size):
        yield InferenceBatch(**{name: value[start : start + size] for name, value in fields.items()})


def calibrated(batch: InferenceBatch, size: int = 4, **arguments: Any) -> PostProcessor:
    post_processor = PostProcessor(**arguments)
    calibrate(post_processor, batch, size)
    return post_processor


def calibrate(post_processor: PostProcessor, batch: InferenceBatch, size: int = 4) -> None:
    nobody: Any = None  # hooks take the trainer's word for distribution and policy; without one there is none
    post_processor.on_validation_epoch_start(nobody, nobody)
    for part in parts(batch, size):
        post_processor.on_validation_batch_end(nobody, nobody, part, part, 0)
    post_processor.on_validation_epoch_end(nobody, nobody)


# --- calibration


def test_f1_at_the_threshold_is_the_maximum_f1() -> None:
    batch = labeled()
    post_processor = calibrated(batch)
    verdict = post_processor(batch)
    precision, recall, _ = precision_recall_curve(batch.gt_label, batch.pred_score)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_score(batch.gt_label, verdict.pred_label) == pytest.approx(best)
    assert 0.5 < best < 1.0
    record = known(post_processor.record)
    assert record.f1 == pytest.approx(best)
    assert record.policy == record.pixel_policy == "maximum F1"
    assert (record.normal, record.anomalous) == (20, 10)
    assert record.certified_false_alarm_rate is None


def test_pixel_f1_at_the_threshold_is_the_maximum_f1_but_for_the_width_of_a_bin() -> None:
    batch = labeled()
    assert isinstance(batch.gt_mask, Tensor)
    verdict = calibrated(batch)(batch)
    assert isinstance(verdict.pred_mask, Tensor)
    precision, recall, _ = precision_recall_curve(batch.gt_mask.flatten(), batch.anomaly_map.flatten())
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_score(batch.gt_mask.flatten(), verdict.pred_mask.flatten()) == pytest.approx(best, abs=2e-3)


def test_ranges_are_the_lowest_and_highest_of_all_images() -> None:
    batch = labeled()
    post_processor = calibrated(batch)
    assert post_processor.image_min == float(batch.pred_score.min())
    assert post_processor.image_max == float(batch.pred_score.max())
    assert post_processor.pixel_min == float(batch.anomaly_map.min())
    assert post_processor.pixel_max == float(batch.anomaly_map.max())


@pytest.mark.parametrize("size", [1, 7, 30])
def test_the_batch_size_changes_nothing(size: int) -> None:
    expected, found = calibrated(labeled()), calibrated(labeled(), size)
    assert found.state_dict() == expected.state_dict()
    assert found.record == expected.record


def test_normal_images_alone_give_the_highest_normal_score(caplog: pytest.LogCaptureFixture) -> None:
    batch = normal(20)
    with caplog.at_level(logging.INFO):
        post_processor = calibrated(batch, size=1)
    assert post_processor.raw_image_threshold == float(batch.pred_score.max())
    assert post_processor.raw_pixel_threshold == float(batch.anomaly_map.max())
    record = known(post_processor.record)
    assert record.policy == record.pixel_policy == "highest normal score"
    assert record.certified_false_alarm_rate == pytest.approx(1 / 21)
    assert record.f1 is None
    # said once, not per batch
    assert [entry.message for entry in caplog.records] == [
        "Calibrated on 20 normal images and no anomalous one: the threshold is the highest score observed among them."
    ]


def test_with_anomalous_images_nothing_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        calibrated(labeled())
    assert not caplog.records


def test_without_masks_the_pixel_threshold_comes_from_the_maps_of_normal_images() -> None:
    batch = labeled()
    batch.gt_mask = None
    post_processor = calibrated(batch)
    assert post_processor.raw_pixel_threshold == float(batch.anomaly_map[~batch.gt_label].max())
    record = known(post_processor.record)
    assert record.policy == "maximum F1"
    assert record.pixel_policy == "highest normal score"


@pytest.mark.parametrize(("rate", "rank"), [(0.05, 20), (0.1, 19), (0.5, 11)])
def test_a_wanted_false_alarm_rate_takes_its_order_statistic(rate: float, rank: int) -> None:
    batch = normal(20)
    post_processor = calibrated(batch, max_false_alarm_rate=rate)
    assert rank == math.ceil((1 - rate) * 21)
    assert post_processor.raw_image_threshold == float(batch.pred_score.sort()[0][rank - 1])
    assert post_processor.raw_pixel_threshold == float(batch.anomaly_map.amax(dim=(1, 2)).sort()[0][rank - 1])
    record = known(post_processor.record)
    assert record.policy == "false-alarm rate"
    assert record.certified_false_alarm_rate == pytest.approx((21 - rank) / 21)


def test_a_wanted_rate_looks_at_normal_images_even_where_there_are_others() -> None:
    batch = labeled(30)
    post_processor = calibrated(batch, max_false_alarm_rate=0.1)
    assert post_processor.raw_image_threshold == float(batch.pred_score[~batch.gt_label].sort()[0][18])


def test_ties_at_the_threshold_are_certified_at_the_lowest_of_their_ranks() -> None:
    batch = InferenceBatch(pred_score=torch.tensor([1.0, 2.0, 5.0, 5.0]), gt_label=torch.zeros(4, dtype=torch.bool))
    record = known(calibrated(batch).record)
    assert record.certified_false_alarm_rate == pytest.approx(2 / 5)


def test_too_few_images_for_the_rate_name_the_number_needed() -> None:
    with pytest.raises(CalibrationError, match=r"max_false_alarm_rate=0.01 needs at least 99 normal scores. Got 20"):
        calibrated(normal(20), max_false_alarm_rate=0.01)


def test_calibration_needs_labels_and_normal_images() -> None:
    batch = normal()
    batch.gt_label = None
    with pytest.raises(CalibrationError, match=r"Calibration images need labels .* Got a batch without gt_label"):
        calibrated(batch)
    batch.gt_label = torch.ones(20, dtype=torch.bool)
    with pytest.raises(CalibrationError, match=r"needs normal images. Got 20 images, none of them normal"):
        calibrated(batch)


def test_a_failed_calibration_leaves_the_earlier_one(caplog: pytest.LogCaptureFixture) -> None:
    post_processor = calibrated(labeled())
    before, record = copy.deepcopy(post_processor.state_dict()), post_processor.record
    broken = normal()
    broken.gt_label = torch.ones(20, dtype=torch.bool)
    with pytest.raises(CalibrationError):
        calibrate(post_processor, broken)
    assert post_processor.state_dict() == before
    assert post_processor.record == record
    calibrate(post_processor, normal())  # and a later one starts afresh
    record = known(post_processor.record)
    assert record.normal == 20


def test_maps_of_mixed_sizes_and_scores_without_maps() -> None:
    batch = labeled(6)
    assert isinstance(batch.gt_mask, Tensor)
    crops = [(8, 9), (7, 8), (6, 9), (8, 8), (5, 7), (8, 9)]
    batch.anomaly_map = [one[:h, :w] for one, (h, w) in zip(batch.anomaly_map, crops, strict=True)]
    batch.gt_mask = [one[:h, :w] for one, (h, w) in zip(batch.gt_mask, crops, strict=True)]
    post_processor = calibrated(batch, size=4)
    assert post_processor.pixel_max == max(float(one.max()) for one in batch.anomaly_map)
    result = post_processor(batch)
    assert isinstance(result.pred_mask, list)
    assert isinstance(result.anomaly_map, list)
    assert [tuple(one.shape) for one in result.pred_mask] == crops
    assert [tuple(one.shape) for one in result.anomaly_map] == crops

    scores = InferenceBatch(pred_score=batch.pred_score, gt_label=batch.gt_label)
    only_scores = calibrated(scores)
    assert only_scores.raw_image_threshold == post_processor.raw_image_threshold
    result = only_scores(scores)
    assert result.anomaly_map is result.pred_mask is result.raw_map is None


def test_maps_without_scores_score_by_their_maximum() -> None:
    batch = labeled()
    batch.pred_score = None
    post_processor = calibrated(batch)
    result = post_processor(batch)
    assert torch.equal(result.raw_score, batch.anomaly_map.amax(dim=(1, 2)))
    mixed = post_processor(InferenceBatch(anomaly_map=[batch.anomaly_map[0], batch.anomaly_map[1, :4]]))
    assert torch.equal(mixed.raw_score, torch.stack([batch.anomaly_map[0].max(), batch.anomaly_map[1, :4].max()]))


# --- forward


def test_scores_stay_raw_and_verdicts_absent_before_calibration() -> None:
    batch, post_processor = labeled(), PostProcessor()
    result = post_processor(batch)
    assert not post_processor.is_calibrated
    assert torch.equal(result.pred_score, batch.pred_score)
    assert torch.equal(result.raw_score, batch.pred_score)
    assert torch.equal(result.anomaly_map, batch.anomaly_map)
    assert result.pred_label is result.pred_mask is None
    for value in (
        post_processor.image_min,
        post_processor.image_max,
        post_processor.pixel_min,
        post_processor.pixel_max,
        post_processor.raw_image_threshold,
        post_processor.raw_pixel_threshold,
        post_processor.effective_image_threshold,
        post_processor.effective_pixel_threshold,
    ):
        assert math.isnan(value)
    for verb in (post_processor.normalize_batch, post_processor.threshold_batch):
        with pytest.raises(NotCalibratedError, match=r"no thresholds yet. Run Engine.fit or Engine.validate"):
            verb(batch)


def test_the_formulas() -> None:
    batch = labeled()
    post_processor = calibrated(batch)
    result = post_processor(batch)
    for raw, shown, verdict, theta, low, high in (
        (
            batch.pred_score,
            result.pred_score,
            result.pred_label,
            post_processor.raw_image_threshold,
            post_processor.image_min,
            post_processor.image_max,
        ),
        (
            batch.anomaly_map,
            result.anomaly_map,
            result.pred_mask,
            post_processor.raw_pixel_threshold,
            post_processor.pixel_min,
            post_processor.pixel_max,
        ),
    ):
        assert isinstance(raw, Tensor)
        expected = ((raw - theta) / (high - low) + 0.5).clamp(0, 1)
        torch.testing.assert_close(shown, expected, rtol=0, atol=1e-6)
        assert torch.equal(verdict, raw >= theta)
        assert torch.equal(verdict, shown >= 0.5)
        assert 0 < int(verdict.sum()) < verdict.numel()


def test_the_input_stays_and_the_rest_of_the_batch_travels_along() -> None:
    batch = labeled()
    before = copy.deepcopy(batch)
    result = calibrated(batch)(batch)
    assert result is not batch
    for name, value in vars(before).items():
        kept = getattr(batch, name)
        assert torch.equal(kept, value) if isinstance(value, Tensor) else kept == value
    assert isinstance(before.pred_score, Tensor)
    assert isinstance(before.anomaly_map, Tensor)
    assert torch.equal(result.raw_score, before.pred_score)
    assert torch.equal(result.raw_map, before.anomaly_map)
    assert result.path == before.path
    assert result.gt_label is batch.gt_label
    assert result.gt_mask is batch.gt_mask


def test_running_again_changes_nothing() -> None:
    batch = labeled()
    post_processor = calibrated(batch, image_sensitivity=0.3, pixel_sensitivity=0.8)
    once = post_processor(batch)
    twice = post_processor(once)
    in_place = copy.copy(batch)
    post_processor.post_process_batch(in_place)
    post_processor.post_process_batch(in_place)
    by_hand = copy.copy(batch)
    post_processor.normalize_batch(by_hand)
    post_processor.threshold_batch(by_hand)  # on raw scores, though normalized ones are there
    for name in ("pred_score", "anomaly_map", "pred_label", "pred_mask", "raw_score", "raw_map"):
        for other in (twice, in_place, by_hand):
            assert torch.equal(getattr(other, name), getattr(once, name)), name


def test_thresholding_alone_leaves_scores_raw() -> None:
    batch = labeled()
    post_processor = calibrated(batch)
    expected = post_processor(batch)
    before = copy.copy(batch)
    post_processor.threshold_batch(batch)
    assert torch.equal(batch.pred_label, expected.pred_label)  # type: ignore[arg-type]
    assert batch.pred_score is before.pred_score
    assert batch.anomaly_map is before.anomaly_map


@pytest.mark.parametrize("ready", [True, False])
def test_neither_score_nor_map(ready: bool) -> None:
    post_processor = calibrated(labeled()) if ready else PostProcessor()
    with pytest.raises(ValueError, match=r"At least one of pred_score and anomaly_map must be given. Got neither."):
        post_processor(InferenceBatch())


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
@pytest.mark.parametrize("ready", [True, False])
def test_a_broken_score_is_an_error_that_names_the_image(broken: float, ready: bool) -> None:
    post_processor = calibrated(labeled()) if ready else PostProcessor()
    batch = InferenceBatch(pred_score=torch.tensor([1.0, broken]), path=["a.png", "b.png"])
    with pytest.raises(NonFiniteError, match=rf"The score of b.png is {broken}, so there is no verdict"):
        post_processor(batch)
    batch.path = []
    with pytest.raises(NonFiniteError, match="The score of image 1 of the batch"):
        post_processor(batch)
    maps = torch.zeros(2, 3, 3)
    maps[1, 2, 2] = broken
    if broken != -INF:  # the maximum doesn't show it; the mask will
        with pytest.raises(NonFiniteError, match="image 1 of the batch"):
            post_processor(InferenceBatch(anomaly_map=maps))


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
def test_a_broken_pixel_beside_a_good_score_is_marked(broken: float) -> None:
    batch = labeled(3)
    post_processor = calibrated(labeled())
    batch.anomaly_map[1, 4, 4] = broken
    result = post_processor(batch)
    assert bool(result.pred_mask[1, 4, 4])
    assert float(result.anomaly_map[1, 4, 4]) == 1.0


@pytest.mark.parametrize("broken", [NAN, INF, -INF])
@pytest.mark.parametrize("place", ["pred_score", "anomaly_map"])
def test_broken_values_calibrate_nothing(broken: float, place: str) -> None:
    batch = labeled()
    getattr(batch, place)[5] = broken
    with pytest.raises(NonFiniteError, match=r"The score of part5.png is"):
        calibrated(batch)


class Graph(nn.Module):
    """Tensors in and out, as an exported graph has them."""

    def __init__(self, post_processor: PostProcessor) -> None:
        super().__init__()
        self.post_processor = post_processor

    def forward(self, score: Tensor, maps: Tensor) -> tuple[Any, ...]:
        done = self.post_processor(InferenceBatch(pred_score=score, anomaly_map=maps))
        return done.raw_score, done.pred_score, done.pred_label, done.anomaly_map, done.pred_mask


def test_an_exported_graph_gives_the_same_and_fails_closed() -> None:
    batch = labeled()
    post_processor = calibrated(batch, image_sensitivity=0.4)
    free = {0: torch.export.Dim.DYNAMIC}
    program = torch.export.export(
        Graph(post_processor), (batch.pred_score, batch.anomaly_map), dynamic_shapes=(free, free)
    )
    graph = program.module()
    eager = Graph(post_processor)(batch.pred_score[:7], batch.anomaly_map[:7])
    for found, expected in zip(graph(batch.pred_score[:7], batch.anomaly_map[:7]), eager, strict=True):
        assert torch.equal(found, expected)

    scores, maps = torch.tensor([NAN, INF, -INF]), torch.zeros(3, 8, 9)
    maps[0, 1, 1], maps[1, 2, 2], maps[2, 3, 3] = NAN, INF, -INF
    _, shown, label, shown_map, mask = graph(scores, maps)
    assert label.tolist() == [True, True, True]
    assert shown.tolist() == [1.0, 1.0, 1.0]
    for i in range(3):
        assert mask[i].nonzero().tolist() == [[i + 1, i + 1]]
        assert shown_map[i, i + 1, i + 1] == 1.0


# --- sensitivity


@settings(max_examples=200)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=12),
    st.lists(st.floats(-200, 200, width=32), min_size=1, max_size=12),
    st.floats(0, 1, width=32),
    st.floats(0, 1, width=32),
    st.data(),
)
def test_shown_scores_and_raw_decisions_agree_at_every_sensitivity(
    seen: list[float], new: list[float], image_alpha: float, pixel_alpha: float, data: st.DataObject
) -> None:
    labels = data.draw(st.lists(st.booleans(), min_size=len(seen), max_size=len(seen)).filter(lambda x: not all(x)))
    scores, label = torch.tensor(seen), torch.tensor(labels)
    post_processor = calibrated(
        InferenceBatch(
            pred_score=scores, anomaly_map=scores[:, None, None] * 2, gt_label=label, gt_mask=label[:, None, None]
        )
    )
    post_processor.image_sensitivity, post_processor.pixel_sensitivity = image_alpha, pixel_alpha
    edge = post_processor.effective_image_threshold, post_processor.effective_pixel_threshold
    values = torch.tensor([*new, *seen, *(one for one in edge if math.isfinite(one))])
    result = post_processor(InferenceBatch(pred_score=values, anomaly_map=values[:, None, None]))
    assert torch.equal(result.pred_label, result.pred_score >= 1 - torch.tensor(image_alpha))
    assert torch.equal(result.pred_mask, result.anomaly_map >= 1 - torch.tensor(pixel_alpha))
    assert torch.equal(result.pred_label, (values >= edge[0]))
    assert torch.equal(result.pred_mask[:, 0, 0], (values >= edge[1]))
    theta, span = post_processor.raw_image_threshold, post_processor.image_max - post_processor.image_min
    if span > 1e-3 and image_alpha < 1:
        assert edge[0] == pytest.approx(theta + (0.5 - image_alpha) * span, abs=1e-4)


@pytest.mark.parametrize("scale", ["image", "pixel"])
def test_higher_sensitivity_calls_more_anomalous(scale: str) -> None:
    batch = labeled()
    post_processor = calibrated(batch)
    counts = []
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
        setattr(post_processor, f"{scale}_sensitivity", alpha)
        result = post_processor(batch)
        counts.append(int((result.pred_label if scale == "image" else result.pred_mask).sum()))
        assert getattr(post_processor, f"normalized_{scale}_threshold") == 1 - alpha
        assert getattr(post_processor, f"{scale}_sensitivity") == alpha
    assert counts == sorted(counts)
    assert counts[0] < counts[2] < counts[4]
    assert counts[4] == (30 if scale == "image" else 30 * 72)
    other = "pixel" if scale == "image" else "image"
    assert getattr(post_processor, f"normalized_{other}_threshold") == 0.5


def test_sensitivity_moves_no_raw_threshold() -> None:
    post_processor = calibrated(labeled())
    before = post_processor.raw_image_threshold
    assert post_processor.effective_image_threshold == before
    post_processor.image_sensitivity = 0.9
    assert post_processor.raw_image_threshold == before
    assert post_processor.effective_image_threshold < before


# --- arguments and state


def test_the_older_name() -> None:
    assert OneClassPostProcessor is PostProcessor
    post_processor = OneClassPostProcessor(image_sensitivity=0.25)
    assert post_processor.normalized_image_threshold == 0.75
    assert post_processor.normalized_pixel_threshold == 0.5


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN])
@pytest.mark.parametrize("name", ["image_sensitivity", "pixel_sensitivity"])
def test_sensitivities_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"{name} must be between 0 and 1. Got {value}"):
        PostProcessor(**{name: value})
    post_processor = PostProcessor()
    with pytest.raises(UsageError, match=f"{name} must be between 0 and 1"):
        setattr(post_processor, name, value)


@pytest.mark.parametrize("rate", [0.0, 1.0, -1.0, NAN])
def test_rates_out_of_range(rate: float) -> None:
    with pytest.raises(UsageError, match=r"max_false_alarm_rate must be .*between 0 and 1, both excluded. Got"):
        PostProcessor(max_false_alarm_rate=rate)


def test_a_misspelt_argument_is_an_error() -> None:
    with pytest.raises(TypeError, match="sensitivty"):
        PostProcessor(image_sensitivty=0.5)  # type: ignore[call-arg]


def test_calibration_travels_in_the_state_dict() -> None:
    batch = labeled()
    post_processor = calibrated(batch, image_sensitivity=0.3)
    fresh = PostProcessor()
    fresh.load_state_dict(post_processor.state_dict())
    assert fresh.is_calibrated
    assert fresh.image_sensitivity == pytest.approx(0.3)
    expected, found = post_processor(batch), fresh(batch)
    for name in ("pred_score", "anomaly_map", "pred_label", "pred_mask"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    fresh.load_state_dict(PostProcessor().state_dict())
    assert not fresh.is_calibrated


def test_printing_shows_thresholds_and_ranges() -> None:
    post_processor = PostProcessor()
    assert repr(post_processor) == "PostProcessor(not calibrated)"
    batch = InferenceBatch(
        pred_score=torch.tensor([1.0, 2.0, 4.0]),
        anomaly_map=torch.tensor([0.5, 1.5, 8.0])[:, None, None],
        gt_label=torch.tensor([False, False, True]),
    )
    calibrate(post_processor, batch)
    shown = repr(post_processor)
    assert "image: threshold=4, min=1, max=4, sensitivity=0.5" in shown
    assert "pixel: threshold=1.5, min=0.5, max=8, sensitivity=0.5" in shown


# --- another library


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")
def test_numbers_of_another_library() -> None:
    """Thresholds, ranges and normalized values agree; verdicts aren't given, because it decides with `>`, we with `>=`.

    At its own threshold that library would call the image the threshold came from normal, so its F1 there is not the
    maximum it was chosen for. Pixel thresholds agree up to the width of a bin.
    """
    with np.load(GOLDEN) as numbers:
        golden = {key[5:]: torch.from_numpy(numbers[key]) for key in numbers.files if key.startswith("post.")}
    batch = InferenceBatch(
        pred_score=golden["score"],
        anomaly_map=golden["map"],
        gt_label=golden["label"],
        gt_mask=golden["mask"] > 0,
    )
    post_processor = calibrated(batch)
    for name in ("image_min", "image_max", "pixel_min", "pixel_max"):
        assert getattr(post_processor, name) == float(golden[name])
    assert post_processor.raw_image_threshold == float(golden["image_threshold"])
    assert post_processor.raw_pixel_threshold == pytest.approx(float(golden["pixel_threshold"]), rel=BIN)
    result = post_processor(batch)
    torch.testing.assert_close(result.pred_score, golden["normalized_score"], rtol=0, atol=1e-6)
    torch.testing.assert_close(result.anomaly_map, golden["normalized_map"], rtol=0, atol=BIN)
    chosen_from = golden["score"] == golden["image_threshold"]
    assert bool(result.pred_label[chosen_from].all())


def test_maps_may_be_given_by_keyword_but_not_beside_predictions() -> None:
    processor, maps = PostProcessor(), torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(processor(anomaly_maps=maps).raw_score, maps.amax(dim=(1, 2)))
    with pytest.raises(UsageError, match="both given"):
        processor(InferenceBatch(anomaly_map=maps), anomaly_maps=maps)
