"""`blemish bench`: figures of detectors over a folder of data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape

from blemish.cli.console import UNMET, NoBars, out, print_json, progress, table
from blemish.cli.flags import OPTIONS, given, read_config, with_flags
from blemish.cli.paths import check_model
from blemish.errors import UsageError
from blemish.escaping import one_line

if TYPE_CHECKING:
    from blemish.settings import Configuration
    from blemish.trials.jobs import Job, JobResult
    from blemish.trials.tables import TableRow


@with_flags(*(name for name in OPTIONS if name not in ("detector", "seed")))
def bench(
    context: typer.Context,
    root: Path = typer.Argument(..., help="Data set, or folder of them, such as that of MVTec AD."),
    time: Path | None = typer.Option(
        None, "--time", metavar="IMAGE", help="With a model file in place of data: where the time of a verdict goes."
    ),
    output: Path = typer.Option(Path("bench"), "--output", "-o", help="Folder for results; a second start goes on."),
    seeds: str = typer.Option("0", help="Seeds, comma-separated."),
    preset: str = typer.Option("default", help="Recipes: default, or paper: those the papers published."),
    recipes: str | None = typer.Option(None, help="Some of the preset's recipes, comma-separated. Default: all."),
    config: list[Path] | None = typer.Option(None, "--config", help="A configuration of fit in place of a preset."),
    sets: str | None = typer.Option(None, help="Some of the data sets, comma-separated. Default: all."),
    ray: bool = typer.Option(False, "--ray", help="Do several jobs at once, on a Ray cluster or this machine."),
    address: str | None = typer.Option(None, "--address", help="HOST:PORT of a Ray cluster. Default: this machine."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Fit and test detectors on every data set of a folder, with several seeds, and leave tables with all that made
    them.

    Each job runs in a process of its own and is kept as one file. Exit code 4 if a job failed; the others are not lost.
    """
    if time is not None:
        asked = {name for name in context.params if str(context.get_parameter_source(name)).endswith("COMMANDLINE")}
        for name in sorted(asked - {"root", "time", "as_json"}):
            raise UsageError(
                f"--{name.replace('_', '-')} is not for --time, which takes a model file. Drop one of them."
            )
        _time(root, time, as_json)
        return
    if address is not None and not ray:
        raise UsageError("--address is for --ray. Add it, or leave it out.")
    values = given(flags)
    chosen = {name: _with_flags(recipe, values) for name, recipe in _recipes(preset, recipes, config).items()}
    numbers = _seeds(seeds)

    from blemish.data.index import find_sets
    from blemish.trials.jobs import all_jobs, run_jobs
    from blemish.trials.tables import ranking_of, summarize, write_tables
    from blemish.trials.work import work

    said = {name: values[name] for name in ("good", "bad", "all_good") if name in values}
    jobs = all_jobs(chosen, _some(find_sets(root.absolute() if ray else root, **said), sets, "sets"), numbers)
    results: list[JobResult] = []
    with ExitStack() as stack:
        together = None
        if ray:
            from blemish.cli.ray import jobs_on_ray

            together = stack.enter_context(jobs_on_ray(address, values.get("accelerator", "auto")))
        bars = stack.enter_context(progress())
        task = bars.add_task("", total=len(jobs))
        bars.update(task, description=_label(jobs[0]))
        for number, (_, result, before) in enumerate(run_jobs(jobs, work, output / "jobs", together=together), start=1):
            results.append(result)
            if not isinstance(bars, NoBars):
                bars.console.print(_line(result, before), markup=False, highlight=False)
            bars.update(task, completed=number, description=_label(jobs[min(number, len(jobs) - 1)]))
    content = write_tables(output, results)
    failed = [result for result in results if result["error"] is not None]
    if as_json:
        print_json(content)
    else:
        _print_table(summarize(results), numbers)
        ranking = ranking_of(results)
        if ranking is not None:
            places = ", ".join(f"{one_line(one.recipe)} {one.rank:.2f}" for one in ranking.recipes)
            out().print(
                f"Mean ranks by image AUROC over {ranking.sets} sets: {places}. Less than {ranking.critical:.2f} apart "
                f"is no difference: {output}/ranks.svg.",
                markup=False,
            )
        for text in dict.fromkeys(f"{result['recipe']}, {result['name']}: {result['error']}" for result in failed):
            out().print("[red]failed[/] ", end="")
            out().print(one_line(text), markup=False)
        out().print(
            f"Tables and recipes: {output}/table.md, table.csv, results.json. One file a job: {output}/jobs/.",
            markup=False,
        )
    if failed:
        raise typer.Exit(UNMET)


