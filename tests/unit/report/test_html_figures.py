"""The numbers of a report against loops over rows, and scikit-learn."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from sklearn.metrics import precision_recall_curve as sklearn_precision_recall
from sklearn.metrics import roc_curve as sklearn_roc

from blemish.data.batch import InferenceBatch
from blemish.data.layouts import Sample
from blemish.functional.proportion import wilson
from blemish.metrics.evaluation import EvaluationResult, Evaluator
from blemish.report import html_figures
from blemish.report.html_figures import confusion, curves, figure_lines, operating_points
from blemish.report.html_rows import ImageRow, rows_of
from known import known

CUT = 0.5


def rows(good: list[float], anomalous: list[float], cut: float | None = CUT) -> list[ImageRow]:
    made = []
    for truth, scores in ((False, good), (True, anomalous)):
        for i, score in enumerate(scores):
            name = f"test/{'hole' if truth else 'good'}/{i}.png"
            sample = Sample(Path(name), name, truth, "hole" if truth else "good", None, "test")
            made.append(ImageRow(sample, float(torch.tensor(score)), None if cut is None else score >= cut))
    return made


def evaluated(some: list[ImageRow]) -> EvaluationResult:
    evaluator = Evaluator()
    evaluator.update(
        InferenceBatch(
            raw_score=torch.tensor([row.score for row in some]),
            pred_label=None if some[0].anomalous is None else torch.tensor([row.anomalous for row in some]),
            gt_label=torch.tensor([row.truth for row in some]),
            defect=[row.sample.defect for row in some],
        )
    )
    return evaluator.compute()


def random_rows(seed: int, n: int = 60) -> list[ImageRow]:
    generator = torch.Generator().manual_seed(seed)
    good = torch.rand(n, generator=generator).mul(20).round().div(20)
    bad = torch.rand(n // 2, generator=generator).add(0.4).mul(20).round().div(20)
    return rows(good.tolist(), bad.tolist())


def test_rows_come_from_batches() -> None:
    samples = {row.sample.relative: row.sample for row in rows([0.1], [0.9])}
    batch = InferenceBatch(pred_score=torch.tensor([0.0, 1.0]), raw_score=torch.tensor([3.0, 7.0]), path=list(samples))
    found = rows_of(batch, samples)
    assert [(row.score, row.anomalous, row.truth) for row in found] == [(3.0, None, False), (7.0, None, True)]
    batch.pred_label = torch.tensor([True, False])
    assert [row.anomalous for row in rows_of(batch, samples)] == [True, False]


def test_every_figure_has_a_line_with_its_value() -> None:
    some = random_rows(1)
    result = evaluated(some)
    lines = {line.key: line for line in figure_lines(result, some, CUT)}
    assert list(lines) == list(html_figures.FIGURES)
    for key, line in lines.items():
        assert line.value == getattr(result, key).value
        assert (line.value is None) == (line.reason is not None)
        assert (line.interval is not None) == (key.startswith("image_") or key.endswith("_rate"))
        if line.interval is not None and line.value is not None:
            assert line.interval.low <= line.value <= line.interval.high
    counts = confusion(some)
    assert lines["miss_rate"].interval == wilson(counts["misses"], counts["anomalous"])
    assert lines["image_auroc"].method == "bootstrap"
    assert figure_lines(result, some, CUT) == list(lines.values())  # seeded


@pytest.mark.parametrize(
    ("good", "anomalous", "cut", "missing"),
    [
        ([0.1, 0.6], [], CUT, {"image_auroc": "no anomalous images", "miss_rate": "no anomalous images"}),
        ([], [0.1, 0.6], CUT, {"image_auroc": "no normal images", "false_alarm_rate": "no normal images"}),
        ([0.1], [0.6], None, {"image_f1": "no verdicts: the model is not calibrated"}),
    ],
)
def test_what_is_missing_has_a_reason(
    good: list[float], anomalous: list[float], cut: float | None, missing: dict[str, str]
) -> None:
    some = rows(good, anomalous, cut)
    lines = {line.key: line for line in figure_lines(evaluated(some), some, cut)}
    for key, reason in missing.items():
        assert (lines[key].value, lines[key].reason, lines[key].interval) == (None, reason, None)
    assert all(line.value is None or math.isfinite(line.value) for line in lines.values())


def counted(some: list[ImageRow], threshold: float) -> tuple[int, int]:
    """False alarms and misses by the rule itself."""
    alarms = sum(row.score >= threshold for row in some if not row.truth)
    return alarms, sum(row.score < threshold for row in some if row.truth)


@pytest.mark.parametrize("seed", range(3))
def test_operating_points_are_counted_and_chosen_well(seed: int) -> None:
    some = random_rows(seed)
    points = operating_points(some, CUT)
    for point in points:
        assert (point.false_alarms, point.misses) == counted(some, point.threshold)
    named = {name: point for point in points for name in point.name.split("; ")}
    assert named["the model's threshold"].threshold == CUT
    candidates = [*sorted({row.score for row in some}), math.inf]
    for name, limit in (("no false alarm here", 0), ("at most 50 false alarms per 1,000 good parts", 3)):
        assert counted(some, named[name].threshold)[0] <= limit
        lower = [cut for cut in candidates if cut < named[name].threshold]
        assert all(counted(some, cut)[0] > limit for cut in lower)
    assert named["no miss here"].misses == 0
    assert all(counted(some, cut)[1] > 0 for cut in candidates if cut > named["no miss here"].threshold)
    bad = sum(row.truth for row in some)

    def f1(cut: float) -> float:
        alarms, misses = counted(some, cut)
        return 2 * (bad - misses) / (2 * bad - misses + alarms)

    assert f1(named["best F1 here"].threshold) == max(map(f1, candidates))


def test_operating_points_of_one_class() -> None:
    only_good = operating_points(rows([0.1, 0.2], []), CUT)
    assert [point.misses for point in only_good] == [None] * len(only_good)
    assert {point.name for point in only_good} == {"the model's threshold", "no false alarm here"}
    above = next(point for point in only_good if point.name == "no false alarm here")
    assert 0.2 < above.threshold < 0.2001
    only_bad = operating_points(rows([], [0.1, 0.2]), None)
    assert [(point.name, point.false_alarms, point.misses) for point in only_bad] == [("no miss here", None, 0)]


def test_perfect_separation_has_one_point_with_three_names() -> None:
    points = operating_points(rows([0.1, 0.2], [0.8, 0.9]), None)
    assert [point.name for point in points] == ["no false alarm here; best F1 here; no miss here"]


def test_curves_are_scikit_learns() -> None:
    some = random_rows(4)
    found = curves(some)
    truth, score = [row.truth for row in some], [row.score for row in some]
    alarms, hits, _ = sklearn_roc(truth, score, drop_intermediate=False)
    assert found["roc"] is not None
    assert found["roc"]["false_alarm_rate"] == pytest.approx(alarms.tolist(), abs=1e-6)
    assert found["roc"]["hit_rate"] == pytest.approx(hits.tolist(), abs=1e-6)
    precision, recall, _ = sklearn_precision_recall(truth, score)
    assert found["pr"] is not None
    assert found["pr"]["recall"][:-1] == pytest.approx(recall[:-1].tolist(), abs=1e-6)
    assert found["pr"]["precision"][:-1] == pytest.approx(precision[:-1].tolist(), abs=1e-6)
    assert found["pr"]["recall"][-1] == 0


def test_long_curves_are_thinned_but_keep_their_ends() -> None:
    roc = known(curves(random_rows(5), points=7)["roc"])
    assert len(roc["hit_rate"]) == 7
    assert (roc["hit_rate"][0], roc["hit_rate"][-1]) == (0, 1)


def test_curves_need_both_classes() -> None:
    assert curves(rows([0.1], [])) == {"roc": None, "pr": None}
    assert curves(rows([], [0.1]))["roc"] is None
