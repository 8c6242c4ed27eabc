"""A threshold that is moved takes the marks along, and its record says that nobody calibrated it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from blemish.errors import CalibrationError, UsageError
from blemish.functional.thresholds import normal_threshold
from blemish.post_processing.decision import CalibrationRecord, Decision, Scale
from blemish.post_processing.moving import BY_HAND, at_rate, at_sensitivity, at_threshold, moved, without
from blemish.post_processing.post_processor import DecisionModule
from blemish.post_processing.summary import calibration_summary
from known import known

SCORES = tuple(float(np.float32(score)) for score in np.linspace(1.0, 2.0, 21))
RECORD = CalibrationRecord(
    policy="highest normal score",
    pixel_policy="highest normal score",
    source="held_out",
    normal=len(SCORES),
    anomalous=0,
    certified_false_alarm_rate=1 / 22,
    f1=None,
    decided_by="20.png",
    next_score=SCORES[-2],
    scores=SCORES,
    names=tuple(f"{i:02}.png" for i in range(len(SCORES))),
    expected_false_alarm_rate=1 / 22,
)
DECISION = Decision(Scale(2.0, 1.0, 2.0), Scale(4.0, 0.0, 4.0), RECORD)


def test_pixels_follow_in_proportion() -> None:
    half = at_threshold(DECISION, 1.0)
    assert (half.image.effective_threshold, half.pixel.effective_threshold) == (1.0, 2.0)
    more = at_sensitivity(DECISION, 1.0 - 1e-6)
    ratio = more.image.effective_threshold / 2.0
    assert more.pixel.effective_threshold == pytest.approx(4.0 * ratio)
    both = at_threshold(DECISION, 1.0, 3.0)
    assert (both.image.effective_threshold, both.pixel.effective_threshold) == (1.0, 3.0)
    assert at_threshold(DECISION, pixel=3.0).image == DECISION.image
    below_zero = Decision(Scale(-1.0, -2.0, 0.0), Scale(5.0, 0.0, 9.0))
    assert at_threshold(below_zero, -3.0).pixel.threshold == 3.0, "by the same difference, where there is no ratio"


def test_thresholds_are_in_force_as_they_stand() -> None:
    sensitive = DECISION.replace(image_sensitivity=0.8, pixel_sensitivity=0.3)
    assert at_threshold(sensitive, 1.25, 3.0).settings() == {
        "image_threshold": 1.25,
        "pixel_threshold": 3.0,
        "image_sensitivity": 0.5,
        "pixel_sensitivity": 0.5,
    }


def test_everything_anomalous_and_back() -> None:
    everything = at_sensitivity(DECISION, 1.0)
    assert everything.image.effective_threshold == -math.inf
    assert everything.pixel == DECISION.pixel, "no multiple of a threshold is infinite"
    assert at_sensitivity(everything, 0.5).settings() == DECISION.settings()


def test_the_record_keeps_no_promise_that_was_not_made() -> None:
    record = known(at_threshold(DECISION, 1.5).record)
    assert (record.policy, record.certified_false_alarm_rate, record.decided_by) == (BY_HAND, None, None)
    assert record.expected_false_alarm_rate == 11 / 21
    assert record.scores == SCORES
    text = calibration_summary(record, 1.5)
    assert text == (
        "Threshold 1.5: set by hand. 11 of 21 good images that calibrated (held out) reach it. Nothing is certified "
        "for it."
    )
    assert at_threshold(replace(DECISION, record=None), 1.5).record is None
    assert at_threshold(DECISION, 2.0).record == RECORD, "nothing was moved"


def test_a_sensitivity_of_the_fit_is_told() -> None:
    text = calibration_summary(RECORD, 1.775, 2.0)
    assert text.startswith(
        "Threshold 1.775: moved by the sensitivity from 2. 5 of 21 good images that calibrated (held out) reach it. "
        "What follows is of 2: highest normal score on 21 good images (held out). 21 images certify"
    )


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_a_rate_gives_what_calibration_would_have_given(rate: float) -> None:
    found = at_rate(DECISION, rate)
    threshold = normal_threshold(torch.tensor(SCORES), rate)
    assert found.image.effective_threshold == threshold
    assert found.record is not None
    assert found.record.certified_false_alarm_rate == found.record.expected_false_alarm_rate
    assert found.record.certified_false_alarm_rate is not None
    assert found.record.certified_false_alarm_rate <= rate
    assert found.record.decided_by == RECORD.names[SCORES.index(threshold)]
    assert at_rate(replace(DECISION, record=replace(RECORD, source="cross")), rate).record != found.record


@pytest.mark.parametrize("rate", [None, 0.1])
def test_left_out_images_chose_nothing(rate: float | None) -> None:
    found = without(DECISION, ["good/20.png", "good/03.png"], rate)
    left = [score for i, score in enumerate(SCORES) if i not in (3, 20)]
    threshold = normal_threshold(torch.tensor(left), rate)
    assert found.image.effective_threshold == threshold
    assert found.pixel.effective_threshold == pytest.approx(2 * threshold)
    record = known(found.record)
    assert (record.scores, record.normal, record.certified_false_alarm_rate) == (tuple(left), 19, None)
    assert record.decided_by == RECORD.names[SCORES.index(threshold)]
    assert record.policy == ("highest normal score" if rate is None else "false-alarm rate")
    assert without(without(DECISION, ["20.png"], rate), ["03.png"], rate) == found


def test_who_cannot_be_left_out() -> None:
    twice = replace(DECISION, record=replace(RECORD, names=("a.png", "a.png", *RECORD.names[2:])))
    with pytest.raises(UsageError, match=r"None of the images that calibrated is called 77.png. Fit again without it"):
        without(DECISION, ["77.png"])
    with pytest.raises(UsageError, match=r"2 of the images that calibrated are called a.png."):
        without(twice, ["x/a.png"])
    with pytest.raises(UsageError, match=r"All 21 images that calibrated would be left out. Keep some."):
        without(DECISION, RECORD.names)
    with pytest.raises(UsageError, match=r"Leaving images out needs the scores of the calibration, and this file has"):
        without(Decision(DECISION.image, DECISION.pixel), ["20.png"])
    by_labels = replace(DECISION, record=replace(RECORD, policy="maximum F1"))
    with pytest.raises(UsageError, match=r"a threshold by maximum F1 can't be chosen anew. Give a rate."):
        without(by_labels, ["20.png"])
    assert without(by_labels, ["20.png"], 0.1) == without(DECISION, ["20.png"], 0.1)


def test_what_cannot_be() -> None:
    with pytest.raises(CalibrationError, match=r"max_false_alarm_rate=0.01 needs at least 99 normal scores. Got 21"):
        at_rate(DECISION, 0.01)
    with pytest.raises(UsageError, match=r"A rate needs the scores of the calibration, and this file has none."):
        at_rate(Decision(DECISION.image, DECISION.pixel), 0.1)
    with pytest.raises(UsageError, match=r"Give one of threshold, sensitivity and rate. Got threshold and rate."):
        moved(DECISION, threshold=1.0, rate=0.1)
    with pytest.raises(UsageError, match="image_threshold must be a finite number"):
        at_threshold(DECISION, math.inf)
    assert moved(DECISION) is DECISION


@pytest.mark.parametrize("value", ["0.5", True, np.True_, b"1", [0.5], 1j])
def test_what_is_no_number(value: Any) -> None:
    for change, name in ((at_threshold, "image_threshold"), (at_sensitivity, "image_sensitivity"), (at_rate, "rate")):
        with pytest.raises(UsageError, match=rf"{name} must be a number. Got "):
            change(DECISION, value)
    with pytest.raises(UsageError, match="image_threshold must be a finite number"):
        at_threshold(DECISION, 10**400)
    with pytest.raises(UsageError, match=r"image_sensitivity must be between 0 and 1. Got -inf\."):
        at_sensitivity(DECISION, -(10**400))
    assert at_threshold(DECISION, 1.5) == at_threshold(DECISION, np.float32(1.5))


def test_the_threshold_of_a_module_may_be_set() -> None:
    module = DecisionModule()
    module.decision = DECISION
    module.raw_image_threshold = 1.0
    assert (module.raw_image_threshold, module.raw_pixel_threshold) == (1.0, 2.0)
    module.raw_pixel_threshold = 3.5
    assert (module.raw_image_threshold, module.raw_pixel_threshold) == (1.0, 3.5)
    assert module.record is not None
    assert module.record.policy == BY_HAND
