"""`blemish data check`: what would be fitted, calibrated and tested, and what is wrong with the files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import BAD_INPUT, out, phases, print_json, table
from blemish.cli.flags import settings_of, with_flags
from blemish.escaping import one_line
from blemish.settings import DataSettings, FolderSettings, LoadingSettings

data = typer.Typer(help="Look into data folders.", no_args_is_help=True)
COLORS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@data.callback()
def _group() -> None:
    """Keeps `check` a sub-command while it is the only one."""


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
    from blemish.data.index import index_folder
    from blemish.data.splits import split

    index = index_folder(directory, good=folder.good or (), bad=folder.bad or (), all_good=folder.all_good)
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
