from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from blemish.errors import UsageError
from blemish.functional.histogram import bin_edge, bin_index
from blemish.metrics import AUROC, AveragePrecision, F1Max, Figure


def best_f1(labels: torch.Tensor, scores: torch.Tensor) -> float:
    precision, recall, _ = sklearn_metrics.precision_recall_curve(labels, scores)
    return float(np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300)))


REFERENCE = {
    AUROC: sklearn_metrics.roc_auc_score,
    AveragePrecision: sklearn_metrics.average_precision_score,
    F1Max: best_f1,
}
METRICS = pytest.mark.parametrize("metric", REFERENCE)


@METRICS
@pytest.mark.parametrize("decimals", [0, 1, 7])
@pytest.mark.parametrize("exact", [True, False])
def test_streamed_figures_are_those_of_scikit_learn(metric: type, decimals: int, exact: bool) -> None:
    rng = np.random.default_rng(decimals)
    labels = rng.random((6, 50)) < 0.3
    scores = rng.normal(5 + labels, 1.0).round(decimals).astype(np.float32)
    if not exact:  # the bounded figure is exactly that of rounded scores
        scores = bin_edge(bin_index(torch.from_numpy(scores), 12), 12).numpy()
    streamed = metric(exact=exact, bits=12)
    for part in range(6):
        streamed.update(torch.from_numpy(scores[part]), torch.from_numpy(labels[part]))
    expected = REFERENCE[metric](labels.ravel(), scores.ravel())
    assert streamed.compute().value == pytest.approx(expected, abs=1e-12)


@METRICS
def test_images_are_exact_and_pixels_bounded_unless_told_otherwise(metric: type) -> None:
    # These two differ by less than a bin of any histogram.
    scores, labels = torch.tensor([1.0, 1.0 + 2.0**-23]), torch.tensor([True, False])
    figures = {}
    for level in ("image", "pixel"):
        for exact in (None, True, False):
            instance = metric(level, exact=exact)
            instance.update(scores, labels)
            figures[level, exact] = instance.compute().value
    assert figures["image", None] == figures["image", True] == figures["pixel", True]
    assert figures["pixel", None] == figures["pixel", False] == figures["image", False]
    if metric is AUROC:
        assert (figures["image", None], figures["pixel", None]) == (0.0, 0.5)


def test_more_bits_tell_closer_scores_apart() -> None:
    figures = []
    for bits in (10, 20):
        auroc = AUROC("pixel", bits=bits)
        auroc.update(torch.tensor([1.0, 1.01]), torch.tensor([False, True]))
        figures.append(auroc.compute().value)
    assert figures == [0.5, 1.0]


@METRICS
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_a_missing_class_is_a_reason(metric: type, level: str) -> None:
    normal, anomalous = metric(level), metric(level)
    normal.update(torch.arange(4.0), torch.zeros(4, dtype=torch.bool))
    anomalous.update(torch.arange(4.0), torch.ones(4, dtype=torch.bool))
    assert normal.compute() == metric(level).compute() == Figure(None, f"no anomalous {level}s")
    expected = Figure(None, f"no normal {level}s") if metric is AUROC else Figure(1.0)
    assert anomalous.compute() == expected


def test_only_like_metrics_merge() -> None:
    message = "Only metrics of one kind can be merged: give both the same `exact` and `bits`"
    for one, other in [
        (AUROC(exact=True), AUROC(exact=False)),
        (AUROC(exact=False), AUROC(exact=True)),
        (AUROC("pixel", bits=12), AUROC("pixel", bits=13)),
    ]:
        with pytest.raises(UsageError, match=message):
            one.merge(other)
        with pytest.raises(UsageError, match=message):
            one.merge(other.state())
