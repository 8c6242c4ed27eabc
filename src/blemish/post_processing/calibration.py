"""From raw predictions on images that were set aside to a `Decision`.

Thresholds: with normal images only, the highest normal score, which one more normal image reaches with probability 1 /
(n + 1) (split conformal prediction); with a wanted false-alarm rate, the matching order statistic; with labeled
anomalies, the highest score that maximizes F1, or the threshold of the lowest cost. Pixels follow the same rule on each
normal map's maximum, unless masks are given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import NamedTuple

import torch
from torch import Tensor

from blemish.data.batch import InferenceBatch, PerImage
from blemish.data.gather import decode_names, encode_names, gather_states
from blemish.errors import CalibrationError, NonFiniteError
from blemish.functional.conformal import certified_rate
from blemish.functional.histogram import accumulate, empty_histogram
from blemish.functional.thresholds import (
    cost_threshold,
    f1_threshold,
    f1_threshold_from_histogram,
    normal_threshold,
)
from blemish.post_processing.decision import CalibrationRecord, Decision, Scale


class Evidence:
    """What calibration needs to know of the images of this process: a name and four numbers each, and one histogram."""

    def __init__(self) -> None:
        self.images = 0
        self._rows: list[Tensor] = []  # (n, 4) float64: score, label, map maximum, map minimum
        self._names: list[str] = []
        self._histogram: Tensor | None = None

    def add(self, batch: InferenceBatch, limit: int | None) -> None:
        """Takes the first `limit` images of a labeled batch of raw predictions; None takes all.

        Raises:
            CalibrationError: if the batch has no labels. NonFiniteError: if a score or map value is NaN or infinite.
        """
        score, maps = raw_of(batch)
        if batch.gt_label is None:
            raise CalibrationError(
                "Calibration images need labels (normal or anomalous). Got a batch without gt_label."
            )
        if maps is None:
            maps = list(score[:, None, None])  # a detector without maps: one pixel per image, N of (1, 1)
        take = len(score) if limit is None else min(len(score), limit)
        self.images += len(score)
        inside = [maps[i] if batch.roi is None else maps[i][batch.roi[i]] for i in range(take)]
        found = []
        for i, values in enumerate(inside):
            low, high = values.aminmax()
            found.append(torch.stack([score[i], batch.gt_label[i].to(score), high, low]))
        rows = [row.double() for row in torch.stack(found).cpu()] if found else []  # together: one wait for a GPU
        for i, row in enumerate(rows):
            if not bool(row.isfinite().all()):
                raise NonFiniteError(
                    f"The score of {_name(batch, i)} is not finite. Check the image and the backbone's weights."
                )
            self._names.append(PurePath(batch.path[i]).name if i < len(batch.path) else "")
            if batch.gt_mask is not None:
                if self._histogram is None:
                    self._histogram = empty_histogram(device=score.device)
                truth = batch.gt_mask[i] if batch.roi is None else batch.gt_mask[i][batch.roi[i]]
                accumulate(self._histogram, inside[i], truth)
        self._rows += rows

    def state(self) -> dict[str, Tensor]:
        """`rows` (n, 4) float64, `names` (n, width) uint8, `histogram` (2, bins) int64, or of shape (0, 0) without."""
        none = torch.empty(0, 0, dtype=torch.int64)
        return {
            "rows": torch.stack(self._rows) if self._rows else torch.empty(0, 4, dtype=torch.float64),
            "names": encode_names(self._names),
            "histogram": none if self._histogram is None else self._histogram,
        }

    def merge(self, other: Mapping[str, Tensor]) -> None:
        """Adds the `state` of evidence on other images."""
        self.images += len(other["rows"])
        self._rows += list(other["rows"])
        self._names += decode_names(other["names"])
        if other["histogram"].numel():
            there = other["histogram"] if self._histogram is None else self._histogram + other["histogram"]
            self._histogram = there

    def collected(self, device: torch.device) -> Collected:
        """What all processes have seen."""
        states = gather_states(self.state(), device)
        score, label, high, low = torch.cat([state["rows"] for state in states]).unbind(dim=1)  # (n,) each
        histograms = [state["histogram"] for state in states if state["histogram"].numel()]
        return Collected(
            score=score.float(),
            label=label.bool(),
            map_high=high.float(),
            map_low=low.float(),
            histogram=torch.stack(histograms).sum(dim=0) if histograms else None,
            names=tuple(name for state in states for name in decode_names(state["names"])),
        )


class Collected(NamedTuple):
    """The evidence on n images."""

    score: Tensor  # (n,) float32, raw
    label: Tensor  # (n,) bool, True for anomalous
    map_high: Tensor  # (n,) float32, maximum of each raw map
    map_low: Tensor  # (n,) float32, minimum of each raw map
    histogram: Tensor | None  # (2, bins) int64, normal and anomalous pixels where masks were given
    names: tuple[str, ...]  # n file names, "" where there is none


def calibrate(
    evidence: Collected, *, max_false_alarm_rate: float | None, miss_cost: float | None = None, source: str
) -> Decision:
    """The decision that the evidence supports, at sensitivity 0.5.

    Args:
        evidence: of at least one normal image.
        max_false_alarm_rate: wanted share of good images called anomalous, in (0, 1). None takes the highest normal
            score, or the F1 optimum when there are labeled anomalies.
        miss_cost: with labeled anomalies and no rate, the least of (share of good images called anomalous) + miss_cost
            * (share of anomalous ones missed), in place of F1.
        source: which images these are, for the record.

    Raises:
        CalibrationError: without normal images, or with too few for the rate; for a `miss_cost` without anomalous ones.
    """
    scores, anomalous = evidence.score, evidence.label
    normal = scores[~anomalous]
    if not len(normal):
        raise CalibrationError(f"Calibration needs normal images. Got {len(scores)} images, none of them normal.")
    if miss_cost is not None and not anomalous.any():
        raise CalibrationError(
            f"miss_cost={miss_cost:g} weighs missed defects, but all {len(scores)} calibration images are normal. Add "
            f"some of defects (--defects, or a validation set), or drop miss_cost."
        )
    by_normal = "highest normal score" if max_false_alarm_rate is None else "false-alarm rate"
    by_labels = "maximum F1" if miss_cost is None else "lowest cost"
    policy = by_labels if anomalous.any() and max_false_alarm_rate is None else by_normal
    pixel_policy, f1, expected = policy, None, None
    if policy == "maximum F1":
        threshold, f1 = f1_threshold(scores, anomalous)
    elif miss_cost is not None and policy == "lowest cost":
        threshold = cost_threshold(normal, scores[anomalous], miss_cost)
        expected = (int((normal >= threshold).sum()) + 1) / (len(normal) + 1)
    else:
        threshold = normal_threshold(normal, max_false_alarm_rate)
        rank = int((normal < threshold).sum()) + 1  # with ties, the lowest of their ranks: certify less, not more
        expected = certified_rate(len(normal), rank)
    map_highs = evidence.map_high[~anomalous]
    if policy == "maximum F1" and evidence.histogram is not None and bool(evidence.histogram[1].any()):
        pixel_threshold, _ = f1_threshold_from_histogram(evidence.histogram)
    elif policy == "lowest cost":  # the share of normal maps that reach it is that of normal images at the threshold
        pixel_threshold = float(map_highs.sort().values[max(0, int((normal < threshold).sum()) - 1)])
    else:
        pixel_policy, pixel_threshold = by_normal, normal_threshold(map_highs, max_false_alarm_rate)
    below = normal[normal < threshold]
    deciding = (scores == threshold).nonzero()
    record = CalibrationRecord(
        policy=policy,
        pixel_policy=pixel_policy,
        source=source,
        normal=len(normal),
        anomalous=int(anomalous.sum()),
        certified_false_alarm_rate=None if source == "cross" or policy == "lowest cost" else expected,
        f1=f1,
        decided_by=(evidence.names[int(deciding[0])] or None) if len(deciding) else None,
        next_score=float(below.max()) if len(below) else None,
        scores=tuple(normal.tolist()),
        expected_false_alarm_rate=expected,
        names=_chosen(evidence.names, ~anomalous),
        wanted_false_alarm_rate=max_false_alarm_rate,
        miss_cost=miss_cost if policy == "lowest cost" else None,
        defect_scores=tuple(scores[anomalous].tolist()),
        defect_names=_chosen(evidence.names, anomalous),
    )
    image = Scale(threshold, float(scores.min()), float(scores.max()))
    return Decision(
        image, Scale(pixel_threshold, float(evidence.map_low.min()), float(evidence.map_high.max())), record
    )


def raw_of(batch: InferenceBatch) -> tuple[Tensor, PerImage | None]:
    """The raw score and map of a batch, whether or not it was post-processed already.

    Raises:
        ValueError: if it has neither.
        NonFiniteError: in eager mode, if a score is NaN or infinite.
    """
    maps = batch.raw_map if batch.raw_map is not None else batch.anomaly_map
    score = batch.raw_score if batch.raw_score is not None else batch.pred_score
    if score is None:
        if maps is None:
            raise ValueError("At least one of pred_score and anomaly_map must be given. Got neither.")
        score = maps.amax(dim=(-2, -1)) if isinstance(maps, Tensor) else torch.stack([single.max() for single in maps])
    if not torch.compiler.is_exporting() and not bool(score.isfinite().all()):
        broken = int((~score.isfinite()).nonzero()[0])
        raise NonFiniteError(
            f"The score of {_name(batch, broken)} is {float(score[broken])}, so there is no verdict. Check the image "
            f"and the backbone's weights."
        )
    return score, maps


def _chosen(names: tuple[str, ...], mask: Tensor) -> tuple[str, ...]:
    return tuple(name for name, taken in zip(names, mask.tolist(), strict=True) if taken)


def _name(batch: InferenceBatch, index: int) -> str:
    return batch.path[index] if index < len(batch.path) and batch.path[index] else f"image {index} of the batch"
