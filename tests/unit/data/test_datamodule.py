"""The data module behind a real Lightning trainer."""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Tensor

from blemish.data.batch import ImageBatch
from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import Reading, read_image, write_png
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
        write_png(tmp_path / f"ground_truth/hole/{i}_mask.png", np.arange(48).reshape(6, 8) < 9)
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
    assert [int(mask.sum()) for batch in batches for mask in batch.gt_mask] == [0, 0, 0, 9, 9, 9]
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


def test_a_missing_mask_costs_the_pixels_of_its_picture(folder: Path) -> None:
    (folder / "ground_truth/hole/1_mask.png").unlink()
    message = r"Pixel figures are over the other images: 1 anomalous .* have no mask, first test/hole/1\.png"
    with pytest.warns(UserWarning, match=message):
        loader = module(folder).test_dataloader()
    assert [int(mask.sum()) for batch in loader for mask in batch.gt_mask] == [0, 0, 0, 9, 0, 9]
    for i in (0, 2):
        (folder / f"ground_truth/hole/{i}_mask.png").unlink()
    assert all(batch.gt_mask is None for batch in module(folder).test_dataloader())  # none at all: no warning


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mask_that_can_not_be_used_costs_the_pixels_of_its_picture(folder: Path, workers: int) -> None:
    write_png(folder / "ground_truth/hole/1_mask.png", np.ones((8, 6), bool))
    (folder / "ground_truth/hole/2_mask.png").write_bytes(b"")
    loader = module(folder, num_workers=workers).test_dataloader()
    with pytest.warns(UserWarning, match="The pixels of an image are not measured: ") as told:
        masks = [int(mask.sum()) for batch in loader for mask in batch.gt_mask]
    assert masks == [0, 0, 0, 9, 0, 0]
    texts = [str(warning.message) for warning in told]
    assert len(texts) == 2
    assert "1_mask.png: the mask is 8 x 6" in texts[0]
    assert "2_mask.png: the file is empty" in texts[1]


def test_a_mask_that_covers_nearly_all_is_told_about(folder: Path) -> None:
    write_png(folder / "ground_truth/hole/1_mask.png", np.arange(48).reshape(6, 8) > 9)
    loader = module(folder).test_dataloader()
    with pytest.warns(UserWarning, match=r"test/hole/1\.png: its mask marks 79% of the picture\. Is it inverted\?"):
        masks = [int(mask.sum()) for batch in loader for mask in batch.gt_mask]
    assert masks == [0, 0, 0, 9, 38, 9]


def test_thresholds_are_not_chosen_with_a_mask_that_can_not_be_used(folder: Path) -> None:
    write(folder / "val/good/a.png")
    write(folder / "val/hole/b.png")
    write_png(folder / "ground_truth/val/hole/b.png", np.ones((8, 6), bool))
    with pytest.raises(DataError, match="the mask is 8 x 6"):
        list(module(folder).val_dataloader())
    (folder / "ground_truth/val/hole/b.png").unlink()
    write(folder / "val/hole/c.png")
    write_png(folder / "ground_truth/val/hole/c.png", np.ones((6, 8), bool))
    with pytest.warns(UserWarning, match="The threshold of pixels is chosen without masks, as it needs them all: 1"):
        batches = list(module(folder).val_dataloader())
    assert all(batch.gt_mask is None for batch in batches)


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
        ({"calibration_fraction": 1.5}, "calibration_fraction must be between 0 and 1, both excluded. Got 1.5."),
        ({"calibrate_on": "train"}, "calibrate_on must be one of auto, cross, held_out, validation, test"),
        ({"group": "["}, "group must be a regular expression"),
        ({"good": "ok"}, "good must be a list of names. Got 'ok'."),
        ({"frames": "all"}, "frames must be 'refuse' or 'first'. Got 'all'."),
        ({"bit_depth": 17}, "bit_depth must be between 1 and 16. Got 17."),
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


