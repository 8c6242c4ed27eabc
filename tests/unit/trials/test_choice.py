"""Which settings are tried, and which are taken."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blemish.models import DETECTORS
from blemish.settings import fit_settings
from blemish.trials.choice import MARGIN, Trial, choose, pareto
from blemish.trials.grid import LARGE, SMALL, USUAL, describe, grid, relative_cost

LAYERS = {"one": ["a", "b", "c"], "two": ["x"]}


def trial(auroc: float, milliseconds: float = 10.0, megabytes: float = 1.0) -> Trial:
    other: dict[str, Any] = {"found": 0.5, "false_alarm_rate": 0.1, "memory": None, "gpu_memory": None, "seconds": 1.0}
    return Trial({}, auroc, auroc, milliseconds=milliseconds, slowest=0, megabytes=megabytes, device="cpu", **other)


# ---------------------------------------------------------------------------------------------------------------- grid


def test_settings_are_distinct_and_those_of_a_configuration() -> None:
    found = grid({"filter_bank": ["scale1", "scale2"], "resnet18": ["layer2", "layer3"]}, longest_side=1000)
    for one in found:
        fit_settings(one, DETECTORS)
    assert all(one != other for one, other in itertools.combinations(found, 2))
    assert {one["detector"] for one in found} == DETECTORS.keys()
    assert [one for one in found if one["backbone"] == "filter_bank"] == found[: -len(DETECTORS) - 1]


def test_models_larger_than_the_images_are_not_tried() -> None:
    assert {one["image_size"] for one in grid(LAYERS, 1000)} == {SMALL, USUAL, LARGE}
    assert {one["image_size"] for one in grid(LAYERS, USUAL)} == {SMALL, USUAL}


def test_a_backbone_whose_layers_are_unknown_is_tried_with_its_defaults() -> None:
    assert not any("layers" in one for one in grid({"absent": []}, 1000))


def test_settings_in_words() -> None:
    words = [describe(one, LAYERS) for one in grid(LAYERS, 1000)]
    assert words[0] == "patchcore 256"
    assert len(set(words)) == len(words)
    for expected in ("patchcore 256, bank 1000", "padim 128", "patchcore 256, no a", "padim 256, no c"):
        assert expected in words
    assert words[-1] == "patchcore 128, two"


def test_cost_grows_with_the_area() -> None:
    assert [relative_cost({"image_size": side}) for side in (SMALL, USUAL, LARGE)] == [0.25, 1.0, 2.25]


# -------------------------------------------------------------------------------------------------------------- choice


def test_the_fastest_of_the_equal_is_taken() -> None:
    best, equal, worse = trial(0.9, 50), trial(0.9 - MARGIN / 2, 20), trial(0.9 - 2 * MARGIN, 5)
    assert choose([best, equal, worse], None) == (equal, True)
    assert choose([best, equal, worse], 30) == (equal, True)
    assert choose([best, equal, worse], 10) == (worse, True)


def test_the_limit_itself_is_within() -> None:
    assert choose([trial(0.9, 50)], 50)[1] is True


def test_the_fastest_is_taken_when_none_is_within_the_limit() -> None:
    slow, slower = trial(0.5, 20), trial(0.9, 50)
    assert choose([slower, slow], 10) == (slow, False)


grades = st.integers(0, 3).map(lambda n: n / 4)
some_trials = st.lists(st.builds(trial, grades, grades, grades), min_size=1, max_size=8)


@given(some_trials)
def test_pareto_is_what_no_other_beats(trials: list[Trial]) -> None:
    def keys(one: Trial) -> tuple[float, float, float]:
        return one.separation, -one.milliseconds, -one.megabytes

    front = pareto(trials)
    assert front
    for one in trials:
        beaten = any(
            all(a >= b for a, b in zip(keys(other), keys(one), strict=True)) and keys(other) != keys(one)
            for other in trials
        )
        assert (one in front) != beaten


@given(some_trials, st.none() | grades)
def test_what_is_taken_obeys_the_rule(trials: list[Trial], limit: float | None) -> None:
    taken, met = choose(trials, limit)
    within = [one for one in trials if limit is None or one.milliseconds <= limit]
    assert met == bool(within)
    if met:
        assert taken in within
        assert max(one.separation for one in within) - taken.separation <= MARGIN + 1e-9


def test_a_trial_as_plain_values() -> None:
    assert trial(0.75).to_dict()["separation"] == pytest.approx(0.75)
