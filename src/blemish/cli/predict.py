"""`blemish predict`: a verdict for every image, or for everything that a source which goes on gives."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from blemish.cli.console import (
    ANOMALIES,
    BAD_INPUT,
    complain,
    out,
    print_json,
    print_line,
    progress,
    remark,
    warn,
)
from blemish.cli.flags import RATE, SENSITIVITY, THRESHOLD, given, settings_of, with_flags
from blemish.cli.live import is_live, live_shots
from blemish.cli.paths import MODEL, OVERWRITE, Inputs, check_model, expand, require_new
from blemish.data.good_images import GoodPictures
from blemish.data.walk import describe
from blemish.errors import DataError, UsageError
from blemish.escaping import one_line
from blemish.settings import LoadingSettings
from blemish.terminating import until_stopped

if TYPE_CHECKING:
    from rich.console import Console


@with_flags("batch_size", "max_pixels")
def predict(
    context: typer.Context,
    model: Path = typer.Argument(..., help="Model file."),
    images: list[str] = typer.Argument(
        ...,
        help="Files, folders, glob patterns; a video, the index of a camera, a URL such as rtsp://..., or - for paths, "
        "or one image, on standard input. With --ray also URLs and lists of images.",
    ),
    watch: bool = typer.Option(False, "--watch", help="Go on with images that come into the folder, until Ctrl-C."),
    output: Path | None = typer.Option(
        None,
        "--out",
        "--output",
        "-o",
        help="Write rows to a .csv, .jsonl, .parquet or COCO .json file; with --ray, Parquet parts to a folder.",
    ),
    overwrite: bool = OVERWRITE,
    resume: bool = typer.Option(False, "--resume", help="Continue the file of an interrupted run."),
    save: str | None = typer.Option(
        None, "--save", help="Write pictures: a list out of overlay,heatmap,panel,mask,map."
    ),
    save_dir: Path = typer.Option(Path("predictions"), "--save-dir", help="Where --save and --explain write."),
    explain: bool = typer.Option(
        False, "--explain", help="Write good patches beside what was found: as pictures, and into rows."
    ),
    good_root: Path | None = typer.Option(
        None, "--good-root", help="Folder of the good images that --explain shows. Default: pictures in the model file."
    ),
    verdict_only: bool = typer.Option(
        False, "--verdict-only", help="Only label and score: leave out maps and regions, and the time they take."
    ),
    min_area: str = typer.Option("1", "--min-area", help="List regions from this on: pixels, or mm2 as in 0.5mm2."),
    mm_per_pixel: float | None = typer.Option(None, "--mm-per-pixel", help="Side of a pixel, for areas in mm2."),
    fail_on_anomaly: bool = typer.Option(False, "--fail-on-anomaly", help="Exit with 1 if an image is anomalous."),
    as_json: bool = typer.Option(
        False, "--json", help="Print a line of JSON for every image, unless --out has the rows, and one for the run."
    ),
    frames: str = typer.Option("refuse", help="Of a file with several pictures: refuse it, take the first, or all."),
    device: str = typer.Option("auto", "--device", "--accelerator", help="auto, cpu, cuda, ..."),
    threads: int | None = typer.Option(
        None,
        "--threads",
        help="Cores to use, each for other images where there are several. Default: at most 4 in torch.",
    ),
    ray: bool = typer.Option(False, "--ray", help="Score on all CPUs or GPUs of a Ray cluster, or of this machine."),
    address: str | None = typer.Option(None, "--address", help="HOST:PORT of a Ray cluster. Default: this machine."),
    ship_model: bool = typer.Option(False, "--ship-model", help="Send the model file to Ray's workers."),
    threshold: float | None = THRESHOLD,
    sensitivity: float | None = SENSITIVITY,
    rate: float | None = RATE,
    **flags: Any,
) -> None:
    """Inspect images. Writes nothing but what --out and --save ask for; goes on after an image that can't be read."""
    if resume and output is None:
        raise UsageError("--resume continues a file of predictions. Name it with --out.")
    if output is not None and not resume:
        require_new(output, overwrite)
    smallest = min_pixels(min_area, mm_per_pixel)
    loading = settings_of(LoadingSettings, flags)
    check_model(model)
    if good_root is not None and not explain:
        raise UsageError("--good-root names the folder of good images that --explain shows. Add --explain, or drop it.")
    if verdict_only:
        refused = {"--min-area": smallest > 1, "--mm-per-pixel": mm_per_pixel is not None, "--save": save is not None}
        for name in (name for name, value in refused.items() if value):
            raise UsageError(f"{name} is not for --verdict-only, which makes no maps and regions. Drop one of them.")
    if ray:
        refused = {"--explain": explain, "--watch": watch, "--threads (every worker has one core)": threads is not None}
        for name in (name for name, value in refused.items() if value):
            raise UsageError(f"{name} is not for --ray. Drop one of them.")
        if any(value is not None for value in (threshold, sensitivity, rate)):
            raise UsageError("--ray decides as the model's file says. Write the threshold down with blemish calibrate.")
        from blemish.cli.ray import predict_on_ray

        options = {
            "device": "cpu" if device == "auto" else device,
            "batch_size": loading.batch_size,
            "max_pixels": loading.max_pixels,
        }
        options |= {"min_area": smallest, "frames": frames, "mm_per_pixel": mm_per_pixel, "ship": ship_model}
        options |= {"verdict_only": True} if verdict_only else {}  # runs of earlier versions go on without it
        kinds = None if save is None else save.split(",")
        counts = predict_on_ray(model, images, options, address, output, resume, kinds, save_dir)
        if as_json:
            print_json({**counts, "output": str(output)})
        else:
            out().print(f"{_counted(counts['inspected'], counts['anomalous'], counts['failed'])}: {output}.")
        if counts["failed"]:
            raise typer.Exit(BAD_INPUT)
        if counts["anomalous"] and fail_on_anomaly:
            raise typer.Exit(ANOMALIES)
        return
    if address is not None or ship_model:
        raise UsageError("--address and --ship-model are for --ray. Add it, or leave them out.")
    live = watch or any(map(is_live, images))
    if live and (resume or frames == "all"):
        raise UsageError(f"{'--resume' if resume else '--frames all'} is for files that are all there. Drop it.")
    shots, camera = context.with_resource(live_shots(images, watched=watch)) if live else (None, None)
    inputs = Inputs() if live else expand(images)
    from blemish.monitor.shift import ShiftTest
    from blemish.post_processing.moving import moved
    from blemish.predictions.rows import fingerprint
    from blemish.predictions.run import prediction_run
    from blemish.runtime import load
    from blemish.runtime.session import Session
    from blemish.runtime.threads import sensible_threads, shared_out, usable_cores

    move = {"threshold": threshold, "sensitivity": sensitivity, "rate": rate}
    workers, in_torch = 1, model.suffix.lower() == MODEL
    if len(inputs.images) > 1 or frames == "all":
        cores = sensible_threads() if in_torch else usable_cores()
        workers, threads = shared_out(cores if threads is None else threads)
    elif threads is None and in_torch:  # runtimes of exported models limit theirs
        threads = sensible_threads()
    backend = load(model, device=device, threads=threads, workers=workers, verdict_only=verdict_only).backend
    session = Session(
        backend,
        decision=moved(backend.decision, **move),
        batch_size=given(flags).get("batch_size") if live else loading.batch_size,  # else a verdict at a time
        max_pixels=loading.max_pixels,
        min_area=smallest,
        workers=workers,
        frames=frames,  # type: ignore[arg-type]  # which checks it
    )
    good = GoodPictures(session.good_images, good_root, session.reading) if explain else None
    pictures = None
    if save is not None or good is not None:
        from blemish.predictions.pictures import PictureFolder

        wanted = [] if save is None else save.split(",")
        pictures = PictureFolder(save_dir, wanted, overwrite=overwrite, good=good)
    record = session.decision.record
    shift = ShiftTest(() if record is None else record.scores, session.threshold)
    console = out()
    gone: DataError | None = None
    with ExitStack() as stack:
        sources = inputs.images if shots is None else stack.enter_context(until_stopped(shots))
        run = stack.enter_context(
            prediction_run(
                session,
                sources,
                model=fingerprint(model),
                mm_per_pixel=mm_per_pixel,
                pictures=pictures,
                explain=explain,
                output=output,
                resume=resume,
                settings={"device": device, "verdict_only": verdict_only or None, **move},
            )
        )
        bars = stack.enter_context(progress(console=console if console.is_terminal and not as_json else None))
        total = len(run.images) if isinstance(run.images, Sequence) else None
        task = bars.add_task("images", total=total, completed=run.done, visible=not live)
        if not as_json:
            console.print(f"{'verdict':<9}    score  image (raw scores; anomalous from {session.threshold:.4g} on)")
        try:
            for batch in run:
                for row in batch:
                    if "raw_score" in row:
                        shift.add(float(row["raw_score"]))
                    if as_json and output is None:
                        print_line(row)
                if not as_json:
                    _print_verdicts(batch, console)
                bars.update(task, completed=run.done)
        except DataError as error:
            if not live:
                raise
            gone = error  # what came from it before is whole
        except SystemExit:  # Ctrl-C or SIGTERM
            kept = "" if output is None or live else " Their rows are kept: go on with --resume."
            remark(f"Stopped after {run.done}{'' if total is None else f' of {total}'} images.{kept}")
            raise
    if as_json:
        content = {"inspected": run.inspected, "anomalous": run.anomalous}
        named = {} if output is None else {"output": str(output)}
        print_line({**content, **named, "failures": run.failures, "passed_over": inputs.passed_over})
    else:
        out().print(f"{_counted(run.inspected, run.anomalous, len(run.failures))}.")
    if camera is not None and camera.dropped:
        remark(f"{camera.dropped} of {camera.taken} frames were dropped, as they came while the model was busy.")
    if shift.sentence is not None:
        warn(shift.sentence)
    if good is not None:
        _remark_on(good)
    if inputs.passed_over:
        remark(f"Passed over: {describe(inputs.passed_over)}.")
    for failure in run.failures:
        complain(one_line(f"{failure['path']}: {failure['reason']}"))
    if gone is not None:
        complain(str(gone))
    if run.failures or gone is not None:
        raise typer.Exit(BAD_INPUT)
    if run.anomalous and fail_on_anomaly:
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


