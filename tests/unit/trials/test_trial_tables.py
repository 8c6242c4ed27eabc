"""Tables of results, against means and deviations written out."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import pytest

from blemish.features.timm_network import layers_of
from blemish.models import DETECTORS
from blemish.settings import fit_settings
from blemish.trials.grid import describe, grid
from blemish.trials.presets import PAPERS, PRESETS
from blemish.trials.tables import COSTS, FIGURES, TableRow, shown, summarize, to_csv, to_markdown


def done(name: str, seed: int, auroc: float | None, recipe: str = "r", oracle: bool = False) -> dict[str, Any]:
    figures: dict[str, Any] = dict.fromkeys(FIGURES.keys() - COSTS.keys())
    made = {"settings": {"sigma": 4.0}, "arguments": {}, "weights": {"sha256": "abc"}, "versions": {}, "machine": {}}
    return {
        "name": name,
        "recipe": recipe,
        "seed": seed,
        "error": None,
        "calibration": {"oracle": oracle},
        **made,
        "figures": {**figures, "image_auroc": auroc},
        "cost": {"ms_per_image": 10.0 * (seed + 1), "file_mb": 2.0},
    }


def failed(name: str, seed: int, recipe: str = "r") -> dict[str, Any]:
    return {"name": name, "recipe": recipe, "seed": seed, "error": "no memory", "settings": {}}


def value(row: TableRow, key: str = "image_auroc") -> tuple[float, float | None] | None:
    return row.values[key]


def test_means_and_deviations() -> None:
    rows = summarize([done("a", 0, 0.8), done("a", 1, 0.9), done("b", 0, 0.5), done("b", 1, 0.7)])
    assert [row.name for row in rows] == ["a", "b", "mean"]
    assert value(rows[0]) == (pytest.approx(0.85), pytest.approx(math.sqrt(2 * 0.05**2)))
    assert value(rows[0], "ms_per_image") == (pytest.approx(15.0), pytest.approx(math.sqrt(50)))
    assert value(rows[0], "file_mb") == (2.0, 0.0)
    # seeds give 0.65 and 0.8 over the sets
    assert value(rows[2]) == (pytest.approx(0.725), pytest.approx(math.sqrt(2 * 0.075**2)))
    assert value(rows[2], "aupro") is None
    assert [(row.done, row.jobs) for row in rows] == [(2, 2), (2, 2), (2, 2)]


def test_one_seed_has_no_deviation() -> None:
    (row,) = summarize([done("a", 0, 0.8)])
    assert value(row) == (0.8, None)
    assert shown(value(row), "image_auroc") == "0.800"


def test_a_failure_is_counted_and_kept_out_of_the_mean_of_sets() -> None:
    rows = summarize([done("a", 0, 0.8), done("a", 1, 0.9), done("b", 0, 0.1), failed("b", 1), failed("c", 0)])
    by_name = {row.name: row for row in rows}
    assert (by_name["b"].done, by_name["b"].jobs, by_name["b"].error) == (1, 2, "no memory")
    assert value(by_name["b"]) == (0.1, None)
    assert value(by_name["c"]) is None
    assert (by_name["mean"].done, by_name["mean"].jobs) == (1, 3)
    # b has the figure with every seed that was done, but not with every seed
    assert value(by_name["mean"]) == (pytest.approx(0.85), pytest.approx(math.sqrt(2 * 0.05**2)))


def test_recipes_are_kept_apart() -> None:
    rows = summarize([done("a", 0, 0.8), done("b", 0, 0.6), done("a", 0, 0.4, "other")])
    assert [(row.recipe, row.name) for row in rows] == [("r", "a"), ("r", "b"), ("r", "mean"), ("other", "a")]


def test_csv_is_read_back() -> None:
    results = [failed("c", 0, "other"), done("a,b", 0, 0.8, oracle=True), done("a,b", 1, 0.9), failed("c", 0)]
    other, *read = csv.DictReader(io.StringIO(to_csv(summarize(results), results)))
    assert (other["recipe"], other["weights"]) == ("other", "")
    assert json.loads(read[0]["weights"]) == {"sha256": "abc"}
    assert float(read[0]["image_auroc_mean"]) == pytest.approx(0.85)
    assert (read[0]["set"], read[0]["oracle"], read[0]["pixel_auroc_mean"]) == ("a,b", "True", "")
    assert (read[1]["image_auroc_mean"], read[1]["error"], read[1]["done"]) == ("", "no memory", "0")


def test_markdown_holds_table_failures_and_recipes() -> None:
    results = [done("a", 0, 0.8, oracle=True), done("a", 1, 0.9), failed("b", 0)]
    text = to_markdown(summarize(results), results)
    assert "| r | a | 0.850 ± 0.071 | - |" in text
    assert "| r | b | - |" in text
    assert "Oracle: test images chose the thresholds" in text
    assert "- r, b, seed 0: no memory" in text
    assert '"sha256": "abc"' in text
    assert text.count("### r") == 1
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_a_table_without_any_success() -> None:
    results = [failed("a", 0)]
    assert to_markdown(summarize(results), results).endswith("No job succeeded.\n")


@pytest.mark.parametrize(("preset", "recipe"), [(p, r) for p in PRESETS for r in PRESETS[p]])
def test_recipes_are_configurations(preset: str, recipe: str) -> None:
    fit_settings(PRESETS[preset][recipe], DETECTORS)


def test_the_papers_recipes() -> None:
    """PatchCore (arXiv 2106.08265) and PaDiM (2011.08785): 256, center 224; layers, shares and channels."""
    paper = PRESETS["paper"]
    early = list(paper.values())[:5]
    assert {(one["image_size"], one["crop_from"]) for one in early} == {(224, 256)}
    assert [one.get("coreset_sampling_ratio") for one in early] == [0.25, 0.1, 0.01, None, None]
    assert [one.get("n_features") for one in early] == [None, None, None, 100, 550]
    assert all(one["calibrate_on"] == "test" for one in paper.values())
    assert all(recipe.differs for recipe in PAPERS.values())


@pytest.mark.parametrize("recipe", PAPERS)
def test_the_papers_backbones_have_their_layers_and_take_their_sizes(recipe: str) -> None:
    settings = PRESETS["paper"][recipe]
    known = layers_of(settings["backbone"])
    assert set(settings["layers"]) <= known.keys()
    stride = max(known[layer][1] for layer in settings["layers"])
    assert settings["image_size"] % stride == settings.get("tile_size", stride) % stride == 0


def test_a_papers_recipe_is_tried_where_its_backbone_is_at_hand() -> None:
    layers = {"bundled": ["layer2"], "vit_small_patch14_dinov2.lvd142m": ["blocks.11"]}
    tried = [describe(settings, layers) for settings in grid(layers, 1000)]
    assert "anomalydino" in tried
    assert "subspacead" not in tried
