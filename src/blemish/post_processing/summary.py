"""What a threshold rests on, in words: for people who were not there when it was chosen. Needs no torch."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from blemish.escaping import one_line
from blemish.functional.conformal import conditional_rate
from blemish.post_processing.moving import BY_HAND

if TYPE_CHECKING:
    from blemish.post_processing.decision import CalibrationRecord


def calibration_summary(record: CalibrationRecord, threshold: float, chosen: float | None = None) -> str:
    """A few sentences: the policy, the images, what they certify, and which one decided.

    Args:
        record: of a calibrated model.
        threshold: its raw image threshold in force, with the sensitivity in it.
        chosen: the one that was chosen, where the sensitivity moved it; what is certified holds for that.
    """
    images = f"{record.normal} good" + (f" and {record.anomalous} anomalous" if record.anomalous else "") + " images"
    source = record.source.replace("_", " ")
    reached = sum(score >= threshold for score in record.scores)
    reach = (
        f" {reached} of {len(record.scores)} good images that calibrated ({source}) reach it." if record.scores else ""
    )
    if record.policy == BY_HAND:
        return f"Threshold {threshold:.4g}: set by hand.{reach} Nothing is certified for it."
    text = f"Threshold {threshold:.4g}: {record.policy} on {images} ({source})."
    if chosen is not None and chosen != threshold:
        text = (
            f"Threshold {threshold:.4g}: moved by the sensitivity from {chosen:.4g}.{reach} What follows is of "
            f"{chosen:.4g}: {record.policy} on {images} ({source})."
        )
    rate = record.certified_false_alarm_rate
    if rate is not None:
        n = record.normal
        unlucky = conditional_rate(n, n + 1 - round(rate * (n + 1)))
        text += (
            f" {n} images certify at most {rate:.2%} false alarms on average, on parts of the same kind;"
            f" one such calibration in 20 may give more than {unlucky:.2%}."
        )
    elif record.expected_false_alarm_rate is not None:
        text += (
            f" About {record.expected_false_alarm_rate:.0%} of good parts like these will be called anomalous, rather"
            f" less: each image was scored by a model that had not seen it, and the one delivered has seen all. That is"
            f" an estimate, no certificate; images held out (calibrate_on: held_out) give one. It is too low where"
            f" several images show one part: keep those together (group)."
        )
    if record.decided_by is not None and record.next_score is not None:
        text += f" {one_line(record.decided_by)} decided it; the next lower score is {record.next_score:.4g}."
    if record.odd:
        named = ", ".join(
            f"{one_line(name) or 'an image without a name'} ({score:.4g})" for name, score in record.odd[:3]
        )
        more = f" and {len(record.odd) - 3} more" if len(record.odd) > 3 else ""
        text += (
            f" Look at {named}{more}: unlike the other good images, whose median is {median(record.scores):.4g}. What"
            f" isn't good should not be fitted on."
        )
    return text + (" ORACLE: test images chose the threshold, so test figures flatter." if record.oracle else "")
