"""The pictures and the trainer behind the bundled backbone: seeded, true to their masks, and able to learn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

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
    assert first.images.shape == (2, 5, 3, 32, 32)
    assert first.masks.shape == (2, 2, 32, 32)
    kept = pool.copy()
    assert np.array_equal(training["pool"].open_pool(tmp_path / "pool.npy", 5, 5, 48), kept)


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")
def test_the_trainer_learns_and_goes_on_where_it_stopped(training: dict[str, ModuleType], tmp_path: Path) -> None:
    train, pool = training["train"], tmp_path / "pool.npy"
    recipe = train.Recipe(products=6, pictures=5, picture_side=64, side=48, episodes=3, warmup=2)

    def run(folder: str, steps: int) -> list[float]:
        return train.train(recipe, tmp_path / folder, pool, steps, 4, None, every=10)

    losses = run("whole", 20)
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    halves = run("halves", 10), run("halves", 20)
    assert len(halves[1]) == 10
    assert (tmp_path / "halves" / "recipe.json").is_file()

    from blemish.features.extractor import FeatureExtractor

    extractor = FeatureExtractor("resnet18", ["layer3"], weights=tmp_path / "whole" / "backbone.safetensors")
    assert extractor(torch.rand(1, 3, 64, 64))[0].shape == (1, 256, 4, 4)
