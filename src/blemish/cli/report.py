"""`blemish report`: everything a test found, as one HTML file; from a model, or from predictions made earlier."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import phases
from blemish.cli.flags import RATE, SENSITIVITY, THRESHOLD, given, settings_of, with_flags
from blemish.cli.paths import OVERWRITE, check_model, check_source, output_file
from blemish.errors import DataError
from blemish.settings import FolderSettings, LoadingSettings


@with_flags("max_pixels", *FolderSettings.model_fields)
def report(
    context: typer.Context,
    source: Path = typer.Argument(..., help="Model file, or predictions: .csv, .jsonl, .parquet."),
    directory: Path = typer.Argument(..., metavar="DIR", help="Data set with good and anomalous images."),
    output: Path = typer.Option(Path("report.html"), "--output", "-o", help="File to write, ending in .html."),
    threshold: float | None = THRESHOLD,
    sensitivity: float | None = SENSITIVITY,
    rate: float | None = RATE,
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Write an evaluation report. A model is tested first; predictions are taken as they are, with the labels of
    DIR.
    """
    from blemish.cli.test import show

    predicted = source.suffix.lower() in (".csv", ".jsonl", ".parquet")
    if not predicted:
        check_model(source, exported=f"Predict first: blemish predict {source} {directory} --out rows.jsonl.")
    elif not source.is_file():
        raise DataError(f"There are no predictions at {source}.")
    check_source(directory)
    context.with_resource(output_file(output, ".html", overwrite))
    from blemish.report.assemble import report_on_model, report_on_predictions

    make = report_on_predictions if predicted else report_on_model
    said = {name: value for name, value in given(flags).items() if name in FolderSettings.model_fields}
    loading = settings_of(LoadingSettings, flags)
    move = {"threshold": threshold, "sensitivity": sensitivity, "rate": rate}
    with phases() as progress:
        figures = make(source, directory, output, loading, said=said, move=move, progress=progress)
    show(figures, as_json)
