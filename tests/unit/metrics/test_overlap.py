"""AUPRO and AUPIMO against loops over every threshold, with regions from OpenCV."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.histogram import bin_edge, bin_index
from blemish.metrics import AUPIMO, AUPRO, Figure
from blemish.metrics.overlap import region_weights


def draw(n: int, seed: int, decimals: int | None = None, size: tuple[int, int] = (20, 17)) -> tuple[Tensor, Tensor]:
    """Maps with masks: every other image has up to three defects, some touching at a corner."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((n, *size), np.bool_)
    for mask in masks[1::2]:
        for _ in range(rng.integers(1, 4)):
            y, x, side = rng.integers(0, size[0] - 3), rng.integers(0, size[1] - 3), rng.integers(1, 6)
            mask[y : y + side, x : x + side] = True
    maps = rng.normal(3 + 1.5 * masks, 1.0)
    if decimals is not None:
        maps = maps.round(decimals)
    return torch.from_numpy(maps.astype(np.float32)), torch.from_numpy(masks)


def naive_aupro(maps: Tensor, masks: Tensor, limit: float) -> float:
    regions = []
    for scores, mask in zip(maps.numpy(), masks.numpy(), strict=True):
        n, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        regions += [scores[labels == name] for name in range(1, n)]
    normal = maps[~masks].numpy()
    x, y = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        x.append(float(np.mean(normal >= threshold)))
        y.append(float(np.mean([np.mean(region >= threshold) for region in regions])))
    fine = np.union1d(np.array(x)[np.array(x) < limit], [limit])
    area = 0.0
    for left, right in pairwise(fine):  # the last point at `left`, the first at `right`
        y_left = max(py for px, py in zip(x, y, strict=True) if px == left)
        y_right = min(py for px, py in zip(x, y, strict=True) if px == right) if right in x else np.interp(right, x, y)
        area += (right - left) * (y_left + y_right) / 2
    return area / limit


def naive_aupimo(maps: Tensor, masks: Tensor, bounds: tuple[float, float]) -> list[float]:
    """The recall at the lowest threshold that keeps a rate, averaged over segments of log-rate where it is constant."""
    normal = [scores.numpy() for scores, mask in zip(maps, masks, strict=True) if not mask.any()]
    thresholds = np.append(np.unique(maps), np.inf)
    rates = np.array([np.mean([np.mean(scores >= threshold) for scores in normal]) for threshold in thresholds])
    edges = np.unique(np.clip(rates, *bounds).tolist() + list(bounds))
    figures = []
    for scores, mask in zip(maps.numpy(), masks.numpy(), strict=True):
        if mask.any():
            total = 0.0
            for left, right in pairwise(edges):
                lowest = thresholds[rates <= np.sqrt(left * right)].min()
                total += np.log(right / left) * np.mean(scores[mask] >= lowest)
            figures.append(total / np.log(bounds[1] / bounds[0]))
    return figures


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("exact", [True, False])
def test_aupro_is_that_of_a_loop(decimals: int | None, limit: float, exact: bool) -> None:
    maps, masks = draw(4, seed=1, decimals=decimals)
    if not exact:  # the bounded figure is exactly that of rounded scores
        maps = bin_edge(bin_index(maps, 14), 14)
    metric = AUPRO(limit, exact=exact, bits=14)
    metric.update(maps[:3], masks[:3])
    metric.update(list(maps[3:]), list(masks[3:]))
    assert metric.compute().value == pytest.approx(naive_aupro(maps, masks, limit), abs=1e-9)


def test_aupro_counts_small_regions_like_large_ones() -> None:
    mask = torch.zeros(10, 10, dtype=torch.bool)
    mask[0, 0] = True
    mask[5:, 5:] = True
    scores = torch.full((10, 10), 0.5)
    scores[5:, 5:] = 1.0
    scores[0, 0] = 0.0  # one of two regions is found, long before any normal pixel
    metric = AUPRO(0.3, exact=True)
    metric.update([scores], [mask])
    assert metric.compute().value == pytest.approx(0.5)