def test_loader_processes_tell_which_images_are_alike(folder: Path) -> None:
    for i in range(10):
        (folder / f"train/good/{i}_again.png").write_bytes((folder / f"train/good/{i}.png").read_bytes())
    alone, shared = (module(folder, calibrate_on="cross", num_workers=workers).split for workers in (0, 2))
    assert shared == alone
    assert alone.parts == 10
    fold = {sample.path.stem: number for sample, number in zip(alone.fit, alone.folds, strict=True)}
    assert all(fold[f"{i}_again"] == fold[f"{i}"] for i in range(10))
    (folder / "train/good/3.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match="the file is empty"):
        _ = module(folder, calibrate_on="cross", num_workers=2).split


# --- how files are read ---


def deep(path: Path, top: int, size: tuple[int, int] = (6, 8)) -> None:
    pixels = RNG.integers(0, top, size, dtype=np.uint16)
    pixels[0, 0] = top
    write_png(path, pixels)


def brightest(loader: Any) -> float:
    return max(float(batch.image.max()) for batch in loader)


def whole(image: Tensor) -> Tensor:
    return image.permute(0, 3, 1, 2).float() / (255 if image.dtype == torch.uint8 else 1)


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (3500, 12), (4095, 12), (16_000, 14), (16_384, None)])
def test_the_good_images_show_how_many_bits_are_used(tmp_path: Path, top: int, bits: int | None) -> None:
    for i in range(6):
        deep(tmp_path / f"{i}.png", top if i == 5 else top // 4)
    data = ImageDataModule(tmp_path, num_workers=0)
    data.transform = whole
    assert data.bit_depth is None  # not looked at yet
    light = brightest(data.train_dataloader()), brightest(data.val_dataloader())
    assert max(light) == pytest.approx(top / (2 ** (bits or 16) - 1))
    assert data.bit_depth == data.reading.bit_depth == data.record().bit_depth == bits


def test_a_bit_depth_that_is_given_is_taken(tmp_path: Path) -> None:
    for i in range(6):
        deep(tmp_path / f"{i}.png", 4095)
    data = ImageDataModule(tmp_path, num_workers=0, bit_depth=16)
    data.transform = whole
    assert brightest(data.train_dataloader()) == pytest.approx(4095 / 65535)
    data = ImageDataModule(tmp_path, num_workers=0, bit_depth=11)
    data.transform = whole
    with pytest.raises(ImageReadError, match=r"outside the expected range \[0, 2047\]"):
        list(data.train_dataloader())


def test_files_of_eight_bits_have_no_depth_to_find_out(folder: Path) -> None:
    data = module(folder)
    assert data.reading == Reading()
    assert data.record().bit_depth is None


def test_the_first_of_several_pictures_is_taken_when_asked_for(folder: Path) -> None:
    pages = [Image.fromarray(np.full((6, 8), value, np.uint8)) for value in (10, 200)]
    pages[0].save(folder / "train/good/0.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ImageReadError, match="the file holds 2 pictures"):
        list(module(folder).train_dataloader())
    data = module(folder, frames="first")
    batches = list(data.train_dataloader()) + list(data.val_dataloader())
    light = {Path(p).name: float(i.mean()) for batch in batches for p, i in zip(batch.path, batch.image, strict=True)}
    assert light["0.tif"] == pytest.approx(10 / 255)


# --- what a model remembers ---


def names(data: ImageDataModule) -> set[str]:
    return {sample.relative for sample in data.split.test}


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    root = tmp_path / "parts"
    for i in range(40):
        write(root / f"good/a{i:03d}.png")
    for i in range(5):
        write(root / f"bad/{i}.png")
    return root


def test_a_folder_that_has_grown_is_tested_on_images_that_made_no_model(parts: Path) -> None:
    data = ImageDataModule(parts)
    record, made_from = data.record(), {s.relative for s in (*data.split.fit, *data.split.calibrate)}
    assert names(ImageDataModule.from_record(parts, record)) == names(data)
    for i in range(20):
        write(parts / f"good/b{i:03d}.png")
    plain = ImageDataModule(parts)
    assert names(plain) & made_from, "dealt anew, some would be tested on"
    grown = ImageDataModule.from_record(parts, record)
    assert not names(grown) & made_from
    assert names(grown) == names(data) | {f"good/b{i:03d}.png" for i in range(20)}
    with pytest.warns(UserWarning, match=r"\d test image\(s\) are left out: the model was fitted on, .* first good/a"):
        plain.leave_out_seen(record)
    assert names(plain) == names(ImageDataModule(parts)) - made_from


def test_names_don_t_matter(parts: Path) -> None:
    data = ImageDataModule(parts)
    record = data.record()
    seen = data.split.fit[0]
    shutil.copy(seen.path, parts / "good/copy.png")
    assert "good/copy.png" not in names(ImageDataModule.from_record(parts, record))
    (parts / seen.relative).rename(parts / "good/zzz.png")
    assert "good/zzz.png" not in names(ImageDataModule.from_record(parts, record))
    elsewhere = parts.parent / "elsewhere"
    shutil.copytree(parts, elsewhere)
    assert names(ImageDataModule.from_record(elsewhere, record)) == names(data)


def test_a_test_set_of_the_owner_that_holds_fitted_images_is_told_about(folder: Path) -> None:
    data = ImageDataModule(folder)
    shutil.copy(data.split.fit[0].path, folder / "test/good/copy.png")
    with pytest.warns(UserWarning, match=r"1 test image\(s\) are left out: .* same bytes, first test/good/copy\.png"):
        again = ImageDataModule.from_record(folder, data.record())
    assert names(again) == names(data)


def test_other_folders_are_tested_on_whole(parts: Path, folder: Path) -> None:
    record = ImageDataModule(parts).record()
    other = parts.parent / "other"
    for i in range(10):
        write(other / f"good/{i}.png")
    write(other / "bad/0.png")
    assert len(names(ImageDataModule.from_record(other, record))) == 11
    only_tests = parts.parent / "only_tests"
    write(only_tests / "test/good/0.png")
    write(only_tests / "test/hole/0.png")
    assert len(names(ImageDataModule.from_record(only_tests, record))) == 2


def test_images_that_chose_an_oracle_s_threshold_are_tested_on(parts: Path) -> None:
    data = ImageDataModule(parts, calibrate_on="test")
    assert names(ImageDataModule.from_record(parts, data.record())) == names(data)


def test_what_was_said_of_a_folder_is_remembered_for_that_folder(tmp_path: Path) -> None:
    for i in range(8):
        write(tmp_path / f"a/hyv\u00e4t/{i}.png")
        write(tmp_path / f"a/vialliset/{i}.png")
        write(tmp_path / f"b/good/{i}.png")
        write(tmp_path / f"b/bad/{i}.png")
    said = {"good": ["hyv\u00e4t"], "bad": ["vialliset"]}
    record = ImageDataModule(tmp_path / "a", **said).record()
    assert (record.good, record.bad) == (("hyv\u00e4t",), ("vialliset",))
    assert ImageDataModule.from_record(tmp_path / "a", record).index.layout == "named"
    assert ImageDataModule.from_record(tmp_path / "b", record).index.layout == "good_bad"
    everything = ImageDataModule(tmp_path / "a", all_good=True).record()
    assert everything.all_good
    with pytest.raises(DataError, match="the layout is not clear"):
        ImageDataModule.from_record(tmp_path / "a", everything)
    again = ImageDataModule.from_record(tmp_path / "a", everything, **said)
    assert {sample.label for sample in again.split.test} == set() or {s.label for s in again.split.test} == {True}


def test_records_of_models_that_were_added_to_hold_all_images(parts: Path, folder: Path) -> None:
    first, second = ImageDataModule(parts).record(), ImageDataModule(folder).record()
    both = second.after(first)
    assert both.seen() == first.seen() | second.seen()
    assert len(both.seen()) == 32 + 10
    assert replace(both, digests=second.digests) == second
    assert second.after(None) == second


def test_a_bit_depth_that_a_model_remembers_is_used(tmp_path: Path) -> None:
    for i in range(8):
        deep(tmp_path / f"good/{i}.png", 4095)
        deep(tmp_path / f"bad/{i}.png", 900)
    record = ImageDataModule(tmp_path).record()
    assert record.bit_depth == 12
    dark = tmp_path.parent / "dark"
    for i in range(8):
        deep(dark / f"good/{i}.png", 900)
        deep(dark / f"bad/{i}.png", 900)
    assert ImageDataModule(dark).reading.bit_depth == 10
    assert ImageDataModule.from_record(dark, record).reading.bit_depth == 12
    assert ImageDataModule.from_record(dark, record, bit_depth=14).reading.bit_depth == 14


# --- images in memory ---


def test_arrays_for_fitting_testing_and_predicting() -> None:
    good = [RNG.integers(0, 200, (6, 8, 3), dtype=np.uint8) for _ in range(12)]
    bad = [RNG.integers(0, 200, (6, 8), dtype=np.uint8), RNG.random((5, 4, 3)).astype(np.float32)]
    mask = np.zeros((6, 8), bool)
    mask[2] = True
    data = ImageDataModule.from_arrays(
        [*good, *bad], [False] * 12 + [True] * 2, [None] * 12 + [mask, np.eye(5, 4, dtype=bool)], batch_size=4
    )
    data.transform = mean
    assert (data.index.layout, data.num_workers) == ("arrays", 0)
    sets = data.split
    assert [len(part) for part in (sets.fit, sets.calibrate, sets.test)] == [6, 3, 5]
    fitted = [image for batch in data.train_dataloader() for image in batch.image]
    expected = [data.pixels(sample).mean((0, 1)) / 255 for sample in sets.fit]
    np.testing.assert_allclose([image[:, 0, 0] for image in fitted], expected, atol=1e-6)
    masks = {
        path: int(m.sum())
        for batch in data.test_dataloader()
        for path, m in zip(batch.path, batch.gt_mask, strict=True)
    }
    assert {masks["000012"], masks["000013"]} == {8, 4}
    assert sum(masks.values()) == 12
    assert sum(len(batch) for batch in data.predict_dataloader()) == 14
    assert data.record().fingerprint == data.fingerprint()
    same = ImageDataModule.from_arrays([*good, *bad], [False] * 12 + [True] * 2)
    assert same.record().digests == data.record().digests


def test_arrays_of_sixteen_bits_are_read_as_files_are() -> None:
    images = [RNG.integers(0, 4096, (6, 8), dtype=np.uint16) for _ in range(10)]
    images[0][0, 0] = 4095
    data = ImageDataModule.from_arrays(images)
    assert data.record().bit_depth == 12
    np.testing.assert_allclose(data.pixels(data.index.samples[0])[..., 1], images[0] / 4095, atol=1e-7)
    data = ImageDataModule.from_arrays(images, bit_depth=16)
    np.testing.assert_allclose(data.pixels(data.index.samples[0])[..., 1], images[0] / 65535, atol=1e-7)


def test_names_group_arrays_and_subsets_deal_them() -> None:
    images = [np.full((3, 4), i, np.uint8) for i in range(8)]
    subsets = ["train"] * 6 + ["test"] * 2
    data = ImageDataModule.from_arrays(
        images,
        [False] * 7 + [True],
        names=[f"part{i // 2}_{i % 2}" for i in range(8)],
        subsets=subsets,
        group=r"(part\d+)_",
    )
    assert names(data) == {"part3_0", "part3_1"}
    assert len({sample.relative[:5] for sample in data.split.calibrate}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": [False]}, "labels must have one entry an image. Got 1 for 2 images."),
        ({"names": ["a", "a"]}, "names must differ from each other."),
        ({"labels": [True, True]}, "None of the arrays is labeled good"),
        ({"labels": [False, True], "subsets": [None, "train"]}, "000001 is in the subset train but not labeled good"),
        ({"masks": [np.ones((3, 3), bool), None]}, "The mask of 000000 must be (4, 5), as its image is. Got (3, 3)."),
    ],
)
def test_lists_that_don_t_fit_together_are_refused(arguments: dict[str, Any], message: str) -> None:
    images = [np.zeros((4, 5), np.uint8)] * 2
    with pytest.raises((UsageError, DataError), match=re.escape(message)):
        ImageDataModule.from_arrays(images, **arguments)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 4), np.int32),
        np.zeros((3, 4, 4), np.uint8),
        np.zeros((3, 0), np.uint8),
        np.zeros((3,), np.uint8),
        np.full((3, 4), 1.5, np.float32),
        np.full((3, 4), np.nan, np.float32),
    ],
)
def test_arrays_of_another_form_are_refused(array: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"000001 must (be \(H, W, 3\) RGB or \(H, W\) gray|lie in \[0, 1\])"):
        ImageDataModule.from_arrays([np.zeros((4, 5), np.uint8), array])


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


