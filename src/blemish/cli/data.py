"""`blemish data`: what would be fitted and tested, what is wrong with the files, and which good images are odd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import BAD_INPUT, out, phases, print_json, remark, table, warn
from blemish.cli.fit import configuration
from blemish.cli.flags import OPTIONS, settings_of, with_flags
from blemish.cli.paths import OVERWRITE, output_file
from blemish.escaping import one_line
from blemish.settings import DataSettings, FolderSettings, LoadingSettings

data = typer.Typer(help="Look into data folders.", no_args_is_help=True)
COLORS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@data.command()
@with_flags(*FolderSettings.model_fields, *DataSettings.model_fields, "max_pixels")
def check(
    directory: Path = typer.Argument(..., metavar="DIR", help="Folder, data set or manifest."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Show what would be fitted, calibrated and tested, and why. Exit code 3 if something would fail."""
    folder, dealing = settings_of(FolderSettings, flags), settings_of(DataSettings, flags)
    max_pixels = settings_of(LoadingSettings, flags).max_pixels
    from blemish.data import check as checking
    from blemish.data.depth import reading_of
    from blemish.data.index import index_folder, read_exclusions
    from blemish.data.splits import split

    index = index_folder(directory, good=folder.good or (), bad=folder.bad or (), all_good=folder.all_good)
    index = index.without(read_exclusions(folder.exclude) if folder.exclude else [])
    sets = split(index, **dict(dealing))
    if flags["calibrate_on"] is None and sets.policy == "held_out":  # what `fit` does when nobody says how
        sets = split(index, **{**dict(dealing), "calibrate_on": "cross"})
    reading = reading_of(sets, max_pixels=max_pixels, frames=folder.frames, bit_depth=folder.bit_depth, lenient=True)
    with phases() as show:
        report = checking.check(index, sets, reading=reading, progress=show)
    if as_json:
        print_json(report.to_dict())
    else:
        rows = [
            (
                name,
                one.images,
                one.good,
                one.anomalous,
                one.masks,
                ", ".join(f"{k} {v}" for k, v in one.defects.items()),
            )
            for name, one in report.sets.items()
        ]
        title = f"{report.root}: {report.layout} layout"
        table(title, ("set", "images", "good", "anomalous", "masks", "defects"), rows)
        sizes = list(report.sizes.items())
        table("sizes", ("size", "images"), sizes[:10] + ([(f"{len(sizes) - 10} more", "")] if len(sizes) > 10 else []))
        table("modes", ("mode", "images"), list(report.modes.items()))
        for finding in report.findings:
            out().print(f"[{COLORS[finding.severity]}]{finding.severity}[/]: ", end="")
            out().print(one_line(finding.message), markup=False)
    if not report.ok:
        raise typer.Exit(BAD_INPUT)


@data.command()
@with_flags(*OPTIONS)
def audit(
    context: typer.Context,
    directory: Path = typer.Argument(..., metavar="DIR", help="Folder of good parts, data set, or manifest."),
    output: Path = typer.Option(Path("audit.html"), "--output", "-o", help="Page to write, ending in .html."),
    names: Path | None = typer.Option(
        None, "--list", help="Text file to write, with the odd ones' names, for --exclude of fit."
    ),
    config: Path | None = typer.Option(None, "--config", help="YAML file as for fit; flags win."),
    preset: str | None = typer.Option(None, help="As for fit: default, fast, accurate, or plain."),
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Rank the good images by the score of a model that did not see them, and show the odd ones."""
    values, from_preset = configuration(config, preset, flags)
    from blemish.engine import Engine
    from blemish.report.audit import audit as make
    from blemish.trials.work import build_model, planned

    context.with_resource(output_file(output, ".html", overwrite))
    if names is not None:
        context.with_resource(output_file(names, ".txt", overwrite))
    settings, images, remarks = planned(values, from_preset, directory)
    for text in remarks:
        remark(text)
    found = make(build_model(settings), images, output, names, engine=Engine(settings.run.accelerator))
    if as_json:
        print_json({**found.to_dict(), "page": str(output), "list": None if names is None else str(names)})
        return
    shown = found.odd or found.images[:3]
    table(
        f"{len(found.odd)} of {len(found.images)} good images unlike the others",
        ("image", "score", "remark"),
        [(one.name, one.score, "unlike the others" if one.odd else "") for one in shown],
    )
    for text in found.warnings:
        warn(text)
    out().print(f"Look at them: {output}", markup=False)
    if names is not None and found.odd:
        out().print(
            f"To leave some out, take the # away from their lines in {names}, then: "
            f"blemish fit {directory} --exclude {names} -o MODEL",
            markup=False,
        )
