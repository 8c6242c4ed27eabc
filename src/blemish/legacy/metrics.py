"""Metrics of the older library over fields of a batch: `F1Score(fields=["pred_label", "gt_label"])`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blemish.data.batch import InferenceBatch, PerImage
from blemish.errors import DataError, UsageError
from blemish.metrics.decisions import Decisions
from blemish.metrics.figure import Figure, Level
from blemish.metrics.ranking import AUROC as Ranking

VERDICTS: dict[str, Level] = {"pred_label": "image", "pred_mask": "pixel"}
SCORES: dict[str, Level] = {"pred_score": "image", "anomaly_map": "pixel"}
RAW = {"pred_score": "raw_score", "anomaly_map": "raw_map"}
"""Normalized values end at 0 and 1, where many become equal; raw ones, where there are any, rank all."""
TRUTH = {"image": "gt_label", "pixel": "gt_mask"}


class _OverFields:
    """One figure over two fields of batches."""

    _metric: Decisions | Ranking

    def __init__(self, fields: Sequence[str], known: dict[str, Level], prefix: str) -> None:
        level = known.get(fields[0]) if len(fields) == 2 else None
        if level is None or fields[1] != TRUTH[level]:
            pairs = ", ".join(f"{name!r} with {TRUTH[of]!r}" for name, of in known.items())
            raise UsageError(f"fields of {type(self).__name__} must be {pairs}. Got {list(fields)}.")
        self.fields, self.level = tuple(fields), level
        self.name = f"{prefix}{type(self).__name__}"

    def update(self, batch: InferenceBatch) -> None:
        """Takes a batch. Raises `UsageError` where a field is None."""
        self._metric.update(*self._values(batch))

    def reset(self) -> None:
        """Forgets everything."""
        self._metric.reset()

    def _values(self, batch: InferenceBatch) -> tuple[Tensor, Tensor]:
        raw = getattr(batch, RAW.get(self.fields[0], ""), None)
        predicted, truth = _flat(raw), _flat(getattr(batch, self.fields[1]))
        if predicted is None:
            predicted = _flat(getattr(batch, self.fields[0]))
        if predicted is None or truth is None:
            raise UsageError(f"{self.name} needs {' and '.join(self.fields)} in a batch, and one of them is None.")
        return predicted, truth

    @staticmethod
    def _number(figure: Figure) -> float:
        if figure.value is None:
            raise DataError(f"There is no such figure: {figure.reason}.")
        return figure.value


class F1Score(_OverFields):
    """F1 of verdicts.

    Args:
        fields: "pred_label" and "gt_label", or "pred_mask" and "gt_mask".
        prefix: of `name`.

    Raises:
        UsageError: for other fields.
    """

    def __init__(self, fields: Sequence[str] = ("pred_label", "gt_label"), prefix: str = "") -> None:
        super().__init__(fields, VERDICTS, prefix)
        self._metric: Decisions = Decisions(self.level)

    def compute(self) -> float:
        """F1 over all updates, in [0, 1]. Raises `DataError` without an anomalous one."""
        return self._number(self._metric.compute().f1)


class AUROC(_OverFields):
    """Area under the receiver operating characteristic.

    Args:
        fields: "pred_score" and "gt_label", or "anomaly_map" and "gt_mask"; of decided batches the raw ones count.
        prefix: of `name`.

    Raises:
        UsageError: for other fields.
    """

    def __init__(self, fields: Sequence[str] = ("pred_score", "gt_label"), prefix: str = "") -> None:
        super().__init__(fields, SCORES, prefix)
        self._metric: Ranking = Ranking(self.level)

    def compute(self) -> float:
        """The area over all updates, in [0, 1]. Raises `DataError` without good, or without anomalous ones."""
        return self._number(self._metric.compute())


def _flat(values: PerImage | None) -> Tensor | None:
    """(N,), (N, H, W), or N tensors (H, W) -> all numbers in a row."""
    if isinstance(values, list):
        return torch.cat([one.flatten() for one in values])
    return None if values is None else values.flatten()
