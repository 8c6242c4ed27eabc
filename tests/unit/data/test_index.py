"""Folders and manifests: what each layout makes of a tree of files."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from blemish.data.image_io import write_png
from blemish.data.index import Index, index_folder, read_exclusions
from blemish.errors import DataError, MissingExtraError

PIXELS = np.zeros((4, 4), np.uint8)


def tree(root: Path, *names: str) -> Path:
    """Empty files: indexing must not look into them."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def summary(index: Index) -> dict[str, tuple[bool | None, str, str | None, str | None]]:
    """relative path -> (label, defect, mask below the root, subset)."""
    root = index.root if index.root.is_dir() else index.root.parent
    return {
        s.relative: (s.label, s.defect, s.mask.relative_to(root).as_posix() if s.mask else None, s.subset)
        for s in index.samples
    }


def problems(index: Index) -> dict[str, str]:
    return {problem.path: problem.reason for problem in index.problems}


def test_mvtec(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "train/good/b.png",
        "train/good/a.PNG",
        "train/good/batch2/a.tif",
        "test/good/a.png",
        "test/scratch/a.jpg",
        "test/scratch/b.jpg",
        "test/dent/deep/a.bmp",
        "ground_truth/scratch/a_mask.png",
        "ground_truth/scratch/b.png",
        "ground_truth/dent/deep/a_mask.png",
        "val/good/v.png",
        "val/scratch/v.png",
        "readme.txt",
        ".hidden.png",
        ".cache/x.png",
        "train/good/notes.md",
    )
    index = index_folder(root)
    assert index.layout == "mvtec"
    assert summary(index) == {
        "test/dent/deep/a.bmp": (True, "dent", "ground_truth/dent/deep/a_mask.png", "test"),
        "test/good/a.png": (False, "good", None, "test"),
        "test/scratch/a.jpg": (True, "scratch", "ground_truth/scratch/a_mask.png", "test"),
        "test/scratch/b.jpg": (True, "scratch", "ground_truth/scratch/b.png", "test"),
        "train/good/a.PNG": (False, "good", None, "train"),
        "train/good/b.png": (False, "good", None, "train"),
        "train/good/batch2/a.tif": (False, "good", None, "train"),
        "val/good/v.png": (False, "good", None, "validation"),
        "val/scratch/v.png": (True, "scratch", None, "validation"),
    }
    assert list(summary(index)) == sorted(summary(index))
    assert index.passed_over == {
        "hidden": (".cache", ".hidden.png"),  # the hidden folder is not entered
        "of no image format": ("readme.txt", "train/good/notes.md"),
    }
    assert problems(index) == {"val/scratch/v.png": "anomalous, but no mask has its name"}


def test_masks_are_paired_by_name_and_every_other_is_listed(tmp_path: Path) -> None:
    """By sort order, c would get b's mask and b nobody's."""
    root = tree(
        tmp_path,
        "train/good/a.png",
        "test/hole/a.png",
        "test/hole/b.png",
        "test/hole/c.png",
        "test/hole/d.png",
        "test/hole/d.jpg",
        "test/hole/e.png",
        "ground_truth/hole/a_mask.png",
        "ground_truth/hole/c_mask.png",
        "ground_truth/hole/d_mask.png",
        "ground_truth/hole/e.png",
        "ground_truth/hole/e_mask.png",
        "ground_truth/hole/z_mask.png",
    )
    index = index_folder(root)
    assert {s.path.stem: s.mask.name for s in index.samples if s.mask} == {"a": "a_mask.png", "c": "c_mask.png"}
    unclear = "its mask is not clear, none is used: ground_truth/hole/"
    assert problems(index) == {
        "ground_truth/hole/z_mask.png": "no image has the name of this mask",
        "test/hole/b.png": "anomalous, but no mask has its name",
        "test/hole/d.jpg": unclear + "d_mask.png",
        "test/hole/d.png": unclear + "d_mask.png",
        "test/hole/e.png": unclear + "e.png, ground_truth/hole/e_mask.png",
    }


