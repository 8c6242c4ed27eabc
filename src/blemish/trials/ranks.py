"""Which recipe is better over several data sets, and which differences could be chance? (Demšar, JMLR 7, 2006.)

Data sets are what is drawn at random; seeds of one set are averaged first. A recipe's rank on a set is 1 where its
figure is the highest, and equal figures share their mean rank. By Nemenyi's test two of k recipes differ over N sets if
their mean ranks are further apart than

    critical difference = q sqrt(k (k + 1) / (6 N))

q being the 95 % quantile of the studentized range of k means, divided by the root of 2. Beside it every recipe is
compared with the best one by a paired test: in how many of the 2^N ways to give the differences their signs is the mean
at least as far from 0? These p values are adjusted for their number (Holm 1979). With N sets none can be below 2 / 2^N.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from blemish.errors import UsageError
from blemish.escaping import one_line

Q = (
    *(1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164, 3.219),
    *(3.268, 3.313, 3.354, 3.391, 3.426, 3.458, 3.489, 3.517, 3.544),
)
"""q of 2 to 20 recipes."""
EXACT = 14
"""Data sets up to which all signs are tried; of more, `DRAWS` are drawn."""
DRAWS = 20_000


@dataclass(frozen=True)
class Ranked:
    """One recipe among others.

    Attributes:
        rank: mean over the data sets, 1 being the best.
        figure: mean over the data sets.
        behind: how far its figure is below that of the first recipe, in the mean; 0 for that one.
        p: of that difference, adjusted; None for the first.
    """

    recipe: str
    rank: float
    figure: float
    behind: float
    p: float | None


@dataclass(frozen=True)
class Ranking:
    """Recipes by their mean rank, the best first.

    Attributes:
        critical: ranks nearer to each other than this don't differ.
        sets: how many data sets.
    """

    recipes: tuple[Ranked, ...]
    critical: float
    sets: int

    @property
    def alike(self) -> list[tuple[float, float]]:
        """First and last rank of the largest groups within the critical difference: the bars of the diagram."""
        ranks = [one.rank for one in self.recipes]
        reach = [max(j for j, rank in enumerate(ranks) if rank - first <= self.critical) for first in ranks]
        starts = [i for i, last in enumerate(reach) if last > i and (i == 0 or last > reach[i - 1])]
        return [(ranks[i], ranks[reach[i]]) for i in starts]


def rank(figures: Mapping[str, Sequence[float]]) -> Ranking:
    """Ranks recipes.

    Args:
        figures: recipe -> its figure on each data set, higher being better; the same sets for all.

    Raises:
        UsageError: for fewer than 2 recipes or more than 20, or fewer than 2 data sets.
    """
    table = np.array(list(figures.values()), dtype=np.float64)  # (k, N)
    if not 2 <= len(table) <= len(Q) + 1 or table.shape[1] < 2:
        raise UsageError(f"Ranks need 2 to {len(Q) + 1} recipes and 2 data sets. Got {len(table)}, {table.shape[1:]}.")
    count, sets = table.shape
    above = (table[None] > table[:, None]).sum(axis=1)  # (k, N), how many are better
    equal = (table[None] == table[:, None]).sum(axis=1)  # itself among them
    ranks = (above + (equal + 1) / 2).mean(axis=1)
    order = np.lexsort((-table.mean(axis=1), ranks))
    best, others = table[order[0]], order[1:]
    adjusted = holm([sign_test(best - table[i]) for i in others])
    names = list(figures)
    ranked = [
        Ranked(names[i], float(ranks[i]), float(table[i].mean()), float((best - table[i]).mean()), p)
        for i, p in zip(order, [None, *adjusted], strict=True)
    ]
    return Ranking(tuple(ranked), float(Q[count - 2] * np.sqrt(count * (count + 1) / (6 * sets))), sets)


def sign_test(differences: npt.NDArray[np.float64]) -> float:
    """P of the mean of paired differences being 0, by turning signs around: all ways, or many drawn ones."""
    count = len(differences)
    if count <= EXACT:
        signs = 1 - 2 * (np.arange(2**count)[:, None] >> np.arange(count) & 1)  # (2^N, N)
    else:
        signs = np.random.default_rng(0).choice((-1, 1), size=(DRAWS, count))
        signs[0] = 1  # what was observed is one of them, so that no p is 0
    means = np.abs(signs @ differences)
    return float((means >= means[0] * (1 - 1e-12)).mean())


def holm(ps: Sequence[float]) -> list[float]:
    """Adjusts p values for their number, step by step."""
    found, highest = [0.0] * len(ps), 0.0
    for turn, i in enumerate(np.argsort(ps, kind="stable")):
        highest = max(highest, min(1.0, (len(ps) - turn) * ps[i]))
        found[i] = highest
    return found


def diagram(ranking: Ranking) -> str:
    """The ranks as SVG: names along a line, and a bar over those that the critical difference doesn't tell apart."""
    count = len(ranking.recipes)
    left, width, top, step = 20, 560, 70, 22

    def at(rank: float) -> float:
        return left + width * (rank - 1) / (count - 1)

    def line(x: float, y: float, to_x: float, to_y: float, stroke: float = 1) -> str:
        return (
            f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{to_x:.1f}" y2="{to_y:.1f}" stroke="currentColor" '
            f'stroke-width="{stroke}"/>'
        )

    def text(x: float, y: float, words: str, anchor: str = "middle") -> str:
        safe = one_line(words).replace("&", "&amp;").replace("<", "&lt;")
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{safe}</text>'

    bars = ranking.alike
    below = top + 12 + 8 * len(bars)
    end = min(float(count), 1 + ranking.critical)
    drawn = [line(at(1), 22, at(end), 22, 2), text((at(1) + at(end)) / 2, 14, f"CD {ranking.critical:.2f}")]
    drawn += [line(at(1), top, at(count), top)]
    for tick in range(1, count + 1):
        drawn += [line(at(tick), top - 5, at(tick), top), text(at(tick), top - 10, str(tick))]
    drawn += [line(at(a), top + 8 * (i + 1), at(b), top + 8 * (i + 1), 4) for i, (a, b) in enumerate(bars)]
    for i, one in enumerate(ranking.recipes):
        y = below + step * (i + 1)
        drawn += [line(at(one.rank), top, at(one.rank), y), line(at(one.rank), y, left + width + 10, y)]
        drawn += [text(left + width + 14, y + 4, f"{one.recipe} ({one.rank:.2f})", "start")]
    height = below + step * (count + 1)
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 900 {height}" font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, *drawn, "</svg>", ""])
