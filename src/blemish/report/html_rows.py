"""One row per test image: all that the report's tables and charts are made of, and what its gallery is chosen from.

Rows come from a test that is running, or from a file of predictions that was written earlier, by any runtime on any
machine; a report is the same either way, except for what a file of predictions doesn't hold: maps and a calibration
record.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch

from blemish.data.batch import InferenceBatch
from blemish.data.layouts import Sample
from blemish.data.walk import composed
from blemish.errors import DataError, UsageError
from blemish.extras import require
from blemish.metrics.evaluation import EvaluationResult, Evaluator

BOXES = 20
"""Regions that are remembered of one predicted image, worst first."""

Box: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True)
class ImageRow:
    """One image with its truth and what was predicted.

    Attributes:
        sample: the file and its label, which is not None.
        score: raw.
        anomalous: the verdict; None where the model isn't calibrated.
        boxes: (x0, y0, x1, y1) of predicted regions, where they were read from a file.
    """

    sample: Sample
    score: float
    anomalous: bool | None
    boxes: tuple[Box, ...] = ()

    @property
    def truth(self) -> bool:
        """Whether the image is anomalous."""
        return bool(self.sample.label)


def rows_of(batch: InferenceBatch, samples: Mapping[str, Sample]) -> list[ImageRow]:
    """The rows of a tested batch.

    Args:
        batch: as an `Evaluator` watches it.
        samples: path -> sample.
    """
    scores = batch.pred_score if batch.raw_score is None else batch.raw_score
    assert scores is not None  # the evaluator has checked it
    verdicts = [None] * len(scores) if batch.pred_label is None else batch.pred_label.tolist()
    return [
        ImageRow(samples[path], score, verdict)
        for path, score, verdict in zip(batch.path, scores.tolist(), verdicts, strict=True)
    ]


@dataclass
class Predicted:
    """What a file of predictions says about labeled images.

    Attributes:
        rows: of the samples that have a prediction.
        thresholds: distinct raw thresholds; one where all rows come from one model.
        models: distinct fingerprints of models.
        seconds: time per image.
        without_prediction: samples that have none.
        without_label: predictions of no labeled image.
    """

    rows: list[ImageRow] = field(default_factory=list)
    thresholds: set[float] = field(default_factory=set)
    models: set[str] = field(default_factory=set)
    seconds: list[float] = field(default_factory=list)
    without_prediction: list[Sample] = field(default_factory=list)
    without_label: int = 0

    def decide(self, threshold: float) -> None:
        """Verdicts by this raw threshold, in place of those that were predicted. UsageError if it isn't finite."""
        if not math.isfinite(threshold):
            raise UsageError(f"threshold must be a finite number. Got {threshold}.")
        self.rows = [replace(row, anomalous=row.score >= threshold) for row in self.rows]
        self.thresholds = {threshold}

    @property
    def threshold(self) -> float | None:
        """The threshold of all rows, if it is one."""
        return next(iter(self.thresholds)) if len(self.thresholds) == 1 else None

    def evaluate(self) -> EvaluationResult:
        """Figures of the images; there are none of pixels."""
        evaluator = Evaluator()
        evaluator.update(
            InferenceBatch(
                raw_score=torch.tensor([row.score for row in self.rows]),
                pred_label=torch.tensor([bool(row.anomalous) for row in self.rows]),
                path=[row.sample.relative for row in self.rows],
                gt_label=torch.tensor([row.truth for row in self.rows]),
                defect=[row.sample.defect for row in self.rows],
            )
        )
        return evaluator.compute()


def read_predictions(path: Path, samples: Iterable[Sample]) -> Predicted:
    """Joins a file that `blemish predict` wrote with labeled images.

    A prediction belongs to the sample whose file it names. A path of another machine belongs to the sample whose
    relative path it ends in.

    Args:
        path: ends in .csv, .jsonl or .parquet.
        samples: with labels.

    Raises:
        UsageError: for another suffix. MissingExtraError: for Parquet without pyarrow.
        DataError: if the file can't be read as predictions, an image has two, or no sample has one.
    """
    if path.suffix.lower() not in READERS:
        raise UsageError(f"Predictions are read from {', '.join(READERS)} files. Got {str(path)!r}.")
    found = Predicted()
    by_name = {sample.relative: sample for sample in samples}
    by_path = {sample.path.resolve(): sample for sample in by_name.values()}
    left = dict(by_name)
    try:
        for number, content in enumerate(READERS[path.suffix.lower()](path), start=1):
            where = f"{path}, row {number}"
            name, score, verdict, threshold, boxes = _checked(content, where)
            sample = by_path.get(Path(name).resolve()) or _by_ending(name, by_name)
            if sample is None:
                found.without_label += 1
                continue
            if sample.relative not in left:
                raise DataError(f"{where}: {name} was predicted twice. Give the predictions of one run.")
            del left[sample.relative]
            found.rows.append(ImageRow(sample, score, verdict, boxes))
            found.thresholds.add(threshold)
            if content.get("model"):
                found.models.add(str(content["model"]))
            if content.get("seconds") not in (None, ""):
                found.seconds.append(float(content["seconds"]))
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} can't be read as predictions: {error}.") from error
    if not found.rows:
        raise DataError(
            f"{path}: none of its {found.without_label} predictions is of a labeled test image. Check that it belongs "
            f"to this folder; paths are compared from their end, such as test/good/000.png."
        )
    found.without_prediction.extend(left.values())
    return found


def _checked(content: Mapping[str, Any], where: str) -> tuple[str, float, bool, float, tuple[Box, ...]]:
    absent = [name for name in ("path", "label", "raw_score", "threshold") if content.get(name) in (None, "")]
    if absent:
        raise DataError(f"{where}: {absent[0]!r} is missing. Give a file that blemish predict --out wrote.")
    if content["label"] not in ("normal", "anomalous"):
        raise DataError(f'{where}: label must be "normal" or "anomalous". Got {content["label"]!r}.')
    try:
        score, threshold = float(content["raw_score"]), float(content["threshold"])
        regions = content.get("regions") or ()
        boxes = tuple(
            (int(x0), int(y0), int(x1), int(y1))
            for x0, y0, x1, y1 in (
                region["box"] for region in (json.loads(regions) if isinstance(regions, str) else regions)[:BOXES]
            )
        )
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{where}: not a prediction ({error}).") from error
    if not (math.isfinite(score) and math.isfinite(threshold)):
        raise DataError(f"{where}: raw_score and threshold must be finite. Got {score} and {threshold}.")
    return str(content["path"]), score, content["label"] == "anomalous", threshold, boxes


def _by_ending(name: str, samples: Mapping[str, Sample]) -> Sample | None:
    """The sample whose relative path is the longest ending of a path that isn't on this machine."""
    if Path(name).exists():
        return None
    parts = composed(name.replace("\\", "/")).split("/")
    endings = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((samples[ending] for ending in endings if ending in samples), None)


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream, strict=True)


def _jsonl(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            content = json.loads(line)
            if not isinstance(content, dict):
                raise ValueError(f"a line holds {type(content).__name__}, not an object")
            yield content


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    pyarrow, parquet = require("pyarrow"), require("pyarrow.parquet")
    try:
        with parquet.ParquetFile(path) as file:
            for part in file.iter_batches():
                yield from part.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(str(error)) from error


READERS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
