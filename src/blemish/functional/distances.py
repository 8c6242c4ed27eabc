"""Exact Euclidean nearest neighbors in bounded memory.

|x - y|^2 = |x|^2 - 2 x.y + |y|^2 turns the search into one matrix product per block of the bank; only a running best is
kept, the full (Q, M) matrix never exists. The product cancels digits when x is close to y (an absolute error of about
1e-7 |x|^2), so it only *ranks*: the distances that are returned are taken from the differences x - y themselves.
Callers center queries and bank on a common point near the data, which shrinks |x| and with it the error of the ranking.

`nearest_indexed` gives the same result for less. With an orthonormal basis of the bank's p leading principal
directions, x = (x', x'') and y = (y', y'') split into the part inside and the rest, and the triangle inequality bounds
the rest:

    |x - y|^2  >=  |x' - y'|^2 + (|x''| - |y''|)^2  =  |x|^2 + |y|^2 - 2 (x'.y' + |x''| |y''|)

which is again one product, of p + 1 columns instead of D. The row with the lowest bound is measured exactly; if no
other bound lies below that distance, it is proven nearest. Otherwise a few more rows with low bounds are measured, and
only queries that are still unproven are searched in full.

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


INDEX_COLUMNS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Sizes of index to choose from, up to a quarter of the columns: more cost as much as the full product."""

INDEX_MIN_COLUMNS = 256
"""Below this the full product is bound by memory, and an index saves nothing."""

INDEX_QUERIES = 256
"""Queries per product with the index: their bounds, 5 MB for 5,120 rows, stay in the cache for the passes over them."""

GROUP = 64
"""Minima are searched in groups: a minimum of numbers that lie side by side costs a twentieth of its position."""

CANDIDATES = 8
"""Groups from which a row is measured for a query whose first candidate isn't proven."""

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
    query_rows: int = QUERY_ROWS,
) -> Neighbors:
    """The k nearest bank rows of every query.

    Args:
        queries: (Q, D) float32.
        bank: (M, D) float32 or float16, M at least 1. Arithmetic is float32 either way.
        norms: (M,) float32, `square_norms(bank)`; a bank is searched many times, so they are computed once.
        k: neighbors wanted; at most M are returned.
        block_rows: bank rows per product.
        query_rows: query rows per product.

    Returns:
        `Neighbors` with min(k, M) columns.
    """
    k = min(k, len(bank))
    # A graph's runtime plans its own memory, and a graph can't loop over a batch whose size is free.
    parts = (queries,) if torch.compiler.is_exporting() else queries.split(query_rows)
    found = [_nearest(part, bank, norms, k, block_rows) for part in parts]
    return Neighbors(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))


class SearchIndex(NamedTuple):
    """What `nearest_indexed` prepares once per bank.

    Attributes:
        basis: (D, p) float32 orthonormal, the leading principal directions.
        columns: (p + 1, M') float32, the rows in that basis and, last, the length of what the basis misses; M' is M
            brought to whole groups.
        norms: (M',) float32, of the rows; infinite where there is none.
    """

    basis: Tensor
    columns: Tensor
    norms: Tensor


