"""`blemish fit-all`: a folder of products becomes a folder of model files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import UNMET, out, print_json, progress, table
from blemish.cli.fit import configuration
from blemish.cli.flags import OPTIONS, with_flags
from blemish.errors import UsageError
from blemish.models import DETECTORS
from blemish.settings import fit_settings


@with_flags(*OPTIONS)
def fit_all(
    root: Path = typer.Argument(..., help="Folder that holds a folder of good parts for each product."),
    output: Path = typer.Option(..., "--output", "-o", help="Folder for model files; a second start goes on."),
    config: Path | None = typer.Option(None, "--config", help="YAML file with the keys below; flags win."),
    preset: str | None = typer.Option(None, help="default, fast, accurate, or plain, as for fit."),
    ray: bool = typer.Option(False, "--ray", help="Fit several products at once, on a Ray cluster or this machine."),
    address: str | None = typer.Option(None, "--address", help="HOST:PORT of a Ray cluster. Default: this machine."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Fit every product of a folder, each in a process of its own. Exit code 4 if one failed; the others are not lost.

    What was fitted with the same settings on the same images is not fitted again; what failed is.
    """
    if address is not None and not ray:
        raise UsageError("--address is for --ray. Add it, or leave it out.")
    values, from_preset = configuration(config, preset, flags)
    settings = fit_settings(values, DETECTORS)
    from blemish.data.index import find_products
    from blemish.trials.jobs import Job, run_jobs
    from blemish.trials.products import FitProduct

    jobs = [
        Job(name, folder.absolute(), "fit", values, settings.model.seed) for name, folder in find_products(root).items()
    ]
    work = FitProduct(output.absolute(), tuple(from_preset))
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        together = None
        if ray:
            from blemish.cli.ray import jobs_on_ray

            together = stack.enter_context(jobs_on_ray(address, settings.run.accelerator))
        bars = stack.enter_context(progress())
        task = bars.add_task("products", total=len(jobs))
        done = run_jobs(jobs, work, output / "jobs", together=together, kept=lambda job: work.file(job).is_file())
        for _, result, before in done:
            rows.append({**result, "done_before": before})
            bars.update(task, completed=len(rows))
    rows.sort(key=lambda row: str(row["name"]))
    shown = ("name", "fitted_on", "threshold", "seconds", "error", "done_before")
    failed = [row for row in rows if row["error"] is not None]
    if as_json:
        print_json({"products": [{key: row.get(key) for key in (*shown, "model", "sha256")} for row in rows]})
    else:
        cells = [[row["name"], *(row.get(key, "-") for key in shown[1:4]), row["error"] or "fitted"] for row in rows]
        table(f"{len(rows) - len(failed)} of {len(rows)} products", [*shown[:4], "result"], cells)
        out().print(f"Model files: {output}/. One file a job: {output}/jobs/.", markup=False)
    if failed:
        raise typer.Exit(UNMET)
