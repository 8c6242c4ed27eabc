"""`nearest` with k = 1 for less, exact: bounds first, and measures only where they don't decide.

Both kinds of index turn a cheap product into a lower bound of every |x - y|^2. The row with the lowest bound is
measured exactly; if no other bound lies below that distance, it is proven nearest. Otherwise a few more rows with low
bounds are measured, and only queries that are still unproven are searched in full.

`PrincipalIndex`, for wide features: with an orthonormal basis of the bank's p leading principal directions,
x = (x', x'') and y = (y', y'') split into the part inside and the rest, and the triangle inequality bounds the rest:

    |x - y|^2  >=  |x' - y'|^2 + (|x''| - |y''|)^2  =  |x|^2 + |y|^2 - 2 (x'.y' + |x''| |y''|)

which is again one product, of p + 1 columns instead of D.

`HalfIndex`, for wide features on GPUs, which multiply halves several times as fast: x = x' + r and y = y' + s split
into the nearest halves and what rounding took, both known exactly, and by Cauchy and Schwarz

    x.y  =  x'.y' + x.s + r.y'  <=  x'.y' + |x| |s| + |r| |y'|
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from blemish.functional.distances import DEVICE_RANKS, GROUP, Neighbors, nearest, square_norms, squared_distances

COLUMNS = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Sizes of a basis to choose from, up to a quarter of the columns: more cost as much as the full product."""

MIN_COLUMNS = 256
"""Below this the full product is bound by memory, and a basis saves nothing."""

QUERIES = 256
"""Queries per product on a CPU: their bounds, 5 MB for 5,120 rows, stay in the cache for the passes over them."""

HALF_COLUMNS, HALF_ROWS, HALF_QUERIES = 384, 8192, 16384
"""Below one of these a GPU has multiplied floats before it has looked through the bounds of a product of halves."""

NORM_PARTS = 3
"""Halves that add up to a float."""

CANDIDATES = 8
"""Groups from which a row is measured for a query whose first candidate isn't proven."""


class Bounds(NamedTuple):
    """Of queries to all rows.

    Attributes:
        values: (q, M') float32: in units of `unit`, what |x - y|^2 - |x|^2 is at least; infinite where there is no row.
        high: () or (q,), by how much a query's bounds may be too high.
    """

    values: Tensor
    unit: float
    high: Tensor | float


class PrincipalIndex(NamedTuple):
    """Bounds from principal directions.

    Attributes:
        basis: (D, p) float32 orthonormal, the leading principal directions.
        columns: (p + 1, M') float32, the rows in that basis and, last, the length of what the basis misses; M' is M
            brought to whole groups.
        norms: (M',) float32, of the rows; infinite where there is none.
    """

    basis: Tensor
    columns: Tensor
    norms: Tensor

    def bounds(self, queries: Tensor, own: Tensor) -> Bounds:
        """For queries (q, D) float32 and their `square_norms` (q,)."""
        values = torch.addmm(self.norms, _split(queries, own, self.basis), self.columns, alpha=-2.0)
        return Bounds(values, 1.0, 0.0)


class HalfIndex(NamedTuple):
    """Bounds from products of halves.

    Attributes:
        scale: power of two that brings the rows into the range of halves.
        columns: (D', M') float16: the rows, scaled and negated, and half their squared length in `NORM_PARTS` halves,
            which add up to a float; D' is brought to a multiple of 8, as fast products want it.
        longest: () float32, of the rounded rows. lost: () float32, most that rounding took from a row.
    """

    scale: float
    columns: Tensor
    longest: Tensor
    lost: Tensor

    def bounds(self, queries: Tensor, own: Tensor) -> Bounds:
        """For queries (q, D) float32 and their `square_norms` (q,)."""
        halves, lost = _halved(queries, self.scale)
        halves = F.pad(F.pad(halves, (0, NORM_PARTS), value=1.0), (0, len(self.columns) - NORM_PARTS - halves.shape[1]))
        if queries.is_cuda:
            values = torch.mm(halves, self.columns, out_dtype=torch.float32)
        else:  # nobody gains by it, but what is computed is the same
            values = halves.float() @ self.columns.float()
        summed = len(self.columns) * 2.0**-23 * own.sqrt() * self.longest  # what adding up so many products may take
        return Bounds(values, 2.0 / self.scale**2, 2.0 * (own.sqrt() * self.lost + lost * self.longest + summed))


