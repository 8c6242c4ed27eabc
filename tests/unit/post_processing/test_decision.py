"""Decisions as values: what they refuse, how they change, and that they say what torch says."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from blemish.data.batch import InferenceBatch
from blemish.errors import UsageError
from blemish.post_processing import CalibrationRecord, Decision, DecisionModule, Scale
from blemish.post_processing.decision import SETTINGS
from blemish.post_processing.summary import calibration_summary

DECISION = Decision(Scale(2.0, 0.5, 3.0), Scale(1.0, 0.0, 4.0, 0.25))
FINITE = st.floats(-1e6, 1e6, width=32)


def test_settings_are_replaced_and_nothing_else() -> None:
    other = DECISION.replace(image_threshold=2.5, image_sensitivity=0.75, pixel_threshold=0.5)
    assert other == Decision(Scale(2.5, 0.5, 3.0, 0.75), Scale(0.5, 0.0, 4.0, 0.25))
    assert DECISION.image.threshold == 2.0
    assert other.settings() == {
        "image_threshold": 2.5,
        "pixel_threshold": 0.5,
        "image_sensitivity": 0.75,
        "pixel_sensitivity": 0.25,
    }
    assert tuple(other.settings()) == SETTINGS
    assert Decision.from_dict(other.to_dict()) == other


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"image_threshold": math.inf},
            r"image_threshold must be a finite number, at most 3.4e38 either way. Got inf.",
        ),
        ({"pixel_threshold": 1e39}, r"pixel_threshold must be a finite number, at most 3.4e38 .*. Got 1e\+39."),
        ({"image_threshold": math.nan}, r"Got nan."),
        ({"image_sensitivity": 1.5}, r"image_sensitivity must be between 0 and 1. Got 1.5."),
        ({"pixel_sensitivity": math.nan}, r"pixel_sensitivity must be between 0 and 1. Got nan."),
        ({"threshold": 1.0}, r"What can be changed is image_threshold, .*. Got 'threshold'."),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DECISION.replace(**settings)


def test_a_scale_is_frozen_and_in_order() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        DECISION.image.threshold = 1.0  # type: ignore[misc]
    with pytest.raises(UsageError, match=r"low must be at most high. Got 2.0 and 1.0."):
        Scale(1.0, 2.0, 1.0)


@given(
    st.lists(st.floats(width=32), min_size=1, max_size=9), FINITE, st.tuples(FINITE, FINITE), st.floats(0, 1, width=32)
)
def test_numpy_says_what_torch_says(
    scores: list[float], threshold: float, ends: tuple[float, float], sensitivity: float
) -> None:
    """Bit for bit: a session without torch and the module of the graph share one formula."""
    scale = Scale(threshold, min(ends), max(ends), sensitivity)
    module = DecisionModule()
    module.decision = Decision(scale, scale)
    assert module.decision.image == scale
    assert module.effective_image_threshold == scale.effective_threshold
    finite = [score for score in scores if math.isfinite(score)] or [0.0]
    values = torch.tensor(finite, dtype=torch.float32)
    done = module(InferenceBatch(pred_score=values))
    np.testing.assert_array_equal(done.pred_score.numpy(), scale.normalize(finite))
    np.testing.assert_array_equal(done.pred_label.numpy(), scale.is_anomalous(finite))
    np.testing.assert_array_equal(scale.is_anomalous(finite), scale.normalize(finite) >= np.float32(scale.cut))
    assert scale.is_anomalous([math.nan, math.inf, -math.inf]).all()


def test_a_twin_decides_otherwise_and_nobody_notices() -> None:
    module = DecisionModule()
    module.decision = DECISION
    strict = module.with_decision(DECISION.replace(image_threshold=0.5))
    batch = InferenceBatch(pred_score=torch.tensor([1.0]))
    assert strict(batch).pred_label.tolist() == [True]
    assert module(batch).pred_label.tolist() == [False]
    assert module.decision == DECISION


def record(scores: list[float]) -> CalibrationRecord:
    return CalibrationRecord(
        "false-alarm rate",
        "false-alarm rate",
        "cross",
        len(scores),
        0,
        None,
        None,
        scores=tuple(scores),
        names=tuple(f"{i}.png" for i in range(len(scores))),
        expected_false_alarm_rate=0.1,
    )


def test_odd_images_are_named() -> None:
    scores = [*np.linspace(0.9, 1.1, 20), 2.5, 1.9]
    assert record(scores).odd == [("20.png", 2.5), ("21.png", 1.9)]
    assert record(scores[:20]).odd == []
    assert record([1.0] * 5 + [9.0]).odd == [], "of so few none can be called odd"
    assert record([1.0] * 20).odd == []
    text = calibration_summary(record(scores), 1.1)
    assert "Look at 20.png (2.5), 21.png (1.9): unlike the other good images, whose median is" in text
    assert "About 10% of good parts like these will be called anomalous" in text
    assert "Look at" not in calibration_summary(record(scores[:20]), 1.1)


def test_log_normal_scores_are_rarely_called_odd() -> None:
    rng = np.random.default_rng(0)
    flagged = sum(len(record(list(np.exp(0.2 * rng.standard_normal(40)))).odd) for _ in range(500))
    assert flagged < 500 * 40 / 400, "the rule's own rate, and what an estimated deviation adds"
