"""Each image scored by a detector that did not see it: against detectors fitted on the others by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blemish.errors import DataError
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.models.cross_fit import CrossFit, features_by_image
from blemish.synthetic.products import render

FOLDS = [0, 1, 2, 1, 0, 2, 2, 1, 0]
SMALL: dict[str, Any] = {"backbone": "filter_bank", "image_size": 64}
OPTIONS: dict[str, dict[str, Any]] = {"padim": {"n_features": 8, "shrinkage": 0.3}, "patchcore": {"bank_size": 50}}
OPTIONS["fused"] = {**OPTIONS["padim"], **OPTIONS["patchcore"]}


def parts(count: int) -> Tensor:
    drawn = [render("tile", size=(64, 64), rng=np.random.default_rng(i))[0] for i in range(count)]
    return torch.from_numpy(np.stack(drawn))


def observed(model: Detector, images: Tensor, numbers: Sequence[int] | None = None) -> Detector:
    model.start()
    with torch.no_grad():
        model.observe(model.features(model.pre_processor(images)), numbers)
        model.finish()
    return model


@pytest.mark.parametrize("name", detectors())
def test_a_fold_is_scored_by_what_the_others_gave(name: str) -> None:
    images = parts(len(FOLDS))
    model = detectors()[name].build(**SMALL, **OPTIONS.get(name, {}))
    model.start()
    cross = CrossFit(model, FOLDS)
    prepared = model.pre_processor(images)
    with torch.no_grad():
        for first in range(0, len(images), 4):
            cross.observe(model.features(prepared[first : first + 4]), first)
        order = sorted(range(len(FOLDS)), key=FOLDS.__getitem__)
        for number in order:
            found = cross.without(number).inspect(prepared[number : number + 1], (64, 64))
            others = [i for i, fold in enumerate(FOLDS) if fold != FOLDS[number]]
            alone = observed(detectors()[name].build(**SMALL, **OPTIONS.get(name, {})), images[others], others)
            wanted = alone.inspect(prepared[number : number + 1], (64, 64))
            torch.testing.assert_close(found.score[0], wanted.score[0], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(found.maps[0], wanted.maps[0], rtol=1e-3, atol=1e-3)
    assert not model.is_fitted, "the detector that is delivered isn't touched"


@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_always_as_many_images_pass_the_backbone_together(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = detectors()["padim"].build(**SMALL, **OPTIONS["padim"])
    prepared = model.pre_processor(parts(7))
    wanted = model.features(prepared)
    forward, seen = model.extractor.forward, []

    def watching(images: Tensor) -> Any:
        seen.append(len(images))
        return forward(images)

    monkeypatch.setattr(model.extractor, "forward", watching)
    for found, one in zip(features_by_image(model, prepared, at_once), wanted.split(1), strict=True):
        torch.testing.assert_close(found, one)
    assert set(seen) == {at_once}


def test_what_a_fold_has_observed_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, states = detectors()["padim"], []

    def counted(self: Detector, state: Any = kind.observed_state) -> dict[str, Tensor]:
        states.append(state(self))
        return states[-1]

    monkeypatch.setattr(kind, "observed_state", counted)
    model = kind.build(**SMALL, n_features=8)
    model.start()
    cross = CrossFit(model, FOLDS)
    with torch.no_grad():
        cross.observe(model.features(model.pre_processor(parts(len(FOLDS)))), 0)
        for number in (0, 1, 2):
            assert cross.without(number).is_fitted
    assert len(states) == 3


@pytest.mark.parametrize("images", [1, 1000])
@pytest.mark.parametrize("name", detectors())
def test_a_fold_of_few_and_one_of_many_say_the_same(name: str, images: int) -> None:
    whole, brief = (detectors()[name].build(**SMALL, **OPTIONS.get(name, {})) for _ in range(2))
    observed(whole, parts(9))
    brief.start()
    with torch.no_grad():
        brief.observe(brief.features(brief.pre_processor(parts(9))))
        brief.finish_for(images)
        found, wanted = (model.inspect(model.pre_processor(parts(2)), (64, 64)) for model in (brief, whole))
    torch.testing.assert_close(found.score, wanted.score, rtol=1e-4, atol=0)


@pytest.mark.parametrize("name", detectors())
def test_a_twin_lives_its_own_life(name: str) -> None:
    model = observed(detectors()[name].build(**SMALL, **OPTIONS.get(name, {})), parts(6))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    twin = model.twin()
    assert twin.extractor is model.extractor
    observed(twin, parts(9))
    for key, value in before.items():
        torch.testing.assert_close(model.state_dict()[key], value, rtol=0, atol=0, equal_nan=True)


def test_folds_that_leave_too_few_say_what_to_do() -> None:
    model = detectors()["padim"].build(**SMALL, n_features=8)
    model.start()
    cross = CrossFit(model, [0, 1])
    with torch.no_grad():
        cross.observe(model.features(model.pre_processor(parts(2))), 0)
        with pytest.raises(DataError, match=r"without the images of each fold in turn\. PaDiM needs .* Add"):
            cross.without(0)
