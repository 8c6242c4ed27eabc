"""Exact figures whose scores went to disk, against the same figures in memory."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from blemish.metrics import AUPIMO, AUPRO, AUROC, AveragePrecision, F1Max
from blemish.metrics.spill import Scored, SortedRuns
from blemish.metrics.stores import ExactScores

FEW = 50
"""Scores that are already too many for memory."""


def draw(decimals: int, seed: int = 0, images: int = 12) -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    masks = np.zeros((images, 13, 11), bool)
    masks[1::2, 3:7, 2:5] = masks[3, 9:11, 8:] = True
    maps = rng.normal(masks * 1.0, 1.0).round(decimals)
    return torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(masks)


METRICS: dict[str, Callable[..., Any]] = {
    "AUROC": partial(AUROC, "pixel", exact=True),
    "AP": partial(AveragePrecision, "pixel", exact=True),
    "F1Max": partial(F1Max, "pixel", exact=True),
    "AUPRO": partial(AUPRO, 0.3, exact=True),
    "AUPRO to the end": partial(AUPRO, 1.0, exact=True),
    "AUPIMO": partial(AUPIMO, (0.01, 0.2), exact=True),
}


@pytest.mark.parametrize("decimals", [0, 1, 7])
@pytest.mark.parametrize("name", METRICS)
def test_figures_on_disk_are_those_in_memory(name: str, decimals: int) -> None:
    maps, masks = draw(decimals)
    inside = METRICS[name]()
    inside.update(maps, masks)
    expected = inside.compute().value
    outside, first, second = (METRICS[name](in_memory=FEW) for _ in range(3))
    for i in range(len(maps)):
        outside.update(maps[i : i + 1], masks[i : i + 1])
        if i in (4, 9):
            outside.compute()  # in between; more may follow
        (first if i < 5 else second).update(maps[i : i + 1], masks[i : i + 1])
    assert outside.compute().value == pytest.approx(expected, abs=1e-12)
    before = second.compute()
    first.merge(second)
    assert first.compute().value == pytest.approx(expected, abs=1e-12)
    assert second.compute() == before
    first.merge(inside)  # which has spilled nothing
    inside.merge(outside)
    assert first.compute().value == pytest.approx(inside.compute().value, abs=1e-12)
    assert first.compute().value == pytest.approx(expected, abs=1e-12)  # everything counts twice


def test_figures_on_disk_are_those_of_scikit_learn() -> None:
    maps, masks = draw(2)
    for metric, reference in (
        (AUROC, sklearn_metrics.roc_auc_score),
        (AveragePrecision, sklearn_metrics.average_precision_score),
    ):
        figure = metric("pixel", exact=True, in_memory=FEW)
        figure.update(maps, masks)
        assert figure.compute().value == pytest.approx(reference(masks.ravel(), maps.ravel()), abs=1e-12)


@pytest.mark.parametrize("part_rows", [1, 7, 64, 10**6])
def test_parts_fall_and_hold_everything_once(part_rows: int) -> None:
    rng = np.random.default_rng(0)
    runs, seen = SortedRuns(part_rows), []
    for size in (1, 5, 40, 200, 40):
        values = rng.integers(-9, 9, size).astype(np.float32) if size == 40 else rng.normal(size=size)
        values = torch.from_numpy(values.astype(np.float32))
        positive = torch.from_numpy(rng.integers(0, 2, size))
        runs.append(Scored(values, 1 - positive, positive, positive.double() / 3))
        seen.append((values, positive))
    value, positive = (torch.cat(column) for column in zip(*seen, strict=True))
    parts = list(runs)
    assert all(bool(low.value[-1] < high.value[0]) for high, low in pairwise(parts))
    found = Scored(*(torch.cat(column) for column in zip(*reversed(parts), strict=True)))
    distinct, group = torch.unique(value, return_inverse=True)
    assert torch.equal(found.value, distinct)
    assert torch.equal(found.positive, torch.bincount(group, positive.double()).long())
    assert torch.equal(found.negative, torch.bincount(group) - found.positive)
    torch.testing.assert_close(found.weight, found.positive.double() / 3)
    bound = max(1, part_rows // 5) * 5
    assert all(len(part.value) <= bound for part in parts)
    assert [len(part.value) for part in runs] == [len(part.value) for part in parts]  # as often as one likes


def test_memory_holds_no_more_than_it_should() -> None:
    store = ExactScores(FEW)
    for batch in torch.randn(40, 33, generator=torch.Generator().manual_seed(0)):
        store.add(batch, batch > 1)
        assert sum(len(part.value) for part in store._recent) <= FEW
    store.add(torch.randn(1000, generator=torch.Generator().manual_seed(1)), torch.ones(1000))
    assert sum(len(part.value) for part in store._recent) <= FEW


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="only Linux shows the open files of a process")
def test_files_go_when_the_scores_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def open_files() -> int:
        gc.collect()
        links = []
        for link in Path("/proc/self/fd").iterdir():
            try:
                links.append(os.readlink(link))
            except FileNotFoundError:  # the folder itself
                continue
        return sum(link.startswith(str(tmp_path)) for link in links)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    maps, masks = draw(7)
    first, second = (AUROC("pixel", exact=True, in_memory=FEW) for _ in range(2))
    for one in (first, second):
        one.update(maps, masks)
    assert open_files() == 2
    first.merge(second)
    del second, one
    assert open_files() == 1
    first.compute()
    assert list(tmp_path.iterdir()) == []  # no name, so nothing is left behind by a process that is killed
    first.reset()
    assert open_files() == 0
