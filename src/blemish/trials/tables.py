"""Results of jobs as tables: a row for every recipe and data set, mean and standard deviation over seeds.

The standard deviation is that of a sample (divided by n - 1) and needs two seeds. The row "mean" averages the data sets
first, seed by seed, so that its deviation is that of the whole benchmark; of every figure it takes the sets that have
it with all seeds.
"""

from __future__ import annotations

import csv
import io
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from blemish.escaping import csv_cell, markdown_cell, one_line
from blemish.files import write_json, write_text
from blemish.trials.jobs import JobResult
from blemish.trials.ranks import Q, Ranking, diagram, rank

COSTS = {"ms_per_image": "ms", "fit_seconds": "fit s", "file_mb": "MB", "memory_mb": "memory MB"}
FIGURES = {
    "image_auroc": "image AUROC",
    "image_f1_max": "best F1",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "false_alarm_rate": "false alarms",
    "miss_rate": "misses",
    **COSTS,
}
"""Keys of the table and their headings: figures of `EvaluationResult`, and costs."""
MADE = ("settings", "arguments", "weights", "versions", "machine")
"""Keys of a result that say what made it."""
MEAN = "mean"
RANKED_BY = "image_auroc"
NOTE = (
    "Mean ± standard deviation over seeds. A mean of sets is over those that have the figure. AUPRO is integrated up "
    "to 30 % false positives. ms: one image, median. MB: the model file; memory: the highest of the process."
)


@dataclass(frozen=True)
class TableRow:
    """One recipe on one data set, or on the mean of them.

    Attributes:
        values: figure -> (mean, standard deviation or None); None where no seed has the figure.
        done, jobs: seeds that succeeded, and all; data sets in a row of means.
        oracle: test images chose the threshold, so the figures at the threshold flatter.
        error: of the first seed that failed.
    """

    recipe: str
    name: str
    values: dict[str, tuple[float, float | None] | None]
    done: int
    jobs: int
    oracle: bool = False
    error: str | None = None


def summarize(results: Iterable[JobResult]) -> list[TableRow]:
    """Rows by recipe and data set, in the order of the results; a row of means ends a recipe of several data sets."""
    by_recipe: dict[str, dict[str, list[JobResult]]] = {}
    for result in results:
        by_recipe.setdefault(result["recipe"], {}).setdefault(result["name"], []).append(result)
    rows: list[TableRow] = []
    for recipe, sets in by_recipe.items():
        own = [_row(recipe, name, jobs) for name, jobs in sets.items()]
        rows += [*own, *([_mean_row(recipe, sets)] if len(own) > 1 else [])]
    return rows


def shown(value: tuple[float, float | None] | None, key: str) -> str:
    """A cell: 'mean ± deviation', or '-'."""
    if value is None:
        return "-"
    digits = 1 if key in COSTS else 3
    mean, deviation = value
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def to_csv(rows: Sequence[TableRow], results: Sequence[JobResult]) -> str:
    """One line a row; empty cells where there is no figure. The last columns hold what made it, as JSON."""
    text = io.StringIO()
    columns = [f"{key}_{part}" for key in FIGURES for part in ("mean", "sd")]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["recipe", "set", "done", "jobs", "oracle", *columns, "error", *MADE])
    first = _first_done(results)
    for row in rows:
        cells = [cell for key in FIGURES for cell in (row.values[key] or (None, None))]
        made = first.get(row.recipe, {})
        recipe = [json.dumps(made[key], sort_keys=True) if key in made else None for key in MADE]
        names = (csv_cell(row.recipe), csv_cell(row.name))
        error = None if row.error is None else csv_cell(row.error)
        writer.writerow([*names, row.done, row.jobs, row.oracle, *cells, error, *recipe])
    return text.getvalue()


def to_markdown(rows: Sequence[TableRow], results: Sequence[JobResult]) -> str:
    """The table, what failed, and everything needed to do it again."""
    head = ["recipe", "set", *FIGURES.values(), "done"]
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
    for row in rows:
        cells = [markdown_cell(row.recipe), markdown_cell(row.name)]
        cells += [*(shown(row.values[key], key) for key in FIGURES), f"{row.done}/{row.jobs}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", NOTE]
    if any(row.oracle for row in rows):
        lines += ["Oracle: test images chose the thresholds of some recipes, so their false alarms and misses flatter."]
    failures = [result for result in results if result["error"] is not None]
    if failures:
        lines += ["", "## Failed", ""]
        lines += [one_line(f"- {one['recipe']}, {one['name']}, seed {one['seed']}: {one['error']}") for one in failures]
    ranking = ranking_of(results)
    if ranking is not None:
        lines += ["", *_ranks(ranking)]
    return "\n".join([*lines, "", *_recipes(results)]) + "\n"


