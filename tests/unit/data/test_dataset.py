"""Items, batches and loaders, in this process and in workers."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blemish.data.batch import ImageBatch
from blemish.data.dataset import ImageDataset, collate, make_loader
from blemish.data.image_io import Reading, write_png
from blemish.data.index import Sample
from blemish.errors import DataError, ImageReadError, UsageError

RNG = np.random.default_rng(11)


def halve(image: Tensor) -> Tensor:
    """A stand-in for a PreProcessor: (1, H, W, 3) -> (1, 3, 4, 4), the mean in every pixel."""
    assert image.shape[0] == 1
    assert image.shape[3] == 3
    scaled = image.float() / 255 if image.dtype == torch.uint8 else image
    return scaled.mean((1, 2)).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)


def keep(image: Tensor) -> Tensor:
    return image.float().permute(0, 3, 1, 2)


def make(
    root: Path, name: str, label: bool | None, size: tuple[int, int] = (6, 8), mask: np.ndarray | None = None
) -> Sample:
    path = root / f"{name}.png"
    write_png(path, RNG.integers(0, 256, (*size, 3), dtype=np.uint8))
    mask_path = None
    if mask is not None:
        mask_path = root / f"{name}_mask.png"
        write_png(mask_path, mask)
    return Sample(path, f"{name}.png", label, {None: "", False: "good", True: "dent"}[label], mask_path)


def spot(size: tuple[int, int] = (6, 8)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[2, 3] = True
    return mask


def test_an_item_holds_the_transformed_image_and_the_size_on_disk(tmp_path: Path) -> None:
    sample = make(tmp_path, "a", True, (6, 8), spot())
    item = ImageDataset([sample], halve, with_masks=True)[0]
    assert item.image.shape == (3, 4, 4)
    assert item.image.dtype == torch.float32
    assert item.size == (6, 8)
    assert item.mask is not None
    np.testing.assert_array_equal(item.mask.numpy(), spot())
    assert ImageDataset([sample], halve)[0].mask is None


def test_the_transform_gets_uint8_or_unit_floats_without_a_graph(tmp_path: Path) -> None:
    write_png(tmp_path / "deep.png", np.full((3, 5), 65535, np.uint16))
    write_png(tmp_path / "flat.png", np.full((3, 5), 255, np.uint8))
    seen: list[tuple[torch.dtype, float]] = []
    weight = torch.ones(1, requires_grad=True)

    def spy(image: Tensor) -> Tensor:
        seen.append((image.dtype, float(image.max())))
        return keep(image) * weight

    samples = [Sample(tmp_path / f"{name}.png", name, False, "good") for name in ("deep", "flat")]
    items = [ImageDataset(samples, spy)[i] for i in range(2)]
    assert seen == [(torch.float32, 1.0), (torch.uint8, 255.0)]
    assert not any(item.image.requires_grad for item in items)


def test_collate_stacks_what_has_one_size(tmp_path: Path) -> None:
    samples = [make(tmp_path, "a", True, mask=spot()), make(tmp_path, "b", False)]
    dataset = ImageDataset(samples, halve, with_masks=True)
    batch = collate([dataset[0], dataset[1]])
    assert len(batch) == 2
    assert batch.image.shape == (2, 3, 4, 4)
    assert batch.size == [(6, 8), (6, 8)]
    assert batch.path == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    assert batch.gt_label is not None
    assert batch.gt_label.tolist() == [True, False]
    assert batch.gt_label.dtype == torch.bool
    assert batch.defect == ["dent", "good"]
    assert isinstance(batch.gt_mask, Tensor)
    assert batch.gt_mask.shape == (2, 6, 8)
    assert batch.gt_mask.dtype == torch.bool
    assert batch.gt_mask.sum((1, 2)).tolist() == [1, 0]  # the good one has no file and an all-False mask


def test_collate_lists_masks_of_several_sizes(tmp_path: Path) -> None:
    samples = [make(tmp_path, "a", True, (6, 8), spot()), make(tmp_path, "b", True, (9, 5), spot((9, 5)))]
    dataset = ImageDataset(samples, halve, with_masks=True)
    batch = collate([dataset[0], dataset[1]])
    assert isinstance(batch.gt_mask, list)
    assert [tuple(mask.shape) for mask in batch.gt_mask] == batch.size == [(6, 8), (9, 5)]


def test_collate_says_unknown(tmp_path: Path) -> None:
    dataset = ImageDataset([make(tmp_path, "a", True), make(tmp_path, "b", None)], halve)
    batch = collate([dataset[0], dataset[1]])
    assert batch.gt_label is batch.gt_mask is batch.defect is None


def test_mixed_shapes_are_refused_by_name(tmp_path: Path) -> None:
    dataset = ImageDataset([make(tmp_path, "a", False), make(tmp_path, "b", False, (9, 5))], keep)
    message = r"a\.png has \(3, 6, 8\), .*b\.png has \(3, 9, 5\)\. Give the pre-processor a fixed image size"
    with pytest.raises(DataError, match=message):
        collate([dataset[0], dataset[1]])


def test_an_image_that_is_spared_leaves_the_masks_of_its_batch(tmp_path: Path) -> None:
    """Else the threshold of pixels would pass over the defects that it shares a batch with."""
    good, bad = make(tmp_path, "good", False), make(tmp_path, "bad", True, mask=spot())
    dataset = ImageDataset([good, bad], halve, with_masks=True, spared={good: (6, 8)})
    batch = collate([dataset[0], dataset[1]])
    assert (len(batch), len(batch.image)) == (2, 1)
    assert batch.gt_mask is not None
    np.testing.assert_array_equal(batch.gt_mask, np.stack([np.zeros((6, 8), bool), spot()]))


def test_a_missing_mask_is_never_made_up(tmp_path: Path) -> None:
    for label in (True, None):
        with pytest.raises(UsageError, match=r"with_masks needs a mask .* 1 lack one, first a\.png"):
            ImageDataset([make(tmp_path, "a", label)], halve, with_masks=True)


def test_a_mask_of_another_size_is_refused(tmp_path: Path) -> None:
    dataset = ImageDataset([make(tmp_path, "a", True, (6, 8), spot((8, 6)))], halve, with_masks=True)
    with pytest.raises(DataError, match="the mask is 8 x 6"):
        dataset[0]


def test_max_pixels_reaches_the_reader(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match="more than max_pixels = 47"):
        ImageDataset([make(tmp_path, "a", False)], halve, reading=Reading(max_pixels=47))[0]


@pytest.mark.parametrize("workers", [0, 2])
def test_loaders_give_the_same_in_workers(tmp_path: Path, workers: int) -> None:
    samples = [make(tmp_path, f"{i}", i % 2 == 1, mask=spot() if i % 2 else None) for i in range(7)]
    dataset = ImageDataset(samples, halve, with_masks=True)
    batches = list(make_loader(dataset, batch_size=3, num_workers=workers))
    assert all(isinstance(batch, ImageBatch) for batch in batches)
    assert [len(batch) for batch in batches] == [3, 3, 1]
    assert [path for batch in batches for path in batch.path] == [str(s.path) for s in samples]
    expected = torch.stack([dataset[i].image for i in range(7)])
    torch.testing.assert_close(torch.cat([batch.image for batch in batches]), expected, rtol=0, atol=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_leave_workers_as_themselves(tmp_path: Path, workers: int) -> None:
    samples = [make(tmp_path, "a", False), make(tmp_path, "b", False)]
    samples[1].path.write_bytes(b"")
    with pytest.raises(ImageReadError, match=f"^{re.escape(str(samples[1].path))}: the file is empty") as caught:
        list(make_loader(ImageDataset(samples, halve), batch_size=2, num_workers=workers))
    assert caught.value.path == str(samples[1].path)
    mixed = ImageDataset([make(tmp_path, "c", False), make(tmp_path, "d", False, (9, 5))], keep)
    with pytest.raises(DataError, match=r"^Images of one batch must have one shape"):
        list(make_loader(mixed, batch_size=2, num_workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_can_be_passed_over_and_listed(tmp_path: Path, workers: int) -> None:
    samples = [make(tmp_path, f"{i}", False) for i in range(6)]
    for i in (1, 2, 3):
        samples[i].path.write_bytes(b"no image")
    unreadable: list[ImageReadError] = []
    loader = make_loader(ImageDataset(samples, halve), batch_size=2, num_workers=workers, unreadable=unreadable)
    batches = list(loader)
    assert [Path(path).stem for batch in batches for path in batch.path] == ["0", "4", "5"]
    assert [len(batch) for batch in batches] == [1, 2]
    assert [Path(error.path).stem for error in unreadable] == ["1", "2", "3"]
