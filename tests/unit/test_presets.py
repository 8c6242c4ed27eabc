"""Presets: what wins, and where they have nothing to say."""

from __future__ import annotations

import pytest

from blemish.errors import UsageError
from blemish.models import DETECTORS
from blemish.presets import PRESETS, with_preset
from blemish.settings import fit_settings


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_configuration(name: str) -> None:
    values, chosen = with_preset({}, name)
    assert values == PRESETS[name]
    assert chosen == values.keys()
    fit_settings(values, DETECTORS)


def test_what_was_given_wins_and_is_not_said_to_be_the_presets() -> None:
    values, chosen = with_preset({"shrinkage": 0.5, "seed": 3}, None)
    assert values == {**PRESETS["default"], "shrinkage": 0.5, "seed": 3}
    assert chosen == PRESETS["default"].keys() - {"shrinkage"}


def test_another_detector_keeps_its_own_defaults() -> None:
    assert with_preset({"detector": "patchcore"}, None) == ({"detector": "patchcore"}, frozenset())
    with pytest.raises(UsageError, match=r"preset 'fast' is for detector 'padim'. Got 'patchcore'"):
        with_preset({"detector": "patchcore"}, "fast")


def test_an_unknown_preset_names_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"preset must be one of default, fast, accurate, plain. Got 'best'."):
        with_preset({}, "best")