SearchIndex: TypeAlias = PrincipalIndex | HalfIndex
"""What `nearest_indexed` prepares once per bank."""


def make_index(bank: Tensor, norms: Tensor) -> SearchIndex | None:
    """Prepares a bank (M, D) with its `square_norms` (M,) for `nearest_indexed`; None where an index wouldn't pay."""
    if bank.is_cuda:
        return half_index(bank, norms) if len(bank) >= HALF_ROWS and bank.shape[1] >= HALF_COLUMNS else None
    return principal_index(bank, norms) if len(bank) >= CANDIDATES * GROUP else None


def half_index(bank: Tensor, norms: Tensor) -> HalfIndex:
    """The index of a bank (M, D) with its `square_norms` (M,) for a processor that is fast with halves."""
    rows = bank.float()
    scale = 2.0 ** -min(max(math.frexp(float(rows.abs().max()))[1], -60), 60)  # the largest number into [0.5, 1)
    halves, lost = _halved(rows, scale)
    parts, rest = [-halves], norms.double()[:, None] * scale**2 / 2  # (M, 1)
    for _ in range(NORM_PARTS):
        parts.append(rest.half())
        rest = rest - parts[-1].double()
    columns = F.pad(torch.cat(parts, dim=1), (0, -(rows.shape[1] + NORM_PARTS) % 8))  # (M, D')
    nothing = F.pad(
        columns.new_full((1, 1), torch.inf), (rows.shape[1], columns.shape[1] - rows.shape[1] - 1)
    )  # (1, D')
    columns = torch.cat([columns, nothing.expand(-len(rows) % GROUP, -1)]).mT  # (D', M')
    return HalfIndex(scale, columns, halves.float().norm(dim=1).max() / scale, lost.max())