def test_mvtec_leaves_out_what_it_does_not_understand_and_says_so(tmp_path: Path) -> None:
    root = tree(tmp_path, "Train/Good/a.png", "Train/odd/b.png", "c.png", "spare/d.png", "test/e.png", "test/ok/f.png")
    index = index_folder(root)
    assert summary(index) == {
        "Train/Good/a.png": (False, "good", None, "train"),
        "test/e.png": (None, "", None, "test"),
        "test/ok/f.png": (False, "good", None, "test"),
    }
    assert problems(index)["Train/odd/b.png"] == "ignored: only train/good is used to fit"
    assert set(problems(index)) == {"Train/odd/b.png", "c.png", "spare/d.png"}


@pytest.mark.parametrize(
    ("good", "bad"),
    [("good", "bad"), ("OK", "NG"), ("Normal", "abnormal"), ("normal", "anomalous"), ("good", "defect")],
)
def test_good_and_bad(tmp_path: Path, good: str, bad: str) -> None:
    root = tree(
        tmp_path,
        f"{good}/x/1.png",
        f"{bad}/1.png",
        f"{bad}/crack/1.png",
        "masks/crack/1_mask.png",
        f"masks/{bad}/1.png",
    )
    index = index_folder(root)
    assert index.layout == "good_bad"
    assert summary(index) == {
        f"{good}/x/1.png": (False, "good", None, None),
        f"{bad}/1.png": (True, bad, f"masks/{bad}/1.png", None),
        f"{bad}/crack/1.png": (True, "crack", "masks/crack/1_mask.png", None),
    }
    assert index.problems == ()


@pytest.mark.parametrize("folder", ["", "line 1/shift/", "good/", "GOOD/line 1/"])
def test_one_folder_holds_good_parts(tmp_path: Path, folder: str) -> None:
    root = tree(tmp_path, f"{folder}a.JPG", f"{folder}零件.webp")
    index = index_folder(root)
    assert index.layout == "flat"
    assert summary(index) == {f"{folder}{name}": (False, "good", None, None) for name in ("a.JPG", "零件.webp")}
    assert index.good_folders == {folder.rstrip("/") or ".": 2}


def test_any_folders_below_one_of_good_parts(tmp_path: Path) -> None:
    index = index_folder(tree(tmp_path, "ok/a.png", "ok/monday/b.png", "ok/tuesday/c.png"))
    assert (index.layout, index.good_folders) == ("flat", {"ok": 1, "ok/monday": 1, "ok/tuesday": 1})


@pytest.mark.parametrize(
    "names",
    [
        ("train/a.png", "test/bad/b.png"),
        ("good/a.png", "blowhole/b.png"),
        ("bottle/train/good/a.png", "cable/train/good/a.png"),
        ("a.png", "ground_truth/a.png"),
    ],
)
def test_a_doubtful_folder_is_not_taken_for_good_parts(tmp_path: Path, names: tuple[str, ...]) -> None:
    message = r"the layout is not clear\. Found .*/ \(1\).*\. Looked for train/good/ with test/<defect>/"
    with pytest.raises(DataError, match=message):
        index_folder(tree(tmp_path, *names))


