from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.gaussian import (
    mahalanobis,
    mahalanobis_from_inverse,
    merge_moments_,
    pack,
    scatter_from_whitening,
    whitening_factors,
)

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"
EPSILON = 0.01


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")
    with np.load(GOLDEN) as numbers:
        return {key: torch.from_numpy(numbers[key]) for key in numbers.files if key.startswith(("padim.", "gaussian."))}


def embeddings(n: int = 40, positions: int = 3, channels: int = 6, offset: float = 0.0) -> Tensor:
    """Correlated features (n, P, D)."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(positions, channels, channels, generator=generator)
    return torch.einsum("npd,pde->npe", torch.randn(n, positions, channels, generator=generator), mixing) + offset


def moments(images: Tensor, *chunks: int) -> tuple[int, Tensor, Tensor]:
    positions, channels = images.shape[1:]
    count, mean, scatter = 0, torch.zeros(positions, channels), torch.zeros(positions, channels, channels)
    for chunk in images.split(list(chunks) or [len(images)]):
        count = merge_moments_(count, mean, [scatter], chunk)
    return count, mean, scatter


def covariances(images: Tensor) -> Tensor:
    return torch.stack([torch.from_numpy(np.cov(one.double().numpy().T)) for one in images.unbind(dim=1)])


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize("chunks", [(40,), (1, 39), (1,) * 40, (7, 13, 20)])
def test_moments_do_not_depend_on_the_chunks(chunks: tuple[int, ...], offset: float) -> None:
    images = embeddings(offset=offset)
    before = images.clone()
    count, mean, scatter = moments(images, *chunks)
    assert count == 40
    torch.testing.assert_close(mean.double(), images.double().mean(dim=0), rtol=1e-6, atol=1e-5)
    # Features around 1000 are known to 6e-5; squares of 6e-5 times the deviation of 3 are what remains.
    torch.testing.assert_close((scatter / 39).double(), covariances(images), rtol=1e-4, atol=2e-4)
    assert torch.equal(images, before)


def test_whitening_factors_the_covariance() -> None:
    images = embeddings()
    count, _, scatter = moments(images)
    whitening = whitening_factors(count, pack(scatter), EPSILON)
    half = whitening_factors(count, pack(scatter), EPSILON, dtype=torch.float16)
    assert torch.equal(half, whitening.half())
    assert torch.equal(whitening, whitening.tril())
    inverse = torch.linalg.inv(covariances(images) + EPSILON * torch.eye(6, dtype=torch.float64))
    torch.testing.assert_close((whitening.mT @ whitening).double(), inverse, rtol=1e-4, atol=1e-4)


def test_whitening_is_the_same_in_one_block_and_in_many() -> None:
    images = embeddings(positions=2**10, channels=70)  # 4900 numbers per position: several blocks
    count, _, scatter = moments(images)
    expected = torch.cat([whitening_factors(count, pack(one[None]), EPSILON) for one in scatter[[0, 855, 1023]]])
    torch.testing.assert_close(whitening_factors(count, pack(scatter), EPSILON)[[0, 855, 1023]], expected)


@pytest.mark.parametrize("n", [3, 40])  # fewer images than channels, and more
def test_distances_are_mahalanobis_in_float64(n: int) -> None:
    images, queries = embeddings(n), embeddings(5, offset=2.0)
    count, mean, scatter = moments(images)
    found = mahalanobis(queries, mean, whitening_factors(count, pack(scatter), EPSILON))
    assert found.shape == (5, 3)
    covariance = covariances(images) + EPSILON * torch.eye(6)
    for position in range(3):
        center, inverse = images[:, position].double().mean(dim=0), torch.linalg.inv(covariance[position])
        for image in range(5):
            x = queries[image, position].double() - center
            assert float(found[image, position]) == pytest.approx(float((x @ inverse @ x).sqrt()), rel=1e-4)
    inverse = torch.linalg.inv(covariance).float()
    torch.testing.assert_close(mahalanobis_from_inverse(queries, mean, inverse), found, rtol=1e-3, atol=0)


def test_rounding_below_zero_is_no_nan() -> None:
    inverse = torch.tensor([[[1.0, 2.0], [2.0, 1.0]]])  # indefinite
    assert mahalanobis_from_inverse(torch.tensor([[[1.0, -1.0]]]), torch.zeros(1, 2), inverse).tolist() == [[0.0]]


def test_whitening_can_be_taken_back_and_fitted_on() -> None:
    images = embeddings(60)
    count, mean, scatter = moments(images[:40])
    whitening = whitening_factors(count, pack(scatter), EPSILON)
    scatter = scatter_from_whitening(count, whitening, EPSILON)
    count = merge_moments_(count, mean, [scatter], images[40:])
    assert count == 60
    torch.testing.assert_close((scatter / 59).double(), covariances(images), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(mean, images.mean(dim=0), rtol=0, atol=1e-5)


def test_a_regularization_that_rounding_swallows_is_an_error() -> None:
    count, _, scatter = moments(1e4 * embeddings(4, channels=30))
    with pytest.raises(UsageError, match=r"epsilon must stand out .* Got 0.01: raise it, or fit on more than 4 images"):
        whitening_factors(count, pack(scatter), EPSILON)


def test_moments_of_another_library(golden: dict[str, Tensor]) -> None:
    """It adds 0.01 to the diagonal as we do, and another 1e-5 before it inverts."""
    images = golden["gaussian.embedding"].flatten(2).mT  # (30, 20, 6)
    count, mean, scatter = moments(images, 7, 23)
    torch.testing.assert_close(mean.mT, golden["gaussian.mean"], rtol=1e-5, atol=1e-6)
    whitening = whitening_factors(count, pack(scatter), 0.01 + 1e-5)
    largest = float(golden["gaussian.inv_covariance"].abs().max())
    torch.testing.assert_close(
        whitening.mT @ whitening, golden["gaussian.inv_covariance"], rtol=1e-5, atol=1e-5 * largest
    )


def test_distances_of_another_library(golden: dict[str, Tensor]) -> None:
    images, mean = golden["padim.embedding"].flatten(2).mT, golden["padim.mean"].mT
    expected = golden["padim.distance"].flatten(1)
    inverse = golden["padim.inv_covariance"]
    torch.testing.assert_close(mahalanobis_from_inverse(images, mean, inverse), expected, rtol=1e-5, atol=0)
    whitening = torch.linalg.cholesky(inverse.double()).mT.float()  # W^T W = inverse
    torch.testing.assert_close(mahalanobis(images, mean, whitening), expected, rtol=1e-5, atol=0)


def test_triangles_that_are_given_away_give_the_same_factors() -> None:
    count, _, scatter = moments(embeddings(positions=300, channels=40))
    given = [pack(scatter)]
    found = whitening_factors(count, given, EPSILON, 0.1)
    assert given == []
    assert torch.equal(found, whitening_factors(count, pack(scatter), EPSILON, 0.1))
