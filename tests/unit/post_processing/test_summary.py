"""What a threshold rests on, in words: what would be missed, who decides, what a few defects prove."""

from __future__ import annotations

from dataclasses import replace

from blemish.post_processing.decision import CalibrationRecord, Decision, Planted, Scale
from blemish.post_processing.summary import calibration_summary, planted_table, warnings

SCORES = (*(1.0 + 0.01 * i for i in range(19)), 5.0)
RECORD = CalibrationRecord(
    "highest normal score",
    "highest normal score",
    "cross",
    20,
    0,
    None,
    None,
    decided_by="19.png",
    next_score=1.18,
    scores=SCORES,
    names=tuple(f"{i}.png" for i in range(20)),
    expected_false_alarm_rate=1 / 21,
    planted=tuple(Planted("hole", 0.3 + 0.4 * (i % 2), 0.5 + 0.4 * (i % 4 > 1), float(i)) for i in range(10)),
)


def test_what_would_be_missed() -> None:
    text = calibration_summary(RECORD, 5.0)
    assert "Of 10 defects planted into these images it finds 5; real ones can be harder." in text
    assert "Without it the threshold would be 1.18, and 3 more of the planted defects would be found." in text
    assert planted_table(RECORD, 5.0) == [
        ("large, strong", 1, 2),
        ("large, faint", 2, 3),
        ("small, strong", 1, 2),
        ("small, faint", 1, 3),
    ]
    assert warnings(RECORD, 5.0) == []


def test_a_model_that_misses_most_says_so() -> None:
    (text,) = warnings(RECORD, 5.5)
    assert "of 10 planted scratches, cracks, stains, holes, fibers and displaced pieces it finds 4" in text
    for advice in ("--image-size 384", "--backbone", "without 19.png it would find 8", "recommend", "--defects"):
        assert advice in text
    (text,) = warnings(replace(RECORD, scores=SCORES[:19], names=RECORD.names[:19]), 5.5)
    assert "without" not in text
    assert warnings(replace(RECORD, planted=()), 5.5) == [], "nothing is known"
    (text,) = warnings(replace(RECORD, scores=(2.0,) * len(SCORES)), 2.0)
    assert text.startswith("All 20 good images have the same score, so a threshold at it calls them all anomalous.")


def test_without_some_images() -> None:
    assert RECORD.threshold_without(["19.png"]) == SCORES[18]
    assert RECORD.threshold_without([]) == 5.0
    assert RECORD.threshold_without(RECORD.names) is None
    rated = replace(RECORD, policy="false-alarm rate", wanted_false_alarm_rate=0.1)
    assert rated.threshold_without([]) == SCORES[18]
    assert rated.threshold_without(["19.png"]) == SCORES[17]
    assert rated.threshold_without(RECORD.names[:12]) is None, "eight images are too few for one in ten"
    assert replace(RECORD, policy="maximum F1").threshold_without([]) is None


def test_a_few_defects_prove_little() -> None:
    record = replace(RECORD, policy="lowest cost", miss_cost=2.0, anomalous=3, defect_scores=(2.0, 6.0, 7.0))
    text = calibration_summary(record, 5.5)
    assert "A missed defect counts 2 times a false alarm. Of the 3 images of defects 2 lie at or above" in text
    assert "between 21% and 94% may be found (95% confidence)" in text


def test_several_photographs_of_one_part_are_told() -> None:
    assert "seem to show 12 parts" in calibration_summary(replace(RECORD, parts=12), 5.0)
    assert "seem to show" not in calibration_summary(replace(RECORD, parts=20), 5.0)


def test_a_notebook_shows_the_trade_off() -> None:
    scale = Scale(5.0, 1.0, 5.0)
    html = Decision(scale, scale, RECORD)._repr_html_()
    assert "of 100 planted defects 50 are found" in html
    real = Decision(scale, scale, replace(RECORD, defect_scores=(6.0,)))._repr_html_()
    assert "of 100 defects 100 are found" in real
    assert Decision(scale, scale)._repr_html_() == "<p>Threshold 5</p>"
