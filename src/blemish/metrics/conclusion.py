"""The figures of a test in a sentence: does the model rank, and does its threshold suit the images?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from blemish.functional.proportion import at_least

CHANCE = 0.01
"""How likely so many false alarms or more must be at the expected rate to pass without a remark."""
GOOD, MODERATE = 0.9, 0.75
"""Image AUROC from which a model ranks well, and moderately."""


def conclusion(figures: Mapping[str, Any]) -> str:
    """What the figures of images come to.

    Args:
        figures: as of `EvaluationResult.to_dict`, with "threshold", the raw one in force.

    Returns:
        A sentence or two; "" where labels of one kind, or verdicts, are missing.
    """
    rates = figures["false_alarm_rate"], figures["miss_rate"]
    best, threshold = figures["best"], figures["threshold"]
    if best is None or threshold is None or None in rates:
        return ""
    good, bad = figures["counts"]["good"], figures["counts"]["anomalous"]
    alarms, misses = round(rates[0] * good), round(rates[1] * bad)
    if not alarms + misses:
        return f"All {good + bad} labeled images are decided rightly."
    auroc = figures["image_auroc"]
    ranks = f"Ranks {'well' if auroc >= GOOD else 'moderately' if auroc >= MODERATE else 'badly'} (AUROC {auroc:.3f})"
    if best["false_alarms"] + best["misses"] >= alarms + misses:
        advice = "" if auroc >= GOOD else " Other settings may do better: blemish recommend."
        return f"{ranks}, and no other threshold decides more of these images rightly.{advice}"
    side = "high" if best["threshold"] < threshold else "low"
    return (
        f"{ranks}, but the threshold {threshold:.4g} is too {side} for these images: at {_below(best['threshold'])} "
        f"there would be {best['false_alarms']} false alarms (now {alarms}) among {good} good images and "
        f"{best['misses']} misses (now {misses}) among {bad} anomalous ones. They chose that number themselves, so new "
        f"ones will fare a little worse."
    )


def surprise(figures: Mapping[str, Any], expected: float | None) -> str:
    """A sentence about far more false alarms than the calibration let expect; "" where that could be chance.

    Args:
        figures: as of `EvaluationResult.to_dict`.
        expected: rate of false alarms, in [0, 1]; None where none was certified or estimated.
    """
    rate, good = figures["false_alarm_rate"], figures["counts"]["good"]
    if rate is None or expected is None or at_least(round(rate * good), good, expected) >= CHANCE:
        return ""
    return (
        f"{round(rate * good)} of {good} good images are called anomalous; about {expected:.0%} were expected. These "
        f"good images look unlike those that calibrated: another camera, light or lot, or several photographs of one "
        f"part among those. blemish calibrate or update takes new good images."
    )


def _below(score: float) -> str:
    """Four digits of a score that, as a threshold, still calls it anomalous."""
    text = f"{score:.4g}"
    return text if float(text) <= score else f"{score - 10 ** (math.floor(math.log10(abs(score))) - 3):.4g}"
