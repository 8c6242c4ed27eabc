"""Trials on one's own images: sets that share nothing, a bounded time, and what a detector costs."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.artifact import load
from blemish.data.image_io import AS_DECLARED, Reading
from blemish.data.index import index_folder
from blemish.data.splits import Split
from blemish.errors import DataError, UsageError, WeightsError
from blemish.settings import Configuration
from blemish.trials import measure, trying
from blemish.trials.choice import Trial
from blemish.trials.trying import FEW, HELD_OUT, LEAST, PLANTED, arrange, attempt, run

PIXELS = 10**8
SETTINGS: Configuration = {"detector": "patchcore", "backbone": "filter_bank", "image_size": 64}


@pytest.fixture(scope="module")
def sets(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Split:
    return arrange(index_folder(tiles), tmp_path_factory.mktemp("planted"), reading=Reading(PIXELS))


def test_the_sets_share_no_image_and_leave_the_test_images_alone(tiles: Path, sets: Split) -> None:
    good = [sample for sample in sets.test if not sample.label]
    planted = [sample for sample in sets.test if sample.label]
    used = [sample.path for sample in (*sets.fit, *sets.calibrate, *good)]
    assert sorted(used) == sorted((tiles / "train" / "good").iterdir())
    assert len(set(used)) == len(used) == 12
    assert (len(sets.fit), len(sets.calibrate), len(good), len(planted)) == (7, 2, 3, PLANTED[0])
    assert all(sample.mask is not None and sample.path not in used for sample in planted)


def test_the_same_seed_arranges_the_same(tiles: Path, sets: Split, tmp_path: Path) -> None:
    index = index_folder(tiles)
    again = arrange(index, tmp_path / "again", reading=Reading(PIXELS))
    assert (again.fit, again.calibrate) == (sets.fit, sets.calibrate)
    pairs = zip(again.test, sets.test, strict=True)
    assert all(a.path.read_bytes() == b.path.read_bytes() for a, b in pairs)
    assert {arrange(index, tmp_path / str(n), seed=n, reading=Reading(PIXELS)).fit for n in range(3)} != {sets.fit}


def test_groups_stay_together(tmp_path: Path, tiles: Path) -> None:
    for number, path in enumerate(sorted((tiles / "train" / "good").iterdir())):
        target = tmp_path / "turned" / f"part{number // 2}_{number % 2}.png"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    sets = arrange(index_folder(tmp_path / "turned"), tmp_path / "out", group=r"^(part\d+)_", reading=Reading(PIXELS))
    held = [sample for sample in sets.test if not sample.label]
    parts = [{sample.relative[:5] for sample in chosen} for chosen in (sets.fit, sets.calibrate, held)]
    assert all(parts)
    assert sum(map(len, parts)) == len(set().union(*parts)) == 6


def test_too_few_images_are_an_error_that_says_how_many(tiles: Path, tmp_path: Path) -> None:
    for path in sorted((tiles / "train" / "good").iterdir())[: LEAST - 1]:
        shutil.copy(path, tmp_path)
    message = rf"7 good images to choose settings with; at least {LEAST} are needed .* and {FEW} give figures"
    with pytest.raises(DataError, match=message):
        arrange(index_folder(tmp_path), tmp_path / "out", reading=Reading(PIXELS))


def test_many_images_are_not_all_used(tiles: Path, tmp_path: Path) -> None:
    sets = arrange(index_folder(tiles), tmp_path, reading=Reading(PIXELS), most=10)
    good = sum(not sample.label for sample in sets.test)
    assert len(sets.fit) + len(sets.calibrate) + good == 10
    assert good == np.ceil(HELD_OUT * 10)


def test_a_trial_measures_everything(sets: Split) -> None:
    found = attempt(SETTINGS, sets, Path(), {"num_workers": 0, "accelerator": "cpu"})
    assert 0.5 < found.image_auroc <= 1
    assert 0.5 < found.pixel_auroc <= 1
    assert found.false_alarm_rate in (0, 1 / 3, 2 / 3, 1)
    assert 0 < found.milliseconds <= found.slowest
    assert 0 < found.megabytes < 10
    assert found.memory is None or found.memory > 50
    assert len(found.per_defect) == 6
    assert found.device == "cpu"


# ---------------------------------------------------------------------------------------------------------- many trials


@pytest.fixture
def no_fits(monkeypatch: pytest.MonkeyPatch) -> list[Configuration]:
    """Trials take no time; the settings that were tried."""
    tried: list[Configuration] = []

    def pretended(settings: Configuration, *_: Any) -> Trial:
        tried.append(settings)
        if settings.get("fails"):
            raise WeightsError("no weights here")
        time.sleep(settings.get("seconds", 0.0))
        values = dict.fromkeys(list(Trial.__annotations__)[1:], 0.5)
        return Trial(settings, **values)  # type: ignore[arg-type]

    monkeypatch.setattr(trying, "attempt", pretended)
    return tried


def test_what_the_budget_leaves_no_time_for_is_named(sets: Split, no_fits: list[Configuration]) -> None:
    """0.2 s for the first; the second would take four times that, the third a quarter of it."""
    candidates = [{"image_size": 256, "seconds": 0.2}, {"image_size": 512}, {"image_size": 128}]
    found = run(candidates, sets, root=Path(), budget=0.6)
    assert no_fits == [candidates[0], candidates[2]]
    assert found.not_tried == [candidates[1]]
    assert [trial.settings for trial in found.trials] == no_fits
    assert found.seconds >= 0.2


def test_the_first_is_tried_even_without_time(sets: Split, no_fits: list[Configuration]) -> None:
    found = run([{"image_size": 64, "seconds": 0.01}, {"image_size": 64}], sets, root=Path(), budget=0)
    assert (len(found.trials), len(found.not_tried)) == (1, 1)


def test_settings_that_cannot_be_used_do_not_end_the_others(sets: Split, no_fits: list[Configuration]) -> None:
    bad: Configuration = {"image_size": 64, "fails": True}
    steps: list[tuple[float, float]] = []
    found = run(
        [bad, {"image_size": 64}],
        sets,
        root=Path(),
        budget=60,
        on_progress=lambda settings, done, total: steps.append((done, total)),
    )
    assert found.failed == [(bad, "no weights here")]
    assert len(found.trials) == 1
    assert steps == [(0, 0.125), (0.0625, 0.125), (0.125, 0.125)]
    with pytest.raises(WeightsError, match="no weights here"):
        run([bad, bad], sets, root=Path(), budget=60)
    with pytest.raises(UsageError, match="There is nothing to try"):
        run([], sets, root=Path(), budget=60)


# --------------------------------------------------------------------------------------------------------------- costs


class Clock:
    """A time that every inspected image moves by so many milliseconds."""

    def __init__(self, *steps: float) -> None:
        self.now, self.steps, self.seen = 0.0, list(steps), 0

    def __call__(self) -> float:
        return self.now

    decision = None

    def run(self, image: Any, decision: Any) -> None:
        self.now += self.steps[min(self.seen, len(self.steps) - 1)] / 1000
        self.seen += 1


def test_latency_leaves_out_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(900, 500, 400, 7)
    monkeypatch.setattr(measure.time, "perf_counter", clock)
    times = measure.latency(clock, [np.zeros((1, 4, 4, 3))])  # type: ignore[arg-type]
    assert times == pytest.approx([7.0] * measure.REPEATS)


def test_latency_of_a_slow_detector_ends_early(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(2000)
    monkeypatch.setattr(measure.time, "perf_counter", clock)
    assert len(measure.latency(clock, [np.zeros((1, 4, 4, 3))])) == measure.WARM_UP  # type: ignore[arg-type]


def test_cost_is_that_of_the_file(model_file: Path, tiles: Path) -> None:
    found = measure.cost(load(model_file), index_folder(tiles).samples[:1], AS_DECLARED, accelerator="cpu")
    assert found.megabytes == pytest.approx(model_file.stat().st_size / 2**20)


def test_peak_memory_sees_what_is_gone_again() -> None:
    with measure.peak_memory() as before:
        pass
    if before.process is None:
        pytest.skip("this system doesn't say")
    with measure.peak_memory() as peak:
        block = np.ones(256 * 2**20, np.uint8)  # much: what tests before left may be given back meanwhile
        del block
    with measure.peak_memory() as after:
        pass
    assert peak.process is not None
    assert after.process is not None
    assert peak.process - before.process > 150
    assert peak.process - after.process > 150


def test_machine_is_plain_values() -> None:
    assert {"processor", "cores", "threads"} <= set(measure.machine())
