"""One walk for all verbs: what it finds, what it passes over, and that it says so."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from blemish.data.walk import OUTPUT_KINDS, SYSTEM_FOLDERS, describe, is_own_output, walk
from blemish.errors import DataError
from blemish.files import READ_SUFFIXES, UNREAD_SUFFIXES
from blemish.predictions.pictures import EXPLANATION
from blemish.runtime.result import PICTURES


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_every_file_is_an_image_or_passed_over_with_the_reason(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        *("a.PNG", "deep/er/b.jfif", "c.JP2", "d.gif", "e.heic"),
        *(".hidden.png", ".cache/x.png", "._a.PNG", "notes.txt", "Thumbs.db", "noending"),
        *("$RECYCLE.BIN/a.png", "deep/@eaDir/b.jpg/SYNO.jpg", "__MACOSX/a.png", "Thumbnails/a.png", "lost+found/a.png"),
        *("predictions/a.PNG.overlay.png", "predictions/deep/b.jfif.mask.png", "predictions/c.JP2.MAP.png"),
    )
    found = walk(root)
    assert list(found.images) == ["a.PNG", "c.JP2", "d.gif", "deep/er/b.jfif", "e.heic"]
    assert all(found.images[name] == root / name for name in found.images)
    assert found.passed_over == {
        "hidden": ("._a.PNG", ".cache", ".hidden.png"),
        "of no image format": ("Thumbs.db", "noending", "notes.txt"),
        "system folders": ("$RECYCLE.BIN", "Thumbnails", "__MACOSX", "deep/@eaDir", "lost+found"),
        "written by predict": (
            "predictions/a.PNG.overlay.png",
            "predictions/c.JP2.MAP.png",
            "predictions/deep/b.jfif.mask.png",
        ),
    }
    assert describe(found.passed_over).startswith("3 hidden (._a.PNG, .cache, .hidden.png); 3 of no image format (")
    assert "5 system folders ($RECYCLE.BIN, Thumbnails, __MACOSX, ...)" in describe(found.passed_over)
    assert describe({}) == ""


@pytest.mark.parametrize("name", ["thumbnails", ".cache", "predictions"])
def test_the_folder_that_was_named_may_be_called_anything(tmp_path: Path, name: str) -> None:
    assert list(walk(tree(tmp_path / name, "a.png")).images) == ["a.png"]


def test_what_predict_writes_is_known() -> None:
    assert {*PICTURES, EXPLANATION} == set(OUTPUT_KINDS)
    for kind in OUTPUT_KINDS:
        for suffix in (".png", ".JPG", ".tiff"):
            assert is_own_output(Path(f"part 1{suffix}.{kind}.png"))
    for name in ("part.mask.png", "part_mask.png", "mask.png", "part.png.mask.jpg", ".png.mask.png"):
        assert not is_own_output(Path(name))


def test_suffixes_are_told_apart() -> None:
    assert not set(READ_SUFFIXES) & set(UNREAD_SUFFIXES)
    assert all(suffix == suffix.lower() for suffix in (*READ_SUFFIXES, *UNREAD_SUFFIXES))
    assert all(name == name.lower() for name in SYSTEM_FOLDERS)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_pipes_and_loops(tmp_path: Path) -> None:
    store = tree(tmp_path / "store", "a.png", "deep/b.png")
    root = tree(tmp_path / "data", "c.png")
    (root / "monday").symlink_to(store)
    (root / "one.png").symlink_to(store / "a.png")
    (root / "up").symlink_to(root)
    (store / "deep" / "back").symlink_to(store)
    (root / "self.png").symlink_to(root / "self.png")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(root / "pipe.png")
    (root / "zero.png").symlink_to("/dev/zero")
    found = walk(root)
    assert list(found.images) == ["c.png", "monday/a.png", "monday/deep/b.png", "one.png"]
    assert found.passed_over == {
        "links to nowhere": ("gone.png", "self.png"),
        "pipes or devices": ("pipe.png", "zero.png"),
    }


def test_two_spellings_of_one_name_are_two_files(tmp_path: Path) -> None:
    spellings = [unicodedata.normalize(form, "größe.png") for form in ("NFC", "NFD")]
    tree(tmp_path, *spellings)
    if len(list(tmp_path.iterdir())) < 2:
        pytest.skip("this file system holds one of them")
    assert sorted(path.name for path in walk(tmp_path).images.values()) == sorted(spellings)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_can_not_be_read_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, "locked/a.png")
    (tmp_path / "locked").chmod(0)
    try:
        with pytest.raises(DataError, match="locked: the folder can't be read"):
            walk(tmp_path)
    finally:
        (tmp_path / "locked").chmod(0o700)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: the folder can't be read"):
        walk(tmp_path / "nowhere")
