from __future__ import annotations

import pytest
import torch
from sklearn import metrics as sklearn_metrics

from blemish.errors import UsageError
from blemish.metrics import Decisions, DefectRow, Figure, PerDefect


@pytest.mark.parametrize("seed", range(3))
def test_rates_are_those_of_scikit_learn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    predicted, labels = torch.rand(2, 4, 25, generator=generator) < 0.4
    decisions = Decisions()
    for part in range(4):
        decisions.update(predicted[part], labels[part])
    found = decisions.compute()
    tn, fp, fn, tp = sklearn_metrics.confusion_matrix(labels.flatten(), predicted.flatten()).ravel().tolist()
    counts = found.true_negatives, found.false_positives, found.false_negatives, found.true_positives
    assert counts == (tn, fp, fn, tp)
    assert found.total == 100
    assert found.f1.value == pytest.approx(sklearn_metrics.f1_score(labels.flatten(), predicted.flatten()))
    assert found.false_alarm_rate.value == pytest.approx(fp / (fp + tn))
    assert found.miss_rate.value == pytest.approx(fn / (fn + tp))


def test_rates_without_a_base_have_a_reason() -> None:
    nothing = Decisions("pixel").compute()
    assert nothing.total == 0
    assert nothing.f1 == nothing.miss_rate == Figure(None, "no anomalous pixels")
    assert nothing.false_alarm_rate == Figure(None, "no normal pixels")
    alarms = Decisions()
    alarms.update(torch.tensor([True, False]), torch.tensor([False, False]))
    assert alarms.compute().f1 == Figure(None, "no anomalous images")
    assert alarms.compute().false_alarm_rate == Figure(0.5)


def test_verdicts_and_labels_must_match() -> None:
    with pytest.raises(UsageError, match=r"one shape. Got \(2,\), \(3,\)."):
        Decisions().update(torch.zeros(2), torch.zeros(3))


def test_every_kind_of_defect_gets_a_row() -> None:
    table = PerDefect()
    table.update(
        torch.tensor([1.0, 2.0, 3.0, 1.5]),
        torch.tensor([False, True, True, True]),
        ["good", "scratch", "dent", "scratch"],
        torch.tensor([False, True, True, False]),
    )
    table.update(
        torch.tensor([2.0, 0.0]), torch.tensor([False, True]), ["good", "scratch"], torch.tensor([True, False])
    )
    assert table.compute() == [
        DefectRow("dent", count=1, missed=0, mean_score=3.0, image_auroc=1.0),
        DefectRow("scratch", count=3, missed=2, mean_score=pytest.approx(3.5 / 3), image_auroc=2.5 / 6),
    ]


def test_rows_without_verdicts_or_normal_images_have_gaps() -> None:
    table = PerDefect()
    table.update(torch.tensor([2.0]), torch.tensor([True]), ["dent"])
    assert table.compute() == [DefectRow("dent", count=1, missed=None, mean_score=2.0, image_auroc=None)]
    table.update(torch.tensor([2.0]), torch.tensor([True]), ["dent"], torch.tensor([True]))
    assert table.compute()[0].missed is None  # one of the two was never decided


def test_every_score_needs_a_name() -> None:
    with pytest.raises(UsageError, match=r"Each score needs the name of its defect. Got 2 scores, 1 names."):
        PerDefect().update(torch.zeros(2), torch.ones(2, dtype=torch.bool), ["dent"])
