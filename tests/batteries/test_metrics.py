"""The contract of every metric: update, merge, compute and reset, whatever is measured."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from blemish.data.batch import InferenceBatch
from blemish.errors import NonFiniteError
from blemish.metrics import (
    AUPIMO,
    AUPRO,
    AUROC,
    AveragePrecision,
    Decisions,
    Evaluator,
    F1Max,
    PerDefect,
)

Batch = tuple[Any, ...]


def scores(generator: torch.Generator) -> Batch:
    labels = torch.rand(12, generator=generator) < 0.4
    return torch.randn(12, generator=generator) + labels, labels


def maps(generator: torch.Generator) -> Batch:
    masks = torch.zeros(3, 16, 16, dtype=torch.bool)
    masks[1, 2:6, 3:9] = True
    masks[2, 10:12, :4] = True
    return torch.randn(3, 16, 16, generator=generator) + masks, masks


def verdicts(generator: torch.Generator) -> Batch:
    predicted, labels = torch.rand(2, 9, generator=generator) < 0.5
    return predicted, labels


def defects(generator: torch.Generator) -> Batch:
    value, labels = scores(generator)
    return value, labels, ["scratch", "dent", "stain"] * 4, value > 0.5


def predictions(generator: torch.Generator) -> Batch:
    raw_map, mask = maps(generator)
    score, label = raw_map.flatten(1).amax(1), mask.flatten(1).any(1)
    names = ["good", "dent", "stain"]
    return (
        InferenceBatch(
            score, raw_map, score > 3, raw_map > 2, path=["", "", ""], gt_label=label, gt_mask=mask, defect=names
        ),
    )


@dataclass
class Case:
    make: Callable[[], Any]
    draw: Callable[[torch.Generator], Batch]

    def batches(self, n: int = 4) -> list[Batch]:
        generator = torch.Generator().manual_seed(7)
        return [self.draw(generator) for _ in range(n)]

    def fed(self, batches: list[Batch]) -> Any:
        metric = self.make()
        for batch in batches:
            metric.update(*batch)
        return metric


CASES = {
    "AUROC": Case(AUROC, scores),
    "AUROC bounded": Case(lambda: AUROC("pixel"), maps),
    "AveragePrecision": Case(AveragePrecision, scores),
    "AveragePrecision bounded": Case(lambda: AveragePrecision("pixel"), maps),
    "F1Max": Case(F1Max, scores),
    "F1Max bounded": Case(lambda: F1Max("pixel"), maps),
    "AUPRO": Case(AUPRO, maps),
    "AUPRO exact": Case(lambda: AUPRO(exact=True), maps),
    "AUPIMO": Case(lambda: AUPIMO((1e-2, 1e-1)), maps),
    "AUPIMO exact": Case(lambda: AUPIMO((1e-2, 1e-1), exact=True), maps),
    "Decisions": Case(Decisions, verdicts),
    "PerDefect": Case(PerDefect, defects),
    "Evaluator": Case(Evaluator, predictions),
}


def check_merge_equals_a_single_pass(case: Case) -> None:
    batches = case.batches()
    merged, other = case.fed(batches[:1]), case.fed(batches[1:])
    merged.merge(other)
    assert same(merged.compute(), case.fed(batches).compute())
    assert same(other.compute(), case.fed(batches[1:]).compute())


def check_any_number_of_parts_gives_the_same_state(case: Case) -> None:
    """As plain tensors, in their own memory. To the last bit, but for sums of weights, which are rounded."""
    batches = case.batches(8)
    whole = case.fed(batches)
    for parts in (1, 2, 3, 5, 8):
        together = case.make()
        for i in range(parts):
            state = case.fed(batches[8 * i // parts : 8 * (i + 1) // parts]).state()
            together.merge({name: tensor.clone() for name, tensor in state.items()})
        assert same(together.compute(), whole.compute())
        expected, got = whole.state(), together.state()
        assert got.keys() == expected.keys()
        for name, tensor in expected.items():
            assert got[name].dtype == tensor.dtype
            if name.endswith("weight"):
                torch.testing.assert_close(got[name], tensor, rtol=1e-14, atol=0)
            else:
                assert torch.equal(got[name], tensor), name


def check_order_of_updates_does_not_matter(case: Case) -> None:
    batches = case.batches()
    assert same(case.fed(batches[::-1]).compute(), case.fed(batches).compute())


def check_every_update_counts(case: Case) -> None:
    batches = case.batches()
    assert not same(case.fed(batches[:1]).compute(), case.fed(batches).compute())


def check_merging_an_empty_one_changes_nothing(case: Case) -> None:
    expected = case.fed(case.batches()).compute()
    metric = case.fed(case.batches())
    metric.merge(case.make())
    assert same(metric.compute(), expected)
    empty = case.make()
    empty.merge(metric)
    assert same(empty.compute(), expected)


def check_compute_may_be_called_again(case: Case) -> None:
    batches = case.batches()
    metric = case.fed(batches[:2])
    assert same(metric.compute(), metric.compute())
    for batch in batches[2:]:
        metric.update(*batch)
    assert same(metric.compute(), case.fed(batches).compute())


def check_reset_starts_afresh(case: Case) -> None:
    batches = case.batches()
    metric = case.fed(batches[:2])
    metric.reset()
    assert same(metric.compute(), case.make().compute())
    metric.update(*batches[3])
    assert same(metric.compute(), case.fed(batches[3:]).compute())


def check_inputs_are_not_modified(case: Case) -> None:
    batches = case.batches()
    before = copy.deepcopy(batches)
    case.fed(batches).compute()
    assert same(batches, before)


def check_global_random_state_is_unmoved(case: Case) -> None:
    before = torch.random.get_rng_state()
    case.fed(case.batches()).compute()
    assert torch.equal(torch.random.get_rng_state(), before)


def check_broken_scores_are_refused_and_leave_no_trace(case: Case) -> None:
    metric, batches = case.fed(case.batches(1)), case.batches(2)
    first = batches[1][0]
    target = first.pred_score if isinstance(first, InferenceBatch) else first
    if target.dtype == torch.bool:
        return  # verdicts can't be broken
    target[0] = torch.nan
    with pytest.raises(NonFiniteError):
        metric.update(*batches[1])
    assert same(metric.compute(), case.fed(case.batches(1)).compute())


def same(one: Any, other: Any) -> bool:
    """Equality down to the last tensor; floats up to the order of their additions."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, float):
        return one == pytest.approx(other, abs=1e-12)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return same(vars(one), vars(other)) if hasattr(one, "__dict__") else one == other


CHECKS = [value for name, value in list(globals().items()) if name.startswith("check_")]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_metric(case: Case, check: Callable[[Case], None]) -> None:
    check(case)