def _time(model: Path, image: Path, as_json: bool) -> None:
    check_model(model)
    from blemish.runtime.time_sheet import PARTS, WHOLE, time_sheet

    sheet = {part: 1000 * seconds for part, seconds in time_sheet(model, image).items()}
    if as_json:
        print_json({"model": str(model), "image": str(image), "milliseconds": sheet})
        return
    backbone, whole = sheet[PARTS[1]], sheet[WHOLE]
    rows = [(part, f"{ms:.2f}", f"{ms / whole:.0%}", f"{ms / backbone:.2f}") for part, ms in sheet.items()]
    table(one_line(f"{image} in {model}"), ("part", "ms", "share", "times the backbone"), rows)


def _recipes(preset: str, names: str | None, configs: Sequence[Path] | None) -> dict[str, Configuration]:
    from blemish.trials.presets import PRESETS

    if configs:
        if names is not None or preset != "default":
            raise UsageError("--config takes the place of --preset and --recipes. Give one or the other.")
        found = {path.stem: read_config(path) for path in configs}
        if len(found) < len(configs):
            raise UsageError("Two files of --config have the same name. Rename one: the name is that of the recipe.")
        return found
    if preset not in PRESETS:
        raise UsageError(f"--preset must be one of {', '.join(PRESETS)}. Got {preset!r}.")
    return _some(PRESETS[preset], names, "recipes")


def _some(known: Mapping[str, Any], names: str | None, option: str) -> dict[str, Any]:
    """Those of `known` that a comma-separated list names; all without a list."""
    wanted = list(known) if names is None else [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise UsageError(f"--{option} must be out of {', '.join(known)}. Got {unknown[0]!r}.")
    return {name: known[name] for name in wanted}


def _with_flags(recipe: Configuration, values: Mapping[str, Any]) -> Configuration:
    """Flags win; a flag that only other detectors have is passed over."""
    from blemish.models import DETECTORS

    settings, together = DETECTORS[recipe.get("detector", OPTIONS["detector"].default)], {**recipe, **values}
    foreign = {key for key in values if OPTIONS[key].detectors and not settings.takes(key, together)}
    return {key: value for key, value in together.items() if key in recipe or key not in foreign}


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--seeds must be different whole numbers from 0 on, such as 0,1,2. Got {text!r}.")
    return numbers


def _label(job: Job) -> str:
    return escape(one_line(f"{job.recipe}, {job.name}, seed {job.seed}"))


def _line(result: JobResult, before: bool) -> str:
    name = one_line(f"{result['recipe']}, {result['name']}, seed {result['seed']}")
    if result["error"] is not None:
        return one_line(f"{name}: failed: {result['error']}")
    auroc = result["figures"]["image_auroc"]
    text = "no image AUROC" if auroc is None else f"image AUROC {auroc:.3f}"
    seconds = result["cost"]["fit_seconds"] + result["cost"]["test_seconds"]
    return f"{name}: {text}, {'done before' if before else f'{seconds:.0f} s'}"


def _print_table(rows: Sequence[TableRow], seeds: Sequence[int]) -> None:
    from rich import box
    from rich.table import Table

    from blemish.trials.tables import FIGURES, MEAN, shown

    between = "\n±" if out().width < _WIDE else " ± "  # rich would break lines inside of a deviation
    title = "One seed" if len(seeds) == 1 else f"Mean ± standard deviation over {len(seeds)} seeds"
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    drawn.add_column("recipe, set", no_wrap=True)
    for key in _SHOWN:
        drawn.add_column(FIGURES[key].replace(" ", "\n"), justify="right", min_width=5)
    drawn.add_column("done", justify="right")
    recipe = ""
    for row in rows:
        if row.recipe != recipe:
            drawn.add_section()
            drawn.add_row(escape(one_line(row.recipe)), style="bold")
            recipe = row.recipe
        cells = [shown(row.values[key], key).replace(" ± ", between) for key in _SHOWN]
        if row.oracle:
            cells = [f"{cell}*" if key in _AT_THRESHOLD else cell for key, cell in zip(_SHOWN, cells, strict=True)]
        style = "bold" if row.name == MEAN else "red" if row.done == 0 else ""
        drawn.add_row(f"  {escape(one_line(row.name))}", *cells, f"{row.done}/{row.jobs}", style=style)
    out().print(drawn)
    if any(row.oracle for row in rows):
        out().print("* oracle: test images chose the threshold, so this figure flatters.")


_SHOWN = ("image_auroc", "pixel_auroc", "aupro", "false_alarm_rate", "miss_rate", "ms_per_image")
_WIDE = 120
"""Columns of a terminal from which on mean and deviation stand side by side."""
_AT_THRESHOLD = ("false_alarm_rate", "miss_rate")