def test_what_is_left_out_is_remembered(folder: Path, tmp_path: Path) -> None:
    data = module(folder, exclude=["train/good/3.png"])
    assert "train/good/3.png" not in paths(data.train_dataloader(), folder)
    record = data.record()
    assert record.exclude == ("train/good/3.png",)
    again = ImageDataModule.from_record(folder, record, num_workers=0)
    assert again.index.excluded == ("train/good/3.png",)
    assert again.split == data.split
    (folder / "train/good/3.png").unlink()
    elsewhere = ImageDataModule.from_record(folder, record, num_workers=0)
    assert elsewhere.index.excluded == (), "another folder need not have it"
    with pytest.raises(DataError, match=r"can't be told, first train/good/3.png"):
        module(folder, exclude=["train/good/3.png"]).index  # noqa: B018


def test_defects_calibrate_and_nothing_else(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    defects = tmp_path_factory.mktemp("defects")
    for i in range(3):
        write(defects / f"{i}.png")
    data = module(folder, calibrate_on="cross", defects=defects)
    batches = list(data.val_dataloader())
    assert [label for batch in batches for label in batch.gt_label.tolist()] == [False] * 10 + [True] * 3
    assert not any(sample.label for sample in data.split.fit)
    shutil.copy(defects / "1.png", folder / "test" / "hole" / "copy.png")
    known = module(folder)
    with pytest.warns(UserWarning, match="1 test image"):
        known.leave_out_seen(data.record())
    shutil.copy(folder / "train/good/2.png", defects / "2.png")
    with pytest.raises(DataError, match=r"2.png is also among the good parts, as train/good/2.png"):
        module(folder, defects=defects).calibration  # noqa: B018
    with pytest.raises(DataError, match="no folder with images of defects"):
        module(folder, defects=folder / "none").calibration  # noqa: B018
    arrays = ImageDataModule.from_arrays([np.zeros((8, 8), np.uint8)] * 3, defects=defects)
    with pytest.raises(UsageError, match="defects is a folder"):
        arrays.calibration  # noqa: B018


def test_photographs_of_one_part_are_told_by_their_looks(tmp_path: Path) -> None:
    for part in range(6):
        base = RNG.uniform(60, 160, (24, 32, 3))
        for shot in range(2):  # brighter and noisier
            picture = np.clip(base * (1 + 0.3 * shot) + RNG.normal(0, 3, base.shape), 0, 255)
            write_png(tmp_path / f"good/{shot}_{part}.png", picture.astype(np.uint8))
    split = module(tmp_path, calibrate_on="cross").split
    fold = {sample.path.stem: number for sample, number in zip(split.fit, split.folds, strict=True)}
    assert split.parts == 6
    assert all(fold[f"0_{part}"] == fold[f"1_{part}"] for part in range(6))
    record = module(tmp_path, calibrate_on="cross").record()
    assert ImageDataModule.from_record(tmp_path, record, num_workers=0).split.parts is None, "a test needs no folds"
