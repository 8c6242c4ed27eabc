"""The numbers of a report: figures with intervals, operating points, curves; plain values for a template or JSON.

A threshold t stands for "score >= t is anomalous", as everywhere. Where a class of images is missing, what needs it is
None and the reason stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from blemish.functional.curves import auroc, average_precision, f1_curve, f1_max, precision_recall_curve, roc_curve
from blemish.functional.histogram import Tally, tally_labels
from blemish.functional.intervals import bootstrap
from blemish.functional.proportion import LEVEL, Interval, wilson
from blemish.metrics.evaluation import EvaluationResult
from blemish.metrics.figure import Figure
from blemish.report.html_rows import ImageRow

FIGURES = {
    "image_auroc": "AUROC, images",
    "image_ap": "average precision, images",
    "image_f1": "F1 at the threshold, images",
    "image_f1_max": "best possible F1, images",
    "false_alarm_rate": "false alarms among good images",
    "miss_rate": "misses among anomalous images",
    "pixel_auroc": "AUROC, pixels",
    "pixel_ap": "average precision, pixels",
    "pixel_f1": "F1 at the threshold, pixels",
    "pixel_f1_max": "best possible F1, pixels",
    "aupro": "AUPRO to 30 % false positives",
}
"""Field of `EvaluationResult` -> its name for people."""

RESAMPLES = 1000
SEED = 0
CURVE_POINTS = 2000
"""Points of a drawn curve; more than a screen has."""

_METHODS: dict[str, str] = {
    **dict.fromkeys(("image_auroc", "image_ap", "image_f1", "image_f1_max"), "bootstrap"),
    **dict.fromkeys(("false_alarm_rate", "miss_rate"), "Wilson"),
}


@dataclass(frozen=True)
class Line:
    """One figure as the report shows it.

    Attributes:
        key, name: of `FIGURES`.
        value: None with a `reason`.
        interval: None where there is none; `method` says how it was found. Pixels of one image depend on one another,
            so their figures have none.
    """

    key: str
    name: str
    value: float | None
    reason: str | None
    interval: Interval | None
    method: str


def figure_lines(
    result: EvaluationResult, rows: Sequence[ImageRow], threshold: float | None, *, resamples: int = RESAMPLES
) -> list[Line]:
    """All figures, in the order of `FIGURES`.

    Args:
        result: of the test.
        rows: of its images.
        threshold: raw; None if there is none, or not one.
        resamples: of the bootstrap.
    """
    values: dict[str, Figure] = {key: getattr(result, key) for key in FIGURES}
    given = {key for key, figure in values.items() if figure.value is not None}
    intervals = _intervals(rows, threshold, given, resamples)
    return [
        Line(
            key,
            name,
            values[key].value,
            values[key].reason,
            intervals.get(key),
            _METHODS.get(key, "") if key in intervals else "",
        )
        for key, name in FIGURES.items()
    ]


def _intervals(
    rows: Sequence[ImageRow], threshold: float | None, given: set[str], resamples: int
) -> dict[str, Interval]:
    counts = confusion(rows)
    found = {}
    if "false_alarm_rate" in given:
        found["false_alarm_rate"] = wilson(counts["false_alarms"], counts["good"])
    if "miss_rate" in given:
        found["miss_rate"] = wilson(counts["misses"], counts["anomalous"])
    ways: dict[str, Callable[[Tally], float]] = {
        "image_auroc": auroc,
        "image_ap": average_precision,
        "image_f1_max": f1_max,
    }
    if threshold is not None:
        ways["image_f1"] = partial(_f1_at, threshold=threshold)
    ways = {key: way for key, way in ways.items() if key in given}
    if ways:
        generator = torch.Generator().manual_seed(SEED)
        found |= bootstrap(*_tensors(rows), ways, generator, resamples=resamples, level=LEVEL)
    return found


def confusion(rows: Sequence[ImageRow]) -> dict[str, int]:
    """Counts of verdicts: good, anomalous, false_alarms, misses. Images without a verdict are neither."""
    return {
        "good": sum(not row.truth for row in rows),
        "anomalous": sum(row.truth for row in rows),
        "false_alarms": sum(not row.truth and row.anomalous is True for row in rows),
        "misses": sum(row.truth and row.anomalous is False for row in rows),
    }


@dataclass(frozen=True)
class OperatingPoint:
    """What another threshold would have done on these images.

    Attributes:
        name: what it is chosen by.
        threshold: raw.
        false_alarms, misses: how many images; None where no image could be one.
    """

    name: str
    threshold: float
    false_alarms: int | None
    misses: int | None


def operating_points(rows: Sequence[ImageRow], threshold: float | None) -> list[OperatingPoint]:
    """The model's threshold, then those that a user might want instead, from few false alarms to few misses; one line
    for thresholds that are the same.
    """
    tally, value, alarms, misses = _counts(rows)
    good, anomalous = int(tally.negative.sum()), int(tally.positive.sum())
    wanted: list[tuple[str, float]] = [] if threshold is None else [("the model's threshold", threshold)]

    def lowest(limit: float) -> float:
        return float(value[alarms <= limit][0])

    if good:
        wanted.append(("no false alarm here", lowest(0)))
        for share in (0.01, 0.05):
            if good * share >= 1:
                wanted.append((f"at most {1000 * share:.0f} false alarms per 1,000 good parts", lowest(good * share)))
    if good and anomalous:
        wanted.append(("best F1 here", float(value[:-1][f1_curve(tally).argmax()])))
    if anomalous:
        wanted.append(("no miss here", float(value[misses == 0][-1])))
    named: dict[float, list[str]] = {}
    for name, cut in wanted:
        named.setdefault(cut, []).append(name)
    points = []
    for cut, names in named.items():
        at = int(torch.searchsorted(value[:-1].double(), torch.tensor(cut, dtype=torch.float64)))  # K: above them all
        points.append(
            OperatingPoint(
                name="; ".join(names),
                threshold=cut,
                false_alarms=int(alarms[at]) if good else None,
                misses=int(misses[at]) if anomalous else None,
            )
        )
    return points


def curves(rows: Sequence[ImageRow], *, points: int = CURVE_POINTS) -> dict[str, dict[str, list[float]] | None]:
    """ROC and precision over recall, thinned to at most `points`; None where a class is missing."""
    tally, *_ = _counts(rows)
    good, anomalous = bool(tally.negative.sum()), bool(tally.positive.sum())
    roc = pr = None
    if good and anomalous:
        alarms, hits = roc_curve(tally)
        roc = {"false_alarm_rate": _thinned(alarms, points), "hit_rate": _thinned(hits, points)}
    if anomalous:
        precision, recall = precision_recall_curve(tally)
        # To recall 0 at the precision of the highest score: the area below the steps is the average precision.
        pr = {
            "recall": [*_thinned(recall, points), 0.0],
            "precision": [*_thinned(precision, points), round(float(precision[-1]), 6)],
        }
    return {"roc": roc, "pr": pr}


def chart_data(
    rows: Sequence[ImageRow], threshold: float | None, pixel_threshold: float | None = None
) -> dict[str, Any]:
    """What the page's script draws and counts: scores, truths and kinds of defects of all images, and the curves.

    Args:
        rows: of the test.
        threshold: raw, of images.
        pixel_threshold: raw, of pixels; it follows the other when that is moved.
    """
    return {
        "threshold": threshold,
        "pixel_threshold": pixel_threshold,
        "defect": [row.sample.defect if row.truth else "" for row in rows],
        "score": [row.score for row in rows],
        "truth": [int(row.truth) for row in rows],
        **curves(rows),
    }


def _counts(rows: Sequence[ImageRow]) -> tuple[Tally, Tensor, Tensor, Tensor]:
    """Tally; thresholds (K + 1,) ascending, the last one above all scores; false alarms and misses at each."""
    tally = tally_labels(*_tensors(rows))
    above = torch.nextafter(tally.value[-1:], torch.tensor(torch.inf))
    none = tally.negative.new_zeros(1)
    alarms = torch.cat([tally.negative.flip(0).cumsum(0).flip(0), none])
    misses = torch.cat([none, tally.positive.cumsum(0)])
    return tally, torch.cat([tally.value, above]), alarms, misses


def _f1_at(tally: Tally, threshold: float) -> float:
    flagged = tally.value.double() >= threshold
    hits, alarms = int(tally.positive[flagged].sum()), int(tally.negative[flagged].sum())
    return 2 * hits / (int(tally.positive.sum()) + hits + alarms)


def _tensors(rows: Sequence[ImageRow]) -> tuple[Tensor, Tensor]:
    return torch.tensor([row.score for row in rows]), torch.tensor([row.truth for row in rows])


def _thinned(curve: Tensor, points: int) -> list[float]:
    if len(curve) > points:
        curve = curve[torch.linspace(0, len(curve) - 1, points).round().long()]
    return [round(value, 6) for value in curve.tolist()]
