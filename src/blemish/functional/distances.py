"""Exact Euclidean nearest neighbours in bounded memory.

|x - y|^2 = |x|^2 - 2 x.y + |y|^2 turns the search into one matrix product per block of the bank; only a running best is
kept, the full (Q, M) matrix never exists. The product cancels digits when x is close to y (an absolute error of about
1e-7 |x|^2), so it only
*ranks*: the distances that are returned are taken from the differences x - y themselves. Callers centre queries and
bank on a common point near the data, which shrinks |x| and with it the error of the ranking.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK_ROWS = 4096
QUERY_ROWS = 1024
"""Bank and query rows per product. Their 16 MB result is reused from the heap; larger ones the allocator fetches from
the system each time, and the page faults cost more than the arithmetic."""


class Neighbours(NamedTuple):
    """`distance` (Q, k) float32, ascending, in feature units; `row` (Q, k) int64 indices into the bank."""

    distance: Tensor
    row: Tensor


def square_norms(points: Tensor) -> Tensor:
    """|y|^2 of every row: (M, D) -> (M,) float32."""
    return points.float().square().sum(dim=1)


def nearest(queries: Tensor, bank: Tensor, norms: Tensor, k: int = 1) -> Neighbours:
    """The k nearest bank rows of every query.

    Args:
        queries: (Q, D) float32.
        bank: (M, D) float32 or float16, M at least 1. Arithmetic is float32 either way.
        norms: (M,) float32, `square_norms(bank)`; a bank is searched many times, so they are computed once.
        k: neighbours wanted; at most M are returned.

    Returns:
        `Neighbours` with min(k, M) columns.
    """
    k = min(k, len(bank))
    # A graph's runtime plans its own memory, and a graph can't loop over a batch whose size is free.
    parts = (queries,) if torch.compiler.is_exporting() else queries.split(QUERY_ROWS)
    found = [_nearest(part, bank, norms, k) for part in parts]
    return Neighbours(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))


def reweighted_score(distance: Tensor, neighbours: Tensor) -> Tensor:
    """Image score of PatchCore from its most abnormal patch (arXiv 2106.08265, equation 7).

    s = (1 - exp(s*) / sum over b of exp(|m_test - m_b|)) s*: the score counts less when the bank rows around the
    nearest one are just as far, that is, when the patch lies in a region that the bank covers well.

    Args:
        distance: (N,) s*, distance of the patch to its nearest bank row.
        neighbours: (N, b) distances of the patch to the b bank rows nearest to that row, itself included.

    Returns:
        (N,) float32; `distance` itself where b is 1 (a softmax over one term would erase every score).
    """
    if neighbours.shape[1] < 2:
        return distance
    weight = 1.0 - torch.exp(distance - neighbours.logsumexp(dim=1))
    return weight * distance


def _nearest(queries: Tensor, bank: Tensor, norms: Tensor, k: int) -> Neighbours:
    """`nearest` for queries whose product with a block of the bank fits in memory; k is at most M."""
    values: list[Tensor] = []
    rows: list[Tensor] = []
    for start in range(0, len(bank), BLOCK_ROWS):
        block = bank[start : start + BLOCK_ROWS].float()  # (B, D)
        rank = torch.addmm(norms[start : start + BLOCK_ROWS], queries, block.mT, alpha=-2.0)  # (Q, B): |y|^2 - 2 x.y
        value, row = rank.topk(min(k, len(block)), dim=1, largest=False) if k > 1 else rank.min(dim=1, keepdim=True)
        values.append(value)
        rows.append(row + start)
    rank, row = torch.cat(values, dim=1), torch.cat(rows, dim=1)
    row = row.gather(1, rank.topk(k, dim=1, largest=False)[1])  # (Q, k)
    distance = (queries[:, None, :] - bank[row].float()).square().sum(dim=2).sqrt()
    distance, order = distance.sort(dim=1)
    return Neighbours(distance, row.gather(1, order))
