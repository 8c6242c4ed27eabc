"""Principal components and residuals against scikit-learn and naive loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.functional.subspace import principal_components, residual_norm


def features(count: int, channels: int = 12, seed: int = 0, offset: float = 20.0) -> Tensor:
    """(n, D) float32 whose variances fall by half from direction to direction, far from zero."""
    generator = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(channels, channels, generator=torch.Generator().manual_seed(9)))
    scale = 0.5 ** (torch.arange(channels) / 2)
    return torch.randn(count, channels, generator=generator) * scale @ turn + offset


def fitted(points: Tensor, share: float) -> tuple[Tensor, Tensor]:
    points = points.double()
    centered = points - points.mean(dim=0)
    return points.mean(dim=0), principal_components(centered.mT @ centered, share)


@pytest.mark.parametrize("share", [0.3, 0.9, 0.99, 0.9999])
def test_components_are_those_of_scikit_learn(share: float) -> None:
    points = features(500)
    _, components = fitted(points, share)
    expected = PCA(n_components=share, svd_solver="full").fit(points.double().numpy())
    assert components.shape == (12, expected.n_components_)
    cosine = (components.T.numpy() * expected.components_).sum(axis=1)
    np.testing.assert_allclose(np.abs(cosine), 1, atol=1e-9)  # a direction has no sign
    np.testing.assert_allclose(components.T @ components, np.eye(components.shape[1]), atol=1e-12)
    assert (components.gather(0, components.abs().argmax(dim=0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_residuals_are_those_of_a_naive_loop(share: float) -> None:
    mean, components = fitted(features(500), share)
    queries = features(40, seed=1) + 0.3
    found = residual_norm(queries, mean.float(), components.float())
    expected = PCA(n_components=share, svd_solver="full").fit(features(500).double().numpy())
    for query, got in zip(queries.double().numpy(), found, strict=True):
        rest = query - expected.mean_
        for direction in expected.components_:
            rest = rest - (rest @ direction) * direction
        assert float(got) == pytest.approx(np.linalg.norm(rest), rel=1e-4)
    grid = residual_norm(queries.view(4, 10, 12), mean.float(), components.float())
    torch.testing.assert_close(grid.flatten(), found)


def test_what_lies_in_the_subspace_has_no_residual() -> None:
    mean, components = fitted(features(500), 0.9)
    inside = (
        mean + torch.randn(20, components.shape[1], dtype=torch.float64, generator=torch.Generator()) @ components.T
    )
    assert float(residual_norm(inside, mean, components).max()) < 1e-12
    assert float(residual_norm(features(5).double(), *fitted(features(500), 1.0)).max()) < 1e-12


def test_small_residuals_survive_float32() -> None:
    """100 along the subspace and 0.001 away from it: the difference of squares would be lost in rounding."""
    components = torch.eye(6)[:, :2]
    query = torch.tensor([[100.0, 100.0, 0.001, 0.0, 0.0, 0.0]])
    assert float(residual_norm(query, torch.zeros(6), components)) == pytest.approx(0.001, rel=1e-6)


def test_only_the_lower_triangle_is_read() -> None:
    scatter = torch.cov(features(100).double().T)
    assert torch.equal(principal_components(scatter.tril(), 0.9), principal_components(scatter, 0.9))


def test_features_without_variance_keep_one_component() -> None:
    components = principal_components(torch.zeros(4, 4, dtype=torch.float64), 0.99)
    assert components.shape == (4, 1)
    assert float(components.norm()) == pytest.approx(1.0)


def test_each_share_is_the_smallest_that_is_enough() -> None:
    scatter = torch.diag(torch.tensor([1.0, 4.0, 3.0, 2.0], dtype=torch.float64))
    for share, count in ((0.01, 1), (0.4, 1), (0.41, 2), (0.7, 2), (0.71, 3), (0.9, 3), (0.91, 4), (1.0, 4)):
        components = principal_components(scatter, share)
        assert components.shape == (4, count), share
        assert components.argmax(dim=0).tolist() == [1, 2, 3, 0][:count]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_share_out_of_range(share: float) -> None:
    with pytest.raises(UsageError, match=r"The share of variance must be above 0 and at most 1. Got "):
        principal_components(torch.eye(3), share)


def test_residuals_can_be_exported() -> None:
    mean, components = (part.float() for part in fitted(features(500), 0.9))

    class Residual(nn.Module):
        def forward(self, queries: Tensor) -> Tensor:
            return residual_norm(queries, mean, components)

    batch = torch.export.Dim("batch")
    graph = torch.export.export(Residual(), (features(8),), dynamic_shapes={"queries": {0: batch}}).module()
    torch.testing.assert_close(graph(features(3)), residual_norm(features(3), mean, components))
