"""`check` finds what is planted, says nothing against a clean folder, and writes JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.data.check import CheckReport, check, masks_complete
from blemish.data.depth import reading_of
from blemish.data.image_io import Reading, write_png
from blemish.data.index import index_folder
from blemish.data.splits import split

RNG = np.random.default_rng(5)


def image(size: tuple[int, int] = (40, 48), dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, 200, size, dtype=dtype)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(10):
        write_png(tmp_path / f"train/good/{i}.png", image())
    for i in range(3):
        write_png(tmp_path / f"test/good/{i}.png", image(dtype=np.uint16) * np.uint16(257))
        write_png(tmp_path / f"test/hole/{i}.png", image((64, 32)))
        mask = np.zeros((64, 32), bool)
        mask[10:20, 5:9] = True
        write_png(tmp_path / f"ground_truth/hole/{i}_mask.png", mask)
    return tmp_path


def run(folder: Path, **arguments: Any) -> CheckReport:
    index = index_folder(folder)
    report = check(index, split(index), **arguments)
    assert json.loads(json.dumps(report.to_dict()))["ok"] == report.ok
    return report


def messages(report: CheckReport, severity: str) -> list[str]:
    return [finding.message for finding in report.findings if finding.severity == severity]


def test_a_clean_folder(folder: Path) -> None:
    report = run(folder)
    assert report.ok
    assert messages(report, "error") == messages(report, "warning") == []
    assert {name: (s.images, s.good, s.anomalous, s.masks) for name, s in report.sets.items()} == {
        "fit": (8, 8, 0, 0),
        "calibrate": (2, 2, 0, 0),
        "validation": (0, 0, 0, 0),
        "test": (6, 3, 3, 3),
        "unused": (0, 0, 0, 0),
    }
    assert report.sets["test"].defects == {"hole": 3}
    assert report.sizes == {"40 x 48": 13, "64 x 32": 3}
    assert report.modes == {"gray 8 bit": 13, "gray 16 bit": 3}
    assert messages(report, "note") == [
        "Layout mvtec: 8 good images would be fitted on.",
        "Taken as good: train/good/ (10).",
        "Thresholds would come from 2 good images held out from fitting, as there is no validation set. "
        "They can certify a false-alarm rate of 1/3 = 33.33% on average.",
    ]


def test_every_planted_fault_is_found(folder: Path) -> None:
    (folder / "train/good/0.png").write_bytes((folder / "train/good/0.png").read_bytes()[:60])
    (folder / "test/hole/broken.png").write_text("no picture")
    write_png(folder / "ground_truth/hole/0_mask.png", np.ones((32, 64), bool))
    (folder / "ground_truth/hole/1_mask.png").write_bytes(b"")
    write_png(folder / "ground_truth/hole/2_mask.png", np.zeros((64, 32), bool))
    write_png(folder / "ground_truth/hole/nobody_mask.png", np.ones((64, 32), bool))
    write_png(folder / "ground_truth/good/0_mask.png", np.ones((40, 48), bool))
    (folder / "test/good/copy.png").write_bytes((folder / "train/good/1.png").read_bytes())
    write_png(folder / "test/good/tiny.png", image((8, 90)))
    report = run(folder)

    assert not report.ok
    assert set(report.unreadable) == {"train/good/0.png", "test/hole/broken.png"}
    assert "truncated" in report.unreadable["train/good/0.png"]
    assert set(report.mask_problems) == {
        "ground_truth/hole/nobody_mask.png",
        "test/good/0.png",
        "test/hole/2.png",
        "test/hole/broken.png",
    }
    assert set(report.broken_masks) == {"test/hole/0.png", "test/hole/1.png"}
    assert "the mask is 32 x 64 (height x width), its image 64 x 32" in report.broken_masks["test/hole/0.png"]
    assert "the file is empty" in report.broken_masks["test/hole/1.png"]
    assert "its mask is empty" in report.mask_problems["test/hole/2.png"]
    assert "its mask marks 100% of the picture. Is it inverted?" in report.mask_problems["test/good/0.png"]
    (group,) = report.duplicates
    assert {name for _, name in group} == {"test/good/copy.png", "train/good/1.png"}
    errors = " ".join(messages(report, "error"))
    assert "2 files can't be read: test/hole/broken.png, train/good/0.png." in errors
    assert "The same file lies in several sets: test/good/copy.png (test), train/good/1.png" in errors
    assert "1 good image with defects marked in the mask: test/good/0.png" in errors
    warnings = " ".join(messages(report, "warning"))
    assert "4 problems with masks" in warnings
    assert "2 masks can't be used, so the pixels of the images wouldn't be measured: " in errors
    assert "1 image with a side below 32 pixels: test/good/tiny.png (8 x 90)" in warnings
    assert "side below 5" not in " ".join(messages(run(folder, min_size=5), "warning"))


def test_identical_images_can_not_be_fitted_on(tmp_path: Path) -> None:
    same = image()
    for i in range(4):
        write_png(tmp_path / f"{i}.png", same)
    assert "All images to fit on are identical" in " ".join(messages(run(tmp_path), "error"))
    write_png(tmp_path / "0.png", image())
    write_png(tmp_path / "1.png", image())
    write_png(tmp_path / "2.png", image())
    assert "identical" not in " ".join(messages(run(tmp_path), "error"))


def test_the_plan_says_why(folder: Path) -> None:
    index = index_folder(folder)
    oracle = check(index, split(index, calibrate_on="test"))
    assert messages(oracle, "warning") == [
        "Thresholds would come from the test set (oracle): its figures will flatter."
    ]
    write_png(folder / "val/good/a.png", image())
    (lacking,) = [m for m in messages(run(folder), "note") if "Thresholds" in m]
    assert "as the validation set lacks good or anomalous images" in lacking
    write_png(folder / "val/hole/a.png", image())
    assert "Thresholds would come from the 2 images of the validation set; nothing is held out." in messages(
        run(folder), "note"
    )
    index = index_folder(folder)
    asked = check(index, split(index, calibrate_on="held_out"))
    assert any("as was asked for" in m for m in messages(asked, "note"))


def test_missing_masks_labels_and_tests_are_said(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (folder / "ground_truth/hole/1_mask.png").unlink()
    write_png(folder / "test/unknown.png", image())
    (folder / "notes.txt").touch()
    notes = messages(run(folder), "note")
    assert "Pixel metrics would leave out 1 anomalous test image without a mask: test/hole/1.png." in notes
    assert "Images without a label, which can only be predicted: 1." in notes
    assert "Passed over: 1 of no image format (notes.txt)." in notes
    flat = tmp_path_factory.mktemp("flat")
    write_png(flat / "a.png", image())
    write_png(flat / "b.png", image())
    assert any("Nothing to test on" in note for note in messages(run(flat), "note"))
    for i in (0, 2):
        (folder / f"ground_truth/hole/{i}_mask.png").unlink()
    assert any(note.startswith("No pixel metrics: 3 anomalous test images") for note in messages(run(folder), "note"))
    only_bad = folder.parent / "only_bad"
    for i in range(3):
        write_png(only_bad / f"train/good/{i}.png", image())
    write_png(only_bad / "test/dent/a.png", image())
    assert "All test images are anomalous: AUROC and F1 can't be given." in messages(run(only_bad), "warning")


def test_progress_is_reported(folder: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run(folder, progress=lambda *call: seen.append(call))
    assert seen == [("data check", done, 16) for done in range(17)]


def test_masks_complete(folder: Path) -> None:
    samples = index_folder(folder).samples
    assert masks_complete(samples)
    assert not masks_complete([s for s in samples if not s.label])
    (folder / "ground_truth/hole/1_mask.png").unlink()
    assert not masks_complete(index_folder(folder).samples)


def test_masks_that_can_not_be_right(folder: Path) -> None:
    soft = np.zeros((64, 32), np.uint8)
    soft[10:20, 5:9] = np.arange(20, 260, 60)
    write_png(folder / "ground_truth/hole/0_mask.png", soft)
    write_png(folder / "ground_truth/hole/1_mask.png", np.full((64, 32), 200, np.uint8))
    report = run(folder)
    assert report.ok
    assert report.mask_problems == {
        "test/hole/0.png": "its mask has more than two values, as JPEG or resizing leave them; half of the highest and "
        "above counts",
        "test/hole/1.png": "its mask marks 100% of the picture. Is it inverted? White marks the defect",
    }
    (warning,) = messages(report, "warning")
    assert warning.startswith("2 problems with masks or placing: test/hole/0.png: its mask has more than two values")


def test_pictures_of_two_values_and_names_of_bad_parts_deserve_a_look(folder: Path) -> None:
    write_png(folder / "test/hole/shape.png", np.eye(40, 48, dtype=bool))
    write_png(folder / "train/good/7_NG.png", image())
    warnings = messages(run(folder), "warning")
    assert (
        "1 image of two values at most, others have more: test/hole/shape.png. If these are masks, put them into"
        in (" ".join(warnings))
    )
    assert "1 good image whose name says otherwise: train/good/7_NG.png." in warnings


def test_pictures_of_two_values_are_fine_where_all_are_so(tmp_path: Path) -> None:
    for i in range(4):
        write_png(tmp_path / f"{i}.png", image() > 100)
    assert messages(run(tmp_path), "warning") == []


def test_how_files_are_read_is_checked(folder: Path) -> None:
    for i in range(10):
        write_png(folder / f"train/good/{i}.png", image(dtype=np.uint16) * np.uint16(20))
    index = index_folder(folder)
    sets = split(index)
    reading = reading_of(sets)
    assert reading == Reading(bit_depth=12)
    report = check(index, sets, reading=reading)
    (note,) = [message for message in messages(report, "note") if "bits" in message]
    assert note.startswith(
        "The 16-bit images use 12 bits: no good one has a sample above 4,095, so that is read as white"
    )
    assert note.endswith("say --bit-depth 16.")
    assert set(report.unreadable) == {f"test/good/{i}.png" for i in range(3)}
    assert "outside the expected range [0, 4095]" in report.unreadable["test/good/0.png"]
    assert check(index, sets, reading=Reading(bit_depth=16)).unreadable == {}
    Image.fromarray(image()).save(folder / "test/good/two.tif", save_all=True, append_images=[Image.fromarray(image())])
    index = index_folder(folder)
    assert "the file holds 2 pictures" in check(index, sets).unreadable["test/good/two.tif"]
    assert check(index, sets, reading=Reading(frame=0)).unreadable == {}
