"""`blemish bench`: figures of detectors over a folder of data sets."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.config import PADIM_ONLY, PATCHCORE_ONLY, make_config, parse_flag, read_config
from blemish.cli.console import UNMET, out, print_json, progress
from blemish.cli.fit import build_data, build_model, with_config_flags
from blemish.errors import UsageError
from blemish.files import write_json, write_text

if TYPE_CHECKING:
    from blemish.trials.grid import Settings
    from blemish.trials.jobs import Job, Result
    from blemish.trials.tables import Row

LIBRARIES = ("numpy", "torch", "torchvision", "timm", "lightning")


@partial(with_config_flags, left_out=("detector", "seed"))
def bench(
    root: Path = typer.Argument(..., help="Data set, or folder of them, such as that of MVTec AD."),
    output: Path = typer.Option(Path("bench"), "--output", "-o", help="Folder for results; a second start goes on."),
    seeds: str = typer.Option("0", help="Seeds, comma-separated."),
    preset: str = typer.Option("default", help="Recipes: default, or paper: those the papers published."),
    recipes: str | None = typer.Option(None, help="Some of the preset's recipes, comma-separated. Default: all."),
    config: list[Path] | None = typer.Option(None, "--config", help="A configuration of fit in place of a preset."),
    sets: str | None = typer.Option(None, help="Some of the data sets, comma-separated. Default: all."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Fit and test detectors on every data set of a folder, with several seeds, and leave tables with all that made
    them.

    Each job runs in a process of its own and is kept as one file. Exit code 4 if a job failed; the others are not lost.
    """
    given = {key: parse_flag(key, value) for key, value in flags.items() if value is not None}
    chosen = {name: _with_flags(settings, given) for name, settings in _recipes(preset, recipes, config).items()}
    numbers = _seeds(seeds)
    for settings in chosen.values():
        make_config({**settings, "seed": numbers[0]})

    from blemish.data.index import find_sets
    from blemish.trials.jobs import Job, run_jobs
    from blemish.trials.tables import summarize, to_csv, to_markdown

    found = _some(find_sets(root), sets, "sets")
    jobs = [
        Job(name, path, recipe, {**settings, "seed": seed}, seed)
        for recipe, settings in chosen.items()
        for name, path in found.items()
        for seed in numbers
    ]
    results: list[Result] = []
    with progress() as bars:
        task = bars.add_task("", total=len(jobs))
        bars.update(task, description=_label(jobs[0]))
        for number, (_, result, before) in enumerate(run_jobs(jobs, work, output / "jobs"), start=1):
            results.append(result)
            if bars.console.is_terminal:
                bars.console.print(_line(result, before), markup=False, highlight=False)
            bars.update(task, completed=number, description=_label(jobs[min(number, len(jobs) - 1)]))
    rows = summarize(results)
    table = [{**vars(row), "values": _plain(row)} for row in rows]
    write_text(output / "table.md", to_markdown(rows, results))
    write_text(output / "table.csv", to_csv(rows, results))
    content = {"table": table, "jobs": results}
    write_json(output / "results.json", content)
    failed = [result for result in results if result["error"] is not None]
    if as_json:
        print_json(content)
    else:
        _print_table(rows, numbers)
        for text in dict.fromkeys(f"{result['recipe']}, {result['name']}: {result['error']}" for result in failed):
            out().print("[red]failed[/] ", end="")
            out().print(text, markup=False)
        out().print(f"Tables and recipes: {output}/table.md, table.csv, results.json. One file a job: {output}/jobs/.")
    if failed:
        raise typer.Exit(UNMET)


def work(job: Job) -> dict[str, Any]:
    """Fits, tests and measures; what it returns is all that a table or a reader may want to know."""
    from blemish.artifact import manifest_of
    from blemish.engine import Engine
    from blemish.trials.measure import cost, machine, peak_memory

    config = make_config(job.settings)
    data, engine = build_data(config, job.root), Engine(config.accelerator, progress=False)
    split = data.split
    started = time.perf_counter()
    with peak_memory() as peak:
        model = build_model(config)
        engine.fit(model, data)
        fitted = time.perf_counter()
        result = engine.test(model, data)
        tested = time.perf_counter()
    price = cost(model, split.test, accelerator=config.accelerator)
    manifest = manifest_of(model).model_dump(mode="json")
    return {
        "figures": result.to_dict(),
        "calibration": manifest["calibration"] and {**manifest["calibration"], "oracle": split.policy == "test"},
        "cost": {
            "fit_seconds": fitted - started,
            "test_seconds": tested - fitted,
            "ms_per_image": price.milliseconds,
            "slowest_ms": price.slowest,
            "file_mb": price.megabytes,
            "memory_mb": peak.process,
            "gpu_memory_mb": peak.gpu,
            "device": price.device,
        },
        "images": {"fit": len(split.fit), "calibrate": len(split.calibration), "test": len(split.test)},
        "arguments": manifest["arguments"],
        "weights": manifest["weights"],
        "data": {"layout": data.index.layout, **manifest["data"]},
        "versions": {**manifest["versions"], **{name: metadata.version(name) for name in LIBRARIES}},
        "machine": machine(),
    }


def _recipes(preset: str, names: str | None, configs: Sequence[Path] | None) -> dict[str, Settings]:
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


def _with_flags(settings: Settings, given: Mapping[str, Any]) -> Settings:
    """Flags win; a flag that only the other detector has is passed over."""
    detector = settings.get("detector", "patchcore")
    foreign = PADIM_ONLY if detector == "patchcore" else PATCHCORE_ONLY
    kept = {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}
    return {**settings, **{key: value for key, value in kept.items() if key not in foreign}}


def _seeds(text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise UsageError(f"--seeds must be different whole numbers from 0 on, such as 0,1,2. Got {text!r}.")
    return numbers


def _label(job: Job) -> str:
    return f"{job.recipe}, {job.name}, seed {job.seed}"


def _line(result: Result, before: bool) -> str:
    name = f"{result['recipe']}, {result['name']}, seed {result['seed']}"
    if result["error"] is not None:
        return f"{name}: failed: {result['error']}"
    auroc = result["figures"]["image_auroc"]
    text = "no image AUROC" if auroc is None else f"image AUROC {auroc:.3f}"
    seconds = result["cost"]["fit_seconds"] + result["cost"]["test_seconds"]
    return f"{name}: {text}, {'done before' if before else f'{seconds:.0f} s'}"


def _plain(row: Row) -> dict[str, dict[str, float | None] | None]:
    return {key: None if value is None else {"mean": value[0], "sd": value[1]} for key, value in row.values.items()}


def _print_table(rows: Sequence[Row], seeds: Sequence[int]) -> None:
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
            drawn.add_row(row.recipe, style="bold")
            recipe = row.recipe
        cells = [shown(row.values[key], key).replace(" ± ", between) for key in _SHOWN]
        if row.oracle:
            cells = [f"{cell}*" if key in _AT_THRESHOLD else cell for key, cell in zip(_SHOWN, cells, strict=True)]
        style = "bold" if row.name == MEAN else "red" if row.done == 0 else ""
        drawn.add_row(f"  {row.name}", *cells, f"{row.done}/{row.jobs}", style=style)
    out().print(drawn)
    if any(row.oracle for row in rows):
        out().print("* oracle: test images chose the threshold, so this figure flatters.")


_SHOWN = ("image_auroc", "pixel_auroc", "aupro", "false_alarm_rate", "miss_rate", "ms_per_image")
_WIDE = 120
"""Columns of a terminal from which on mean and deviation stand side by side."""
_AT_THRESHOLD = ("false_alarm_rate", "miss_rate")
