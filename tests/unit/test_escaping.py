"""Names that lie: what files are called changes no output but their own place in it."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from blemish.cli import main
from blemish.cli.console import complain, out, print_json
from blemish.errors import ImageReadError, OutputError
from blemish.escaping import as_utf8, csv_cell, csv_path, json_line, lines, markdown_cell, one_line

HOSTILE = (
    b"a\nnormal    0.000  z.png",
    b"b\r\nc.png",
    b"clear\x1b[2J\x1b[31m.png",
    b"csi\xc2\x9b2J.png",
    "\u202egnp.exe.png".encode(),
    "para\u2028graph.png".encode(),
    b"\xff\xfe bytes.png",
    b"[red]markup.png",
    b"<script>alert(1)<.png",
    b"pipe|cell.png",
)
FORMULAS = ("=cmd|' C calc'!A1.png", "+1.png", "-2.png", "@SUM(A1).png", "\t=1.png", "\r=1.png", "\uff1d1.png")


@pytest.mark.parametrize("name", HOSTILE)
def test_one_line_is_printable_and_one_line(name: bytes) -> None:
    shown = one_line(os.fsdecode(name))
    assert shown.isprintable()
    assert len(shown.splitlines()) == 1
    shown.encode()
    assert one_line(shown) == shown


def test_ordinary_names_are_left_alone() -> None:
    for name in ("Teile/Stück 7.png", "部品.png", "قطعة.png", "👩‍🔧.png", "C:\\parts\\new.png"):
        assert one_line(name) == lines(name) == as_utf8(name) == csv_cell(name) == csv_path(name) == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_line_of_json_is_one_line_to_everyone(name: bytes) -> None:
    content = as_utf8({os.fsdecode(name): [os.fsdecode(name), "\x85", 1.5]})
    for ascii_only in (True, False):
        line = json_line(content, ascii_only=ascii_only)
        assert line.splitlines() == [line]
        assert json.loads(line) == content


def test_no_name_becomes_an_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    out().print("a:cat:.png", markup=False)
    complain("no file :warning: here")
    assert capsys.readouterr() == ("a:cat:.png\n", "error: no file :warning: here\n")


def test_second_lines_are_indented() -> None:
    assert lines("a\nb\x1b", "  ") == "a\n  b\\x1b"
    assert markdown_cell("a|b\n") == "a\\|b\\n"
    assert str(ImageReadError("a\nb.png", "empty")) == "a\\nb.png: empty"
    assert str(OutputError("a\nb", "full")).startswith("a\\nb can't be written: full.")


@pytest.mark.parametrize("name", FORMULAS)
def test_spreadsheets_see_no_formula(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert csv_cell(name) == f"'{name}"
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert csv_path(name)[0] == "."
    assert Path(csv_path(name)).samefile(name)


def test_plain_values_become_unicode() -> None:
    assert as_utf8({"\udcff": ["\udcfe", ("a", 1.5)], "b": None}) == {"\\udcff": ["\\udcfe", ["a", 1.5]], "b": None}


@pytest.fixture(scope="module")
def named(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one picture under hostile names, and one that can't be read under another."""
    folder = tmp_path_factory.mktemp("named")
    good = sorted(tiles.glob("test/good/*.png"))[0]
    try:
        for name in HOSTILE:
            shutil.copy(good, os.path.join(os.fsencode(folder), name))
        Path(os.fsdecode(os.path.join(os.fsencode(folder), b"no\xffpicture\nnormal    0.000  y.png"))).write_bytes(b"x")
    except (OSError, ValueError):
        pytest.skip("this file system allows ordinary names only")
    return folder


class Ended(NamedTuple):
    code: int
    out: bytes
    err: bytes


def run(*words: object, encoding: str, monkeypatch: pytest.MonkeyPatch) -> Ended:
    """A verb in this process, with streams such as PYTHONIOENCODING asks for."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["blemish", *map(str, words)])
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            main()
    for stream in streams:
        stream.flush()
    out, err = (cast("io.BytesIO", stream.buffer).getvalue() for stream in streams)
    assert isinstance(ended.value.code, int)
    return Ended(ended.value.code, out, err)


def assert_not_forged(ran: Ended, encoding: str, named: Path) -> None:
    assert ran.code == 3, ran.err
    printed = ran.out.decode(encoding).split("\n")
    assert len(printed) == len(HOSTILE) + 3  # the header, the summary, and what follows its line break
    for line in (*printed, *ran.err.decode(encoding).split("\n")):
        assert line == one_line(line)
    assert all(str(named) in line for line in printed[1 : len(HOSTILE) + 1])
    assert ran.err.count(b"error:") == 1
    assert not any(line.startswith(b"normal    0.000") for line in ran.err.split(b"\n"))


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_verdict_lines_can_not_be_forged(
    encoding: str, model_file: Path, named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_not_forged(run("predict", model_file, named, encoding=encoding, monkeypatch=monkeypatch), encoding, named)


def test_nor_in_a_process_of_its_own(model_file: Path, named: Path) -> None:
    command = [sys.executable, "-m", "blemish", "predict", str(model_file), str(named)]
    ran = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=120)
    assert_not_forged(Ended(ran.returncode, ran.stdout, ran.stderr), "ascii", named)


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_json_is_unicode(encoding: str, model_file: Path, named: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = run("predict", model_file, named, "--json", encoding=encoding, monkeypatch=monkeypatch)
    *_, content = map(json.loads, ran.out.decode("utf-8").strip("\n").split("\n"))
    assert content["inspected"] == len(HOSTILE)
    assert "no\\udcffpicture" in content["failures"][0]["path"]


def test_json_into_a_stream_without_encoding() -> None:
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        print_json({"name": "Stück\udcff"})
    assert json.loads(stream.getvalue()) == {"name": "Stück\\udcff"}


def test_rows_of_formulas_and_of_bytes(
    model_file: Path, named: Path, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(sorted(tiles.glob("test/good/*.png"))[0], tmp_path / "=1+1.png")
    words = ("predict", model_file, "=1+1.png", named, "--out", "rows.csv")
    ran = run(*words, encoding="utf-8", monkeypatch=monkeypatch)
    assert ran.code == 3, ran.err
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as stream:
        paths = [row["path"] for row in csv.DictReader(stream)]
    assert len(paths) == len(HOSTILE) + 1
    assert paths[0] == os.path.join(".", "=1+1.png")