def test_region_weights_add_up_to_one_per_region() -> None:
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 1]]) > 0
    assert region_weights(mask).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1, 1])
    assert region_weights(torch.zeros(3, 3)).tolist() == []


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("bounds", [(1e-2, 1e-1), (1e-3, 1.0), (1e-5, 1e-4)])
@pytest.mark.parametrize("exact", [True, False])
def test_aupimo_is_that_of_a_loop(decimals: int | None, bounds: tuple[float, float], exact: bool) -> None:
    maps, masks = draw(7, seed=2, decimals=decimals)
    if not exact:
        maps = bin_edge(bin_index(maps, 14), 14)
    metric = AUPIMO(bounds, exact=exact, bits=14)
    metric.update(maps, masks)
    expected = naive_aupimo(maps, masks, bounds)
    assert metric.per_image() == pytest.approx(expected, abs=1e-9)
    assert metric.compute().value == pytest.approx(np.mean(expected), abs=1e-9)


def test_aupimo_is_close_to_the_trapezoid_of_the_paper_where_rates_are_well_resolved() -> None:
    maps, masks = draw(8, seed=3, size=(120, 120))
    metric = AUPIMO((1e-2, 1e-1), exact=True)
    metric.update(maps, masks)
    normal = maps[0::2].flatten(1).numpy()
    thresholds = np.linspace(float(maps.min()), float(maps.max()), 20_001)[::-1]
    rate = np.mean([1 - np.searchsorted(np.sort(row), thresholds) / row.size for row in normal], axis=0)
    inside = (rate >= 1e-2) & (rate <= 1e-1)
    for figure, scores, mask in zip(metric.per_image(), maps[1::2], masks[1::2], strict=True):
        recall = np.mean(scores[mask].numpy()[:, None] >= thresholds[inside], axis=0)
        expected = sklearn_metrics.auc(np.log(rate[inside]), recall) / np.log(10)
        assert figure == pytest.approx(expected, abs=5e-3)


def test_a_shared_rate_weighs_images_not_pixels() -> None:
    """A large clean image and a small noisy one: the mean rate at the noisy scores is 1/2, not 16/10016."""
    metric = AUPIMO((0.4, 0.6), exact=True)
    metric.update([torch.zeros(100, 100), torch.ones(4, 4)], [torch.zeros(100, 100) > 0, torch.zeros(4, 4) > 0])
    metric.update([torch.ones(2, 2)], [torch.ones(2, 2) > 0])
    assert metric.compute().value == pytest.approx(np.log(0.6 / 0.5) / np.log(0.6 / 0.4))


@pytest.mark.parametrize("exact", [True, False])
def test_what_is_missing_is_a_reason(exact: bool) -> None:
    maps, masks = draw(2, seed=4)
    for metric, only_normal, only_defects in [
        (AUPRO(exact=exact), "no anomalous pixels", "no normal pixels"),
        (AUPIMO(exact=exact), "no anomalous pixels", "no normal images"),
    ]:
        assert metric.compute() == Figure(None, "no anomalous pixels")
        metric.update(maps[:1], masks[:1])
        assert metric.compute() == Figure(None, only_normal)
        metric.reset()
        metric.update(maps[1:], torch.ones_like(masks[1:]))
        assert metric.compute() == Figure(None, only_defects)


def test_bad_arguments_are_named() -> None:
    with pytest.raises(UsageError, match=r"fpr_limit must lie in \(0, 1\]. Got 0."):
        AUPRO(0)
    with pytest.raises(UsageError, match=r"fpr_bounds must satisfy 0 < low < high <= 1. Got \(0.1, 0.01\)."):
        AUPIMO((0.1, 0.01))
    for metric in (AUPRO(), AUPIMO()):
        with pytest.raises(UsageError, match=r"one shape. Got \(3, 3\), \(3, 4\)."):
            metric.update([torch.zeros(3, 3)], [torch.zeros(3, 4, dtype=torch.bool)])
        with pytest.raises(ValueError, match="shorter"):
            metric.update([torch.zeros(3, 3)] * 2, [torch.zeros(3, 3, dtype=torch.bool)])
