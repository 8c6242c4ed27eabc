"""What a fused detector adds to its members: scales from images that they haven't seen, and one pass for all."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from blemish.artifact import load
from blemish.errors import ArtifactError, DataError
from blemish.models import Fused, Padim, Patchcore, Subspace
from blemish.models.base import Detector
from blemish.models.fused.detector import KEPT_IMAGES, rank_for_witnesses

ALL = ("padim", "subspace", "patchcore")
SMALL: dict[str, Any] = {"backbone": "filter_bank", "image_size": 64, "grid_stride": 16}
KINDS = {"padim": Padim, "subspace": Subspace, "patchcore": Patchcore}


def pictures(count: int, seed: int = 0) -> Tensor:
    """(count, 64, 64, 3) float32: noise, of its own level in each picture."""
    generator = torch.Generator().manual_seed(seed)
    level = 0.3 + 0.4 * torch.rand(count, 1, 1, 3, generator=generator)
    return (level + 0.2 * torch.rand(count, 64, 64, 3, generator=generator)).clamp(max=1.0)


def fitted(kind: type[Any], images: Tensor, **settings: Any) -> Any:
    model = kind(**{**SMALL, **settings})
    model.start()
    with torch.no_grad():
        model.observe(model.features(model.pre_processor(images)))
        model.finish()
    return model


@torch.no_grad()
def patch_scores(model: Detector, images: Tensor) -> Tensor:
    return model.patch_scores(model.features(model.pre_processor(images)))


def test_scales_are_those_of_members_that_saw_two_images_of_three() -> None:
    """Beside detectors of their own, fitted and asked by hand."""
    images = pictures(12)
    fused = fitted(Fused, images, members=ALL, n_features=10)
    hidden = [number for number in range(12) if rank_for_witnesses(number) is None]
    seen = [number for number in range(12) if number not in hidden]
    assert hidden == [0, 4, 6, 11]
    expected = torch.zeros(3, 16)  # (N, P)
    for i, name in enumerate(ALL):
        own = {"n_features": 10} if name == "padim" else {}
        layers = fused.settings.layers
        witness = fitted(KINDS[name], images[seen], layers=layers, **own)
        sigma = patch_scores(witness, images[hidden]).std(correction=0)
        torch.testing.assert_close(fused.scale[i], sigma, rtol=1e-3, atol=1e-6)
        alone = patch_scores(fitted(KINDS[name], images, layers=layers, **own), pictures(3, seed=5))
        expected += alone / sigma
    assert fused.unseen == 4
    torch.testing.assert_close(patch_scores(fused, pictures(3, seed=5)), expected, rtol=1e-3, atol=1e-3)


def test_every_run_of_images_has_some_that_witnesses_see_and_one_in_three_that_they_do_not() -> None:
    ranks = [rank_for_witnesses(number) for number in range(3000)]
    assert [rank for rank in ranks if rank is not None] == list(range(2000))
    for step in (2, 3, 5, 10):  # folds take every n-th image away
        for first in range(step):
            share = sum(rank is None for rank in ranks[first::step]) / len(ranks[first::step])
            assert 0.3 < share < 0.37, (step, first)


def test_the_backbone_is_asked_once_and_saved_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = fitted(Fused, pictures(6), members=ALL)
    asked = []
    forward = type(model.extractor).forward
    monkeypatch.setattr(type(model.extractor), "forward", lambda self, x: asked.append(1) or forward(self, x))
    model.inspect(model.pre_processor(pictures(1)), (64, 64))
    assert len(asked) == 1
    names = list(model.state_dict())
    assert len([name for name in names if "extractor" in name]) == len(
        [name for name in Padim(**SMALL).state_dict() if "extractor" in name]
    )
    assert {name.split(".")[0] for name in names} >= set(ALL)


def test_what_is_kept_is_bounded_and_the_same_in_any_order() -> None:
    features = torch.randn(200, Fused(**SMALL, n_features=5).width, 4, 4, generator=torch.Generator().manual_seed(0))
    models = [Fused(**SMALL, n_features=5) for _ in range(3)]
    for model in models:
        model.start()
    models[0].observe(features)
    models[1].observe(features[:90], range(90))
    models[2].observe(features[90:], range(90, 200))
    models[2].merge(models[1])
    kept = [model.observed_state()["images"].tolist() for model in (models[0], models[2])]
    assert len(kept[0]) == KEPT_IMAGES
    assert kept[0] == kept[1]


def test_an_update_pools_the_scales_and_needs_no_unseen_images_of_its_own() -> None:
    model = fitted(Fused, pictures(9))
    before, count = model.scale.clone(), int(model.unseen)
    model.resume()
    with torch.no_grad():
        model.observe(model.features(model.pre_processor(pictures(1, seed=3))))
        model.finish()
    assert model.is_fitted
    assert torch.equal(model.scale, before)
    model.resume()
    with torch.no_grad():
        model.observe(model.features(model.pre_processor(pictures(9, seed=4))))
        model.finish()
    assert int(model.unseen) == count + 3
    assert not torch.equal(model.scale, before)


def test_too_few_images() -> None:
    with pytest.raises(DataError, match=r"on good images that they haven't seen, and needs at least 5. Got 1."):
        fitted(Fused, pictures(1))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("scale", 0.0, r"scale must be above 0 and finite. Got \[0.0, 0.0\]."),
        ("scale", torch.nan, r"scale must be above 0 and finite."),
        ("unseen", -3, r"unseen must be at least 1 image. Got -3."),
    ],
)
def test_a_scale_that_makes_no_sense_is_refused(name: str, value: float, message: str, tmp_path: Any) -> None:
    model = fitted(Fused, pictures(6))
    getattr(model, name).fill_(value)
    model.save(tmp_path / "model.safetensors")
    with pytest.raises(ArtifactError, match=message):
        load(tmp_path / "model.safetensors")
