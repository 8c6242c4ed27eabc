"""What a calibration rests on: the evidence it collects, and the record it leaves in the model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath

import torch
from torch import Tensor

from blemish.data.batch import InferenceBatch, PerImage
from blemish.data.gather import gather_rows
from blemish.errors import CalibrationError, NonFiniteError
from blemish.functional.histogram import accumulate, empty_histogram


@dataclass(frozen=True)
class CalibrationRecord:
    """What a threshold rests on; part of the model, its artifact and its reports.

    Attributes:
        policy: "highest normal score", "false-alarm rate" or "maximum F1": how the image threshold was chosen.
        pixel_policy: the same for the pixel threshold.
        source: "held_out", "validation" or "test": which images; "test" is an oracle no one has in production.
        normal, anomalous: how many images.
        certified_false_alarm_rate: the probability with which one more normal image from the same line is called
            anomalous, at most, whatever the distribution of scores; None where the policy certifies nothing.
        f1: F1 at the image threshold on the calibration images; None without anomalous ones.
        decided_by: file name of the image whose score is the threshold; None where it isn't known.
        next_score: the highest score of a normal image below the threshold: far below, and one image, perhaps not a
            good part, decides alone. None without such an image.
    """

    policy: str
    pixel_policy: str
    source: str
    normal: int
    anomalous: int
    certified_false_alarm_rate: float | None
    f1: float | None
    decided_by: str | None = None
    next_score: float | None = None

    @property
    def oracle(self) -> bool:
        """Whether test images chose the threshold, so that test figures flatter."""
        return self.source == "test"


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
            maps = list(score[:, None, None])  # a detector without maps: one pixel per image
        take = len(score) if limit is None else min(len(score), limit)
        self.images += len(score)
        for i in range(take):
            values = maps[i] if batch.roi is None else maps[i][batch.roi[i]]
            low, high = values.aminmax()
            row = torch.stack([score[i], batch.gt_label[i].to(score), high, low]).double()
            if not bool(row.isfinite().all()):
                raise NonFiniteError(
                    f"The score of {_name(batch, i)} is not finite. Check the image and the backbone's weights."
                )
            self._rows.append(row.cpu())
            self._names.append(PurePath(batch.path[i]).name if i < len(batch.path) else "")
            if batch.gt_mask is not None:
                if self._histogram is None:
                    self._histogram = empty_histogram(device=score.device)
                truth = batch.gt_mask[i] if batch.roi is None else batch.gt_mask[i][batch.roi[i]]
                accumulate(self._histogram, values, truth)

    def name_of(self, score: float) -> str | None:
        """File name of an image of this process with that score; None if there is none, or it never was a file."""
        return next((name for row, name in zip(self._rows, self._names, strict=True) if row[0] == score), None) or None

    def merged(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
        """Scores, labels, map maxima and minima of all processes, each (n,), and the pixel histogram."""
        rows = torch.stack(self._rows) if self._rows else torch.empty(0, 4, dtype=torch.float64)
        rows, histogram = gather_rows(rows, self._histogram, device)
        score, label, high, low = rows.unbind(dim=1)
        return score.float(), label.bool(), high.float(), low.float(), histogram


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
        score = maps.amax(dim=(-2, -1)) if isinstance(maps, Tensor) else torch.stack([one.max() for one in maps])
    if not torch.compiler.is_exporting() and not bool(score.isfinite().all()):
        broken = int((~score.isfinite()).nonzero()[0])
        raise NonFiniteError(
            f"The score of {_name(batch, broken)} is {float(score[broken])}, so there is no verdict. Check the image "
            f"and the backbone's weights."
        )
    return score, maps


def _name(batch: InferenceBatch, index: int) -> str:
    return batch.path[index] if index < len(batch.path) and batch.path[index] else f"image {index} of the batch"
