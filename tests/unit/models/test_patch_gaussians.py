"""Streamed Gaussians against NumPy's covariance and SciPy's Mahalanobis distance, position by position."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.spatial.distance import mahalanobis

from blemish.errors import DataError, UsageError
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


@pytest.mark.parametrize("shrinkage", [0.0, 0.1])
def test_distances_of_a_brief_fit_are_those_of_a_whole_one(shrinkage: float) -> None:
    found = []
    for finish in (PatchGaussians.finish, PatchGaussians.finish_briefly):
        gaussians = PatchGaussians(0.01, shrinkage=shrinkage)
        gaussians.start()
        gaussians.observe(embedding(30))
        finish(gaussians)
        found.append(gaussians.distance(embedding(5, seed=1)))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=0)
    gaussians.start()
    gaussians.observe(embedding(1))
    with pytest.raises(DataError, match="at least 2 good images"):
        gaussians.finish_briefly()


def test_one_image_is_not_enough() -> None:
    with pytest.raises(DataError, match=r"PaDiM needs at least 2 good images to estimate a covariance. Got 1."):
        filled(embedding(1))


# -------------------------------------------------------------------------------------------------------------- merging


def pieces(seen: torch.Tensor, ends: Sequence[int]) -> list[PatchGaussians]:
    found = []
    for a, b in pairwise([0, *ends, len(seen)]):
        gaussians = PatchGaussians(0.01)
        gaussians.start()
        for first in range(a, b, 7):
            images = range(first, min(first + 7, b))
            gaussians.observe(seen[images.start : images.stop], images)
        found.append(gaussians)
    return found


def merged(parts: Sequence[PatchGaussians]) -> PatchGaussians:
    gaussians = PatchGaussians(0.01)
    gaussians.start()
    for part in parts:
        gaussians.merge(part.observed_state())
    gaussians.finish()
    return gaussians


def assert_same(one: PatchGaussians, other: PatchGaussians) -> None:
    for name, tensor in one.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "ends", [[1100], [1], [256, 512, 2048], [100, 200, 300], [31, 33, 250, 260, 1500], range(170, 2200, 170)], ids=str
)
def test_pieces_merge_to_the_gaussians_of_one_pass(ends: Sequence[int]) -> None:
    """Bit for bit, wherever they are cut, in any order; 2,200 images have a tree of two levels."""
    seen = embedding(2200)
    whole = filled(seen)
    assert_same(merged(pieces(seen, ends)), whole)
    assert_same(merged(pieces(seen, ends)[::-1]), whole)
    own, *others = pieces(seen, ends)
    for other in others:
        own.merge(other)
    own.finish()
    assert_same(own, whole)
    covariance = torch.linalg.inv(whole.whitening.mT @ whole.whitening).double() - 0.01 * torch.eye(4)
    for position in range(5):
        expected = np.cov(seen[:, position].double().numpy(), rowvar=False)
        np.testing.assert_allclose(covariance[position].numpy(), expected, atol=1e-4)


def every(seen: torch.Tensor, step: int) -> list[PatchGaussians]:
    found = []
    for r in range(step):
        gaussians = PatchGaussians(0.01)
        gaussians.start()
        for first in range(r, len(seen), 4 * step):
            images = range(first, min(first + 4 * step, len(seen)), step)
            gaussians.observe(seen[list(images)], images)
        found.append(gaussians)
    return found


def test_every_second_image_merges_to_one_pass_while_few_wait() -> None:
    seen = embedding(400)
    assert_same(merged(every(seen, 2)), filled(seen))


@pytest.mark.parametrize("step", [2, 3])
def test_every_nth_image_of_many_is_the_same_up_to_rounding(step: int) -> None:
    seen, new = embedding(3000), embedding(4, seed=4)
    parts = every(seen, step)
    for part in parts:
        state = part.observed_state()
        assert len(state["images"]) <= 256 + 32
        assert len(state["parts"]) <= 2 * 8
    torch.testing.assert_close(merged(parts).distance(new), filled(seen).distance(new), rtol=1e-3, atol=1e-3)


def test_one_pass_holds_few_results() -> None:
    gaussians = PatchGaussians(0.01)
    gaussians.start()
    for batch in embedding(2000).split(50):
        gaussians.observe(batch)
        state = gaussians.observed_state()
        assert len(state["images"]) < 32
        assert len(state["parts"]) <= 2  # the running block, and one result


def test_merging_leaves_the_other_as_it_was() -> None:
    first, second = pieces(embedding(700), [300])
    before = {name: tensor.clone() for name, tensor in second.observed_state().items()}
    first.merge(second)
    first.observe(embedding(300, seed=5))
    after = second.observed_state()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_pieces_are_added_to_fitted_gaussians_once() -> None:
    first, second = embedding(30), embedding(90, seed=3) + 1
    one, other = filled(first), filled(first)
    for gaussians in (one, other):
        gaussians.resume()
    one.observe(second)
    for piece in pieces(second, [40]):
        other.merge(piece)
    for gaussians in (one, other):
        gaussians.finish()
    assert int(other.count) == 120
    assert_same(one, other)


@pytest.mark.parametrize("count", [5, 40, 300])
def test_parts_that_overlap_are_refused(count: int) -> None:
    """Images that wait, that are folded, whose block is complete."""
    first, second = (pieces(embedding(count), [])[0] for _ in range(2))
    with pytest.raises(UsageError, match=r"must have seen different images. Got .*: give `observe` the numbers"):
        first.merge(second)


def test_shapes_that_differ_are_refused() -> None:
    first = pieces(embedding(9), [])[0]
    with pytest.raises(UsageError, match=r"features of one shape. Got \(5, 4\), \[5, 3\]."):
        first.merge(pieces(embedding(9, channels=3), [])[0])


@pytest.mark.parametrize("numbers", [1, 40, 2**24])
def test_matrices_in_parts_change_nothing(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, also where the state of a block that isn't full yet was sent."""
    expected = filled(embedding(50))
    monkeypatch.setattr("blemish.models.components.moments.PART_NUMBERS", numbers)
    first, second = PatchGaussians(0.01), PatchGaussians(0.01)
    first.observe(embedding(50)[:32], range(32))
    second.observe(embedding(50)[32:], range(32, 50))
    first.merge(second.observed_state())
    received = PatchGaussians(0.01)
    received.merge(first.observed_state())
    received.finish()
    for got in (filled(embedding(50)), received):
        assert torch.equal(got.mean, expected.mean)
        assert torch.equal(got.whitening, expected.whitening)


def test_factors_in_half_precision_are_the_rounded_ones() -> None:
    half = PatchGaussians(0.01, "float16")
    half.observe(embedding(50))
    half.finish()
    assert half.whitening.dtype == torch.float16
    assert torch.equal(half.whitening, filled(embedding(50), batch_size=50).whitening.half())
