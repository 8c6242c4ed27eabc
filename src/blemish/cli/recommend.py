"""`blemish recommend`: which settings suit these parts, within a time per image?"""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.config import FitConfig, make_config
from blemish.cli.console import UNMET, complain, out, print_json, progress
from blemish.cli.fit import build_model
from blemish.data.image_io import MAX_PIXELS
from blemish.errors import BlemishError, UsageError

if TYPE_CHECKING:
    from blemish.data.splits import Split
    from blemish.models.base import AnomalyModule
    from blemish.trials.choice import Trial
    from blemish.trials.grid import Settings

CAVEAT = (
    "Planted defects are not your defects: these figures rank settings on drawn scratches, cracks, stains, holes, "
    "fibres and displaced pieces. Test the model on real ones before you trust it."
)
HARDLY = 0.7
"""Image AUROC below which no setting can be called useful."""
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def recommend(
    directory: Path = typer.Argument(..., metavar="DIR", help="Folder of good parts, data set, or manifest."),
    output: Path = typer.Option(Path("recommended.yaml"), "--output", "-o", help="Configuration file to write."),
    latency: str | None = typer.Option(None, help="Most time per image, such as 50ms. Default: no limit."),
    budget: str = typer.Option("10m", help="Start no more trials after this time, such as 90s, 10m, 2h."),
    backbones: str | None = typer.Option(
        None, help="Backbones to try, comma-separated. Default: the usual one and all that need no download."
    ),
    roi: str | None = typer.Option(None, help="As for fit."),
    group: str | None = typer.Option(None, help="As for fit."),
    seed: int = typer.Option(0, help="Deals images, plants defects and fits otherwise."),
    batch_size: int = typer.Option(8, help="Images per step."),
    num_workers: int | None = typer.Option(None, help="Processes that read images."),
    max_pixels: int = typer.Option(MAX_PIXELS, help="Refuse larger images."),
    accelerator: str = typer.Option("auto", help="auto, cpu, cuda or mps."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Try settings on your good images, with defects planted into some of them, and write a configuration for fit.

    Exit code 4 if nothing tried is within the latency: the fastest is written.
    """
    limit = None if latency is None else 1000 * parse_time("latency", latency)
    seconds = parse_time("budget", budget)
    names = local_backbones() if backbones is None else [name.strip() for name in backbones.split(",")]

    from blemish.cli.paths import check_writable
    from blemish.data.image_io import read_size
    from blemish.data.index import index_folder
    from blemish.trials.choice import RULE, choose, pareto
    from blemish.trials.grid import describe, grid
    from blemish.trials.recommend import arrange, run

    check_writable(output, ".yaml")
    index = index_folder(directory)

    def build(settings: Mapping[str, Any]) -> AnomalyModule:
        return build_model(make_config({**settings, "roi": roi, "seed": seed}))

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, progress() as bars:
        task = bars.add_task("planting defects", total=None)
        sets = arrange(index, Path(folder), group=group, seed=seed, roi=roi, max_pixels=max_pixels)
        longest = max(read_size(sets.fit[0].path))
        layers = {name: _layers(name) for name in names}
        candidates = grid(layers, longest)

        def show(settings: Settings | None, done: float, total: float) -> None:
            text = "done" if settings is None else describe(settings, layers)
            bars.update(task, description=text, completed=done, total=total)

        outcome = run(
            candidates,
            sets,
            build,
            root=directory,
            budget=seconds - (time.perf_counter() - started),
            accelerator=accelerator,
            on_progress=show,
            batch_size=batch_size,
            num_workers=num_workers,
            max_pixels=max_pixels,
        )
    chosen, met = choose(outcome.trials, limit)
    front = pareto(outcome.trials)
    _write_config(output, chosen, {"roi": roi, "seed": seed, "group": group, "accelerator": accelerator})
    warnings = [*_warnings(sets, max(one.image_auroc for one in outcome.trials)), CAVEAT]
    if as_json:
        print_json(
            {
                "chosen": chosen.settings,
                "within_latency": met,
                "latency_limit_ms": limit,
                "rule": RULE,
                "config": str(output),
                "images": _counts(sets),
                "trials": [{**one.to_dict(), "pareto": one in front} for one in outcome.trials],
                "failed": [{"settings": settings, "error": error} for settings, error in outcome.failed],
                "not_tried": outcome.not_tried,
                "seconds": round(outcome.seconds, 1),
                "warnings": warnings,
            }
        )
    else:
        _print_table(outcome.trials, front, chosen, layers, _counts(sets))
        for settings, error in outcome.failed:
            out().print(f"[yellow]Can't be used:[/] {describe(settings, layers)}: ", end="")
            out().print(error, markup=False)
        if outcome.not_tried:
            left = "; ".join(describe(settings, layers) for settings in outcome.not_tried)
            out().print(f"[yellow]Not tried[/] within {budget}: {left}. --budget gives more time.")
        _say(f"\nTaken: [bold]{describe(chosen.settings, layers)}[/]. {RULE}")
        for warning in warnings:
            _say(f"[yellow]Note:[/] {warning}")
        out().print(f"\nWritten: {output}. Next: blemish fit {directory} --config {output} -o model.safetensors")
    if not met:
        complain(
            f"nothing that was tried inspects an image within {latency}; the fastest takes {chosen.milliseconds:.0f} "
            f"ms on {chosen.device}. It is what {output} holds. An exported model (blemish export) may be faster."
        )
        raise typer.Exit(UNMET)


def parse_time(name: str, text: str) -> float:
    """Seconds in a text such as 50ms, 2s, 10m, 1h.

    Raises:
        UsageError: for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(
            f"--{name} must be a number above 0 with a unit out of ms, s, m, h, such as 50ms. Got {text!r}."
        )
    return float(match[1]) * _UNITS[match[2]]


def local_backbones() -> list[str]:
    """The usual backbone, and those that need no download."""
    from blemish.features.backbones import local

    return list(dict.fromkeys([FitConfig().backbone, *local()]))


def _layers(backbone: str) -> list[str]:
    """What PatchCore uses of a backbone; none where it can't be had, and the trial will say why."""
    try:
        return build_model(make_config({"backbone": backbone})).extractor.layers
    except BlemishError:
        return []


def _counts(sets: Split) -> dict[str, int]:
    good = sum(sample.label is False for sample in sets.test)
    return {
        "fit": len(sets.fit),
        "calibrate": len(sets.calibrate),
        "held_out": good,
        "planted": len(sets.test) - good,
    }


def _say(text: str) -> None:
    """A paragraph: broken between words on a terminal, in one line elsewhere."""
    console = out()
    console.print(text, soft_wrap=not console.is_terminal)


def _warnings(sets: Split, best: float) -> list[str]:
    from blemish.trials.recommend import FEW

    counts = _counts(sets)
    images = counts["fit"] + counts["calibrate"] + counts["held_out"]
    found = []
    if images < FEW:
        steps = 1 / counts["held_out"]
        found.append(
            f"{images} good images are few: false alarms come in steps of {steps:.0%} on {counts['held_out']} held-out "
            f"images, and a few hundredths of AUROC between two settings mean nothing. {FEW} or more give the choice a "
            "better footing."
        )
    if best < HARDLY:
        found.append(
            f"Even the best image AUROC, {best:.2f}, is close to chance (0.5): among the differences of good images "
            "planted defects don't stand out. Larger ones may. More good images, a steadier scene or another backbone "
            "(--backbones) can help."
        )
    return found


def _write_config(path: Path, chosen: Trial, given: Mapping[str, Any]) -> None:
    import yaml

    defaults = vars(FitConfig())
    content = chosen.settings | {key: value for key, value in given.items() if value != defaults[key]}
    head = (
        f"# Chosen by blemish recommend: image AUROC {chosen.image_auroc:.3f}, pixel AUROC {chosen.pixel_auroc:.3f}\n"
        f"# on planted defects (not yours), {chosen.milliseconds:.1f} ms per image on {chosen.device}, "
        f"{chosen.megabytes:.1f} MB.\n"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(head + yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def _print_table(
    trials: Sequence[Trial],
    front: Sequence[Trial],
    chosen: Trial,
    layers: Mapping[str, Sequence[str]],
    counts: Mapping[str, int],
) -> None:
    from rich import box
    from rich.table import Table

    from blemish.trials.grid import describe

    noun = "setting" if len(trials) == 1 else "settings"
    title = (
        f"{len(trials)} {noun} on {counts['fit']} images to fit, {counts['calibrate']} to calibrate,\n"
        f"{counts['held_out']} held out and {counts['planted']} with planted defects"
    )
    legend = "→ taken   • no other is better in AUROC, time and size\nfound, false alarms: at the calibrated threshold"
    drawn = Table(title=title, caption=legend, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    drawn.add_column("")
    drawn.add_column("settings")
    for name in ("image\nAUROC", "pixel\nAUROC", "found", "false\nalarms", f"ms\n{chosen.device}", "MB"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for one in sorted(trials, key=lambda trial: -trial.separation):
        mark = "→" if one is chosen else "•" if one in front else ""
        style = "bold" if one is chosen else "" if one in front else "dim"
        drawn.add_row(
            mark,
            describe(one.settings, layers),
            f"{one.image_auroc:.3f}",
            f"{one.pixel_auroc:.3f}",
            f"{one.found:.0%}",
            f"{one.false_alarm_rate:.0%}",
            f"{one.milliseconds:.0f}" if one.milliseconds >= 10 else f"{one.milliseconds:.1f}",
            f"{one.megabytes:.1f}",
            style=style,
        )
    out().print(drawn)
