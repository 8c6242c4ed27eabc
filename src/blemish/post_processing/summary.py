"""What a threshold rests on, in words: for people who were not there when it was chosen. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import TYPE_CHECKING

from blemish.escaping import one_line
from blemish.functional.proportion import LEVEL, wilson
from blemish.post_processing.moving import BY_HAND

if TYPE_CHECKING:
    from blemish.post_processing.decision import CalibrationRecord

FLOOR = 0.5
"""Share of planted defects below which a model is said to be of little use."""

LARGE, STRONG = 0.6, 0.7
"""From which `size` and `strength` planted defects are called so: the middles of what is drawn."""


def calibration_summary(record: CalibrationRecord, threshold: float, chosen: float | None = None) -> str:
    """A few sentences: the policy, the images, what they certify, which one decided, and what would be found.

    Args:
        record: of a calibrated model.
        threshold: its raw image threshold in force, with the sensitivity in it.
        chosen: the one that was chosen, where the sensitivity moved it; what is certified holds for that.
    """
    return " ".join(_sentences(record, threshold, chosen))


def warnings(record: CalibrationRecord, threshold: float) -> list[str]:
    """What must not be overlooked: scores that say nothing, a threshold that misses most defects; what helps."""
    if len(record.scores) > 1 and min(record.scores) == max(record.scores):
        return [
            f"All {len(record.scores)} good images have the same score, so a threshold at it calls them all anomalous. "
            f"They are one picture many times, or the features see no difference: add other good parts, or choose "
            f"another --backbone."
        ]
    n, found = len(record.planted), record.found(threshold)
    if not n or found >= FLOOR * n:
        return []
    text = (
        f"This model would miss most small defects: of {n} planted scratches, cracks, stains, holes, fibers and "
        f"displaced pieces it finds {found}. What to try first: more pixels (--image-size 384), other features "
        f"(--backbone), fewer odd images among the good ones"
    )
    names = [name for name, _ in record.odd]
    without = record.threshold_without(names) if names else None
    if without is not None and record.found(without) > found:
        text += f" (without {_listed(names)} it would find {record.found(without)}: `blemish data audit` shows them)"
    return [f"{text}. `blemish recommend` compares settings on these parts; a few real defects (--defects) tell more."]


def planted_table(record: CalibrationRecord, threshold: float) -> list[tuple[str, int, int]]:
    """How many planted defects the threshold finds, by size and strength: (what, found, planted)."""
    rows = []
    for size in ("large", "small"):
        for strength in ("strong", "faint"):
            kept = [
                defect
                for defect in record.planted
                if (defect.size >= LARGE) == (size == "large") and (defect.strength >= STRONG) == (strength == "strong")
            ]
            rows.append((f"{size}, {strength}", sum(defect.score >= threshold for defect in kept), len(kept)))
    return [row for row in rows if row[2]]


def _sentences(record: CalibrationRecord, threshold: float, chosen: float | None) -> Iterator[str]:
    images = f"{record.normal} good" + (f" and {record.anomalous} anomalous" if record.anomalous else "") + " images"
    source = record.source.replace("_", " ")
    reach = f" {record.alarms(threshold)} of {len(record.scores)} good images that calibrated ({source}) reach it."
    reach = reach if record.scores else ""
    if record.policy == BY_HAND:
        yield f"Threshold {threshold:.4g}: set by hand.{reach} Nothing is certified for it."
        if record.planted:
            yield _of_planted(record, threshold)
        return
    if chosen is not None and chosen != threshold:
        yield (
            f"Threshold {threshold:.4g}: moved by the sensitivity from {chosen:.4g}.{reach} What follows is of "
            f"{chosen:.4g}: {record.policy} on {images} ({source})."
        )
        threshold = chosen
    else:
        yield f"Threshold {threshold:.4g}: {record.policy} on {images} ({source})."
    rate = record.certified_false_alarm_rate
    if rate is not None:
        yield (
            f"{record.normal} images certify at most {rate:.2%} false alarms on average, on parts of the same kind;"
            f" one such calibration in 20 may give more than {record.unlucky_false_alarm_rate:.2%}."
        )
    elif record.expected_false_alarm_rate is not None and record.source == "cross":
        yield (
            f"About {record.expected_false_alarm_rate:.0%} of good parts like these will be called anomalous, rather"
            f" less: each image was scored by a model that had not seen it, and the one delivered has seen all. That is"
            f" an estimate, no certificate; images held out (calibrate_on: held_out) give one."
        )
        if record.parts is not None and record.parts < record.normal:
            yield (
                f"The images seem to show {record.parts} parts; those of one part were kept together, so that none was"
                f" scored by a model that knows it. Say what belongs together (group) if you know better."
            )
    elif record.expected_false_alarm_rate is not None:
        yield f"About {record.expected_false_alarm_rate:.0%} of good parts like these will be called anomalous."
    if record.defect_scores and record.policy == "lowest cost":
        yield _of_defects(record, threshold)
    if record.planted:
        yield _of_planted(record, threshold)
    if record.decided_by is not None and record.next_score is not None:
        yield f"{one_line(record.decided_by)} decided it; the next lower score is {record.next_score:.4g}."
    if record.odd:
        yield _of_odd(record, threshold)
    if record.oracle:
        yield "ORACLE: test images chose the threshold, so test figures flatter."


def _of_planted(record: CalibrationRecord, threshold: float) -> str:
    found = record.found(threshold)
    return f"Of {len(record.planted)} defects planted into these images it finds {found}; real ones can be harder."


def _of_defects(record: CalibrationRecord, threshold: float) -> str:
    n = len(record.defect_scores)
    found = sum(score >= threshold for score in record.defect_scores)
    low, high = wilson(found, n)
    return (
        f"A missed defect counts {record.miss_cost:g} times a false alarm. Of the {n} images of defects {found} lie at "
        f"or above the threshold, which they helped to choose; of such defects between {low:.0%} and {high:.0%} may be "
        f"found ({LEVEL:.0%} confidence)."
    )


def _of_odd(record: CalibrationRecord, threshold: float) -> str:
    names = [name for name, _ in record.odd]
    scores = ", ".join(f"{one_line(name) or 'an image without a name'} ({score:.4g})" for name, score in record.odd[:3])
    more = f" and {len(record.odd) - 3} more" if len(record.odd) > 3 else ""
    text = f"Look at {scores}{more}: unlike the other good images, whose median is {median(record.scores):.4g}."
    without = record.threshold_without(names)
    if without is not None and without < threshold:
        text += f" Without {'it' if len(names) == 1 else 'them'} the threshold would be {without:.4g}"
        gain = record.found(without) - record.found(threshold)
        text += f", and {gain} more of the planted defects would be found." if record.planted else "."
    return f"{text} What isn't good should not be fitted on."


def _listed(names: list[str]) -> str:
    return ", ".join(map(one_line, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
