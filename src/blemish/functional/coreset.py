"""Greedy k-center selection (farthest point first), exact, at matrix-product speed.

The textbook loop (Gonzalez 1985; PatchCore, arXiv 2106.08265, algorithm 1) takes, k times, the point farthest from
everything chosen so far and updates all n distances with one matrix-vector product. That reads all points k times from
memory. Here each round

1. takes the B points with the largest current distance, and the (B+1)-th distance as a bound: no other point can
   exceed it, because distances only shrink;
2. runs the textbook loop among those B alone, with their pairwise distances, for as long as the best stays at or above
   the bound. Every such choice is the global farthest point, so the selection is the textbook's;
3. updates all n distances with *one* matrix-matrix product for all choices of the round.

Precision: the product runs in float32 on centered points and only decides which points *may* have come closer, by lower
bounds below its rounding error. Distances are then taken from float64 differences, so the selection is that of the
textbook loop in float64. (Only where more than `TRIES` choices of one round are equally near within float32, a squared
distance may be up to 1e-5 |x|^2 too large.) Memory: O(n) beside the points, plus blocks of about `block_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CANDIDATES = 1024
"""Points considered per round: large enough for a full matrix product, small enough that their pairs fit in 8 MB."""

SLACK = 1e-5
"""Relative rounding error of |x|^2 - 2 x.s + |s|^2 in float32, with room to spare."""

TRIES = 8
"""How many choices of a round are compared exactly with one point."""

BLOCK_BYTES = 2 * 2**20
"""Size of temporary blocks: they stay in a core's cache for the passes over them."""

DEVICE_BLOCK_BYTES = 64 * 2**20
"""The same on a GPU, where a block costs a launch."""


def greedy_k_center(
    points: Tensor,
    k: int,
    *,
    start: int | Tensor | None = None,
    generator: torch.Generator | None = None,
    radius: float = 0.0,
    on_round: Callable[[int, int, float], None] | None = None,
    candidates: int = CANDIDATES,
    block_bytes: int | None = None,
) -> Tensor:
    """Chooses k points so that the farthest remaining point is as near as a greedy choice can make it.

    Args:
        points: (n, D) floating, finite, n at least 1; CPU or CUDA. Not modified.
        k: how many to choose, from 1 to n.
        start: index of the first choice, or (m,) int64 distinct indices that count as chosen already and come first in
            the result. None draws one from `generator`, or takes index 0 without one.
        generator: source of randomness for the first choice (a CPU generator).
        radius: stop as soon as every point is at most this far from a chosen one, in feature units.
        on_round: called before each round and after the last with (chosen, k, coverage radius): the largest distance
            of any point to its nearest chosen one, in feature units. The last call has the radius of the result.
        candidates: see `CANDIDATES`; never changes the choice.
        block_bytes: size of temporary blocks; None for `BLOCK_BYTES`, or `DEVICE_BLOCK_BYTES`.

    Returns:
        (k,) int64 indices in order of choice; fewer when there are fewer than k distinct points or `radius` is reached.

    Raises:
        ValueError: if k is not in 1..n.
    """
    n = len(points)
    if not 1 <= k <= n:
        raise ValueError(f"k must be between 1 and the number of points, {n}. Got {k}.")
    if start is None:
        start = 0 if generator is None else int(torch.randint(n, (1,), generator=generator))
    if block_bytes is None:
        block_bytes = BLOCK_BYTES if points.device.type == "cpu" else DEVICE_BLOCK_BYTES
    points = points.float() - points.mean(dim=0, dtype=torch.float32)
    norms = points.square().sum(dim=1)  # (n,)
    distance = torch.full((n,), torch.inf, dtype=torch.float64, device=points.device)  # squared, to the nearest chosen
    first = start if isinstance(start, Tensor) else torch.tensor([start])
    chosen = [first.to(points.device)]
    done = len(first)
    for part in chosen[0].split(candidates):
        _update(distance, points, norms, part, block_bytes)
    while True:
        if on_round is not None:
            on_round(done, k, float(distance.max().sqrt()))
        if done >= k:
            break
        top, index = distance.topk(min(candidates + 1, n))
        if float(top[0]) <= radius**2:
            break
        bound = float(top[candidates]) if n > candidates else 0.0
        index, top = index[:candidates], top[:candidates]  # (B,)
        accepted = _textbook_loop(points[index], top, max(bound, radius**2), k - done)
        new = index[accepted.to(index.device)]
        _update(distance, points, norms, new, block_bytes)
        chosen.append(new)
        done += len(new)
    return torch.cat(chosen)


def _textbook_loop(candidates: Tensor, distance: Tensor, bound: float, k: int) -> Tensor:
    """Positions (m,) among the candidates of up to k farthest-first choices that no outside point can beat."""
    # A thousand tiny steps: NumPy's call overhead is a fifth of torch's, and on CUDA each step would wait for the
    # device.
    rows = candidates.double()  # (B, D)
    norms = rows.square().sum(dim=1)  # (B,)
    pairs = torch.addmm(norms, rows, rows.mT, alpha=-2.0).add_(norms[:, None]).clamp_(min=0.0).cpu().numpy()  # (B, B)
    rounding = (4 * torch.finfo(torch.float64).eps * rows.shape[1] * norms).cpu().numpy()  # (B,)
    current = distance.cpu().numpy().copy()
    accepted: list[int] = []
    while len(accepted) < k:
        best = int(np.argmax(current))
        if current[best] < bound or current[best] <= 0.0:
            break
        if accepted and current[best] <= rounding[best]:  # perhaps a copy of an accepted point
            exact = (rows[accepted] - rows[best]).square().sum(dim=1).min().minimum(distance[best])
            if float(exact) != current[best]:
                current[best] = float(exact)
                continue
        accepted.append(best)
        np.minimum(current, pairs[best], out=current)
    return torch.tensor(accepted, dtype=torch.int64)


def _update(distance: Tensor, points: Tensor, norms: Tensor, new: Tensor, block_bytes: int) -> None:
    """Lowers `distance` (n,) in place to the nearest of the newly chosen points."""
    centers = points[new]  # (m, D)
    center_norms = norms[new] * (1 - SLACK)
    rows = max(1, block_bytes // (4 * len(new)))
    gather = max(1, block_bytes // (16 * points.shape[1]))
    for first in range(0, len(points), rows):
        lower = torch.addmm(center_norms, points[first : first + rows], centers.mT, alpha=-2.0)  # (rows, m), less |x|^2
        index = torch.arange(first, first + len(lower), device=points.device)
        for _ in range(TRIES):
            bound, center = lower.min(dim=1)  # (rows,)
            closer = (bound + norms[index] * (1 - SLACK) < distance[index]).nonzero()[:, 0]
            if not len(closer):
                break
            index, center = index[closer], center[closer]
            for part, near in zip(index.split(gather), center.split(gather), strict=True):
                exact = points[part].double().sub_(centers[near]).square_().sum(dim=1)  # (part,)
                distance[part] = torch.minimum(distance[part], exact)
            lower = lower[closer].scatter_(1, center[:, None], torch.inf)
    distance[new] = 0.0  # even where TRIES weren't enough: no point is chosen twice
