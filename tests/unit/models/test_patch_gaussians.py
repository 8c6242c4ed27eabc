"""Streamed Gaussians against NumPy's covariance and SciPy's Mahalanobis distance, position by position."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from blemish.errors import DataError
from blemish.models.padim.gaussians import PatchGaussians


def embedding(images: int, seed: int = 0, positions: int = 5, channels: int = 4) -> torch.Tensor:
    """(N, P, D), far from zero: means must not eat the precision of covariances."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(images, positions, channels, generator=generator) * 0.3 + 20


def filled(embeddings: torch.Tensor, epsilon: float = 0.01, batch_size: int = 4) -> PatchGaussians:
    gaussians = PatchGaussians(epsilon)
    gaussians.start()
    for batch in embeddings.split(batch_size):
        gaussians.observe(batch)
    gaussians.finish()
    return gaussians


@pytest.mark.parametrize("images", [2, 3, 50])  # fewer than channels, too: epsilon makes them invertible
def test_distances_are_those_of_scipy(images: int) -> None:
    seen, new = embedding(images), embedding(6, seed=1)
    got = filled(seen).distance(new)
    for position in range(seen.shape[1]):
        x = seen[:, position].double().numpy()
        inverse = np.linalg.inv(np.cov(x, rowvar=False) + 0.01 * np.eye(x.shape[1]))
        for i in range(len(new)):
            expected = mahalanobis(new[i, position].double().numpy(), x.mean(axis=0), inverse)
            assert float(got[i, position]) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 32, 100])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    """Bit for bit: chunks do not follow batches."""
    seen = embedding(90)
    expected, got = filled(seen, batch_size=90), filled(seen, batch_size=batch_size)
    assert torch.equal(got.mean, expected.mean)
    assert torch.equal(got.whitening, expected.whitening)


def test_update_equals_one_fit() -> None:
    first, second, new = embedding(30), embedding(20, seed=3) + 1, embedding(4, seed=4)
    gaussians = filled(first)
    gaussians.resume()
    gaussians.observe(second)
    gaussians.finish()
    assert int(gaussians.count) == 50
    expected = filled(torch.cat([first, second])).distance(new)
    torch.testing.assert_close(gaussians.distance(new), expected, rtol=1e-2, atol=1e-2)


def test_one_image_is_not_enough() -> None:
    with pytest.raises(DataError, match=r"PaDiM needs at least 2 good images to estimate a covariance. Got 1."):
        filled(embedding(1))
