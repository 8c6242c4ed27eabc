"""How good the verdicts are: counts at the chosen threshold, over all and for each kind of defect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blemish.data.gather import decode_names, encode_names
from blemish.errors import UsageError
from blemish.functional.curves import auroc, f1_best
from blemish.functional.histogram import Ranked, check_finite, check_shapes, tally_labels
from blemish.metrics.figure import Figure, Level, ratio

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class DecisionFigures:
    """Counts of verdicts, positive meaning anomalous, and what follows from them.

    Attributes:
        f1: 2 TP / (2 TP + FP + FN).
        false_alarm_rate: FP / (FP + TN), the share of normal ones called anomalous.
        miss_rate: FN / (TP + FN), the share of anomalous ones called normal.
    """

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    f1: Figure
    false_alarm_rate: Figure
    miss_rate: Figure

    @property
    def total(self) -> int:
        """How many verdicts were counted."""
        return self.true_positives + self.false_positives + self.true_negatives + self.false_negatives


class Decisions:
    """Counts verdicts against the truth.

    Args:
        level: what is decided about, "image" or "pixel"; named in reasons.
    """

    def __init__(self, level: Level = "image") -> None:
        self.level: Level = level
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._counts = torch.zeros(4, dtype=torch.int64)  # 2 * truth + verdict: TN, FP, FN, TP

    def update(self, predicted: Tensor, labels: Tensor) -> None:
        """Take bool verdicts and labels of one shape, True for anomalous."""
        check_shapes(predicted, labels)
        predicted, labels = predicted != 0, labels != 0
        both, flagged, anomalous = (int(part.sum()) for part in (predicted & labels, predicted, labels))
        normal = labels.numel() - anomalous
        self._counts += torch.tensor([normal - (flagged - both), flagged - both, anomalous - both, both])

    def state(self) -> dict[str, Tensor]:
        """`counts` (4,) int64."""
        return {"counts": self._counts.clone()}

    def merge(self, other: Self | Mapping[str, Tensor]) -> None:
        """Add the counts of another instance, or of its state."""
        self._counts += (other if isinstance(other, Mapping) else other.state())["counts"]

    def compute(self) -> DecisionFigures:
        """Counts and rates over all updates; a rate without a base has a reason instead."""
        tn, fp, fn, tp = self._counts.tolist()
        no_anomalous, no_normal = f"no anomalous {self.level}s", f"no normal {self.level}s"
        return DecisionFigures(
            true_positives=tp,
            false_positives=fp,
            true_negatives=tn,
            false_negatives=fn,
            f1=ratio(2 * tp, 2 * tp + fp + fn, no_anomalous) if tp + fn else Figure(None, no_anomalous),
            false_alarm_rate=ratio(fp, fp + tn, no_normal),
            miss_rate=ratio(fn, tp + fn, no_anomalous),
        )


@dataclass(frozen=True)
class DefectRow:
    """How one kind of defect fares.

    Attributes:
        defect: its name.
        count: images of it.
        missed: how many were called normal; None where there were no verdicts.
        mean_score: mean raw image score.
        image_auroc: against all normal images; None where there are none.
    """

    defect: str
    count: int
    missed: int | None
    mean_score: float
    image_auroc: float | None


@dataclass(frozen=True)
class BestThreshold:
    """What would be possible: the threshold with the highest F1, which only the labels of the images can tell.

    Attributes:
        threshold: the lowest raw score that it calls anomalous.
        false_alarms, misses: how many images it would decide wrongly.
    """

    threshold: float
    false_alarms: int
    misses: int


def best_threshold(images: Ranked) -> BestThreshold | None:
    """The best one for scores with labels; None where one of the two kinds is missing."""
    if not (images.positive and images.negative):
        return None
    threshold, alarms, hits = f1_best(images)
    return BestThreshold(threshold, alarms, int(images.positive) - hits)


class PerDefect:
    """One `DefectRow` for each kind of defect, by name. Exact: keeps one score per image."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._normal: list[float] = []
        self._scores: dict[str, list[float]] = {}
        self._missed: dict[str, int | None] = {}

    def update(self, scores: Tensor, labels: Tensor, defects: Sequence[str], predicted: Tensor | None = None) -> None:
        """Take N scores, bool labels, defect names (ignored for normal images) and, where they exist, bool verdicts."""
        check_shapes(scores, labels)
        check_finite(scores)
        if len(defects) != len(scores):
            raise UsageError(
                f"Each score needs the name of its defect. Got {len(scores)} scores, {len(defects)} names."
            )
        verdicts: list[bool | None] = [None] * len(scores) if predicted is None else predicted.tolist()
        for score, label, defect, verdict in zip(scores.tolist(), labels.tolist(), defects, verdicts, strict=True):
            if label:
                self._add(defect, [score], None if verdict is None else int(not verdict))
            else:
                self._normal.append(score)

    def state(self) -> dict[str, Tensor]:
        """`normal` (n,) float64, scores of normal images. Of k kinds of defect `defects` (k, width) uint8, their names;
        `images` (k,) int64; `missed` (k,) int64, -1 without verdicts. `scores` float64, kind by kind.
        """
        missed = [-1 if missed is None else missed for missed in self._missed.values()]
        return {
            "normal": torch.tensor(self._normal, dtype=torch.float64),
            "defects": encode_names(list(self._scores)),
            "images": torch.tensor([len(scores) for scores in self._scores.values()], dtype=torch.int64),
            "missed": torch.tensor(missed, dtype=torch.int64),
            "scores": torch.tensor(
                [score for scores in self._scores.values() for score in scores], dtype=torch.float64
            ),
        }

    def merge(self, other: Self | Mapping[str, Tensor]) -> None:
        """Add what another instance has seen, or what its state holds."""
        state = other if isinstance(other, Mapping) else other.state()
        self._normal += state["normal"].tolist()
        each = state["scores"].split(state["images"].tolist())
        for defect, scores, missed in zip(decode_names(state["defects"]), each, state["missed"].tolist(), strict=True):
            self._add(defect, scores.tolist(), None if missed < 0 else missed)

    def compute(self) -> list[DefectRow]:
        """Rows in alphabetical order; empty where no anomalous image was seen."""
        return [
            DefectRow(
                defect=defect,
                count=len(scores),
                missed=self._missed[defect],
                mean_score=sum(scores) / len(scores),
                image_auroc=self._auroc(scores) if self._normal else None,
            )
            for defect, scores in sorted(self._scores.items())
        ]

    def _add(self, defect: str, scores: list[float], missed: int | None) -> None:
        before = self._missed.get(defect, 0)
        self._missed[defect] = None if before is None or missed is None else before + missed
        self._scores.setdefault(defect, []).extend(scores)

    def _auroc(self, scores: list[float]) -> float:
        labels = torch.tensor([True] * len(scores) + [False] * len(self._normal))
        return auroc(tally_labels(torch.tensor(scores + self._normal), labels))