def ranking_of(results: Iterable[JobResult]) -> Ranking | None:
    """Recipes ranked by image AUROC on the data sets on which all of them have it with every seed; None where that
    leaves fewer than 2 recipes or 2 sets, or for more recipes than can be compared.
    """
    found: dict[str, dict[str, list[float | None]]] = {}
    for job in results:
        value = figure(job, RANKED_BY) if job["error"] is None else None
        found.setdefault(job["recipe"], {}).setdefault(job["name"], []).append(value)
    names = {name: None for sets in found.values() for name in sets}  # in their order
    whole = [name for name in names if all(None not in sets.get(name, [None]) for sets in found.values())]
    if not 2 <= len(found) <= len(Q) + 1 or len(whole) < 2:
        return None
    return rank({recipe: [statistics.fmean(sets[name]) for name in whole] for recipe, sets in found.items()})  # type: ignore[arg-type]


def write_tables(folder: Path, results: Sequence[JobResult]) -> dict[str, Any]:
    """Writes table.md, table.csv, results.json and, where recipes can be ranked, ranks.svg; returns what results.json
    holds: plain values.
    """
    rows, ranking = summarize(results), ranking_of(results)
    content = {
        "table": [_plain(row) for row in rows],
        "ranking": None if ranking is None else asdict(ranking),
        "jobs": results,
    }
    if ranking is not None:
        write_text(folder / "ranks.svg", diagram(ranking))
    write_text(folder / "table.md", to_markdown(rows, results))
    write_text(folder / "table.csv", to_csv(rows, results))
    write_json(folder / "results.json", content)
    return content


def _plain(row: TableRow) -> dict[str, Any]:
    spreads = {key: None if value is None else {"mean": value[0], "sd": value[1]} for key, value in row.values.items()}
    return {**vars(row), "values": spreads}


def _ranks(ranking: Ranking) -> list[str]:
    """The ranks in Markdown."""
    lines = ["## Ranks", "", f"| recipe | mean rank | {FIGURES[RANKED_BY]} | behind the first | p |"]
    lines += ["|---|--:|--:|--:|--:|"]
    for one in ranking.recipes:
        p = "-" if one.p is None else f"{one.p:.3f}"
        lines.append(f"| {markdown_cell(one.recipe)} | {one.rank:.2f} | {one.figure:.3f} | {one.behind:.3f} | {p} |")
    return [
        *lines,
        "",
        f"Over {ranking.sets} data sets. Mean ranks that are less than {ranking.critical:.2f} apart don't differ by "
        f"Nemenyi's test. p: of the difference to the first, paired over data sets, by turning signs; adjusted by "
        f"Holm. With {ranking.sets} sets none can be below {2 / 2**ranking.sets:.3g}. Diagram: ranks.svg.",
    ]


def _recipes(results: Sequence[JobResult]) -> list[str]:
    lines = ["## Recipes", ""]
    first = _first_done(results)
    for recipe, one in first.items():
        made = {key: one[key] for key in MADE}
        lines += [f"### {recipe}", "", "```json", json.dumps(made, indent=1, sort_keys=True), "```", ""]
    return lines[:-1] if first else ["No job succeeded."]


def _first_done(results: Sequence[JobResult]) -> dict[str, JobResult]:
    """Recipe -> the first of its jobs that succeeded."""
    found: dict[str, JobResult] = {}
    for result in results:
        if result["error"] is None:
            found.setdefault(result["recipe"], result)
    return found


def _row(recipe: str, name: str, jobs: Sequence[JobResult]) -> TableRow:
    good = [job for job in jobs if job["error"] is None]
    errors = [job["error"] for job in jobs if job["error"] is not None]
    return TableRow(
        recipe=recipe,
        name=name,
        values={key: _spread([figure(job, key) for job in good]) for key in FIGURES},
        done=len(good),
        jobs=len(jobs),
        oracle=any((job["calibration"] or {}).get("oracle", False) for job in good),
        error=errors[0] if errors else None,
    )


def _mean_row(recipe: str, sets: dict[str, list[JobResult]]) -> TableRow:
    done = [name for name, jobs in sets.items() if all(job["error"] is None for job in jobs)]
    values = {}
    for key in FIGURES:
        by_set = [[figure(job, key) for job in jobs] for jobs in sets.values()]
        whole = [[value for value in one if value is not None] for one in by_set if None not in one]
        values[key] = _spread([statistics.fmean(over_sets) for over_sets in zip(*whole, strict=True)])
    oracle = any((job.get("calibration") or {}).get("oracle", False) for jobs in sets.values() for job in jobs)
    return TableRow(recipe, MEAN, values, len(done), len(sets), oracle)


def figure(job: JobResult, key: str) -> float | None:
    """A figure of a job, wherever it is kept; None where it has none."""
    value = (job.get("figures") or {}).get(key, (job.get("cost") or {}).get(key))
    return None if value is None else float(value)


def _spread(values: Sequence[float | None]) -> tuple[float, float | None] | None:
    given = [value for value in values if value is not None]
    if not given:
        return None
    return statistics.fmean(given), statistics.stdev(given) if len(given) > 1 else None
