from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from sklearn import metrics as sklearn_metrics

from blemish.data.batch import InferenceBatch
from blemish.errors import DataError, NonFiniteError, UsageError
from blemish.metrics import AUPRO, Evaluator

FIGURES = [
    "image_auroc",
    "pixel_auroc",
    "image_ap",
    "pixel_ap",
    "image_f1",
    "image_f1_max",
    "pixel_f1",
    "pixel_f1_max",
    "aupro",
    "false_alarm_rate",
    "miss_rate",
]
PIXEL_FIGURES = ["pixel_auroc", "pixel_ap", "pixel_f1", "pixel_f1_max", "aupro"]


def batch(seed: int, n: int = 6) -> InferenceBatch:
    """Post-processed predictions of n images: good and two kinds of defects in turn."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.zeros(n, 24, 20, dtype=torch.bool)
    mask[1::3, 3:9, 4:8] = True
    mask[2::3, 15:20, 10:18] = True
    raw_map = (torch.randn(n, 24, 20, generator=generator) + mask * 1.2).mul(64).round().div(64)  # exact in any bin
    raw_score = raw_map.flatten(1).mean(1)
    return InferenceBatch(
        pred_score=raw_score.clamp(0, 1),
        anomaly_map=raw_map.clamp(0, 1),
        pred_label=raw_score >= 0.05,
        pred_mask=raw_map >= 1.0,
        raw_score=raw_score,
        raw_map=raw_map,
        path=[f"part{seed}-{i}.png" for i in range(n)],
        gt_label=mask.flatten(1).any(1),
        gt_mask=mask,
        defect=["good", "scratch", "dent"] * (n // 3),
    )


def evaluate(*batches: InferenceBatch, **arguments: Any) -> dict[str, Any]:
    evaluator = Evaluator(**arguments)
    for each in batches:
        evaluator.update(each)
    return evaluator.compute().to_dict()


def test_all_figures_are_those_of_outside_references() -> None:
    batches = [batch(seed) for seed in range(4)]
    found = evaluate(*batches)
    score, label, decided = (
        torch.cat([getattr(each, name) for each in batches]) for name in ("raw_score", "gt_label", "pred_label")
    )
    pixels, truth, marked = (
        torch.cat([getattr(each, name) for each in batches]).flatten() for name in ("raw_map", "gt_mask", "pred_mask")
    )
    overlap = AUPRO(0.3, exact=True)
    for each in batches:
        assert isinstance(each.raw_map, torch.Tensor)
        assert isinstance(each.gt_mask, torch.Tensor)
        overlap.update(each.raw_map, each.gt_mask)
    expected = {
        "image_auroc": sklearn_metrics.roc_auc_score(label, score),
        "pixel_auroc": sklearn_metrics.roc_auc_score(truth, pixels),
        "image_ap": sklearn_metrics.average_precision_score(label, score),
        "pixel_ap": sklearn_metrics.average_precision_score(truth, pixels),
        "image_f1": sklearn_metrics.f1_score(label, decided),
        "image_f1_max": max(sklearn_metrics.f1_score(label, score >= t) for t in score),
        "pixel_f1": sklearn_metrics.f1_score(truth, marked),
        "pixel_f1_max": max(sklearn_metrics.f1_score(truth, pixels >= t) for t in pixels.unique()),
        "aupro": overlap.compute().value,
        "false_alarm_rate": float((decided & ~label).sum() / (~label).sum()),
        "miss_rate": float((~decided & label).sum() / label.sum()),
    }
    assert {name: found[name] for name in FIGURES} == pytest.approx(expected, abs=1e-6)
    assert found["counts"] == {"images": 24, "good": 8, "anomalous": 16, "with_masks": 16}
    assert found["reasons"] == {}
    best = found["best"]
    assert sklearn_metrics.f1_score(label, score >= best["threshold"]) == pytest.approx(expected["image_f1_max"])
    assert best["false_alarms"] == int(((score >= best["threshold"]) & ~label).sum())
    assert best["misses"] == int(((score < best["threshold"]) & label).sum())
    for row, name in zip(found["per_defect"], ["dent", "scratch"], strict=True):
        of_kind = torch.tensor([defect == name for each in batches for defect in each.defect or ()])
        known = of_kind | ~label
        assert row == {
            "defect": name,
            "count": 8,
            "missed": int((~decided & of_kind).sum()),
            "mean_score": pytest.approx(float(score[of_kind].mean())),
            "image_auroc": pytest.approx(sklearn_metrics.roc_auc_score(label[known], score[known])),
        }


def test_the_result_has_these_keys_and_is_json() -> None:
    found = evaluate(batch(0))
    assert list(found) == [*FIGURES, "per_defect", "counts", "best", "reasons"]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_lists_of_maps_are_stacked_maps() -> None:
    stacked = batch(1)
    lists = {name: list(getattr(stacked, name)) for name in ("raw_map", "anomaly_map", "pred_mask", "gt_mask")}
    assert evaluate(replace(stacked, **lists)) == evaluate(stacked)


def test_images_of_many_sizes_mix() -> None:
    small, large = batch(2, n=3), batch(3, n=3)
    assert isinstance(small.raw_map, torch.Tensor)
    cut = {name: getattr(small, name)[:, :20, :18] for name in ("raw_map", "pred_mask", "gt_mask")}
    small = replace(small, **cut)
    both = {name: [*getattr(small, name), *getattr(large, name)] for name in cut}
    joined = replace(
        batch(2),
        **both,
        **{
            name: torch.cat([getattr(small, name), getattr(large, name)])
            for name in ("raw_score", "pred_label", "gt_label")
        },
    )
    assert evaluate(joined) == evaluate(small, large)


def test_raw_scores_are_used_and_unprocessed_ones_are_raw() -> None:
    processed = batch(4)
    unprocessed = replace(processed, pred_score=processed.raw_score, anomaly_map=processed.raw_map)
    unprocessed = replace(unprocessed, raw_score=None, raw_map=None, pred_label=None, pred_mask=None)
    found, expected = evaluate(unprocessed), evaluate(processed)
    undecided = {"image_f1", "pixel_f1", "false_alarm_rate", "miss_rate"}
    assert {name: found[name] for name in FIGURES if name not in undecided} == {
        name: expected[name] for name in FIGURES if name not in undecided
    }
    assert found["reasons"] == dict.fromkeys(
        sorted(undecided, key=FIGURES.index), "no verdicts: the model is not calibrated"
    )
    assert [row["missed"] for row in found["per_defect"]] == [None, None]


@pytest.mark.parametrize(
    ("change", "missing", "reason"),
    [
        ({"gt_mask": None}, PIXEL_FIGURES, "no defect masks"),
        ({"raw_map": None, "anomaly_map": None}, PIXEL_FIGURES, "no anomaly maps"),
        ({"pred_mask": None}, ["pixel_f1"], "no verdicts: the model is not calibrated"),
        (
            {"gt_label": None, "defect": None},
            ["image_auroc", "image_ap", "image_f1", "image_f1_max", "miss_rate"],
            "no anomalous images",
        ),
    ],
    ids=["no masks", "no maps", "no predicted masks", "no labels"],
)
def test_what_can_not_be_given_is_null_with_a_reason(change: dict[str, Any], missing: list[str], reason: str) -> None:
    found = evaluate(replace(batch(5), **change))
    for name in missing:
        assert found[name] is None
        assert found["reasons"][name] == reason
    assert all((found[name] is None) == (name in found["reasons"]) for name in FIGURES)


@pytest.mark.parametrize("anomalous", [True, False])
def test_a_set_of_one_class_reports_what_it_can(anomalous: bool) -> None:
    whole = batch(6)
    assert whole.gt_label is not None
    keep = torch.nonzero(whole.gt_label == anomalous).flatten().tolist()
    part = InferenceBatch(
        **{name: value if value is None else [value[i] for i in keep] for name, value in vars(whole).items()}
    )
    for name in ("raw_score", "pred_label", "gt_label"):
        setattr(part, name, torch.stack(getattr(part, name)))
    found = evaluate(part)
    assert found["image_auroc"] is None
    assert found["reasons"]["image_auroc"] == ("no normal images" if anomalous else "no anomalous images")
    assert (found["image_ap"], found["image_f1_max"]) == ((1.0, 1.0) if anomalous else (None, None))
    assert (found["miss_rate"] is None, found["false_alarm_rate"] is None) == (not anomalous, anomalous)
    assert (found["pixel_auroc"] is None) == (not anomalous)  # defective images have normal pixels too


def test_an_empty_evaluation_is_all_reasons() -> None:
    found = evaluate()
    assert all(found[name] is None for name in FIGURES)
    assert set(found["reasons"]) == set(FIGURES)
    assert found["counts"] == {"images": 0, "good": 0, "anomalous": 0, "with_masks": 0}


def test_an_anomalous_image_with_an_empty_mask_tells_nothing_about_pixels() -> None:
    known = batch(7)
    assert isinstance(known.gt_mask, torch.Tensor)
    mask = known.gt_mask.clone()
    mask[1] = False
    found = evaluate(replace(known, gt_mask=mask))
    others = [0, 2, 3, 4, 5]
    fewer = InferenceBatch(
        **{
            name: value[others] if isinstance(value, torch.Tensor) else [value[i] for i in others]
            for name, value in vars(known).items()
            if value is not None
        }
    )
    expected = evaluate(fewer)
    assert {name: found[name] for name in PIXEL_FIGURES} == {name: expected[name] for name in PIXEL_FIGURES}
    assert found["counts"] == {"images": 6, "good": 2, "anomalous": 4, "with_masks": 3}


def test_good_images_count_as_normal_pixels_without_a_mask() -> None:
    masked = batch(8)
    assert isinstance(masked.gt_mask, torch.Tensor)
    good = {name: value if value is None else value[::3] for name, value in vars(batch(9)).items()}
    with_masks, without = InferenceBatch(**good), InferenceBatch(**{**good, "gt_mask": None})
    assert evaluate(masked, without) == evaluate(masked, with_masks) != evaluate(masked)


def test_arguments_reach_the_figures() -> None:
    assert evaluate(batch(10), fpr_limit=0.05)["aupro"] != evaluate(batch(10))["aupro"]
    assert evaluate(batch(10), bits=9)["pixel_auroc"] != evaluate(batch(10))["pixel_auroc"]


def test_broken_numbers_name_the_file_and_count_nothing() -> None:
    for name, index in (("raw_score", (2,)), ("raw_map", (2, 5, 5))):
        broken = getattr(batch(11), name).clone()
        broken[index] = torch.nan
        evaluator = Evaluator()
        with pytest.raises(NonFiniteError, match=r"part11-2.png: Scores must be finite"):
            evaluator.update(replace(batch(11), **{name: broken}))
        assert evaluator.compute() == Evaluator().compute()


def test_a_mask_of_another_size_names_the_file() -> None:
    other = torch.zeros(6, 24, 21, dtype=torch.bool)
    with pytest.raises(
        DataError, match=r"part12-0.png: the mask and the anomaly map must have one shape. Got \(24, 21\)"
    ):
        evaluate(replace(batch(12), gt_mask=other))
    with pytest.raises(DataError, match=r"image 0 of the batch: the mask"):
        evaluate(replace(batch(12), gt_mask=other, path=[]))


def test_a_batch_needs_scores() -> None:
    with pytest.raises(UsageError, match="A batch without scores can't be evaluated"):
        evaluate(InferenceBatch())


def test_a_watcher_sees_every_batch_that_was_counted() -> None:
    seen: list[InferenceBatch] = []
    batches = [batch(seed) for seed in range(2)]
    evaluate(*batches, watch=seen.append)
    assert [one is other for one, other in zip(seen, batches, strict=True)] == [True, True]
    broken = replace(batch(3), raw_score=torch.full((6,), float("nan")))
    with pytest.raises(NonFiniteError):
        evaluate(broken, watch=seen.append)
    assert len(seen) == 2


def test_a_notebook_shows_a_table() -> None:
    evaluator = Evaluator()
    good = batch(0)
    evaluator.update(replace(good, gt_label=torch.zeros(6, dtype=torch.bool), gt_mask=None, defect=["<good>"] * 6))
    result = evaluator.compute()
    html = result._repr_html_()
    assert "<caption>6 images, 6 good, 0 anomalous, 0 with masks</caption>" in html
    assert html.count("<tr>") == len(FIGURES)
    assert f"<td>false_alarm_rate</td><td><b>{result.false_alarm_rate.value:.3f}</b></td>" in html
    assert f"<td>image_auroc</td><td><i>{result.image_auroc.reason}</i></td>" in html
