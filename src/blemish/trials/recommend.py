"""Trying settings on one's own good images: fit, calibrate, and measure on three sets that share no image.

Only good images that are meant for fitting take part; a test set, where there is one, stays untouched, so that it can
still judge what is chosen here. Defects are planted into the held-out good images (`blemish.synthetic.planting`).

    |-- a quarter: held out, and planted --|-- a fifth of the rest: calibrate --|-- fit --|
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import MAX_PIXELS
from blemish.data.index import Index
from blemish.data.roi import Roi, read_roi
from blemish.data.splits import Split, split
from blemish.engine import Engine
from blemish.errors import BlemishError, DataError, UsageError
from blemish.metrics.figure import Figure
from blemish.models.base import Detector
from blemish.synthetic.planting import plant_files
from blemish.trials.choice import Trial
from blemish.trials.grid import Settings, relative_cost
from blemish.trials.measure import cost, peak_memory

LEAST, FEW, MOST = 8, 40, 300
"""Good images: fewer are an error, fewer give coarse figures, more are not used."""
HELD_OUT, CALIBRATE = 0.25, 0.2
PLANTED = (48, 120)
"""Fewest and most planted defects."""

Build: TypeAlias = Callable[[Mapping[str, Any]], Detector]
"""Settings -> an unfitted detector."""


@dataclass(frozen=True)
class Outcome:
    """All trials of a run.

    Attributes:
        trials: in the order they were made.
        failed: settings -> why they could not be tried, as pairs.
        not_tried: settings that the budget left no time for.
        seconds: how long it took.
    """

    trials: list[Trial]
    failed: list[tuple[Settings, str]]
    not_tried: list[Settings]
    seconds: float


def arrange(
    index: Index,
    folder: Path,
    *,
    group: str | None = None,
    seed: int = 0,
    roi: Roi | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Split:
    """Divides good images for the trials and plants defects into those held out.

    Args:
        index: what lies in the user's folder.
        folder: where pictures with planted defects are written.
        group: see `blemish.data.splits.split`.
        seed: deals and plants otherwise.
        roi: see `blemish.data.roi.read_roi`; defects are planted inside.
        max_pixels: see `blemish.data.image_io.read_image`.

    Returns:
        `fit` and `calibrate`, and under `test` the held-out good images followed by the planted ones.

    Raises:
        DataError: fewer than `LEAST` good images.
    """
    mine = split(index, group=group, seed=seed)
    own = {*mine.fit, *mine.calibrate}
    pool = tuple(replace(one, subset="train") for one in index.samples if one in own)
    if len(pool) < LEAST:
        raise DataError(
            f"{index.root}: {len(pool)} good images to choose settings with; at least {LEAST} are needed to fit, to "
            f"calibrate and to measure on different ones, and {FEW} give figures worth comparing. Add good images, or "
            f"keep the defaults."
        )

    def deal(samples: Sequence[Any], share: float) -> Split:
        own = replace(index, samples=tuple(samples))
        return split(own, calibration_fraction=share, test_fraction=0.0, group=group, seed=seed)

    if len(pool) > MOST:
        pool = deal(pool, MOST / len(pool)).calibrate
    outer = deal(pool, HELD_OUT)
    inner = deal(outer.fit, CALIBRATE)
    held = outer.calibrate
    count = min(max(2 * len(held), PLANTED[0]), PLANTED[1])
    region = None if roi is None else read_roi(roi)
    planted = tuple(plant_files(held, folder, count=count, seed=seed, roi=region, max_pixels=max_pixels))
    test = (*(replace(one, subset="test") for one in held), *planted)
    return Split(inner.fit, inner.calibrate, (), test)


def run(
    candidates: Sequence[Settings],
    sets: Split,
    build: Build,
    *,
    root: Path,
    budget: float,
    accelerator: str = "auto",
    on_progress: Callable[[Settings | None, float, float], None] = lambda settings, done, total: None,
    **loading: Any,
) -> Outcome:
    """Tries settings, in order, within a time.

    The first is always tried. Others are left out once the time they would probably take, by those before, isn't left.
    Settings that can't be used are passed over.

    Args:
        candidates: see `blemish.trials.grid.grid`.
        sets: see `arrange`.
        build: makes the detectors.
        root: the user's folder, for messages.
        budget: seconds.
        accelerator: see `Engine`.
        on_progress: called with the settings about to be tried (None at the end) and the work done and in all.
        loading: batch_size, num_workers and max_pixels for `ImageDataModule`.

    Raises:
        BlemishError: if every one failed: the error of the first.
    """
    started = time.perf_counter()
    total = sum(map(relative_cost, candidates))
    done = tried = 0.0
    trials: list[Trial] = []
    failed: list[tuple[Settings, str]] = []
    not_tried: list[Settings] = []
    first_error: BlemishError | None = None
    for settings in candidates:
        on_progress(settings, done, total)
        done += relative_cost(settings)
        spent = time.perf_counter() - started
        expected = spent / tried * relative_cost(settings) if tried else 0.0
        if tried and spent + expected > budget:
            not_tried.append(settings)
            continue
        tried += relative_cost(settings)
        try:
            data = ImageDataModule(root, **loading)
            data.split = sets
            trials.append(attempt(settings, data, build, accelerator))
        except BlemishError as error:
            first_error = first_error or error
            failed.append((settings, str(error)))
    on_progress(None, total, total)
    if not trials:
        raise first_error or UsageError("There is nothing to try: the list of settings is empty.")
    return Outcome(trials, failed, not_tried, time.perf_counter() - started)


def attempt(settings: Settings, data: ImageDataModule, build: Build, accelerator: str = "auto") -> Trial:
    """Fits, calibrates and measures one detector on the split of `data`."""
    started = time.perf_counter()
    engine = Engine(accelerator, progress=False)
    with peak_memory() as peak:
        model = build(settings)
        engine.fit(model, data)
        result = engine.test(model, data)
    price = cost(model, data.split.test, accelerator=accelerator)
    return Trial(
        settings=settings,
        image_auroc=_value(result.image_auroc),
        pixel_auroc=_value(result.pixel_auroc),
        found=1.0 - _value(result.miss_rate),
        false_alarm_rate=_value(result.false_alarm_rate),
        milliseconds=price.milliseconds,
        slowest=price.slowest,
        megabytes=price.megabytes,
        device=price.device,
        memory=peak.process,
        gpu_memory=peak.gpu,
        seconds=time.perf_counter() - started,
        per_defect={row.defect: row.image_auroc for row in result.per_defect},
    )


def _value(figure: Figure) -> float:
    """Every figure exists: good and planted images are there, and every planted one has a mask."""
    if figure.value is None:
        raise DataError(f"The trial gave no figure: {figure.reason}.")
    return figure.value
