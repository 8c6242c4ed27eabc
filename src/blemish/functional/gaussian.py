"""One multivariate Gaussian per patch position, streamed (PaDiM, arXiv 2011.08785, sections III-B and III-C).

For position p, embeddings x_1 ... x_n give the mean mu_p and the covariance (equation 1)

    Sigma_p = 1 / (n - 1) * sum_k (x_k - mu_p)(x_k - mu_p)^T + epsilon I

and a test embedding the Mahalanobis distance (equation 2) M(x) = sqrt((x - mu)^T Sigma^-1 (x - mu)). With the Cholesky
factor Sigma = L L^T and the whitening W = L^-1 that distance is the Euclidean norm |W (x - mu)|: one triangular
product, always real, where the product with an explicit inverse can turn negative under the root.

Moments are merged chunk by chunk (Chan, Golub and LeVeque 1983), each chunk centered on its own mean, so that large
feature means don't cancel and memory depends on the number of positions, not of images. Axes: P positions, D channels,
n images.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blemish.errors import UsageError

FACTOR_BLOCKS = 5
"""Blocks of rows of a triangular factor, which leave 0.6 of it to read; more make products too small."""

BLOCK_NUMBERS = 2**20
"""Numbers of a block of positions: of float32 these are 4 MiB, of which calculations hold a few copies."""

SHARES = 16
"""Parts in which memory is given back: each of a size that an allocator returns to the system."""


@dataclass(frozen=True)
class Moments:
    """What n images say about P Gaussians, as a value that can be sent and combined.

    Attributes:
        count: how many vectors each position has seen.
        mean: (P, D).
        scatter: (P, D (D + 1) / 2), lower triangles of the sums of centered outer products, see `pack`.
    """

    count: int
    mean: Tensor
    scatter: Tensor


def combine_moments(first: Moments, second: Moments) -> Moments:
    """The moments of the images of both, which are not changed (Chan, Golub and LeVeque 1983, equation 2.1).

    Rounding depends on the order of the two and on how images were divided between them.
    """
    total = first.count + second.count
    shift = second.mean - first.mean  # (P, D)
    scatter = first.scatter + second.scatter
    rows, columns = torch.tril_indices(shift.shape[1], shift.shape[1], device=shift.device)
    for part in _blocks(scatter):
        left, right = shift[part].index_select(1, rows), shift[part].index_select(1, columns)
        scatter[part].addcmul_(left, right, value=first.count * second.count / total)
    return Moments(total, first.mean + shift * (second.count / total), scatter)


def pack(matrices: Tensor) -> Tensor:
    """Lower triangles (P, D (D + 1) / 2) of (P, D, D) matrices, row by row."""
    rows, columns = torch.tril_indices(*matrices.shape[1:], device=matrices.device)
    places = rows * matrices.shape[2] + columns  # (D (D + 1) / 2,) in a flattened matrix
    return matrices.flatten(1).index_select(1, places)  # 5 times faster than [:, rows, columns]


def unpack(packed: Tensor) -> Tensor:
    """The inverse of `pack`: (P, D, D), with zeros above the diagonal.

    Raises:
        ValueError: if the rows are no triangles.
    """
    channels = _channels(packed)
    rows, columns = torch.tril_indices(channels, channels, device=packed.device)
    if len(rows) != packed.shape[1]:
        raise ValueError(f"Packed triangles must have D (D + 1) / 2 numbers. Got {packed.shape[1]}.")
    matrices = packed.new_zeros(len(packed), channels * channels)
    matrices.index_copy_(1, rows * channels + columns, packed)  # twice as fast as [:, rows, columns]
    return matrices.view(len(packed), channels, channels)


def merge_moments_(count: int, mean: Tensor, scatter: Sequence[Tensor], chunk: Tensor) -> int:
    """Adds a chunk of images to running moments, in place.

    Args:
        count: images seen so far, 0 or more.
        mean: (P, D) floating, changed in place.
        scatter: sums of centered outer products, changed in place, in parts of (P, D, D): the first positions, the
            next, and so on. What is read and written of the lower triangle doesn't depend on the upper one.
        chunk: (n, P, D), n at least 1.

    Returns:
        The new count.
    """
    new = chunk.shape[0]
    chunk_mean = chunk.mean(dim=0)  # (P, D)
    centered = (chunk - chunk_mean).transpose(0, 1)  # (P, n, D)
    shift = chunk_mean - mean  # (P, D)
    total = count + new
    sizes = [len(part) for part in scatter]
    for part, own, away in zip(scatter, centered.split(sizes), shift.split(sizes), strict=True):
        part.baddbmm_(own.mT, own)  # (p, D, n) x (p, n, D)
        if count:
            part.baddbmm_(away[:, :, None] * (count * new / total), away[:, None, :])  # (p, D, 1) x (p, 1, D)
    mean.add_(shift, alpha=new / total)
    return total


def whitening_factors(
    count: int,
    scatter: Tensor | list[Tensor],
    epsilon: float,
    shrinkage: float = 0.0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Whitening factors W = L^-1 of scatter matrices, L L^T = (1 - a) S + a mean(S) + epsilon I.

    S = scatter / (count - 1) is the covariance of a position, mean(S) that of all positions and a the shrinkage (Ledoit
    and Wolf 2004, toward the pooled covariance instead of a multiple of the identity): n images tell D (D + 1) / 2
    numbers of each position badly where n is below D, and P n images tell those of all positions well.

    Args:
        count: images seen, at least 2.
        scatter: (P, D (D + 1) / 2) float32, lower triangles, see `pack`. Whole matrices are made of few positions at a
            time, so that memory holds one copy of the largest tensor of the model, in `dtype`, beside these. A list
            with them alone is emptied: if nobody else holds them, their memory is given back on the way.
        epsilon: added to the diagonal, greater than 0; keeps the factor finite when count <= D.
        shrinkage: a in [0, 1).
        dtype: of the factors; arithmetic is float32.

    Returns:
        (P, D, D) lower-triangular factors.

    Raises:
        UsageError: if `epsilon` is lost to rounding beside the variances, so that a covariance has no factor.
    """
    factors = _empty_factors(scatter, dtype)
    for part, factor in _cholesky(count, scatter, epsilon, shrinkage):
        identity = torch.eye(factor.shape[1], device=factor.device).expand_as(factor)
        factors[part] = torch.linalg.solve_triangular(factor, identity, upper=False)
    return factors


