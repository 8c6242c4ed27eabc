"""`blemish test`: how good is a model on labeled images?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import out, phases, print_json, table, warn
from blemish.cli.flags import RATE, SENSITIVITY, THRESHOLD, given, settings_of, with_flags
from blemish.cli.paths import OVERWRITE, check_model, check_source, output_file
from blemish.settings import FolderSettings, LoadingSettings, RunSettings


@with_flags(*FolderSettings.model_fields, *LoadingSettings.model_fields, *RunSettings.model_fields)
def test(
    context: typer.Context,
    model: Path = typer.Argument(..., help="Model file."),
    directory: Path = typer.Argument(..., metavar="DIR", help="Data set with good and anomalous images."),
    report: Path | None = typer.Option(None, "--report", help="Also write a report: one .html file."),
    threshold: float | None = THRESHOLD,
    sensitivity: float | None = SENSITIVITY,
    rate: float | None = RATE,
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Measure a model on labeled images, on raw scores and in original pixels."""
    said = {name: value for name, value in given(flags).items() if name in FolderSettings.model_fields}
    loading, accelerator = settings_of(LoadingSettings, flags), settings_of(RunSettings, flags).accelerator
    check_model(
        model, exported=f"Predict first: blemish predict {model} {directory} --out rows.jsonl, then report on that."
    )
    check_source(directory)
    move = {"threshold": threshold, "sensitivity": sensitivity, "rate": rate}
    if report is not None:
        context.with_resource(output_file(report, ".html", overwrite))
    if report is None:
        from blemish.artifact import load
        from blemish.engine.testing import measure

        figures = measure(load(model), directory, loading, accelerator, said=said, move=move)
    else:
        from blemish.report.assemble import report_on_model

        with phases() as progress:
            figures = report_on_model(
                model, directory, report, loading, accelerator, said=said, move=move, progress=progress
            )
    show(figures, as_json)


def show(figures: dict[str, Any], as_json: bool) -> None:
    """Prints what a test found."""
    if as_json:
        print_json(figures)
        return
    print_figures(figures)
    if "report" in figures:
        out().print(f"Report: {figures['report']} ({figures['report_bytes'] / 2**20:.1f} MB).", markup=False)


def print_figures(figures: dict[str, Any]) -> None:
    """The tables of a test."""
    from blemish.metrics.conclusion import conclusion, surprise
    from blemish.report.html_figures import FIGURES

    reasons = figures["reasons"]
    counts = figures["counts"]
    title = f"{counts['images']} test images: {counts['good']} good, {counts['anomalous']} anomalous"
    if figures["calibration"] and figures["calibration"]["oracle"]:
        title += " - ORACLE: test images chose the threshold"
    of = {"false_alarm_rate": counts["good"], "miss_rate": counts["anomalous"]}
    rows = []
    for key, text in FIGURES.items():
        value = figures[key]
        counted = f"{round(value * of[key])} of {of[key]}" if key in of and value is not None else ""
        rows.append((text, _shown(value), reasons.get(key, counted)))
    table(title, ("figure", "value", "count, or why not"), rows)
    if figures["per_defect"]:
        columns = tuple(figures["per_defect"][0])
        table("per defect", columns, [[_shown(row[c]) for c in columns] for row in figures["per_defect"]])
    closing = conclusion(figures)
    if closing:
        out().print(closing, markup=False)
    unlike = surprise(figures, (figures["calibration"] or {}).get("expected_false_alarm_rate"))
    if unlike:
        warn(unlike)


def _shown(value: Any) -> Any:
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else value
