"""A threshold in hand: other decisions made from a calibrated one, with a record that says so. No torch.

Whoever moves the threshold of images means the marks on them as well: with one number moved and the other left, parts
are called anomalous on which nothing is marked. Scores and maps of a detector are in one unit, so the pixel threshold
follows in proportion::

    pixel threshold, new = pixel threshold, old * (image threshold, new / image threshold, old)

of the thresholds in force, with the sensitivities in them; by the same difference where the old image threshold isn't
above 0. Who names a pixel threshold gets that.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from blemish.errors import UsageError
from blemish.escaping import one_line
from blemish.functional.conformal import certified_rate, normal_rank
from blemish.post_processing.decision import BY_NORMAL_SCORES, CalibrationRecord, Decision, checked_number

BY_HAND = "set by hand"
"""Policy of a record whose threshold nobody calibrated."""


def at_threshold(decision: Decision, image: float | None = None, pixel: float | None = None) -> Decision:
    """The same decision with raw thresholds that are in force as they stand: at sensitivity 0.5.

    Args:
        decision: calibrated.
        image: raw score from which an image is anomalous. None leaves it.
        pixel: the same on the raw map. None follows the image threshold, see the module.

    Raises:
        UsageError: for a number that isn't finite in float32.
    """
    changes = {} if image is None else {"image_threshold": image, "image_sensitivity": 0.5}
    changes |= {} if pixel is None else {"pixel_threshold": pixel, "pixel_sensitivity": 0.5}
    return by_hand(decision, pixel_follows=pixel is None, **changes)


def at_sensitivity(decision: Decision, image: float | None = None, pixel: float | None = None) -> Decision:
    """The same decision at another sensitivity: the threshold of images moves by (0.5 - alpha) times their range.

    Args:
        decision: calibrated.
        image: alpha in [0, 1], see `blemish.functional.verdict`; 1 calls everything anomalous. None leaves it.
        pixel: the same for pixels. None follows the image threshold, see the module.

    Raises:
        UsageError: outside [0, 1].
    """
    changes = {} if image is None else {"image_sensitivity": image}
    changes |= {} if pixel is None else {"pixel_sensitivity": pixel}
    return by_hand(decision, pixel_follows=pixel is None, **changes)


def at_rate(decision: Decision, rate: float) -> Decision:
    """The same decision at the threshold that a wanted false-alarm rate asks for, by the scores in its record.

    Args:
        decision: calibrated on good images whose scores the record holds.
        rate: wanted share of good images called anomalous, in (0, 1). The threshold is that of
            `max_false_alarm_rate`: the ceil((1 - rate)(n + 1))-th smallest score.

    Raises:
        UsageError: without those scores, or for a rate outside (0, 1). CalibrationError: too few for the rate.
    """
    return _by_scores(decision, _with_scores(decision, "A rate"), checked_number("rate", rate))


def without(decision: Decision, names: Sequence[str], rate: float | None = None) -> Decision:
    """The same decision, had some good images not been among those that chose the threshold.

    The detector stays the one that learned from them, normalized scores keep their unit, and the record forgets the
    images. Nothing is certified any longer: who leaves images out has looked at their scores.

    Args:
        decision: calibrated on good images whose scores the record holds, by a policy of those scores.
        names: of the images; folders before a name don't count, for the record holds none.
        rate: as in `at_rate`; None keeps the policy.

    Raises:
        UsageError: without those scores, for a name that none or several of the images have, if no image is left, or
            for a policy that anomalous images had a part in. CalibrationError: too few are left for the rate.
    """
    record = _with_scores(decision, "Leaving images out")
    if record.policy not in BY_NORMAL_SCORES and rate is None:
        raise UsageError(f"Without some images a threshold by {record.policy} can't be chosen anew. Give a rate.")
    out = {PurePosixPath(name).name for name in names}
    for name in sorted(out):
        count = record.names.count(name)
        if count != 1:
            raise UsageError(
                f"{count or 'None'} of the images that calibrated {'are' if count else 'is'} called {one_line(name)}. "
                f"Fit again without it, or calibrate on a folder."
            )
    kept = [i for i, name in enumerate(record.names) if name not in out]
    if not kept:
        raise UsageError(f"All {len(record.names)} images that calibrated would be left out. Keep some.")
    left = replace(
        record,
        normal=len(kept),
        scores=tuple(record.scores[i] for i in kept),
        names=tuple(record.names[i] for i in kept),
    )
    chosen = _by_scores(decision, left, record.wanted_false_alarm_rate if rate is None else rate)
    assert chosen.record is not None  # as `left`
    return replace(chosen, record=replace(chosen.record, certified_false_alarm_rate=None))


def _with_scores(decision: Decision, what: str) -> CalibrationRecord:
    if decision.record is None or not decision.record.scores:
        raise UsageError(f"{what} needs the scores of the calibration, and this file has none. Calibrate it again.")
    return decision.record


def _by_scores(decision: Decision, record: CalibrationRecord, rate: float | None) -> Decision:
    """`decision` at the threshold that the scores of a record give for a rate; None for their highest."""
    scores = np.asarray(record.scores, np.float32)
    threshold = float(np.sort(scores)[normal_rank(len(scores), rate) - 1])
    below = scores[scores < threshold]
    expected = certified_rate(len(scores), len(below) + 1)
    moved = _followed(decision, decision.replace(image_threshold=threshold, image_sensitivity=0.5))
    return replace(
        moved,
        record=replace(
            record,
            policy=BY_NORMAL_SCORES[rate is not None],
            pixel_policy="in proportion to the image threshold",
            certified_false_alarm_rate=None if record.source == "cross" else expected,
            expected_false_alarm_rate=expected,
            wanted_false_alarm_rate=rate,
            miss_cost=None,
            f1=None,
            decided_by=record.names[int(np.argmax(scores == threshold))] or None,
            next_score=float(below.max()) if len(below) else None,
        ),
    )


def moved(
    decision: Decision, *, threshold: float | None = None, sensitivity: float | None = None, rate: float | None = None
) -> Decision:
    """`at_threshold`, `at_sensitivity` or `at_rate`, whichever is given; the decision itself where none is.

    Raises:
        UsageError: for more than one, and as they do.
    """
    given = {"threshold": threshold, "sensitivity": sensitivity, "rate": rate}
    named = [name for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise UsageError(f"Give one of threshold, sensitivity and rate. Got {' and '.join(named)}.")
    if threshold is not None:
        return at_threshold(decision, threshold)
    if sensitivity is not None:
        return at_sensitivity(decision, sensitivity)
    return decision if rate is None else at_rate(decision, rate)


def by_hand(decision: Decision, *, pixel_follows: bool, **changes: float) -> Decision:
    """`decision.replace(**changes)`, whose record says that nobody calibrated this, and how many good images reach it.

    Args:
        decision: calibrated.
        pixel_follows: whether the pixel threshold follows that of images, see the module.
        changes: see `Decision.replace`.

    Raises:
        UsageError: as `Decision.replace`.
    """
    moved = decision.replace(**changes)
    moved = _followed(decision, moved) if pixel_follows else moved
    record = moved.record
    if record is None or moved == decision:
        return moved
    gone: dict[str, Any] = {"certified_false_alarm_rate": None, "f1": None, "decided_by": None, "next_score": None}
    gone |= {"wanted_false_alarm_rate": None, "miss_cost": None, "policy": BY_HAND, "pixel_policy": BY_HAND}
    expected = float(moved.image.is_anomalous(record.scores).mean()) if record.scores else None
    return replace(moved, record=replace(record, expected_false_alarm_rate=expected, **gone))


def _followed(before: Decision, after: Decision) -> Decision:
    """`after` with a pixel threshold that follows its image threshold; as it is where that is, or was, infinite."""
    old, new = before.image.effective_threshold, after.image.effective_threshold
    pixel = before.pixel.effective_threshold
    if old == new or not all(map(math.isfinite, (old, new, pixel))):
        return after
    follows = pixel * (new / old) if old > 0 else pixel + (new - old)
    return after.replace(pixel_threshold=follows, pixel_sensitivity=0.5)
