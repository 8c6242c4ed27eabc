"""The data module behind a real Lightning trainer."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from blemish.data.batch import ImageBatch
from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import read_image, write_png
from blemish.errors import DataError, ImageReadError, UsageError

RNG = np.random.default_rng(2)


def mean(image: Tensor) -> Tensor:
    return (image.float() / 255).mean((1, 2)).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)


def write(path: Path, size: tuple[int, int] = (6, 8)) -> None:
    write_png(path, RNG.integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        write(tmp_path / f"train/good/{i}.png")
    for i in range(3):
        write(tmp_path / f"test/good/{i}.png", (5, 9))
        write(tmp_path / f"test/hole/{i}.png")
        write_png(tmp_path / f"ground_truth/hole/{i}_mask.png", np.ones((6, 8), bool))
    return tmp_path


def module(folder: Path, **arguments: Any) -> ImageDataModule:
    data = ImageDataModule(folder, **{"num_workers": 0, "batch_size": 4} | arguments)
    data.transform = mean
    return data


def paths(loader: Any, root: Path) -> list[str]:
    return [Path(path).relative_to(root).as_posix() for batch in loader for path in batch.path]


def test_the_loaders_follow_the_split_in_order(folder: Path) -> None:
    data = module(folder)
    assert data.policy == "held_out"
    fit, calibrate = paths(data.train_dataloader(), folder), paths(data.val_dataloader(), folder)
    assert fit == [s.relative for s in data.split.fit] == sorted(fit)
    assert calibrate == [s.relative for s in data.split.calibrate]
    assert len(fit) == 8
    assert not set(fit) & set(calibrate)
    batches = list(data.test_dataloader())
    assert [batch.gt_label.tolist() for batch in batches] == [[False] * 3 + [True], [True, True]]
    assert [int(mask.sum()) for batch in batches for mask in batch.gt_mask] == [0, 0, 0, 48, 48, 48]
    assert next(iter(data.train_dataloader())).gt_mask is None


def test_the_validation_set_calibrates_when_it_can(folder: Path) -> None:
    write(folder / "val/good/a.png")
    write(folder / "val/hole/b.png")
    data = module(folder)
    assert data.policy == "validation"
    assert paths(data.val_dataloader(), folder) == ["val/good/a.png", "val/hole/b.png"]
    assert len(data.split.fit) == 10
    held = module(folder, calibrate_on="held_out")
    assert held.policy == "held_out"
    assert len(paths(held.val_dataloader(), folder)) == 2
    oracle = module(folder, calibrate_on="test")
    assert oracle.policy == "test"
    assert paths(oracle.val_dataloader(), folder) == paths(oracle.test_dataloader(), folder)


def test_arguments_reach_the_split(folder: Path) -> None:
    assert len(module(folder, calibration_fraction=0.5).split.calibrate) == 5
    picks = {module(folder, calibration_fraction=0.5, seed=seed).split.calibrate for seed in range(4)}
    assert len(picks) > 1
    with pytest.raises(DataError, match="leaves 1 group"):
        module(folder, group="train").split  # noqa: B018
    bad = folder.parent / "gb"
    for i in range(10):
        write(bad / f"good/{i}.png")
    write(bad / "bad/1.png")
    assert len(module(bad, test_fraction=0.4).split.test) == 4 + 1


def test_incomplete_masks_are_left_out_with_a_word(folder: Path) -> None:
    (folder / "ground_truth/hole/1_mask.png").unlink()
    with pytest.warns(UserWarning, match=r"Masks are left out: 1 anomalous .* first test/hole/1\.png"):
        loader = module(folder).test_dataloader()
    assert all(batch.gt_mask is None for batch in loader)
    for i in (0, 2):
        (folder / f"ground_truth/hole/{i}_mask.png").unlink()
    assert all(batch.gt_mask is None for batch in module(folder).test_dataloader())  # none at all: no warning


def test_predicting_given_files_passes_over_unreadable_ones(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"")
    given = [folder / "test/hole/1.png", folder / "broken.png", folder / "absent.png", str(folder / "test/good/1.png")]
    data = module(folder)
    (batch,) = data.predict_dataloader(given)
    assert batch.path == [str(folder / "test/hole/1.png"), str(folder / "test/good/1.png")]
    assert batch.gt_label is None
    assert [(Path(e.path).name, e.reason) for e in data.unreadable] == [
        ("broken.png", "the file is empty (0 bytes)"),
        ("absent.png", "no such file"),
    ]
    assert len(paths(data.predict_dataloader(), folder)) == 16  # broken.png lies outside the layout
    assert data.unreadable == []


def test_the_fingerprint_depends_on_names_bytes_and_roles(folder: Path) -> None:
    first = module(folder).fingerprint()
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert module(folder, batch_size=1).fingerprint() == first
    assert module(folder, calibration_fraction=0.4).fingerprint() != first
    write(folder / "test/good/9.png")
    assert module(folder).fingerprint() == first  # test images make no model
    (folder / "train/good/0.png").rename(folder / "train/good/00.png")
    renamed = module(folder).fingerprint()
    assert renamed != first
    write(folder / "train/good/1.png")
    assert module(folder).fingerprint() not in (first, renamed)


def test_mistakes_are_told_at_the_door(folder: Path) -> None:
    for arguments, message in [
        ({"batch_size": 0}, "batch_size must be at least 1. Got 0."),
        ({"num_workers": -1}, "num_workers must be at least 0. Got -1."),
        ({"max_pixels": 0}, "max_pixels must be at least 1. Got 0."),
        ({"calibration_fraction": 1.5}, "calibration_fraction must lie between 0 and 1"),
        ({"calibrate_on": "train"}, "calibrate_on must be one of auto, held_out, validation, test"),
        ({"group": "["}, "group must be a regular expression"),
    ]:
        with pytest.raises(UsageError, match=re.escape(message)):
            ImageDataModule("anywhere", **arguments)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"transform is not set\. Use Engine"):
        ImageDataModule(folder).train_dataloader()
    with pytest.raises(DataError, match="nowhere: no such folder"):
        module(Path("nowhere")).train_dataloader()
    with pytest.raises(DataError, match="nothing to test on"):
        module(folder / "train/good").test_dataloader()
    with pytest.raises(ImageReadError, match="more than max_pixels = 3"):
        list(module(folder, max_pixels=3).train_dataloader())


@pytest.mark.parametrize(("cores", "workers"), [(None, 0), (1, 0), (2, 0), (4, 3), (64, 8)])
def test_default_workers(monkeypatch: pytest.MonkeyPatch, cores: int | None, workers: int) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert ImageDataModule("x").num_workers == workers
    assert ImageDataModule("x", num_workers=1).num_workers == 1


def test_no_more_workers_than_images(folder: Path) -> None:
    assert module(folder, num_workers=8).predict_dataloader([folder / "a.png"]).num_workers == 1


class Recorder(LightningModule):
    """A model that only looks."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[str, list[str]] = {"fit": [], "validate": [], "test": []}

    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.seen["fit"] += batch.path

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.seen["validate"] += batch.path

    def test_step(self, batch: ImageBatch, batch_idx: int) -> None:
        self.seen["test"] += batch.path

    def predict_step(self, batch: ImageBatch, batch_idx: int) -> list[tuple[str, float]]:
        assert isinstance(batch, ImageBatch)
        return list(zip(batch.path, batch.image.mean((1, 2, 3)).tolist(), strict=True))

    def configure_optimizers(self) -> None:
        return None


