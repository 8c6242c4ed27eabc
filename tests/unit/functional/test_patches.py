from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.functional.patches import average_neighborhood, join_layers, to_rows


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 2, 1, 1), (1, 1, 2, 9)])
def test_average_is_over_the_neighbors_that_exist(size: int, shape: tuple[int, ...]) -> None:
    features = maps(*shape)
    found = average_neighborhood(features, size)
    assert found.shape == features.shape
    reach = size // 2
    for y in range(shape[2]):
        for x in range(shape[3]):
            inside = features[:, :, max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
            torch.testing.assert_close(found[:, :, y, x], inside.mean(dim=(2, 3)))


def test_layers_join_at_the_resolution_of_the_first() -> None:
    fine, coarse, odd = maps(2, 3, 8, 6), maps(2, 4, 4, 3, seed=1), maps(2, 1, 3, 2, seed=2)
    joined = join_layers([fine, coarse, odd])
    assert joined.shape == (2, 8, 8, 6)
    assert torch.equal(joined[:, :3], fine)
    for part, layer in ((joined[:, 3:7], coarse), (joined[:, 7:], odd)):
        torch.testing.assert_close(part, F.interpolate(layer, (8, 6), mode="bilinear"), rtol=0, atol=1e-6)


def test_rows_run_image_by_image_and_line_by_line() -> None:
    embedding = maps(2, 3, 4, 5)
    rows = to_rows(embedding)
    assert rows.shape == (40, 3)
    assert torch.equal(rows[1 * 20 + 2 * 5 + 3], embedding[1, :, 2, 3])