def cholesky_factors(count: int, scatter: Tensor | list[Tensor], epsilon: float, shrinkage: float = 0.0) -> Tensor:
    """The factors L of `whitening_factors` themselves, (P, D, D) float32, in half the time; see
    `mahalanobis_by_solving`. Takes and raises the same.
    """
    factors = _empty_factors(scatter, torch.float32)
    for part, factor in _cholesky(count, scatter, epsilon, shrinkage):
        factors[part] = factor
    return factors


def mahalanobis(embedding: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Distances of (N, P, D) embeddings to (P, D) means under (P, D, D) whitening factors, lower triangular -> (N, P),
    in standard deviations. Factors may be float16; arithmetic is float32.
    """
    # A product per position with the images as rows, both sides contiguous: other layouts take up to four times longer.
    centered = (embedding - mean).transpose(0, 1).contiguous()  # (P, N, D)
    channels = centered.shape[2]
    # Factors are read once for each image, which is most of the time. In blocks of rows, what lies right of a block is
    # zero and isn't read; in eager mode a block of float32 would first be copied.
    whole = whitening.dtype == torch.float32 and not torch.compiler.is_exporting()
    step = channels if whole else -(-channels // FACTOR_BLOCKS)
    parts = []
    for start in range(0, channels, step):
        block = whitening[:, start : start + step, : start + step].mT.float()  # (P, up to start + step, step)
        parts.append(centered[:, :, : start + step] @ block)
    distance: Tensor = torch.linalg.vector_norm(torch.cat(parts, dim=2), dim=2)  # (P, N)
    return distance.mT  # (N, P)


def mahalanobis_by_solving(embedding: Tensor, mean: Tensor, factors: Tensor) -> Tensor:
    """The same from `cholesky_factors` (P, D, D): pays where only a few images are ever measured."""
    centered = (embedding - mean).permute(1, 2, 0)  # (P, D, N)
    distance: Tensor = torch.linalg.vector_norm(torch.linalg.solve_triangular(factors, centered, upper=False), dim=1)
    return distance.mT  # (N, P)


def mahalanobis_from_inverse(embedding: Tensor, mean: Tensor, inverse: Tensor) -> Tensor:
    """The same from explicit inverse covariances (P, D, D); rounding below zero counts as zero."""
    centered = (embedding - mean).transpose(0, 1).contiguous()  # (P, N, D)
    squared = (centered * (centered @ inverse.mT)).sum(dim=2)  # (P, N)
    return squared.clamp(min=0.0).sqrt().mT  # (N, P)


def scatter_from_whitening(count: int, whitening: Tensor, epsilon: float, shrinkage: float = 0.0) -> Tensor:
    """The inverse of `whitening_factors`, up to rounding: (P, D, D) factors back to the scatter of `count` images."""
    identity = torch.eye(whitening.shape[-1], device=whitening.device)
    factor = torch.linalg.solve_triangular(whitening, identity.expand_as(whitening), upper=False)
    covariance: Tensor = factor @ factor.mT - epsilon * identity  # (P, D, D)
    if shrinkage:  # the mean over positions is the same before and after
        covariance = (covariance - shrinkage * covariance.mean(dim=0)) / (1 - shrinkage)
    return covariance * (count - 1)


def _blocks(tensor: Tensor, numbers: int = BLOCK_NUMBERS) -> Iterator[slice]:
    """Ranges of positions whose part of (P, ...) has about so many numbers."""
    step = max(1, numbers // max(1, tensor[:1].numel()))
    return (slice(start, start + step) for start in range(0, len(tensor), step))


def _empty_factors(scatter: Tensor | list[Tensor], dtype: torch.dtype) -> Tensor:
    triangles = scatter[0] if isinstance(scatter, list) else scatter
    channels = _channels(triangles)
    return triangles.new_empty(len(triangles), channels, channels, dtype=dtype)


def _channels(triangles: Tensor) -> int:
    """D of (P, D (D + 1) / 2)."""
    return (math.isqrt(8 * triangles.shape[1] + 1) - 1) // 2


def _cholesky(
    count: int, scatter: Tensor | list[Tensor], epsilon: float, shrinkage: float
) -> Iterator[tuple[slice, Tensor]]:
    """L of the covariances of `whitening_factors`, some positions at a time: where they are, and (p, D, D)."""
    emptied = isinstance(scatter, list)
    triangles = scatter.pop() if isinstance(scatter, list) else scatter
    channels = _channels(triangles)
    mean = unpack(triangles.mean(dim=0, keepdim=True))[0]  # (D, D)
    added = epsilon * torch.eye(channels, device=triangles.device)  # (D, D)
    if shrinkage:
        added = shrinkage * (mean / (count - 1)) + added
    step = max(1, BLOCK_NUMBERS // max(1, channels**2))
    shares = triangles.split(step * -(-len(triangles) // (SHARES * step)))
    left = deque(share.clone() if emptied else share for share in shares)
    del triangles, shares  # what was copied can go
    start = 0
    while left:
        for block in left.popleft().split(step):
            covariance = unpack(block).mul_(1 - shrinkage).div_(count - 1).add_(added)
            factor, failed = torch.linalg.cholesky_ex(covariance)  # (p, D, D), (p,)
            if bool(failed.any()):
                raise UsageError(
                    f"epsilon must stand out beside the variances of the features, here up to {covariance.max():.3g}. "
                    f"Got {epsilon}: raise it, or fit on more than {count} images."
                )
            yield slice(start, start + len(block)), factor
            start += len(block)