def trainer() -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )


quiet = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",  # advice for gradient descent on many cores
    "ignore:.*LeafSpec",  # Lightning calls what torch deprecated
    "ignore:.*configure_optimizers.* returned `None`",
    "ignore:.*`training_step` returned `None`",
)


@quiet
@pytest.mark.parametrize("workers", [0, 2])
def test_a_real_trainer_predicts(folder: Path, workers: int) -> None:
    (folder / "test/hole/2.png").write_bytes(b"")
    data = module(folder, num_workers=workers)
    found = dict(pair for batch in trainer().predict(Recorder(), datamodule=data) or [] for pair in batch)
    readable = [sample for sample in data.index.samples if sample.relative != "test/hole/2.png"]
    expected = {str(s.path): float(read_image(s.path).astype(np.float64).mean() / 255) for s in readable}
    assert found == pytest.approx(expected, abs=1e-5)
    assert [Path(error.path).name for error in data.unreadable] == ["2.png"]


@quiet
def test_a_real_trainer_fits_and_tests_in_order(folder: Path) -> None:
    data = module(folder)
    model, engine = Recorder(), trainer()
    engine.fit(model, datamodule=data)
    engine.test(model, datamodule=data)
    assert model.seen["fit"] == [str(s.path) for s in data.split.fit]
    assert model.seen["validate"] == [str(s.path) for s in data.split.calibrate]
    assert model.seen["test"] == [str(s.path) for s in data.split.test]