def test_decomposed_unicode_is_the_same_name(tmp_path: Path) -> None:
    image = unicodedata.normalize("NFD", "größe.png")
    root = tree(tmp_path, "train/good/a.png", f"test/k/{image}", "ground_truth/k/größe_mask.png")
    sample = next(s for s in index_folder(root).samples if s.label)
    assert sample.relative == "test/k/größe.png"
    assert sample.path.exists()
    assert sample.mask is not None


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    store = tree(tmp_path / "store", "a.png", "deep/b.png")
    data = tree(tmp_path / "data", "good/c.png")
    (data / "good" / "linked").symlink_to(store, target_is_directory=True)
    (data / "good" / "up").symlink_to(data, target_is_directory=True)
    (store / "deep" / "back").symlink_to(store, target_is_directory=True)
    (data / "self").symlink_to(data / "self")
    index = index_folder(data)
    assert list(summary(index)) == ["good/c.png", "good/linked/a.png", "good/linked/deep/b.png"]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{re.escape(str(tmp_path / 'absent'))}: no such folder or manifest"):
        index_folder(tmp_path / "absent")
    tree(tmp_path / "empty", "notes.txt")
    with pytest.raises(
        DataError, match=r"empty: no images\. Looked for \.png, .*\. Passed over: 1 of no image format \(notes\.txt\)\."
    ):
        index_folder(tmp_path / "empty")
    with pytest.raises(DataError, match="neither a folder nor a manifest"):
        index_folder(tmp_path / "empty" / "notes.txt")


# --- manifests ---

ROWS = [
    {"path": "a.png", "label": "good", "defect": "", "mask": "", "split": "train"},
    {"path": "sub/b.png", "label": "BAD", "defect": "dent", "mask": "m/b.png", "split": "test"},
    {"path": "c.png", "label": "", "defect": "", "mask": "", "split": ""},
    {"path": "d.png", "label": "anomalous", "defect": "", "mask": "m/none.png", "split": "val"},
    {"path": "./e.png", "label": "0", "defect": "", "mask": "", "split": ""},
]
EXPECTED = {
    "a.png": (False, "good", None, "train"),
    "c.png": (None, "", None, None),
    "d.png": (True, "bad", None, "validation"),
    "e.png": (False, "good", None, None),
    "sub/b.png": (True, "dent", "m/b.png", "test"),
}


def write_csv(root: Path, text: str) -> Path:
    tree(root, "a.png", "sub/b.png", "c.png", "d.png", "e.png", "m/b.png")
    path = root / "parts.csv"
    path.write_text(text, encoding="utf-8-sig")
    return path


def test_csv(tmp_path: Path) -> None:
    lines = [",".join(ROWS[0]), *(",".join(row.values()) for row in ROWS)]
    index = index_folder(write_csv(tmp_path, "\r\n".join(lines)))
    assert index.layout == "manifest"
    assert summary(index) == EXPECTED
    assert problems(index) == {"d.png": "its mask m/none.png doesn't exist; none is used"}


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    write_csv(tmp_path, "")
    rows = [{k: v or None for k, v in row.items()} for row in ROWS]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "parts.PARQUET")
    assert summary(index_folder(tmp_path / "parts.PARQUET")) == EXPECTED
    numbers = [{"path": "a.png", "label": False}, {"path": "d.png", "label": True}, {"path": "c.png", "label": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(numbers), tmp_path / "n.parquet")
    assert [s.label for s in index_folder(tmp_path / "n.parquet").samples] == [False, None, True]
    floats = [
        {"path": "a.png", "label": 0.0},
        {"path": "c.png", "label": float("nan")},
        {"path": "d.png", "label": 1.0},
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(floats), tmp_path / "f.parquet")
    assert [s.label for s in index_folder(tmp_path / "f.parquet").samples] == [False, None, True]
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(DataError, match=r"broken\.parquet: not a Parquet file"):
        index_folder(tmp_path / "broken.parquet")


def test_parquet_without_pyarrow_prints_the_pip_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r'pip install "blemish\[parquet\]"'):
        index_folder(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the column 'path' is missing. Found: nothing"),
        ("path|label\na.png|good\n", "the column 'path' is missing. Found: path|label"),
        ("path,label,Path\na.png,good,b.png\n", "a column has the name of another. Found: path, label, path"),
        ("path,quality\na.png,good\n", "the column 'label' is missing. Found: path, quality"),
        ("path,label\na.png,scratched\n", "row 1: label 'scratched' is not one of (empty), 0, false, 1, true, good"),
        ("path,label,split\na.png,good,hold\n", "row 1: split 'hold' is not one of (empty), train, test, validation"),
        ("path,label\na.png,good\n,good\n", "row 2: the path is empty"),
        ("path,label\na.png,good\n./a.png,good\n", "row 2: ./a.png is listed already in row 1"),
        ("path,label\na.png,good\ny.png,good\nz.png,good\n", "2 of 3 images don't exist: y.png, z.png"),
        ("path,label,split\na.png,bad,train\n", "row 1: a.png is in the split train but not labeled good"),
        ("path,label\na.png\n", "row 1: more or fewer fields than the header has"),
        ("path,label\na.png,good,more\n", "row 1: more or fewer fields"),
        ("path,label\na.png,bad\n", "none of the 1 images is known to be good"),
        ('path,label\n"a.png,good\n', "not a CSV file in UTF-8"),
    ],
)
def test_a_malformed_manifest_is_an_error_that_names_the_row(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=r"parts\.csv.*" + re.escape(message)):
        index_folder(write_csv(tmp_path, text))


