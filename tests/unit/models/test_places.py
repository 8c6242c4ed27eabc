"""A bank that knows where each patch was."""

from __future__ import annotations

import pytest
import torch

from blemish import Patchcore
from blemish.errors import UsageError
from blemish.models.base import Detector


def halves(left: float, right: float) -> torch.Tensor:
    """A picture of two noisy grays, side by side."""
    picture = 0.05 * torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    picture[..., :32] += left
    picture[..., 32:] += right
    return picture


def fitted(weight: float) -> Detector:
    settings = {"distance": "cosine", "position_weight": weight, "coreset_sampling_ratio": 1.0, "num_neighbors": 1}
    module = Patchcore(backbone="filter_bank", image_size=64, **settings)
    detector = module.detector
    detector.start()
    detector.observe(detector.features(halves(0.2, 0.8)))
    detector.finish()
    return detector


@torch.no_grad()
def test_distances_grow_by_the_displacement() -> None:
    plain, placed = fitted(0.0), fitted(0.5)
    picture = halves(0.2, 0.8)
    alone, features = plain.features(picture), placed.features(picture)
    assert placed.width == plain.width + 2 == features.shape[1]
    torch.testing.assert_close(features[:, :-2], alone)
    rows, columns = placed.grid
    away = (features[0, :, 0, 0] - features[0, :, 2, 5]).square().sum()
    cosine = (alone[0, :, 0, 0] * alone[0, :, 2, 5]).sum()
    displacement = (2**2 + 5**2) / max(rows, columns) ** 2
    torch.testing.assert_close(away, 2 - 2 * cosine + 0.5**2 * displacement)


@torch.no_grad()
def test_a_part_the_wrong_way_round_is_seen_by_its_places() -> None:
    swapped = halves(0.8, 0.2)
    plain, placed = fitted(0.0), fitted(2.0)
    unplaced = plain.patch_scores(plain.features(swapped))
    scores = placed.patch_scores(placed.features(swapped))
    assert float(unplaced.median()) < 0.2 < float(scores.median())


def test_places_without_a_measure_are_refused() -> None:
    with pytest.raises(UsageError, match=r"needs distance 'cosine'\. Got 'euclidean'"):
        Patchcore(backbone="filter_bank", position_weight=1.0)
    with pytest.raises(UsageError, match="position_weight"):
        Patchcore(backbone="filter_bank", distance="cosine", position_weight=-1.0)
