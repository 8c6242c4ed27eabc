"""The older spelling of PatchCore, against scikit-learn, loops and stored numbers of earlier releases."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader

import blemish
from blemish.data.batch import ImageBatch
from blemish.errors import NonFiniteError, NotFittedError, UsageError
from blemish.models.components import AnomalyModule, DynamicBufferModule, Tiler
from blemish.models.patchcore import Patchcore
from blemish.models.patchcore.model import AnomalyMapGenerator, PatchcoreLightning, PatchcoreModel

GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"
LAYERS = ["scale1", "scale2"]
SIZE = (64, 72)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def model(**options: Any) -> PatchcoreModel:
    return PatchcoreModel(LAYERS, SIZE, "filter_bank", **options)


def images(count: int, seed: int = 0) -> Tensor:
    """Noisy stripes: (N, 3, *SIZE)."""
    stripes = torch.sin(torch.arange(SIZE[1]) / 3.0)[None, None, None, :] / 4 + 0.5
    return stripes + 0.1 * random(count, 3, *SIZE, seed=seed)


# -------------------- AnomalyMapGenerator


def test_a_patch_lands_on_its_own_pixels() -> None:
    scores = torch.zeros(2 * 4 * 6, 3)
    scores[4 * 6 + 2 * 6 + 5] = 1.0  # second image, row 2, column 5 of a 4 x 6 grid
    maps = AnomalyMapGenerator((40, 60), sigma=0.1).compute_anomaly_map(scores, torch.Size((4, 6)))
    assert maps.shape == (2, 1, 40, 60)
    expected = torch.zeros(2, 1, 40, 60)
    expected[1, 0, 20:30, 50:60] = 1.0
    torch.testing.assert_close(maps, expected)


@pytest.mark.parametrize("neighbors", [2, 9])
def test_the_score_is_the_formula_for_every_image(neighbors: int) -> None:
    scores = (4 * random(3, 20, neighbors, seed=1)).sort(dim=-1)[0]
    ours = AnomalyMapGenerator.compute_anomaly_score(scores)
    for image, one in zip(scores, ours, strict=True):
        worst = max(image.tolist())  # lists compare by their first element: the distance to the nearest row
        weight = 1 - max(map(math.exp, worst)) / sum(map(math.exp, worst))
        assert float(one) == pytest.approx(weight * worst[0], rel=1e-5)
        assert float(AnomalyMapGenerator.compute_anomaly_score(image)) == float(one)


def test_large_distances_and_single_neighbors_have_scores() -> None:
    score = AnomalyMapGenerator.compute_anomaly_score(torch.tensor([[500.0, 500.0], [1.0, 2.0]]))
    assert float(score) == 250.0
    assert float(AnomalyMapGenerator.compute_anomaly_score(torch.tensor([[3.0], [5.0]]))) == 5.0


def test_a_broken_distance_makes_a_broken_score() -> None:
    scores = random(6, 3)
    scores[4] = torch.nan
    assert AnomalyMapGenerator.compute_anomaly_score(scores).isnan()


def test_calling_the_generator_gives_maps_and_scores_of_a_batch() -> None:
    generator = AnomalyMapGenerator(input_size=OmegaConf.create([40, 48]))
    scores = random(2 * 5 * 6, 9).sort(dim=-1)[0]
    maps, score = generator(patch_scores=scores.numpy(), feature_map_shape=(5, 6))
    torch.testing.assert_close(maps, generator.compute_anomaly_map(scores, (5, 6)))
    expected = [generator.compute_anomaly_score(one) for one in scores.view(2, 30, 9)]
    torch.testing.assert_close(score, torch.stack(expected))


@pytest.mark.parametrize(
    ("keys", "match"),
    [
        ((), r"Missing keywords: patch_scores, feature_map_shape\. Got none\."),
        (("feature_map_shape",), r"Missing keywords: patch_scores\. Got feature_map_shape\."),
        (("patch_scores", "sigma"), r"Missing keywords: feature_map_shape\. "),
        (("patch_scores", "feature_map_shape", "sigma"), r"nothing else\. Got patch_scores, feature_map_shape, sigma"),
    ],
)
def test_wrong_keywords_are_named(keys: tuple[str, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AnomalyMapGenerator((8, 8))(**dict.fromkeys(keys, torch.zeros(1)))


def test_generator_arguments_are_checked() -> None:
    with pytest.raises(UsageError, match=r"input_size must be \(height, width\), each at least 1\. Got \(8,\)\."):
        AnomalyMapGenerator((8,))
    with pytest.raises(UsageError, match=r"sigma must be above 0 pixels\. Got -1\."):
        AnomalyMapGenerator((8, 8), sigma=-1)


# -------------------- PatchcoreModel


def test_training_mode_embeds_and_evaluation_mode_scores() -> None:
    patchcore = model()
    assert isinstance(patchcore, DynamicBufferModule)
    good = images(4)
    embedding = patchcore.train()(good)
    assert embedding.shape == (4 * 8 * 9, 36)
    patchcore.subsample_embedding(embedding, 0.1)
    assert patchcore.memory_bank.shape == (28, 36)
    maps, scores = patchcore.eval()(good[:3])
    assert maps.shape == (3, 1, *SIZE)
    assert scores.shape == (3,)
    damaged = good[:1].clone()
    damaged[:, :, 30:50, 40:60] = 0.0
    worse, score = patchcore(damaged)
    assert float(score) > float(scores.max())
    row, column = divmod(int(worse.argmax()), SIZE[1])
    assert 30 <= row < 50
    assert 40 <= column < 60


def test_an_image_scores_the_same_alone_and_in_a_batch() -> None:
    patchcore = model()
    patchcore.subsample_embedding(patchcore.train()(images(3)), 0.2)
    batch = images(4, seed=9) * torch.tensor([1.0, 0.9, 0.5, 1.1])[:, None, None, None]
    maps, scores = patchcore.eval()(batch)
    assert len(scores.unique()) == 4
    for i, image in enumerate(batch):
        alone_map, alone_score = patchcore(image[None])
        torch.testing.assert_close(maps[i], alone_map[0], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scores[i], alone_score[0], rtol=1e-4, atol=1e-5)


def test_neighbors_are_those_of_scikit_learn() -> None:
    patchcore = model()
    bank, queries = random(300, 36, seed=1) + 50.0, random(70, 36, seed=2) + 50.0
    patchcore.subsample_embedding(bank, 1.0)
    expected = NearestNeighbors(n_neighbors=9, algorithm="brute").fit(bank.double()).kneighbors(queries.double())[0]
    np.testing.assert_allclose(patchcore.nearest_neighbors(queries).numpy(), expected, rtol=1e-5)
    np.testing.assert_allclose(patchcore.nearest_neighbors(queries, 2).numpy(), expected[:, :2], rtol=1e-5)
    patchcore.subsample_embedding(bank[:4], 1.0)
    assert patchcore.nearest_neighbors(queries).shape == (70, 4)


def test_the_bank_is_the_greedy_selection() -> None:
    embedding = random(60, 36, seed=5)
    patchcore = model()
    patchcore.subsample_embedding(embedding, 0.25)
    chosen = [0]
    while len(chosen) < 15:
        chosen.append(int(torch.cdist(embedding.double(), embedding[chosen].double()).amin(dim=1).argmax()))
    assert torch.equal(patchcore.memory_bank, embedding[chosen])
    patchcore.subsample_embedding(embedding[:5], 0.01)
    assert torch.equal(patchcore.memory_bank, embedding[:1]), "at least one row"


def test_layers_are_averaged_and_joined_at_the_finest() -> None:
    patchcore = PatchcoreModel(["layer2", "layer3"], (64, 64), "resnet18", pretrained=False)
    features = {"layer3": random(2, 256, 4, 4, seed=1), "layer2": random(2, 128, 8, 8, seed=2), "layer4": random(1)}
    embedding = patchcore.generate_embedding(features)
    assert embedding.shape == (2, 384, 8, 8)
    corner = features["layer2"][:, :, :2, :2].mean(dim=(2, 3))
    torch.testing.assert_close(embedding[:, :128, 0, 0], corner)
    averaged = F.avg_pool2d(features["layer3"], 3, 1, 1, count_include_pad=False)
    expected = F.interpolate(averaged, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(embedding[:, 128:], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(UsageError, match=r"features lack layer2\. Got layer3\."):
        patchcore.generate_embedding({"layer3": features["layer3"]})
    assert patchcore.train()(images(1)[..., :64]).shape == (64, 384)


def test_reshaping_goes_image_by_image_and_row_by_row() -> None:
    embedding = random(2, 5, 3, 4)
    rows = PatchcoreModel.reshape_embedding(embedding)
    assert rows.shape == (24, 5)
    for image, row, column in np.ndindex(2, 3, 4):
        assert torch.equal(rows[12 * image + 4 * row + column], embedding[image, :, row, column])


def test_the_bank_travels_in_the_state_dict() -> None:
    trained, fresh = model(), model()
    good = images(2)
    trained.subsample_embedding(trained.train()(good), 0.1)
    state = trained.state_dict()
    assert "memory_bank" in state
    fresh.load_state_dict(state)
    for ours, theirs in zip(fresh.eval()(good), trained.eval()(good), strict=True):
        assert torch.equal(ours, theirs)


def test_tiles_are_joined_by_the_tiler() -> None:
    tiled = PatchcoreModel(LAYERS, (96, 128), "filter_bank", True, (64, 64), 32)
    picture = random(1, 3, 96, 128)
    tiler = Tiler((64, 64), 32, (96, 128))
    tiler.grid(tiled.extractor.grid((64, 64)), tiled.extractor.strides)
    layers = dict(zip(LAYERS, tiler(tiled.extractor, picture), strict=True))
    expected = tiled.reshape_embedding(tiled.generate_embedding(layers))
    assert torch.equal(tiled.train()(picture), expected)
    whole = PatchcoreModel(LAYERS, (96, 128), "filter_bank", tile_size=(64, 64))  # waits for apply_tiling
    assert whole.tiler is None
    assert not torch.allclose(whole.train()(picture), expected)
    tiled.subsample_embedding(expected, 0.5)
    assert tiled.eval()(picture)[0].shape == (1, 1, 96, 128)


def test_what_cannot_be_done_is_said() -> None:
    patchcore = model().eval()
    with pytest.raises(NotFittedError, match=r"memory bank is empty\. Call subsample_embedding"):
        patchcore(images(1))
    with pytest.raises(UsageError, match=r"Images must be \(N, 3, \*\(64, 72\)\)\. Got \(1, 3, 64, 64\)\."):
        patchcore(images(1)[..., :64])
    with pytest.raises(UsageError, match=r"sampling_ratio must be above 0 and at most 1\. Got 0\."):
        patchcore.subsample_embedding(random(4, 36), 0)
    with pytest.raises(UsageError, match=r"embedding must have at least one row\. Got none\."):
        patchcore.subsample_embedding(torch.empty(0, 36), 0.5)
    with pytest.raises(NonFiniteError, match=r"embedding holds NaN or infinity\."):
        patchcore.subsample_embedding(torch.full((4, 36), torch.nan), 0.5)
    patchcore.subsample_embedding(random(4, 36), 0.5)
    with pytest.raises(UsageError, match=r"n_neighbors must be at least 1\. Got 0\."):
        patchcore.nearest_neighbors(random(4, 36), 0)
    with pytest.raises(UsageError, match=r"apply_tiling needs a tile_size\."):
        model(apply_tiling=True)
    with pytest.raises(UsageError, match=r"image_size \(16, 16\) is too small"):
        PatchcoreModel(LAYERS, (16, 16), "filter_bank")


# -------------------- PatchcoreLightning

# Lightning's remarks on things that are meant to be so here.
quiet = pytest.mark.filterwarnings(
    "ignore:.*configure_optimizers.*returned.*None.*",
    "ignore:.*does not have many workers.*",
    "ignore:.*have no `val_dataloader`.*",
    "ignore:.*in eval mode at the start of training.*",
    "ignore:.*smaller than the logging interval.*",
    "ignore:.*overridden `transfer_batch_to_device`.*",
    "ignore:.*GPU available but not used.*",
    "ignore:.*LeafSpec.*is deprecated.*",
)
HPARAMS = {"layers": LAYERS, "input_size": list(SIZE), "backbone": "filter_bank", "coreset_sampling_ratio": 0.2}


def classic_batches(count: int, seed: int, defects: int = 0) -> list[dict[str, Any]]:
    """Batches of two, in the older layout; the last `defects` images have a black square."""
    pictures, masks = images(count, seed), torch.zeros(count, *SIZE)
    for i in range(count - defects, count):
        pictures[i, :, 16:40, 20:44] = 0.0
        masks[i, 16:40, 20:44] = 1.0
    labels = masks.amax(dim=(1, 2)).long()
    return [
        {
            "image": pictures[i : i + 2],
            "label": labels[i : i + 2],
            "mask": masks[i : i + 2],
            "image_path": [f"{seed}/{j}.png" for j in range(i, min(i + 2, count))],
        }
        for i in range(0, count, 2)
    ]


def as_image_batch(batch: Mapping[str, Any]) -> ImageBatch:
    return ImageBatch(
        image=batch["image"],
        size=[SIZE] * len(batch["image"]),
        path=batch["image_path"],
        gt_label=batch["label"].bool(),
        gt_mask=batch["mask"].bool(),
    )


def loader(batches: list[Any]) -> DataLoader[Any]:
    return DataLoader(batches, batch_size=None)


def trainer(*callbacks: pl.Callback) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


class Recorder(pl.Callback):
    """Keeps what the steps returned."""

    def __init__(self) -> None:
        self.training: list[Any] = []
        self.validation: list[Any] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.training.append(outputs)

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, *args: Any) -> None:
        self.validation.append(outputs)


@quiet
@pytest.mark.parametrize(
    "hparams",
    [HPARAMS, {"model": HPARAMS}, OmegaConf.create(HPARAMS), OmegaConf.create({"model": HPARAMS})],
    ids=["mapping", "section", "omegaconf", "omegaconf section"],
)
def test_a_trainer_trains_it_from_a_mapping(hparams: Any) -> None:
    module, seen = PatchcoreLightning(hparams), Recorder()
    assert isinstance(module, AnomalyModule)
    assert module.configure_optimizers() is None
    fit, check = classic_batches(4, seed=1), classic_batches(4, seed=2, defects=1)
    trainer(seen).fit(module, loader(fit), loader(check))

    assert module.is_fitted
    assert [tuple(outputs["embedding"].shape) for outputs in seen.training] == [(2 * 8 * 9, 36)] * 2
    outputs = [batch for batch in seen.validation if batch is not None]  # None: Lightning's sanity check
    assert len(outputs) == 2
    for given, batch in zip(check, outputs, strict=True):
        assert batch.keys() == {*given, "anomaly_maps", "pred_scores"}
        assert batch["image_path"] == given["image_path"]
        assert batch["anomaly_maps"].shape == (2, 1, *SIZE)
        assert batch["pred_scores"].shape == (2,)

    module.validation_step(check[0], 0)  # called directly: Lightning hands over a copy
    assert check[0].keys() == {"image", "label", "mask", "image_path"}, "batches are not modified"

    scores = torch.cat([batch["pred_scores"] for batch in outputs])
    assert int(scores.argmax()) == 3
    processor: Any = module.post_processor
    assert processor.raw_image_threshold == pytest.approx(float(scores[3])), "the classic batches calibrate"
    assert processor.image_min == pytest.approx(float(scores.min()))
    assert processor.record.pixel_policy == "maximum F1"


@quiet
def test_both_kinds_of_batches_make_the_detector_that_patchcore_is(tmp_path: Path) -> None:
    classic, modern = PatchcoreLightning(HPARAMS), PatchcoreLightning(HPARAMS)
    plain = Patchcore(backbone="filter_bank", layers=LAYERS, image_size=SIZE, coreset_sampling_ratio=0.2)
    fit, check = classic_batches(4, seed=1), classic_batches(4, seed=2)
    trainer().fit(classic, loader(fit), loader(check))
    for detector in (modern, plain):
        trainer().fit(detector, loader(list(map(as_image_batch, fit))), loader(list(map(as_image_batch, check))))
    picture = (255 * classic_batches(2, seed=3, defects=1)[0]["image"]).byte().permute(0, 2, 3, 1)
    classic.save(tmp_path / "classic.safetensors")
    expected = plain.eval()(picture)
    for detector in (classic.eval(), modern.eval(), blemish.load_detector(tmp_path / "classic.safetensors")):
        verdict = detector(picture)
        assert torch.equal(verdict.raw_score, expected.raw_score)
        assert torch.equal(verdict.pred_mask, expected.pred_mask)
    assert expected.pred_label is not None
    assert bool(expected.pred_label[1]), "the black square"


@quiet
def test_test_and_predict_take_classic_batches() -> None:
    module = PatchcoreLightning(HPARAMS)
    check = loader(classic_batches(4, seed=2, defects=1))
    trainer().fit(module, loader(classic_batches(4, seed=1)), check)
    trainer().test(module, check, verbose=False)
    assert module.evaluator.compute().image_auroc.value == 1.0
    predicted: Any = trainer().predict(module, check)
    assert [one.pred_label.tolist() for one in predicted] == [[False, False], [False, True]]


@quiet
def test_the_embedding_is_subsampled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module = PatchcoreLightning(HPARAMS)
    finished: list[int] = []
    finish = module.bank.finish
    monkeypatch.setattr(module.bank, "finish", lambda *args, **more: (finished.append(1), finish(*args, **more)))
    check = loader(classic_batches(2, seed=2))
    trainer().fit(module, loader(classic_batches(2, seed=1)), check)
    trainer().validate(module, check, verbose=False)
    assert len(finished) == 1


@quiet
def test_training_works_without_validation_and_without_masks() -> None:
    module = PatchcoreLightning(HPARAMS)
    bare = [{"image": batch["image"]} for batch in classic_batches(2, seed=1)]
    trainer().fit(module, loader(bare))
    outputs = module.raw_step(bare[0])
    assert outputs.gt_label is None
    assert outputs.anomaly_map is not None
    assert outputs.anomaly_map.shape == (2, *SIZE)


def test_hparams_reach_the_detector() -> None:
    module = PatchcoreLightning(
        {
            **HPARAMS,
            "input_size": [96, 128],
            "num_neighbors": 3,
            "bank_size": 50,
            "seed": 7,
            "apply_tiling": True,
            "tile_size": [64, 64],
            "tile_stride": 32,
        }
    )
    expected = Patchcore(
        backbone="filter_bank",
        layers=LAYERS,
        image_size=(96, 128),
        coreset_sampling_ratio=0.2,
        num_neighbors=3,
        bank_size=50,
        seed=7,
        tile_size=64,
        tile_stride=32,
    )
    assert module.arguments() == expected.arguments()
    waiting = PatchcoreLightning({**HPARAMS, "tile_size": 64})
    assert waiting.arguments()["tile_size"] is None
    assert PatchcoreLightning({"input_size": 64, "pretrained": False}).extractor.backbone == "resnet18"


@pytest.mark.parametrize(
    ("hparams", "match"),
    [
        ({"layer": LAYERS}, r"unknown key 'layer'\. Did you mean 'layers'\?"),
        ({"model": {"imput_size": SIZE}}, r"unknown key 'imput_size'\. Did you mean 'input_size'\?"),
        ({"zzz": 1}, r"unknown key 'zzz'\. Known: input_size, apply_tiling, "),
        ({"model": "patchcore"}, r"unknown key 'model'\."),
        ({"seed": 1, "model": {"seed": 2}}, r"has seed twice, at the top and under model\."),
        ({"backbone": "filter_bank", "apply_tiling": True}, r"apply_tiling needs a tile_size\."),
        (["layers"], r"hparams must be a mapping, .* Got \['layers'\]\."),
    ],
)
def test_wrong_hparams_are_named(hparams: Any, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        PatchcoreLightning(hparams)


def test_batches_are_checked() -> None:
    module = PatchcoreLightning(HPARAMS)
    with pytest.raises(UsageError, match=r"A batch needs the key image\. Got label\."):
        module.training_step({"label": torch.zeros(2)}, 0)
    with pytest.raises(UsageError, match=r"Images must be \(N, 3, \*\(64, 72\)\), .* Got \(1, 3, 64, 64\)\."):
        module.training_step({"image": images(1)[..., :64]}, 0)


# -------------------- numbers


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")
def test_the_numbers_of_earlier_releases_are_met() -> None:
    with np.load(GOLDEN) as stored:
        golden = {key: torch.from_numpy(stored[key]) for key in stored.files if key.startswith("patchcore")}
    scores = golden["patchcore_classic.patch_scores"]
    maps, score = AnomalyMapGenerator((80, 64))(patch_scores=scores, feature_map_shape=torch.Size((10, 8)))
    torch.testing.assert_close(maps, golden["patchcore_classic.map"], rtol=1e-5, atol=0)
    torch.testing.assert_close(score[0], golden["patchcore_classic.score"], rtol=1e-5, atol=0)

    patchcore = model()
    patchcore.load_state_dict(patchcore.state_dict() | {"memory_bank": golden["patchcore.bank"]})
    distance = patchcore.nearest_neighbors(golden["patchcore.queries"])
    torch.testing.assert_close(distance[:, 0].view(2, 30), golden["patchcore.patch_scores"], rtol=1e-5, atol=0)