def make_index(bank: Tensor, norms: Tensor) -> SearchIndex | None:
    """Prepares a bank (M, D) with its `square_norms` (M,) for `nearest_indexed`; None where an index wouldn't pay."""
    rows = bank.float()
    channels = rows.shape[1]
    if channels < INDEX_MIN_COLUMNS or len(rows) < CANDIDATES * GROUP:
        return None
    _, directions = torch.linalg.eigh((rows.mT @ rows).double())  # ascending
    # Some rows are searched among the others, to see what an index would prove.
    sample = torch.arange(0, len(rows), -(-len(rows) // INDEX_QUERIES), device=rows.device)
    missing = -len(rows) % GROUP
    best, least = None, channels / 2
    for size in INDEX_COLUMNS:
        if size > channels // 4:
            break
        basis = directions[:, -size:].float().contiguous()
        columns = F.pad(_split(rows, norms, basis).mT, (0, missing)).contiguous()
        index = SearchIndex(basis, columns, F.pad(norms, (0, missing), value=torch.inf))
        open_ = _first_candidate(rows[sample], rows, norms, index, sample)[-1]
        # A query that its first candidate doesn't prove costs about a full product, most of it for memory that is read
        # here and there. Half of the share: good patches lie nearer to the rows than a coreset's rows to each other.
        cost = size + channels * len(open_) / len(sample) / 2
        if cost < least:
            best, least = index, cost
    return best


def nearest_indexed(queries: Tensor, bank: Tensor, norms: Tensor, index: SearchIndex) -> Neighbors:
    """`nearest` with k = 1, exact, at a fraction of the arithmetic; eager only, since how much is done depends on data.

    Args:
        queries: (Q, D) float32.
        bank: (M, D) float32 or float16.
        norms: (M,) float32, `square_norms(bank)`.
        index: `make_index(bank, norms)`.
    """
    found = [_nearest_by_bounds(part, bank, norms, index) for part in queries.split(INDEX_QUERIES)]
    row, squared, proven = (torch.cat(tensors) for tensors in zip(*found, strict=True))
    unproven = (~proven).nonzero()[:, 0]
    if len(unproven):
        full = nearest(queries[unproven], bank, norms)
        row[unproven], squared[unproven] = full.row, full.distance.square()
    return Neighbors(squared.sqrt(), row)


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
            row = _lowest(F.pad(rank, (0, missing), value=torch.inf) if missing else rank, 1, len(block))
            value = rank.gather(1, row)
        values.append(value)
        rows.append(row + start)
    rank, row = torch.cat(values, dim=1), torch.cat(rows, dim=1)  # (Q, k of each block)
    row = row.gather(1, rank.topk(k, dim=1, largest=False)[1])  # (Q, k)
    distance = squared_distances(queries, bank, row).sqrt()
    distance, order = distance.sort(dim=1)
    return Neighbors(distance, row.gather(1, order))


def _split(points: Tensor, norms: Tensor, basis: Tensor) -> Tensor:
    """(n, D) -> (n, p + 1): coordinates in the basis, and the length of the rest, rounded up."""
    inside = points @ basis  # (n, p)
    # The difference cancels where the basis misses little. A rest that is too long only lowers a bound; one that is too
    # short would prove what isn't so.
    rest = ((norms - inside.square().sum(dim=1)).clamp(min=0.0) + 1e-6 * norms).sqrt()
    return torch.cat([inside, rest[:, None]], dim=1)  # (n, p + 1)


def _lowest(bound: Tensor, groups: int, rows: int) -> Tensor:
    """(q, M') -> (q, groups): the row of the lowest bound in each of the groups that hold the lowest ones."""
    grouped: Tensor = bound.unflatten(1, (-1, GROUP))  # (q, M' / GROUP, GROUP)
    chosen = grouped.amin(dim=2).topk(groups, dim=1, largest=False)[1]  # (q, groups)
    inside = grouped.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).argmin(dim=2)  # (q, groups)
    return (chosen * GROUP + inside).clamp(max=rows - 1)  # a group without a finite bound gives any row


def _first_candidate(
    queries: Tensor, bank: Tensor, norms: Tensor, index: SearchIndex, besides: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Measures the row with the lowest bound; without the rows `besides` (q,), one of each query's own.

    Returns:
        The bounds (q, M') less |x|^2, infinite where measured; the row (q, 1); its squared distance (q, 1); what
        another bound must exceed that distance by (q,); and which queries are still open.
    """
    own = square_norms(queries)  # (q,)
    bound = torch.addmm(index.norms, _split(queries, own, index.basis), index.columns, alpha=-2.0)  # (q, M')
    if besides is not None:
        bound.scatter_(1, besides[:, None], torch.inf)
    row = _lowest(bound, 1, len(bank))  # (q, 1)
    squared = squared_distances(queries, bank, row)  # (q, 1)
    # Bounds are rounded: one that is only just above the distance proves nothing.
    slack = 1e-5 * (own + norms.max()) - own  # (q,)
    bound.scatter_(1, row, torch.inf)
    return bound, row, squared, slack, (bound.amin(dim=1) < squared[:, 0] + slack).nonzero()[:, 0]


def _nearest_by_bounds(
    queries: Tensor, bank: Tensor, norms: Tensor, index: SearchIndex
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest row (q, 1) among those with the lowest bounds, its squared distance, and whether none is nearer."""
    bound, row, squared, slack, open_ = _first_candidate(queries, bank, norms, index)
    proven = torch.ones_like(slack, dtype=torch.bool)
    if len(open_):
        left = bound[open_]  # (o, M')
        rows = _lowest(left, CANDIDATES, len(bank))  # (o, c)
        left.scatter_(1, rows, torch.inf)
        rows = torch.cat([row[open_], rows], dim=1)  # (o, 1 + c)
        best, which = squared_distances(queries[open_], bank, rows).min(dim=1, keepdim=True)  # (o, 1)
        row[open_], squared[open_] = rows.gather(1, which), best
        proven[open_] = left.amin(dim=1) >= best[:, 0] + slack[open_]
    return row, squared, proven