def principal_index(bank: Tensor, norms: Tensor) -> PrincipalIndex | None:
    """The index of a bank (M, D) with its `square_norms` (M,) in the basis that pays most; None where none does."""
    rows = bank.float()
    channels = rows.shape[1]
    if channels < MIN_COLUMNS:
        return None
    _, directions = torch.linalg.eigh((rows.mT @ rows).double())  # ascending
    # Some rows are searched among the others, to see what an index would prove.
    sample = torch.arange(0, len(rows), -(-len(rows) // QUERIES), device=rows.device)
    missing = -len(rows) % GROUP
    best, least = None, channels / 2
    for size in COLUMNS:
        if size > channels // 4:
            break
        basis = directions[:, -size:].float().contiguous()
        columns = F.pad(_split(rows, norms, basis).mT, (0, missing)).contiguous()
        index = PrincipalIndex(basis, columns, F.pad(norms, (0, missing), value=torch.inf))
        unproven = len(_Search(rows[sample], rows, norms, index, sample).open)
        # A query that its first candidate doesn't prove costs about a full product, most of it for memory that is read
        # here and there. Half of the share: good patches lie nearer to the rows than a coreset's rows to each other.
        cost = size + channels * unproven / len(sample) / 2
        if cost < least:
            best, least = index, cost
    return best


def nearest_indexed(queries: Tensor, bank: Tensor, norms: Tensor, index: SearchIndex) -> Neighbors:
    """`nearest` with k = 1, exact, at a fraction of the arithmetic; eager only, since how much is done depends on data.
    On a GPU few queries are searched in full, which takes fewer launches.

    Args:
        queries: (Q, D) float32.
        bank: (M, D) float32 or float16.
        norms: (M,) float32, `square_norms(bank)`.
        index: `make_index(bank, norms)`.
    """
    if queries.is_cuda and len(queries) < HALF_QUERIES:
        return nearest(queries, bank, norms)
    together = max(1, DEVICE_RANKS // index.columns.shape[1]) if queries.is_cuda else QUERIES
    found = [_search(part, bank, norms, index) for part in queries.split(together)]
    return Neighbors(*(torch.cat(tensors) for tensors in zip(*found, strict=True)))


def _search(queries: Tensor, bank: Tensor, norms: Tensor, index: SearchIndex) -> Neighbors:
    """`nearest_indexed` for queries whose bounds fit in memory."""
    search = _Search(queries, bank, norms, index)
    if len(search.open):
        search.measure(CANDIDATES)
    row, distance = search.row, search.squared.sqrt()
    if len(search.open):
        full = nearest(queries[search.open], bank, norms)
        row[search.open], distance[search.open] = full.row, full.distance
    return Neighbors(distance, row)


def _split(points: Tensor, norms: Tensor, basis: Tensor) -> Tensor:
    """(n, D) -> (n, p + 1): coordinates in the basis, and the length of the rest, rounded up."""
    inside = points @ basis  # (n, p)
    # The difference cancels where the basis misses little. A rest that is too long only lowers a bound; one that is too
    # short would prove what isn't so.
    rest = ((norms - inside.square().sum(dim=1)).clamp(min=0.0) + 1e-6 * norms).sqrt()
    return torch.cat([inside, rest[:, None]], dim=1)  # (n, p + 1)


def _halved(points: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """(n, D) float32 -> scaled float16 (n, D), and the length of what rounding took, unscaled (n,)."""
    halves = (points * scale).half()
    return halves, (points * scale - halves.float()).norm(dim=1) / scale


class _Candidates:
    """Rows with low bounds, taken from groups: all bounds are read once, to find the lowest of each group.

    Args:
        values: (q, M') bounds.
    """

    def __init__(self, values: Tensor) -> None:
        self.grouped: Tensor = values.unflatten(1, (-1, GROUP))  # (q, M' / GROUP, GROUP)
        self.lowest: Tensor = self.grouped.amin(dim=2)  # (q, M' / GROUP): of what wasn't taken

    def take(self, queries: Tensor, groups: int, rows: int) -> Tensor:
        """(o,) indices of queries -> (o, groups): the row with the lowest bound in each of the groups that hold the
        lowest ones.
        """
        lowest = self.lowest[queries]  # (o, M' / GROUP)
        chosen = lowest.topk(groups, dim=1, largest=False)[1]  # (o, groups)
        inside = self.grouped[queries[:, None], chosen]  # (o, groups, GROUP)
        place = inside.argmin(dim=2)  # (o, groups)
        inside.scatter_(2, place[:, :, None], torch.inf)
        self.grouped[queries[:, None], chosen, place] = torch.inf
        self.lowest[queries[:, None], chosen] = inside.amin(dim=2)
        taken: Tensor = chosen * GROUP + place
        return taken.clamp(max=rows - 1)  # a group without a finite bound gives any row

    def least(self, queries: Tensor) -> Tensor:
        """The lowest bound of each query (o,) that wasn't taken: (o,)."""
        least: Tensor = self.lowest[queries].amin(dim=1)
        return least


class _Search:
    """Queries (q, D) whose neighbors are being looked for, and what is known of them.

    Args:
        besides: (q,) a row for each query that doesn't count: its own.

    Attributes:
        row: (q, 1) int64, the nearest so far. squared: (q, 1) its squared distance.
        open: (o,) int64, the queries for which another row may be nearer. What is no number, or beyond the range of
            halves, proves nothing.
    """

    def __init__(
        self, queries: Tensor, bank: Tensor, norms: Tensor, index: SearchIndex, besides: Tensor | None = None
    ) -> None:
        self.queries, self.bank = queries, bank
        own = square_norms(queries)  # (q,)
        bounds = index.bounds(queries, own)
        if besides is not None:
            bounds.values.scatter_(1, besides[:, None], torch.inf)
        self.unit = bounds.unit
        # Bounds are rounded: one that is only just above the distance proves nothing.
        self.slack = 1e-5 * (own + norms.max()) - own + bounds.high  # (q,)
        self.candidates = _Candidates(bounds.values)
        self.open = torch.arange(len(queries), device=queries.device)
        self.row = self.candidates.take(self.open, 1, len(bank))
        self.squared = squared_distances(queries, bank, self.row)
        self._prove()

    def measure(self, count: int) -> None:
        """Measures `count` more rows for each open query."""
        more = self.candidates.take(self.open, count, len(self.bank))
        rows = torch.cat([self.row[self.open], more], dim=1)  # (o, 1 + count)
        best, which = squared_distances(self.queries[self.open], self.bank, rows).min(dim=1, keepdim=True)  # (o, 1)
        self.row[self.open], self.squared[self.open] = rows.gather(1, which), best
        self._prove()

    def _prove(self) -> None:
        least = self.unit * self.candidates.least(self.open)
        self.open = self.open[~(least >= self.squared[self.open, 0] + self.slack[self.open])]
