"""Trying configurations on one's own good images: fit, calibrate, and measure on three sets that share no image.

Only good images that are meant for fitting take part; a test set, where there is one, stays untouched, so that it can
still judge what is chosen here. Defects are planted into the held-out good images (`blemish.synthetic.planting`).

    |-- a quarter: held out, and planted --|-- a fifth of the rest: calibrate --|-- fit --|
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from blemish.data.image_io import AS_DECLARED, Reading
from blemish.data.index import Index
from blemish.data.roi import Roi, read_roi
from blemish.data.splits import Split, split
from blemish.engine import Engine
from blemish.errors import BlemishError, DataError, UsageError
from blemish.metrics.figure import Figure
from blemish.models import DETECTORS
from blemish.settings import Configuration, fit_settings
from blemish.synthetic.planting import plant_files
from blemish.trials.choice import Trial
from blemish.trials.grid import relative_cost
from blemish.trials.measure import cost, peak_memory
from blemish.trials.work import build_data, build_model

LEAST, FEW, MOST = 8, 40, 300
"""Good images: fewer are an error, fewer give coarse figures, more are not used."""
HELD_OUT, CALIBRATE = 0.25, 0.2
PLANTED = (48, 120)

_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Outcome:
    """All trials of a run.

    Attributes:
        trials: in the order they were made.
        failed: configurations that could not be tried, each with the reason.
        not_tried: those that the budget left no time for.
        seconds: how long it took.
    """

    trials: list[Trial]
    failed: list[tuple[Configuration, str]]
    not_tried: list[Configuration]
    seconds: float


def arrange(
    index: Index,
    folder: Path,
    *,
    group: str | None = None,
    seed: int = 0,
    roi: Roi | None = None,
    reading: Reading = AS_DECLARED,
    most: int = MOST,
    planted: tuple[int, int] = PLANTED,
) -> Split:
    """Divides good images for the trials and plants defects into those held out.

    Args:
        index: what lies in the user's folder.
        folder: where pictures with planted defects are written.
        group: see `blemish.data.splits.split`.
        seed: deals and plants otherwise.
        roi: see `blemish.data.roi.read_roi`; defects are planted inside.
        reading: how images are read.
        most: good images; more are not used.
        planted: fewest and most planted defects.

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

    if len(pool) > most:
        pool = deal(pool, most / len(pool)).calibrate
    outer = deal(pool, HELD_OUT)
    inner = deal(outer.fit, CALIBRATE)
    held = outer.calibrate
    count = min(max(2 * len(held), planted[0]), planted[1])
    region = None if roi is None else read_roi(roi)
    pictures = plant_files(held, folder, count=count, seed=seed, roi=region, reading=reading)
    test = (*(replace(one, subset="test") for one in held), *pictures)
    return Split(inner.fit, inner.calibrate, (), test)


def run(
    candidates: Sequence[Configuration],
    sets: Split,
    *,
    root: Path,
    budget: float,
    common: Mapping[str, Any] = _NOTHING,
    reading: Reading = AS_DECLARED,
    on_progress: Callable[[Configuration | None, float, float], None] = lambda configuration, done, total: None,
) -> Outcome:
    """Tries configurations, in order, within a time.

    The first is always tried. Others are left out once the time they would probably take, by those before, isn't left.
    What can't be used is passed over.

    Args:
        candidates: see `blemish.trials.grid.grid`.
        sets: see `arrange`.
        root: the user's folder, for messages.
        budget: seconds.
        common: keys that all of them share.
        reading: how images are read.
        on_progress: called with the configuration about to be tried (None at the end) and the work done and in all.

    Raises:
        BlemishError: if every one failed: the error of the first.
    """
    started = time.perf_counter()
    total = sum(map(relative_cost, candidates))
    done = tried = 0.0
    trials: list[Trial] = []
    failed: list[tuple[Configuration, str]] = []
    not_tried: list[Configuration] = []
    first_error: BlemishError | None = None
    for configuration in candidates:
        on_progress(configuration, done, total)
        done += relative_cost(configuration)
        spent = time.perf_counter() - started
        expected = spent / tried * relative_cost(configuration) if tried else 0.0
        if tried and spent + expected > budget:
            not_tried.append(configuration)
            continue
        tried += relative_cost(configuration)
        try:
            trials.append(attempt(configuration, sets, root, common, reading))
        except BlemishError as error:
            first_error = first_error or error
            failed.append((configuration, str(error)))
    on_progress(None, total, total)
    if not trials:
        raise first_error or UsageError("There is nothing to try: the list of settings is empty.")
    return Outcome(trials, failed, not_tried, time.perf_counter() - started)


def attempt(
    configuration: Configuration,
    sets: Split,
    root: Path,
    common: Mapping[str, Any] = _NOTHING,
    reading: Reading = AS_DECLARED,
) -> Trial:
    """Fits, calibrates and measures one detector, see `run`."""
    started = time.perf_counter()
    settings = fit_settings({**common, **configuration}, DETECTORS)
    data, engine = build_data(settings, root), Engine(settings.run.accelerator, progress=False)
    data.split = sets
    data.read_as(reading.bit_depth)
    with peak_memory() as peak:
        model = build_model(settings)
        engine.fit(model, data)
        result = engine.test(model, data)
    price = cost(model, sets.test, data.reading, accelerator=settings.run.accelerator)
    return Trial(
        settings=configuration,
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
