"""`blemish recommend`: which settings suit these parts, within a time per image?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.console import UNMET, complain, out, print_json, progress
from blemish.cli.flags import given, with_flags
from blemish.cli.paths import OVERWRITE, output_file
from blemish.errors import UsageError
from blemish.files import write_text
from blemish.settings import FolderSettings

if TYPE_CHECKING:
    from blemish.trials.recommend import Recommendation

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


@with_flags(
    "roi", *FolderSettings.model_fields, "group", "seed", "batch_size", "num_workers", "max_pixels", "accelerator"
)
def recommend(
    context: typer.Context,
    directory: Path = typer.Argument(..., metavar="DIR", help="Folder of good parts, data set, or manifest."),
    output: Path = typer.Option(Path("recommended.yaml"), "--output", "-o", help="Configuration file to write."),
    latency: str | None = typer.Option(None, help="Most time per image, such as 50ms. Default: no limit."),
    budget: str = typer.Option("10m", help="Start no more trials after this time, such as 90s, 10m, 2h."),
    backbones: str | None = typer.Option(
        None, help="Backbones to try, comma-separated. Default: the usual one and all that need no download."
    ),
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Try settings on your good images, with defects planted into some of them, and write a configuration for fit.

    Exit code 4 if nothing tried is within the latency: the fastest is written.
    """
    limit = None if latency is None else 1000 * parse_time("latency", latency)
    seconds = parse_time("budget", budget)

    from blemish.trials import recommend as recommending

    context.with_resource(output_file(output, ".yaml", overwrite))
    with progress() as bars:
        task = bars.add_task("", total=None)
        found = recommending.recommend(
            directory,
            given(flags),
            budget=seconds,
            latency=limit,
            backbones=None if backbones is None else [name.strip() for name in backbones.split(",")],
            on_progress=lambda words, done, total: bars.update(task, description=words, completed=done, total=total),
        )
    write_text(output, found.to_yaml())
    if as_json:
        print_json({**found.to_dict(), "config": str(output)})
    else:
        _print(found, budget)
        out().print(
            f"\nWritten: {output}. Next: blemish fit {directory} --config {output} -o model.safetensors", markup=False
        )
    if not found.within_latency:
        chosen = found.chosen
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


def _print(found: Recommendation, budget: str) -> None:
    from blemish.trials.choice import RULE

    _print_table(found)
    for configuration, error in found.outcome.failed:
        out().print(f"[yellow]Can't be used:[/] {found.words(configuration)}: ", end="")
        out().print(error, markup=False)
    if found.outcome.not_tried:
        left = "; ".join(map(found.words, found.outcome.not_tried))
        out().print(f"[yellow]Not tried[/] within {budget}: {left}. --budget gives more time.")
    _say(f"\nTaken: [bold]{found.words(found.chosen.settings)}[/]. {RULE}")
    for warning in found.warnings:
        _say(f"[yellow]Note:[/] {warning}")


def _say(text: str) -> None:
    """A paragraph: broken between words on a terminal, in one line elsewhere."""
    console = out()
    console.print(text, soft_wrap=not console.is_terminal)


def _print_table(found: Recommendation) -> None:
    from rich import box
    from rich.table import Table

    trials, front, images = found.outcome.trials, found.front, found.images
    noun = "setting" if len(trials) == 1 else "settings"
    title = (
        f"{len(trials)} {noun} on {images['fit']} images to fit, {images['calibrate']} to calibrate,\n"
        f"{images['held_out']} held out and {images['planted']} with planted defects"
    )
    legend = "→ taken   • no other is better in AUROC, time and size\nfound, false alarms: at the calibrated threshold"
    drawn = Table(title=title, caption=legend, box=box.SIMPLE_HEAD, title_justify="left", caption_justify="left")
    drawn.add_column("")
    drawn.add_column("settings")
    for name in ("image\nAUROC", "pixel\nAUROC", "found", "false\nalarms", f"ms\n{found.chosen.device}", "MB"):
        drawn.add_column(name, justify="right", no_wrap=True)
    for trial in sorted(trials, key=lambda trial: -trial.separation):
        mark = "→" if trial is found.chosen else "•" if trial in front else ""
        style = "bold" if trial is found.chosen else "" if trial in front else "dim"
        drawn.add_row(
            mark,
            found.words(trial.settings),
            f"{trial.image_auroc:.3f}",
            f"{trial.pixel_auroc:.3f}",
            f"{trial.found:.0%}",
            f"{trial.false_alarm_rate:.0%}",
            f"{trial.milliseconds:.0f}" if trial.milliseconds >= 10 else f"{trial.milliseconds:.1f}",
            f"{trial.megabytes:.1f}",
            style=style,
        )
    out().print(drawn)
