"""Ranks and paired tests, against scipy and a loop."""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from blemish.errors import UsageError
from blemish.trials.ranks import EXACT, Q, diagram, holm, rank, sign_test
from blemish.trials.tables import ranking_of, write_tables
from known import known

RNG = np.random.default_rng(0)


def test_quantiles_are_those_of_the_studentized_range() -> None:
    for count, q in enumerate(Q, start=2):
        assert q == pytest.approx(stats.studentized_range.ppf(0.95, count, np.inf) / math.sqrt(2), abs=2e-3), count


def test_ranks_are_those_of_scipy_with_ties() -> None:
    table = RNG.integers(0, 4, (5, 8)) / 4
    found = rank({f"r{i}": list(row) for i, row in enumerate(table)})
    expected = stats.rankdata(-table, axis=0).mean(axis=1)
    assert {one.recipe: one.rank for one in found.recipes} == {
        f"r{i}": pytest.approx(r) for i, r in enumerate(expected)
    }
    assert [one.rank for one in found.recipes] == sorted(one.rank for one in found.recipes)
    assert found.critical == pytest.approx(2.728 * math.sqrt(5 * 6 / (6 * 8)))
    assert found.recipes[0].p is None
    assert found.recipes[0].behind == 0


@pytest.mark.parametrize("count", [2, 5, 9])
def test_p_is_the_share_of_signs(count: int) -> None:
    differences = RNG.normal(0.3, 1, count)
    means = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=count)]
    assert sign_test(differences) == pytest.approx(np.mean(np.array(means) >= abs(differences.sum()) - 1e-12))


def test_p_of_many_sets_is_near_the_normal_one_and_never_0() -> None:
    differences = RNG.normal(0.2, 1, EXACT + 40)
    z = differences.sum() / math.sqrt((differences**2).sum())
    assert sign_test(differences) == pytest.approx(2 * stats.norm.sf(abs(z)), abs=0.02)
    assert sign_test(np.ones(40)) > 0


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == [pytest.approx(0.03), pytest.approx(0.06), pytest.approx(0.06)]
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_too_little_to_rank() -> None:
    for figures in ({"a": [1.0, 0.5]}, {"a": [1.0], "b": [0.5]}):
        with pytest.raises(UsageError, match=r"Ranks need 2 to 20 recipes and 2 data sets. Got"):
            rank(figures)


def test_bars_join_what_does_not_differ() -> None:
    figures = {name: list(base + RNG.normal(0, 0.001, 60)) for name, base in (("a", 0.9), ("b", 0.9), ("c", 0.5))}
    ranking = rank(figures)
    assert {one.recipe for one in ranking.recipes[:2]} == {"a", "b"}
    assert ranking.alike == [(ranking.recipes[0].rank, ranking.recipes[1].rank)]
    assert ranking.recipes[2].p == pytest.approx(2 / 20_000, rel=2)
    drawn = ET.fromstring(diagram(ranking))
    words = [text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"CD 0.43", "c (3.00)"} <= set(words)


def job(recipe: str, name: str, seed: int, auroc: float | None) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "name": name,
        "seed": seed,
        "error": None if auroc is not None else "no memory",
        "calibration": None,
        "figures": {"image_auroc": auroc},
        "cost": {},
        "settings": {},
        "arguments": {},
        "weights": {},
        "versions": {},
        "machine": {},
    }


def test_sets_that_a_recipe_failed_on_are_not_ranked(tmp_path: Path) -> None:
    results = [job("<a>", name, seed, 0.9 - seed / 10) for name in "xyz" for seed in (0, 1)]
    results += [job("b", name, seed, 0.8 if name != "z" or seed else None) for name in "xyz" for seed in (0, 1)]
    ranking = known(ranking_of(results))
    assert (ranking.sets, ranking.recipes[0].recipe, ranking.recipes[0].figure) == (2, "<a>", pytest.approx(0.85))
    assert ranking_of(results[:6]) is None
    content = write_tables(tmp_path, results)
    assert content["ranking"]["sets"] == 2
    assert "| b | 2.00 | 0.800 | 0.050 | 0.500 |" in (tmp_path / "table.md").read_text()
    assert "&lt;a>" in (tmp_path / "ranks.svg").read_text()
