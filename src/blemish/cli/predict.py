"""`blemish predict`: a verdict for every image."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import ANOMALIES, BAD_INPUT, complain, out, print_json
from blemish.cli.paths import expand
from blemish.data.image_io import MAX_PIXELS


def predict(
    model: Path = typer.Argument(..., help="Model file."),
    images: list[str] = typer.Argument(..., help="Files, folders, glob patterns."),
    output: Path | None = typer.Option(None, "--out", help="Write rows to a .csv, .jsonl or .parquet file."),
    save: str | None = typer.Option(None, "--save", help="Write pictures: a list out of overlay,mask,map."),
    save_dir: Path = typer.Option(Path("predictions"), "--save-dir", help="Where --save writes."),
    fail_on_anomaly: bool = typer.Option(False, "--fail-on-anomaly", help="Exit with 1 if an image is anomalous."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    batch_size: int = typer.Option(8, help="Images of equal size per step."),
    max_pixels: int = typer.Option(MAX_PIXELS, help="Refuse larger images."),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Inspect images. Writes nothing but what --out and --save ask for; goes on after an image that can't be read."""
    from blemish.report.pictures import PictureFolder
    from blemish.report.predictions import PredictionFile, row_of
    from blemish.runtime import load
    from blemish.runtime.session import Failure, Session

    named = list(expand(images))
    session = Session(load(model, device=device).backend, batch_size=batch_size, max_pixels=max_pixels)
    pictures = None if save is None else PictureFolder(save_dir, save.split(","), session.backend.pixel_cut)
    if pictures is not None:
        pictures.prepare(relative for _, relative in named)
    rows: list[dict[str, Any]] = []
    failures: list[Failure] = []
    anomalous = inspected = 0
    with ExitStack() as stack:
        file = None if output is None else stack.enter_context(PredictionFile(output))
        for (_, relative), result in zip(named, session.stream(path for path, _ in named), strict=True):
            if isinstance(result, Failure):
                failures.append(result)
                continue
            inspected += 1
            anomalous += result.label == "anomalous"
            row = row_of(result)
            if file is not None:
                file.write(row)
            if pictures is not None:
                pictures.write(result, relative)
            if as_json:
                rows.append(row)
            else:
                colour = "red" if result.label == "anomalous" else "green"
                out().print(f"[{colour}]{result.label:<9}[/] {result.score:.3f}  ", end="")
                out().print(result.path, markup=False)
    if as_json:
        print_json({"predictions": rows, "failures": [{"path": one.path, "reason": one.reason} for one in failures]})
    else:
        out().print(f"{inspected} images inspected, {anomalous} anomalous, {len(failures)} could not be inspected.")
    for failure in failures:
        complain(f"{failure.path}: {failure.reason}")
    if failures:
        raise typer.Exit(BAD_INPUT)
    if anomalous and fail_on_anomaly:
        raise typer.Exit(ANOMALIES)
