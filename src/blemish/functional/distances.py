"""Exact Euclidean nearest neighbors in bounded memory.

|x - y|^2 = |x|^2 - 2 x.y + |y|^2 turns the search into one matrix product per block of the bank; only a running best is
kept, the full (Q, M) matrix never exists. The product cancels digits when x is close to y (an absolute error of about
1e-7 |x|^2), so it only *ranks*: the distances that are returned are taken from the differences x - y themselves.
Callers center queries and bank on a common point near the data, which shrinks |x| and with it the error of the ranking.

`farthest` asks for less: which query lies farthest from the bank. None lies farther from all rows than from some of
them, and so hardly any has to be searched for.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK_ROWS = 4096
QUERY_ROWS = 1024
"""Bank and query rows per product. Their 16 MB result is reused from the heap; larger ones the allocator fetches from
the system each time, and the page faults cost more than the arithmetic."""

DEVICE_RANKS = 64 * 2**20
"""Numbers per product on a GPU, where each product costs many launches: 256 MB."""

GROUP = 64
"""Minima are searched in groups: a minimum of numbers that lie side by side costs a twentieth of its position."""

SAMPLE = 16
"""One in so many bank rows bounds how far a query can lie from the bank."""

FIRST = 32
"""Queries that are searched for to know how far the farthest one lies at least."""


class Neighbors(NamedTuple):
    """`distance` (Q, k) float32, ascending, in feature units; `row` (Q, k) int64 indices into the bank."""

    distance: Tensor
    row: Tensor


def square_norms(points: Tensor) -> Tensor:
    """|y|^2 of every row: (M, D) -> (M,) float32."""
    return points.float().square().sum(dim=1)


def nearest(
    queries: Tensor,
    bank: Tensor,
    norms: Tensor,
    k: int = 1,
    *,
    block_rows: int = BLOCK_ROWS,
    query_rows: int | None = None,
) -> Neighbors:
    """The k nearest bank rows of every query.

    Args:
        queries: (Q, D) float32.
        bank: (M, D) float32 or float16, M at least 1. Arithmetic is float32 either way.
        norms: (M,) float32, `square_norms(bank)`; a bank is searched many times, so they are computed once.
        k: neighbors wanted; at most M are returned.
        block_rows: bank rows per product.
        query_rows: query rows per product; None takes `QUERY_ROWS`, or on a GPU as many as `DEVICE_RANKS` allow.

    Returns:
        `Neighbors` with min(k, M) columns.
    """
    k = min(k, len(bank))
    # A graph's runtime plans its own memory, and a graph can't loop over a batch whose size is free.
    exporting = torch.compiler.is_exporting()
    parts = (queries,) if exporting else queries.split(query_rows or _together(queries, min(len(bank), block_rows)))
    found = [_nearest(part, bank, norms, k, block_rows) for part in parts]
    return Neighbors(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))


def farthest(queries: Tensor, images: int, bank: Tensor, norms: Tensor) -> Neighbors:
    """`nearest` with k = 1 for the queries of each image that may lie farthest from the bank; distance 0 for others.

    Args:
        queries: (images * P, D) float32.
        images: how many groups of P queries there are.
        bank: (M, D) float32 or float16.
        norms: (M,) float32, `square_norms(bank)`.
    """
    own, some = square_norms(queries), bank[::SAMPLE].float()  # (Q,), (m, D)
    parts = [torch.addmm(norms[::SAMPLE], part, some.mT, alpha=-2.0).amin(dim=1) for part in queries.split(QUERY_ROWS)]
    bound = (own + torch.cat(parts) + 1e-5 * (own + norms.max())).view(images, -1)  # (N, P): the product is rounded
    chosen = bound >= bound.topk(min(FIRST, bound.shape[1]), dim=1)[0][:, -1:]  # (N, P)
    distance, row = torch.zeros_like(bound), torch.zeros_like(bound, dtype=torch.int64)
    for _ in range(2):
        found = nearest(queries[chosen.flatten()], bank, norms)
        distance[chosen], row[chosen] = found.distance[:, 0], found.row[:, 0]
        chosen = (bound >= distance.amax(dim=1, keepdim=True).square()) & (distance == 0)
        if not bool(chosen.any()):
            break
    # A sum over numbers that lie otherwise in memory differs in its last bit: this is how `nearest` takes it.
    each = zip(queries.split(QUERY_ROWS), row.view(-1, 1).split(QUERY_ROWS), strict=True)
    exact = torch.cat([squared_distances(part, bank, rows) for part, rows in each]).sqrt()  # (Q, 1)
    return Neighbors(exact * (distance > 0).view(-1, 1), row.view(-1, 1))


def squared_distances(queries: Tensor, bank: Tensor, rows: Tensor) -> Tensor:
    """|x - y|^2 from the differences themselves: (Q, D) queries to the bank rows (Q, k) int64 -> (Q, k) float32."""
    return (queries[:, None, :] - bank[rows].float()).square().sum(dim=2)  # (Q, 1, D) - (Q, k, D)


def reweighted_score(distance: Tensor, neighbors: Tensor) -> Tensor:
    """Image score of PatchCore from its most abnormal patch (arXiv 2106.08265, equation 7).

    s = (1 - exp(s*) / sum over b of exp(|m_test - m_b|)) s*: the score counts less when the bank rows around the
    nearest one are just as far, that is, when the patch lies in a region that the bank covers well.

    Args:
        distance: (N,) s*, distance of the patch to its nearest bank row.
        neighbors: (N, b) distances of the patch to the b bank rows nearest to that row, itself included.

    Returns:
        (N,) float32; `distance` itself where b is 1 (a softmax over one term would erase every score).
    """
    if neighbors.shape[1] < 2:
        return distance
    weight = 1.0 - torch.exp(distance - neighbors.logsumexp(dim=1))
    return weight * distance


def _together(queries: Tensor, rows: int) -> int:
    """How many queries there are to a product with so many rows."""
    return max(1, DEVICE_RANKS // rows) if queries.is_cuda else QUERY_ROWS


def _nearest(queries: Tensor, bank: Tensor, norms: Tensor, k: int, block_rows: int) -> Neighbors:
    """`nearest` for queries whose product with a block of the bank fits in memory; k is at most M."""
    values: list[Tensor] = []
    rows: list[Tensor] = []
    for start in range(0, len(bank), block_rows):
        block = bank[start : start + block_rows].float()  # (B, D)
        rank = torch.addmm(norms[start : start + block_rows], queries, block.mT, alpha=-2.0)  # (Q, B): |y|^2 - 2 x.y
        if k > 1:
            value, row = rank.topk(min(k, len(block)), dim=1, largest=False)
        else:
            missing = -len(block) % GROUP  # padding by nothing would copy
            row = _lowest(F.pad(rank, (0, missing), value=torch.inf) if missing else rank, len(block))
            value = rank.gather(1, row)
        values.append(value)
        rows.append(row + start)
    rank, row = torch.cat(values, dim=1), torch.cat(rows, dim=1)  # (Q, k of each block)
    row = row.gather(1, rank.topk(k, dim=1, largest=False)[1])  # (Q, k)
    distance = squared_distances(queries, bank, row).sqrt()
    distance, order = distance.sort(dim=1)
    return Neighbors(distance, row.gather(1, order))


def _lowest(rank: Tensor, rows: int) -> Tensor:
    """(q, M') -> (q, 1): the row that ranks lowest; M' is a multiple of `GROUP`."""
    grouped: Tensor = rank.unflatten(1, (-1, GROUP))  # (q, M' / GROUP, GROUP)
    chosen = grouped.amin(dim=2).topk(1, dim=1, largest=False)[1]  # (q, 1)
    inside = grouped.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).argmin(dim=2)  # (q, 1)
    return (chosen * GROUP + inside).clamp(max=rows - 1)  # a group without a finite rank gives any row
