"""What spreadsheets make of a manifest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from blemish.data.index import index_folder
from blemish.data.manifests import read_manifest
from blemish.errors import DataError

EXPECTED = {"a.png": (False, None), "sub/größe.png": (True, "sub/m.png"), "c.png": (None, None)}


def found(manifest: Path) -> dict[str, tuple[bool | None, str | None]]:
    return {
        s.relative: (s.label, s.mask and s.mask.relative_to(manifest.parent).as_posix())
        for s in index_folder(manifest).samples
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "sub/größe.png", "c.png", "sub/m.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


PLAIN = "path,label,mask\na.png,good,\nsub/größe.png,bad,sub/m.png\nc.png,,\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_and_byte_order_marks(folder: Path, encoding: str, delimiter: str, end: str) -> None:
    manifest = folder / "m.csv"
    manifest.write_bytes(PLAIN.replace(",", delimiter).replace("\n", end).encode(encoding))
    assert found(manifest) == EXPECTED


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("path,label,mask", " Path ,LABEL,Mask"),
        PLAIN.replace("/", "\\"),
        PLAIN.replace("a.png", ".\\a.png").replace("sub/größe", "sub\\..\\sub\\größe"),
        'path;label;mask;note\n"a.png";good;;"one; two, three"\nsub/größe.png;不良品;sub/m.png;\nc.png;;;\n',
        PLAIN.replace("good", "i.O.").replace("bad", "Ausschuss"),
    ],
    ids=["header", "backslashes", "dots", "quotes", "words"],
)
def test_headers_paths_and_words(folder: Path, text: str) -> None:
    (folder / "m.csv").write_text(text, encoding="utf-8")
    assert found(folder / "m.csv") == EXPECTED


@pytest.mark.skipif(os.name == "nt", reason="there it separates folders")
def test_a_file_may_have_a_backslash_in_its_name(folder: Path) -> None:
    (folder / "x\\y.png").touch()
    (folder / "m.csv").write_text("path,label\nx\\y.png,good\n", encoding="utf-8")
    assert list(found(folder / "m.csv")) == ["x\\y.png"]


def test_a_mask_may_be_a_folder(folder: Path) -> None:
    (folder / "m.csv").write_text("path,label,mask\na.png,good,\nc.png,bad,sub\n", encoding="utf-8")
    assert found(folder / "m.csv")["c.png"] == (True, "sub")


def test_one_image_under_two_spellings_is_listed_twice(folder: Path) -> None:
    (folder / "m.csv").write_text("path,label\nsub/größe.png,good\nsub\\größe.png,bad\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"row 2: sub\\größe\.png is listed already in row 1"):
        index_folder(folder / "m.csv")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_a_pipe_is_no_manifest(folder: Path) -> None:
    os.mkfifo(folder / "m.csv")
    with pytest.raises(DataError, match="not a regular file"):
        index_folder(folder / "m.csv")


def test_names_that_are_too_long(tmp_path: Path) -> None:
    """Found by tests/fuzz/parsers.py: `Path.exists` raises for them."""
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text(f"path,label,mask\na.png,bad,{'9' * 400}\n")
    samples, problems = read_manifest(tmp_path / "m.csv")
    assert (samples[0].mask, len(problems)) == (None, 1)
    (tmp_path / "m.csv").write_text(f"path,label\n{'9' * 400}.png,good\n")
    with pytest.raises(DataError, match=r"1 of 1 images don't exist"):
        read_manifest(tmp_path / "m.csv")
