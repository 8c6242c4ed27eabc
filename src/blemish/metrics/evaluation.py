"""Everything `test` reports, from one pass over predictions, in memory that doesn't grow with the number of pixels.

All pixel figures are read from one histogram. Whatever can't be given is None with a reason, never NaN: a set without
masks has no pixel figures, a set of good images has no AUROC, but both have something to report.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blemish.data.batch import InferenceBatch
from blemish.data.gather import gather
from blemish.errors import DataError, NonFiniteError, UsageError
from blemish.functional.histogram import BITS, check_finite
from blemish.metrics.decisions import BestThreshold, Decisions, DefectRow, PerDefect, best_threshold
from blemish.metrics.figure import Figure
from blemish.metrics.overlap import AUPRO, region_weights
from blemish.metrics.ranking import AUROC, AveragePrecision, F1Max
from blemish.metrics.stores import BinnedScores, ExactScores, below, under

if TYPE_CHECKING:
    from typing_extensions import Self

_NO_VERDICTS = "no verdicts: the model is not calibrated"


@dataclass(frozen=True)
class EvaluationResult:
    """The figures of a test set; `..._f1`, false alarms and misses are those of the chosen thresholds.

    Attributes:
        per_defect: a row for each kind of defect; empty where kinds are unknown.
        best: what another threshold would do; None without both kinds of labels.
        counts: `images` (all), `good` and `anomalous` (by their label), `with_masks` (whose mask marks a defect).
    """

    image_auroc: Figure
    pixel_auroc: Figure
    image_ap: Figure
    pixel_ap: Figure
    image_f1: Figure
    image_f1_max: Figure
    pixel_f1: Figure
    pixel_f1_max: Figure
    aupro: Figure
    false_alarm_rate: Figure
    miss_rate: Figure
    per_defect: list[DefectRow]
    counts: dict[str, int]
    best: BestThreshold | None

    @property
    def figures(self) -> dict[str, Figure]:
        """All figures by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Figure)}

    def _repr_html_(self) -> str:
        """In a notebook: a table of the figures."""
        rows = (f"<tr><td>{name}</td><td>{figure._repr_html_()}</td></tr>" for name, figure in self.figures.items())
        counts = ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in self.counts.items())
        return f"<table><caption>{counts}</caption>{''.join(rows)}</table>"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, ready for JSON: figures or None, `per_defect`, `counts`, `best`, `reasons` for each None."""
        figures = self.figures
        return {
            **{name: figure.value for name, figure in figures.items()},
            "per_defect": [vars(row).copy() for row in self.per_defect],
            "counts": dict(self.counts),
            "best": self.best and vars(self.best).copy(),
            "reasons": {name: figure.reason for name, figure in figures.items() if figure.reason is not None},
        }


class Evaluator:
    """Streams `InferenceBatch`es into an `EvaluationResult`.

    Ranking figures use raw scores and maps; only where a batch was never post-processed, so that its scores are raw as
    they stand, `pred_score` and `anomaly_map`. Pixels count where their truth is known: in images with a mask, and in
    images labeled good. An image labeled anomalous whose mask marks nothing says nothing about its pixels and is left
    out of the pixel figures. With a region of interest only the pixels inside count, and of a defect that crosses its
    border only the part inside; the label of the image is taken as it is.

    Args:
        fpr_limit: false-positive rate up to which AUPRO integrates.
        bits: size of the pixel histogram (see `functional.histogram`).
        watch: called with every batch once it is counted, for whoever wants to see single images. It sees the batches
            of its own process.
    """

    def __init__(
        self, *, fpr_limit: float = 0.3, bits: int = BITS, watch: Callable[[InferenceBatch], None] | None = None
    ) -> None:
        self.fpr_limit = fpr_limit
        self.bits = bits
        self.watch = watch
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._images = ExactScores()
        self._pixels = BinnedScores(self.bits)
        self._image_decisions = Decisions("image")
        self._pixel_decisions = Decisions("pixel")
        self._defects = PerDefect()
        self._counts = {"images": 0, "good": 0, "anomalous": 0, "with_masks": 0}
        self._has_maps = False

    def update(self, batch: InferenceBatch) -> None:
        """Take one batch.

        Raises:
            NonFiniteError: a score or map holds NaN or infinity; the message names the file.
            DataError: a map and its mask differ in size; the message names the file.
            UsageError: the batch has no scores.
        """
        scores = batch.pred_score if batch.raw_score is None else batch.raw_score
        if scores is None:
            raise UsageError("A batch without scores can't be evaluated: pred_score and raw_score are both None.")
        for index, score in enumerate(scores):
            _check_finite(score, _name(batch, index))
        pixels = list(_pixels(batch))  # every map is checked before anything is counted

        self._counts["images"] += len(scores)
        if batch.gt_label is not None:
            self._update_images(batch, scores, batch.gt_label)
        if batch.gt_mask is not None:
            self._counts["with_masks"] += sum(bool(mask.any()) for mask in batch.gt_mask)
        for scores_map, truth, verdict, inside in pixels:
            self._has_maps = True
            weights = region_weights(truth if inside is None else truth & inside) if bool(truth.any()) else None
            self._pixels.add(_cut(scores_map, inside), _cut(truth, inside), weights)
            if verdict is not None:
                self._pixel_decisions.update(_cut(verdict, inside), _cut(truth, inside))
        if self.watch is not None:
            self.watch(batch)

    def state(self) -> dict[str, Tensor]:
        """The states of all parts under their names, and `counts` (5,) int64."""
        counts = torch.tensor([*self._counts.values(), int(self._has_maps)])
        parts = [under(name, part.state()) for name, part in self._parts.items()]
        return {key: tensor for state in [*parts, {"counts": counts}] for key, tensor in state.items()}

    def merge(self, other: Self | Mapping[str, Tensor]) -> None:
        """Add what another evaluator with the same arguments has seen, or what its state holds."""
        state = other if isinstance(other, Mapping) else other.state()
        for name, part in self._parts.items():
            part.merge(below(name, state))
        *counts, has_maps = state["counts"].tolist()
        self._counts = {name: own + more for (name, own), more in zip(self._counts.items(), counts, strict=True)}
        self._has_maps = self._has_maps or has_maps > 0

    def gather(self, device: torch.device) -> None:
        """Add what the evaluators of all other processes have seen, so that each gives the figures of the whole set.

        All processes of the group must call it, once. `device` is one that their backend can send from.
        """
        gather(self, device)

    @property
    def _parts(self) -> dict[str, ExactScores | BinnedScores | Decisions | PerDefect]:
        return {
            "images": self._images,
            "pixels": self._pixels,
            "image_decisions": self._image_decisions,
            "pixel_decisions": self._pixel_decisions,
            "defects": self._defects,
        }

    @property
    def images(self) -> int:
        """How many images were taken."""
        return self._counts["images"]

    def compute(self) -> EvaluationResult:
        """The figures over all updates."""
        images, pixels = self._images.tally(), self._pixels.tally()
        verdicts, pixel_verdicts = self._image_decisions.compute(), self._pixel_decisions.compute()
        gap = None if self._counts["with_masks"] else "no defect masks"
        gap = gap if self._has_maps else "no anomaly maps"
        labeled = self._counts["good"] + self._counts["anomalous"]
        undecided = _NO_VERDICTS if labeled and not verdicts.total else None
        pixel_undecided = _NO_VERDICTS if not pixel_verdicts.total else None
        return EvaluationResult(
            image_auroc=AUROC.from_tally(images, "image"),
            pixel_auroc=_unless(gap, AUROC.from_tally(pixels, "pixel")),
            image_ap=AveragePrecision.from_tally(images, "image"),
            pixel_ap=_unless(gap, AveragePrecision.from_tally(pixels, "pixel")),
            image_f1=_unless(undecided, verdicts.f1),
            image_f1_max=F1Max.from_tally(images, "image"),
            pixel_f1=_unless(gap or pixel_undecided, pixel_verdicts.f1),
            pixel_f1_max=_unless(gap, F1Max.from_tally(pixels, "pixel")),
            aupro=_unless(gap, AUPRO.from_tally(self._pixels.weighted_tally(), self.fpr_limit)),
            false_alarm_rate=_unless(undecided, verdicts.false_alarm_rate),
            miss_rate=_unless(undecided, verdicts.miss_rate),
            per_defect=self._defects.compute(),
            counts=dict(self._counts),
            best=best_threshold(images),
        )

    def _update_images(self, batch: InferenceBatch, scores: Tensor, labels: Tensor) -> None:
        anomalous = int((labels != 0).sum())
        self._counts["anomalous"] += anomalous
        self._counts["good"] += len(labels) - anomalous
        self._images.add(scores, labels)
        if batch.pred_label is not None:
            self._image_decisions.update(batch.pred_label, labels)
        if batch.defect is not None:
            self._defects.update(scores, labels, batch.defect, batch.pred_label)


def _pixels(batch: InferenceBatch) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor | None]]:
    """Map, truth, verdict and region of interest, each (H, W), of every image whose pixels are known."""
    maps = batch.anomaly_map if batch.raw_map is None else batch.raw_map
    for index, scores in enumerate(() if maps is None else maps):
        _check_finite(scores, _name(batch, index))
        anomalous = None if batch.gt_label is None else bool(batch.gt_label[index])
        if batch.gt_mask is not None:
            truth = batch.gt_mask[index].to(scores.device) != 0
            if truth.shape != scores.shape:
                raise DataError(
                    f"{_name(batch, index)}: the mask and the anomaly map must have one shape. "
                    f"Got {tuple(truth.shape)} and {tuple(scores.shape)}."
                )
            if anomalous and not bool(truth.any()):
                continue
        elif anomalous is False:
            truth = torch.zeros_like(scores, dtype=torch.bool)
        else:
            continue
        verdict = None if batch.pred_mask is None else batch.pred_mask[index]
        yield scores, truth, verdict, None if batch.roi is None else batch.roi[index]


def _cut(pixels: Tensor, inside: Tensor | None) -> Tensor:
    return pixels if inside is None else pixels[inside]


def _check_finite(scores: Tensor, name: str) -> None:
    try:
        check_finite(scores)
    except NonFiniteError as error:
        raise NonFiniteError(f"{name}: {error}") from None


def _name(batch: InferenceBatch, index: int) -> str:
    return (batch.path[index] if index < len(batch.path) else "") or f"image {index} of the batch"


def _unless(reason: str | None, figure: Figure) -> Figure:
    return figure if reason is None else Figure(None, reason)