def test_a_manifest_in_another_encoding(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "")
    path.write_bytes("path,label\ngröße.png,good\n".encode("latin-1"))
    with pytest.raises(DataError, match="not a CSV file in UTF-8"):
        index_folder(path)


def test_indexing_imports_no_torch() -> None:
    code = "import sys, blemish.data.index, blemish.data.check; print('torch' in sys.modules, 'pyarrow' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed == "False False\n"


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "train", "good", "bad", "masks"),
    [("magnetic_tile", 664, 288, 386, 386), ("cookies", 31, 14, 32, 32), ("aliens", 41, 17, 60, 0)],
)
def test_real_folders(name: str, train: int, good: int, bad: int, masks: int) -> None:
    root = Path(os.environ.get("BLEMISH_DATA", "../shared/data")) / name
    if not root.is_dir():
        pytest.skip(f"{root} is absent")
    index = index_folder(root)
    test = [s for s in index.samples if s.subset == "test"]
    assert sum(s.subset == "train" for s in index.samples) == train
    assert (sum(s.label is False for s in test), sum(s.label is True for s in test)) == (good, bad)
    assert sum(s.mask is not None for s in test) == masks
    assert index.problems == ()


def test_written_images_are_found(tmp_path: Path) -> None:
    write_png(tmp_path / "x.png", PIXELS)
    assert list(summary(index_folder(tmp_path))) == ["x.png"]


def test_leaving_images_out(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "train/good/a.png", "train/good/b.png", "train/good/c.png", "test/good/a.png", "test/hole/d.png"
    )
    whole = index_folder(root)
    left = whole.without(["train/good/a.png", "b.png"])
    assert [s.relative for s in left.samples] == ["test/good/a.png", "test/hole/d.png", "train/good/c.png"]
    assert left.excluded == ("train/good/a.png", "train/good/b.png")
    assert left.without(["d.png"]).excluded == ("test/hole/d.png", "train/good/a.png", "train/good/b.png")
    assert whole.without([]) == whole
    with pytest.raises(DataError, match=r"2 of 3 images to leave out can't be told, first a.png, z.png: several files"):
        whole.without(["a.png", "z.png", "c.png"])
    with pytest.raises(DataError, match=r"1 of 1 images .* can't be told, first z.png: no file has this name"):
        whole.without(["z.png"])


def test_lists_of_images_to_leave_out(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_bytes(
        "\ufeff# all of these\r\ngood\\1 #2.png # too dark\r\n\r\n  b#c.png\n#d.png\n".encode()
    )
    assert read_exclusions(tmp_path / "out.txt") == ["good/1", "b#c.png"]
    (tmp_path / "out.txt").write_text("good/a b.png\n", "utf-8")
    assert read_exclusions(tmp_path / "out.txt") == ["good/a b.png"]
    with pytest.raises(DataError, match=r"nowhere.txt: the list of images to leave out can't be read: No such file"):
        read_exclusions(tmp_path / "nowhere.txt")
