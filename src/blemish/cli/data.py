"""`blemish data check`: what would be fitted, calibrated and tested, and what is wrong with the files."""

from __future__ import annotations

from pathlib import Path

import typer

from blemish.cli.console import BAD_INPUT, out, phases, print_json, table

data = typer.Typer(help="Look into data folders.", no_args_is_help=True)
COLORS = {"error": "bold red", "warning": "yellow", "note": "dim"}


@data.callback()
def _group() -> None:
    """Keeps `check` a sub-command while it is the only one."""


@data.command()
def check(
    directory: Path = typer.Argument(..., metavar="DIR", help="Folder, data set or manifest."),
    calibration_fraction: float = typer.Option(0.2, help="As for fit."),
    test_fraction: float = typer.Option(0.2, help="As for fit."),
    group: str | None = typer.Option(None, help="As for fit."),
    calibrate_on: str = typer.Option("auto", help="As for fit."),
    seed: int = typer.Option(0, help="As for fit."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show what would be fitted, calibrated and tested, and why. Exit code 3 if something would fail."""
    from blemish.data import check as checking
    from blemish.data.index import index_folder
    from blemish.data.splits import split

    index = index_folder(directory)
    sets = split(
        index,
        calibration_fraction=calibration_fraction,
        test_fraction=test_fraction,
        group=group,
        seed=seed,
        calibrate_on=calibrate_on,
    )
    with phases() as show:
        report = checking.check(index, sets, progress=show)
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
            out().print(finding.message, markup=False)
    if not report.ok:
        raise typer.Exit(BAD_INPUT)
