"""The pictures and the trainer behind the bundled backbone: seeded, true to their masks, and able to learn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

MODULES = ("pictures", "defects", "pool", "episodes", "train")


@pytest.fixture(scope="module")
def training() -> Iterator[dict[str, ModuleType]]:
    folder = str(Path(__file__).parents[1] / "training")
    sys.path.insert(0, folder)
    import importlib

    yield {name: importlib.import_module(name) for name in MODULES}
    sys.path.remove(folder)
    for name in MODULES:
        del sys.modules[name]


def test_pictures_come_from_their_seed(training: dict[str, ModuleType]) -> None:
    pictures = training["pictures"]
    for seed in range(24):
        one, again, other = (pictures.picture(pictures.product(seed), (seed, number), 64) for number in (0, 0, 1))
        assert one.shape == (64, 64, 3)
        assert one.dtype == np.uint8
        assert np.array_equal(one, again), seed
        assert not np.array_equal(one, other), seed
        assert one.std() > 0.5, seed


def test_every_family_can_be_drawn(training: dict[str, ModuleType]) -> None:
    pictures = training["pictures"]
    for index, painter in enumerate(dict.fromkeys(pictures.PAINTERS)):
        paint = painter(np.random.default_rng(index))
        scene = paint(np.random.default_rng(1), 48)
        assert scene.shape == (48, 48, 3)
        assert np.isfinite(scene).all()


def test_a_defect_changes_what_its_mask_says(training: dict[str, ModuleType]) -> None:
    defects = training["defects"]
    rng = np.random.default_rng(0)
    image, donor = rng.uniform(0.3, 0.7, (2, 96, 96, 3)).astype(np.float32)
    before, planted = image.copy(), 0
    for seed in range(60):
        damaged, mask = defects.plant(image, donor, np.random.default_rng(seed))
        assert np.array_equal(mask, np.abs(damaged - image).max(-1) > defects.VISIBLE)
        assert damaged.min() >= 0
        assert damaged.max() <= 1
        planted += mask.any()
    assert np.array_equal(image, before)
    assert planted > 50


def test_batches_depend_on_their_number_alone(training: dict[str, ModuleType], tmp_path: Path) -> None:
    pool = training["pool"].open_pool(tmp_path / "pool.npy", 5, 5, 48, processes=1)
    stream = training["episodes"].EpisodeStream(pool, 2, 32, seed=3)
    later = iter(training["episodes"].EpisodeStream(pool, 2, 32, seed=3, first=1))
    first, second = (stream.batch(number) for number in (0, 1))
    again = next(later)
    assert torch.equal(second.images, again.images)
    assert torch.equal(second.masks, again.masks)
    assert not torch.equal(first.images, second.images)
    assert first.images.shape == (2, 4, 3, 32, 32)
    assert first.masks.shape == (2, 1, 32, 32)
    kept = pool.copy()
    assert np.array_equal(training["pool"].open_pool(tmp_path / "pool.npy", 5, 5, 48), kept)


def test_the_loss_falls_in_ten_steps(training: dict[str, ModuleType], tmp_path: Path) -> None:
    train, pool = training["train"], training["pool"].open_pool(tmp_path / "pool.npy", 6, 5, 64, processes=1)
    batch = training["episodes"].EpisodeStream(pool, 2, 40, seed=0).batch(0)
    torch.manual_seed(0)
    learner = train.Learner(train.Recipe(products=6, learning_rate=1e-3))
    optimizer = train.optimizer_of(learner)
    losses = [train.update(learner, optimizer, batch) for _ in range(10)]
    for name in ("product", "cell", "episode", "total"):
        assert losses[-1][name] < 0.95 * losses[0][name], name


def test_nearest_rows_come_from_other_good_pictures(training: dict[str, ModuleType]) -> None:
    """Against a loop; rows apart enough for the search's low precision."""
    rows = torch.randn(2, 4, 6, 32, generator=torch.Generator().manual_seed(0))  # three good pictures and a damaged one
    found = training["train"]._nearest(rows)
    for episode, pictures in enumerate(rows):
        for number, picture in enumerate(pictures):
            others = torch.cat([good for other, good in enumerate(pictures[:3]) if other != number])
            expected = others[torch.cdist(picture, others).argmin(1)]
            assert torch.equal(found[episode, number], expected)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_a_run_goes_on_where_it_stopped(training: dict[str, ModuleType], tmp_path: Path) -> None:
    train, pool = training["train"], tmp_path / "pool.npy"
    recipe = train.Recipe(products=6, pictures=5, picture_side=64, side=40, episodes=2, warmup=2)

    def run(folder: str, steps: int) -> list[float]:
        return train.train(recipe, tmp_path / folder, pool, steps, 2, None, every=2)

    whole, begun = run("whole", 4), run("halves", 2)
    started = train.train(recipe, tmp_path / "other", pool, 4, 2, tmp_path / "halves" / "checkpoint.pt", every=2)
    resumed = run("halves", 4)
    assert len(begun) == len(resumed) == 2
    assert started == pytest.approx(resumed, rel=1e-3)
    assert begun[0] == pytest.approx(whole[0], rel=1e-3)

    from blemish.features import bundled_network

    written = tmp_path / "halves" / "backbone.safetensors"
    built = bundled_network.build(["layer3"], pretrained=True, weights=None, seed=0, file=written)
    assert built.network(torch.rand(1, 3, 64, 64))["layer3"].shape == (1, 32, 4, 4)


def test_the_saved_network_differs_by_one_factor_per_layer(training: dict[str, ModuleType]) -> None:
    train = training["train"]
    torch.manual_seed(0)
    learner = train.Learner(train.Recipe(products=4))
    for module in learner.backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    pool = np.random.default_rng(0).integers(0, 256, (33, 1, 64, 64, 3), np.uint8)
    images = torch.randn(2, 3, 64, 64)
    saved = train.timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3)).eval()
    state = {name: value.float() for name, value in train.to_save(learner, pool).items()}
    directions = {name: state.pop(f"projections.{name}.weight")[:, :, 0, 0] for name in ("layer2", "layer3")}
    saved.load_state_dict(state)
    drawn = (torch.from_numpy(pool[::16, 0]).permute(0, 3, 1, 2) / 255 - learner.mean) / learner.std
    learner.eval()
    with torch.no_grad():
        for one, other, on_pool in zip(learner.backbone(images), saved(images), saved(drawn), strict=True):
            factor = (other.flatten() @ one.flatten()) / one.square().sum()
            torch.testing.assert_close(other, factor * one, rtol=5e-3, atol=5e-3 * float(other.std()))
            assert float(on_pool.var((0, 2, 3)).mean().sqrt()) == pytest.approx(train.DEVIATION, rel=5e-3)
        for name, one in zip(("layer2", "layer3"), saved(drawn)[1:], strict=True):
            rows = train.average_neighborhood(train.compress(one)).movedim(1, -1).flatten(0, -2)
            kept = rows @ directions[name].T
            best = PCA(len(directions[name])).fit(rows.numpy()).explained_variance_.sum()
            assert float(kept.var(0).sum()) == pytest.approx(best, rel=5e-3)
