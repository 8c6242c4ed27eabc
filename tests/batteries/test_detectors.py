"""Runs every check on every detector, with learned, formula and random features."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import detector_checks
import pytest
import torch
from detector_checks import MODEL_SIZE, Make, fitted, parts, raw, same_state
from torch import nn

from blemish.errors import UsageError
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.models.fused import Fused
from blemish.models.padim import Padim
from blemish.models.patchcore import Patchcore, PatchcoreDetector
from blemish.post_processing import DecisionModule, PostProcessor

CHECKS = [function for name, function in vars(detector_checks).items() if name.startswith("check_")]
BACKBONES: dict[str, dict[str, Any]] = {
    "bundled": {},
    "filter_bank": {"backbone": "filter_bank"},
    "resnet18": {"backbone": "resnet18", "layers": ["layer1", "layer2"], "pretrained": False},
}


def build(detector: str, backbone: str, /, **arguments: Any) -> Detector:
    small = {"n_features": 40} if detector in ("padim", "fused") else {}
    return detectors()[detector].build(**{"image_size": MODEL_SIZE, **BACKBONES[backbone], **small, **arguments})


@cache
def maker(detector: str, backbone: str) -> Make:
    """Builds detectors; of those with equal arguments the second and later ones are copies of the first."""
    built: dict[str, Detector] = {}

    def make(**arguments: Any) -> Detector:
        if isinstance(arguments.get("post_processor"), nn.Module):  # one's own isn't copied
            return build(detector, backbone, **arguments)
        key = repr(sorted(arguments.items()))
        if key not in built:
            built[key] = build(detector, backbone, **arguments)
        return copy.deepcopy(built[key])

    return make


# A bank of energies has no direction that nobody takes: a hole has less of everything, and that is inside.
PAIRS = [(d, b) for d in detectors() for b in BACKBONES if (d, b) != ("subspace", "filter_bank")]


# To a detector, a backbone is where features come from: one detector passes all checks on each of them, the others all
# checks on one, and these on the rest.
FEW = ("check_map_peaks_on_the_defect", "check_the_region_travels_in_the_artifact")
WHOLE = {
    pair for pair in PAIRS if pair[0] == "patchcore" or pair[1] == "filter_bank" or pair == ("subspace", "bundled")
}
CASES = [(pair, check) for pair in PAIRS for check in CHECKS if pair in WHOLE or check.__name__ in FEW]


@pytest.mark.parametrize(("pair", "check"), CASES, ids=["-".join((*pair, check.__name__)) for pair, check in CASES])
def test_detector(pair: tuple[str, str], check: Any, tmp_path: Path) -> None:
    check(*(maker(*pair), tmp_path)[: len(inspect.signature(check).parameters)])


@pytest.mark.parametrize(("detector", "backbone"), PAIRS)
def test_two_that_are_built_alike_are_equal(detector: str, backbone: str) -> None:
    assert same_state(build(detector, backbone), maker(detector, backbone)())


# --------------------------------------------------------------------- an accepted option that changes nothing is a bug


def both(make: Make, **arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return raw(fitted(make, parts(8), **arguments), torch.cat([parts(2), parts(2, "hole")]))


COMMON = {
    "backbone": ({}, {"backbone": "resnet18", "pretrained": False}),
    "layers": ({}, {"layers": ["scale1", "colour"]}),
    "image_size": ({}, {"image_size": (64, 64)}),
    "fit_mode": ({}, {"fit_mode": "letterbox"}),
    "crop_from": ({}, {"crop_from": (80, 112)}),
    "roi": ({}, {"roi": [[(0.1, 0.2), (0.8, 0.2), (0.8, 0.9)]]}),
    "tile_size": ({}, {"tile_size": 64}),
    "tile_stride": ({"image_size": 128, "tile_size": 64}, {"image_size": 128, "tile_size": 64, "tile_stride": 64}),
    "grid_stride": ({}, {"grid_stride": 16}),
    "worst_share": ({}, {"worst_share": 0.1}),
    "sigma": ({}, {"sigma": 2.0}),
    "seed": ({}, {"seed": 1}),
}
WITH_SUBSPACE = {"members": ["padim", "subspace"]}
COSINE = {"distance": "cosine"}
RANDOM = {"backbone": "resnet18", "layers": ["layer1"], "pretrained": False}
OPTIONS: dict[str, dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "padim": {
        **COMMON,
        "n_features": ({}, {"n_features": 20}),
        "epsilon": ({}, {"epsilon": 0.1}),
        "shrinkage": ({}, {"shrinkage": 0.5}),
        "factor_dtype": ({}, {"factor_dtype": "float16"}),
    },
    "fused": {
        **COMMON,
        "members": ({}, WITH_SUBSPACE),
        "n_features": ({}, {"n_features": 20}),
        "epsilon": ({}, {"epsilon": 0.1}),
        "shrinkage": ({}, {"shrinkage": 0.5}),
        "factor_dtype": ({}, {"factor_dtype": "float16"}),
        "variance": (WITH_SUBSPACE, {**WITH_SUBSPACE, "variance": 0.5}),
        "distance": ({}, COSINE),
        "position_weight": (COSINE, {**COSINE, "position_weight": 2.0}),
        "coreset_sampling_ratio": ({}, {"coreset_sampling_ratio": 0.5}),
        "bank_size": ({}, {"bank_size": 10}),
        "selection_channels": ({}, {"selection_channels": 8}),
        "bank_dtype": ({}, {"bank_dtype": "float16"}),
        "neighbor_search": ({}, {"neighbor_search": "faiss"}),
    },
    "subspace": {
        **COMMON,
        "seed": (RANDOM, {**RANDOM, "seed": 1}),  # for random features; nothing else is drawn
        "variance": ({}, {"variance": 0.5}),
    },
    "patchcore": {
        **COMMON,
        "distance": ({}, COSINE),
        "position_weight": (COSINE, {**COSINE, "position_weight": 2.0}),
        "coreset_sampling_ratio": ({}, {"coreset_sampling_ratio": 0.5}),
        "bank_size": ({}, {"bank_size": 10}),
        "selection_channels": ({}, {"selection_channels": 8}),
        "bank_dtype": ({}, {"bank_dtype": "float16"}),
        "num_neighbors": ({}, {"num_neighbors": 2}),
        "neighbor_search": ({}, {"neighbor_search": "faiss"}),
    },
}
ELSEWHERE = {"pretrained", "weights"}  # see the tests below


@pytest.mark.parametrize("detector", detectors())
def test_table_names_every_option(detector: str) -> None:
    assert set(detectors()[detector].Settings.model_fields) == set(OPTIONS[detector]) | ELSEWHERE


@pytest.mark.parametrize(("detector", "option"), [(d, o) for d in OPTIONS for o in OPTIONS[d]])
def test_every_option_changes_the_outcome(detector: str, option: str) -> None:
    make = maker(detector, "filter_bank")
    drop = {"n_features"} if option in ("backbone", "layers") else set()
    without, given = (
        {**({"n_features": None} if drop and detector in ("padim", "fused") else {}), **o}
        for o in OPTIONS[detector][option]
    )
    a, b = both(make, **without), both(make, **given)
    assert not torch.equal(a[1], b[1]) or not torch.equal(a[0], b[0])
    assert maker(detector, "filter_bank")(**given).arguments() != maker(detector, "filter_bank")(**without).arguments()


@pytest.mark.parametrize("detector", detectors())
def test_weights_and_pretrained(detector: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    torch.save(timm.create_model("resnet18", pretrained=False).state_dict(), tmp_path / "resnet18.pth")
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path))
    make = maker(detector, "resnet18")
    drawn, stored, given = make(), make(pretrained=True), make(pretrained=True, weights=tmp_path / "resnet18.pth")
    assert same_state(stored, given)
    assert not same_state(stored, drawn)
    assert (drawn.extractor.source, stored.extractor.source) == ("random", "resnet18.pth")


@pytest.mark.parametrize("detector", detectors())
def test_post_processor_argument(detector: str) -> None:
    make = maker(detector, "filter_bank")
    own = PostProcessor()
    assert make(post_processor=own).post_processor is own
    assert isinstance(make(post_processor=True).post_processor, DecisionModule)
    assert isinstance(make().post_processor, DecisionModule)
    assert make(post_processor=False).post_processor is None


BAD: list[tuple[type[Detector], dict[str, Any], str]] = [
    (Patchcore, {"coreset_sampling_ratio": 0.0}, r"coreset_sampling_ratio must be above 0 and at most 1. Got 0.0."),
    (Patchcore, {"coreset_sampling_ratio": 1.1}, r"Got 1.1."),
    (Patchcore, {"bank_size": 0}, r"bank_size must be at least 1, or None for no limit. Got 0."),
    (Patchcore, {"selection_channels": 0}, r"selection_channels must be at least 1, or None. Got 0."),
    (Padim, {"factor_dtype": "int8"}, r"factor_dtype must be 'float32' or 'float16'. Got 'int8'."),
    (Patchcore, {"bank_dtype": "int8"}, r"bank_dtype must be 'float32' or 'float16'. Got 'int8'."),
    (Patchcore, {"distance": "angle"}, r"distance must be 'euclidean' or 'cosine'. Got 'angle'."),
    (Patchcore, {"num_neighbors": 0}, r"num_neighbors must be at least 1. Got 0."),
    (Patchcore, {"neighbor_search": "hnsw"}, r"neighbor_search must be 'exact' or 'faiss'. Got 'hnsw'."),
    (Fused, {"members": ["padim"]}, r"members must be two detectors or more, each once. Got 'padim'."),
    (Fused, {"members": ["padim", "padim"]}, r"Got 'padim, padim'."),
    (
        Fused,
        {"members": ["padim", "patchcor"]},
        r"members must be out of padim, patchcore, subspace. Got 'patchcor'. Did you mean 'patchcore'\?",
    ),
    (Fused, {"variance": 0.5}, r"variance has no meaning for members padim, patchcore. Drop it."),
    (Padim, {"n_features": 0}, r"n_features must be between 1 and 235, the channels of these layers. Got 0."),
    (Padim, {"n_features": 524}, r"Got 524."),
    (Padim, {"epsilon": 0.0}, r"epsilon must be above 0, or covariances can't be inverted. Got 0.0."),
    (Padim, {"epsilon": float("nan")}, r"epsilon must be .*above 0"),
    (Padim, {"sigma": 0.0}, r"sigma must be above 0 and at most 96 pixels, the longer side of image_size. Got 0.0."),
    (Padim, {"sigma": 97.0}, r"Got 97.0."),
    (Padim, {"tile_stride": 32}, r"tile_stride was given without tile_size. Give both, or neither."),
    (Padim, {"tile_size": 300}, r"tile_size must be at most image_size \(64, 96\). Got \(300, 300\)."),
    (Padim, {"tile_size": 64, "tile_stride": 65}, r"tile_stride must be at most tile_size .* or pixels are never seen"),
    (Padim, {"tile_size": 64, "tile_stride": 12}, r"must be multiples of the backbone's stride, 16 pixels."),
    (Padim, {"image_size": 32}, r"image_size \(32, 32\) is too small .* both sides must be at least 64 pixels"),
    (Padim, {"image_size": (64, 96, 3)}, r"image_size must be one number or \(height, width\)"),
    (Padim, {"fit_mode": "crop"}, r"fit_mode must be 'stretch' or 'letterbox'. Got 'crop'."),
    (Padim, {"layers": ["scale1"]}, r"layers must be distinct names out of \['layer1'.* Got \['scale1'\]."),
    (
        Padim,
        {"backbone": "resnet19"},
        r"backbone must be 'bundled', 'filter_bank' or .* Got 'resnet19'. Did you mean 'resnet",
    ),
]


@pytest.mark.parametrize(("kind", "arguments", "message"), BAD, ids=lambda value: str(value)[:40])
def test_arguments_out_of_range(kind: type[Detector], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        kind(**{"image_size": MODEL_SIZE, **arguments})


def test_misspelt_argument() -> None:
    with pytest.raises(UsageError, match=r"There is no setting 'bank_sise'. Did you mean 'bank_size'\?"):
        Patchcore(bank_sise=3)


# ------------------------------------------------------------------------------------------------------------- merging


def fill_banks(model: Any) -> None:
    for each in (model, *model.members):
        if hasattr(each, "bank"):
            each.bank.buffer_bytes = 4 * each.channels * 7000


# What makes a few hundred images fill more than one block.
SMALL_BLOCKS: dict[str, tuple[dict[str, Any], Callable[[Any], None]]] = {
    "padim": ({"n_features": 5}, lambda model: None),
    "patchcore": ({"bank_size": 60}, lambda model: setattr(model.bank, "buffer_bytes", 4 * model.channels * 7000)),
    "subspace": ({}, lambda model: None),
    "fused": ({"n_features": 5, "bank_size": 60}, fill_banks),
}


@pytest.mark.parametrize("detector", detectors())
def test_any_number_of_parts_gives_the_same_bytes(detector: str) -> None:
    """Also of sets with several blocks: 300 images are two for moments, and five here for PatchCore."""
    arguments, prepare = SMALL_BLOCKS[detector]
    features = torch.cat(list(stream(75, maker(detector, "filter_bank")(**arguments).width)))

    def part(first: int, stop: int) -> Detector:
        model = maker(detector, "filter_bank")(**arguments)
        prepare(model)
        model.start()
        for image in range(first, stop, 4):
            batch = features[image : min(image + 4, stop)]
            model.observe(batch, range(image, image + len(batch)))
        return model

    whole = part(0, 300)
    whole.finish()
    for count in (1, 2, 3, 5, 8):
        cuts = [300 * i // count for i in range(count + 1)]
        together = part(0, 0)
        for first, stop in pairwise(cuts):
            together.merge(part(first, stop).observed_state())
        together.finish()
        assert same_state(together, whole), count


# ------------------------------------------------------------------------------------------------------ bounded memory


def stream(count: int, channels: int = 75) -> Iterator[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(count):
        yield torch.randn(4, channels, 8, 12, generator=generator)


def held(model: Detector) -> int:
    """How many numbers a detector holds of what it observes."""
    return sum(tensor.numel() for tensor in model.observed_state().values())


def test_patchcore_memory_is_bounded() -> None:
    model = Patchcore(image_size=MODEL_SIZE, bank_size=100)
    model.bank.buffer_bytes = 4 * 75 * 500
    model.start()
    for features in stream(14):  # 5376 rows, ten times the capacity
        model.observe(features)
        assert len(model.observed_state()["patches"]) <= 500
        assert held(model) <= (500 + 4 * 100) * 77
    model.finish()
    assert model.bank.rows.shape == (100, 75)
    assert held(model) == 4


def test_patchcore_without_limit_keeps_its_share() -> None:
    model = Patchcore(image_size=MODEL_SIZE, bank_size=None, coreset_sampling_ratio=0.25)
    model.bank.buffer_bytes = 4 * 75 * 500
    model.start()
    for features in stream(4):
        model.observe(features)
    model.finish()
    assert len(model.bank.rows) == 4 * 4 * 96 // 4


def test_padim_memory_does_not_grow_with_images() -> None:
    sizes = []
    for count in (2, 20):
        model = Padim(image_size=MODEL_SIZE, n_features=75)
        model.start()
        for features in stream(count):
            model.observe(features)
            assert len(model.observed_state()["images"]) < 32
            parts = len(model.observed_state()["mean"])
        model.finish()
        sizes.append((parts <= 1, sum(t.numel() for t in model.state_dict().values())))
        assert held(model) == 4
    assert sizes[0] == sizes[1]
    assert sizes[0][0]


def test_padim_needs_two_images() -> None:
    model = Padim(image_size=MODEL_SIZE)
    model.start()
    with pytest.raises(ValueError, match=r"PaDiM needs at least 2 good images to estimate a covariance. Got 1."):
        detector_checks.observe(model, parts(1))


def test_patchcore_needs_an_image() -> None:
    model = Patchcore(image_size=MODEL_SIZE)
    model.start()
    with pytest.raises(ValueError, match=r"No good image was seen, so there is nothing to compare with."):
        model.finish()
    detector_checks.observe(model, parts(1))  # one is enough
    assert model.is_fitted


def test_float16_bank_halves_the_file_and_keeps_the_ranking() -> None:
    whole, half = (fitted(maker("patchcore", "filter_bank"), parts(8), bank_dtype=d) for d in ("float32", "float16"))
    assert isinstance(half, PatchcoreDetector)
    assert half.bank.rows.dtype == torch.float16
    images = torch.cat([parts(4, first=50), parts(4, "hole", first=50)])
    torch.testing.assert_close(raw(half, images)[0], raw(whole, images)[0], rtol=2e-2, atol=1e-3)


def test_lightning_is_told_there_is_nothing_to_optimize() -> None:
    model = Patchcore(image_size=MODEL_SIZE)
    assert model.configure_optimizers() is None
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.configure_callbacks() == [model.post_processor]