def _counted(inspected: int, anomalous: int, failed: int) -> str:
    images = "image" if inspected == 1 else "images"
    return f"{inspected} {images} inspected, {anomalous} anomalous, {failed} could not be inspected"


def _print_verdicts(batch: Sequence[Mapping[str, Any]], console: Console) -> None:
    for row in batch:
        if "reason" not in row:
            color = "red" if row["label"] == "anomalous" else "green"
            score = f"{row['raw_score']:#.4g}".rstrip(".")
            verdict = Text.assemble((f"{row['label']:<9}", color), f"{score:>9}  ")
            console.print(verdict.append(one_line(row["path"])))
            for count, region in enumerate(row["regions"] or (), 1):
                for patch in (region["good_patches"] or [])[:1]:
                    console.print(Text(f"{'':20}{one_line(_nearest(count, region, patch))}"))


def _nearest(number: int, region: Mapping[str, Any], patch: Mapping[str, Any]) -> str:
    """A region and the good patch that is shown first beside it."""
    place = "a good image that isn't named" if patch["image"] is None else f"{patch['image']} at {patch['box']}"
    how = "same place" if patch["distance"] is None else f"distance {patch['distance']:.4g}"
    return f"region {number} at {region['box']}: {place} ({how})"


def _remark_on(good: GoodPictures) -> None:
    """Which good images explanations could name, but not show."""
    if not good.images.images:
        remark(
            "The model file names no good images: it is of an earlier version, or wasn't fitted by Engine. Fit again."
        )
    if good.missing:
        words = "{}: {}".format(*next(iter(good.missing.items())))
        remark(
            f"{len(good.missing)} good images could not be shown, such as {one_line(words)}. Name the folder of the "
            f"fit with --good-root, or fit with --with-thumbnails."
        )
