"""What the figures of a test come to, in words."""

from __future__ import annotations

from typing import Any

import pytest

from blemish.metrics.conclusion import conclusion, surprise


def figures(alarms: int, misses: int, best: tuple[float, int, int] = (11.64, 1, 0), auroc: float = 0.98) -> Any:
    return {
        "counts": {"good": 40, "anomalous": 20},
        "false_alarm_rate": alarms / 40,
        "miss_rate": misses / 20,
        "image_auroc": auroc,
        "threshold": 13.5,
        "best": dict(zip(("threshold", "false_alarms", "misses"), best, strict=True)),
    }


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (figures(0, 0), "All 60 labeled images are decided rightly."),
        (
            figures(0, 12),
            "Ranks well (AUROC 0.980), but the threshold 13.5 is too high for these images: at 11.64 there would be 1 "
            "false alarms (now 0) among 40 good images and 0 misses (now 12) among 20 anomalous ones. They chose that "
            "number themselves, so new ones will fare a little worse.",
        ),
        (figures(9, 0, (15.0, 0, 1)), "too low for these images: at 15 there would be 0 false alarms (now 9)"),
        (figures(0, 9, (11.6459, 0, 0)), ": at 11.64 there would"),
        (figures(9, 0, (99999.0, 0, 0)), ": at 9.999e+04 there would"),
        (figures(1, 0), "Ranks well (AUROC 0.980), and no other threshold decides more of these images rightly."),
        (figures(20, 10, (9.0, 20, 10), 0.5), "Ranks badly (AUROC 0.500), and no other threshold decides more"),
        (figures(20, 10, (9.0, 20, 10), 0.5), "Other settings may do better: blemish recommend."),
        (figures(20, 10, (9.0, 10, 5), 0.8), "Ranks moderately (AUROC 0.800), but"),
    ],
)
def test_words(given: Any, words: str) -> None:
    said = conclusion(given)
    assert said == words if words.startswith("All") or words.endswith("worse.") else words in said


@pytest.mark.parametrize("missing", ["best", "threshold", "false_alarm_rate", "miss_rate"])
def test_nothing_is_concluded_from_half_of_it(missing: str) -> None:
    assert conclusion(figures(1, 1) | {missing: None}) == ""


def test_far_more_false_alarms_than_expected_are_remarked_on() -> None:
    said = surprise(figures(14, 0), 0.1)
    assert said.startswith("14 of 40 good images are called anomalous; about 10% were expected. These good images look")
    assert surprise(figures(7, 0), 0.1) == ""  # one in ten times by chance
    assert surprise(figures(40, 0), None) == ""
    assert surprise(figures(1, 0) | {"false_alarm_rate": None}, 0.1) == ""
