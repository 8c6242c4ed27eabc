"""`blemish predict`: a verdict for every image."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import typer

from blemish.cli.console import ANOMALIES, BAD_INPUT, complain, out, print_json, progress
from blemish.cli.paths import expand
from blemish.data.image_io import MAX_PIXELS
from blemish.errors import UsageError


def predict(
    model: Path = typer.Argument(..., help="Model file."),
    images: list[str] = typer.Argument(..., help="Files, folders, glob patterns."),
    output: Path | None = typer.Option(
        None, "--out", "--output", "-o", help="Write rows to a .csv, .jsonl, .parquet or COCO .json file."
    ),
    resume: bool = typer.Option(False, "--resume", help="Continue the file of an interrupted run."),
    save: str | None = typer.Option(None, "--save", help="Write pictures: a list out of overlay,mask,map."),
    save_dir: Path = typer.Option(Path("predictions"), "--save-dir", help="Where --save writes."),
    min_area: str = typer.Option("1", "--min-area", help="List regions from this on: pixels, or mm2 as in 0.5mm2."),
    mm_per_pixel: float | None = typer.Option(None, "--mm-per-pixel", help="Side of a pixel, for areas in mm2."),
    fail_on_anomaly: bool = typer.Option(False, "--fail-on-anomaly", help="Exit with 1 if an image is anomalous."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object; rows are in it unless --out has them."),
    batch_size: int = typer.Option(8, help="Images of equal size per step."),
    max_pixels: int = typer.Option(MAX_PIXELS, help="Refuse larger images."),
    device: str = typer.Option("cpu", help="cpu, cuda, ..."),
) -> None:
    """Inspect images. Writes nothing but what --out and --save ask for; goes on after an image that can't be read."""
    from blemish.predictions.pictures import PictureFolder
    from blemish.predictions.rows import fingerprint, row_of
    from blemish.predictions.streaming import PredictionFile, is_interrupted
    from blemish.runtime import load
    from blemish.runtime.session import Failure, Session

    named = list(expand(images))
    if resume and output is None:
        raise UsageError("--resume continues a file of predictions. Name it with --out.")
    smallest = min_pixels(min_area, mm_per_pixel)
    session = Session(
        load(model, device=device).backend, batch_size=batch_size, max_pixels=max_pixels, min_area=smallest
    )
    identity: dict[str, Any] = {"model": fingerprint(model), "mm_per_pixel": mm_per_pixel}
    pictures = None if save is None else PictureFolder(save_dir, save.split(","), session.pixel_cut, session.roi)
    interrupted = output is not None and is_interrupted(output, resume=resume)
    if pictures is not None and not interrupted:
        pictures.prepare(relative for _, relative in named)
    done = anomalous = 0
    rows: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    with ExitStack() as stack:
        file = None
        if output is not None:
            settings = {**identity, "device": device, "batch_size": batch_size, "max_pixels": max_pixels}
            settings |= {"min_area": smallest, "save": save, "save_dir": None if save is None else str(save_dir)}
            file = stack.enter_context(PredictionFile(output, settings, resume=resume))
            file.skip([str(path) for path, _ in named])
            done, anomalous, failures = file.images, file.anomalous, list(file.failures)
            if pictures is not None and interrupted:
                pictures.prepare((relative for _, relative in named[done:]), again=batch_size)
        # Without JSON every verdict is a line of its own, which tells how far it is.
        bars = stack.enter_context(progress(shown=as_json, transient=False))
        task = bars.add_task("images", total=len(named), completed=done)
        left = iter(named[done:])
        for batch in session.batches(path for path, _ in named[done:]):
            entries: list[dict[str, Any]] = []
            for result, (path, relative) in zip(batch, left, strict=False):
                if isinstance(result, Failure):
                    entries.append({"path": str(path), "reason": result.reason})
                    failures.append(entries[-1])
                    continue
                entries.append(row_of(result, pixel_threshold=session.pixel_cut, **identity))
                anomalous += result.label == "anomalous"
                if pictures is not None:
                    pictures.write(result, relative)
            done += len(batch)
            if file is not None:
                file.write(entries)
            bars.update(task, completed=done)
            if as_json:
                rows += [entry for entry in entries if output is None and "reason" not in entry]
            else:
                _print_verdicts(entries)
    counts = {"inspected": done - len(failures), "anomalous": anomalous}
    if as_json:
        listed = {"predictions": rows} if output is None else {"output": str(output)}
        print_json({**counts, **listed, "failures": failures})
    else:
        out().print(
            f"{counts['inspected']} images inspected, {anomalous} anomalous, {len(failures)} could not be inspected."
        )
    for failure in failures:
        complain(f"{failure['path']}: {failure['reason']}")
    if failures:
        raise typer.Exit(BAD_INPUT)
    if anomalous and fail_on_anomaly:
        raise typer.Exit(ANOMALIES)


def min_pixels(text: str, mm_per_pixel: float | None) -> int:
    """The least number of pixels of a region that is listed.

    Args:
        text: "20" for pixels, "0.5mm2" for square millimetres.
        mm_per_pixel: the scale, which the latter needs.

    Raises:
        UsageError: for another text, or a scale that is missing or not above 0.
    """
    if mm_per_pixel is not None and not 0 < mm_per_pixel < math.inf:
        raise UsageError(f"--mm-per-pixel must be above 0. Got {mm_per_pixel}.")
    found = re.fullmatch(r"(\d+)|(\d*\.?\d+) ?mm2", text.strip())
    if found is None:
        raise UsageError(f"--min-area must be pixels, as in 20, or square millimetres, as in 0.5mm2. Got {text!r}.")
    if found[1]:
        return int(found[1])
    if mm_per_pixel is None:
        raise UsageError(f"--min-area {text} needs a scale. Give the side of a pixel with --mm-per-pixel.")
    return max(1, math.ceil(float(found[2]) / mm_per_pixel**2 * (1 - 1e-12)))  # 9 pixels of 0.1 mm are 0.09 mm2


def _print_verdicts(entries: Sequence[Mapping[str, Any]]) -> None:
    for entry in entries:
        if "reason" not in entry:
            color = "red" if entry["label"] == "anomalous" else "green"
            out().print(f"[{color}]{entry['label']:<9}[/] {entry['score']:.3f}  ", end="")
            out().print(entry["path"], markup=False)
