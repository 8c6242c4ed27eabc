"""`predict` from sources that go on: every verdict as soon as it is there, and an end that keeps the rows."""

from __future__ import annotations

import io
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from blemish.runtime import load
from processes import COMMAND, Script


@pytest.fixture
def parts(tiles: Path) -> list[Path]:
    return [tiles / "test" / name for name in ("good/000.png", "hole/000.png", "stain/001.png")]


@pytest.fixture
def clip(parts: list[Path], inside: Path) -> str:
    pictures = [cv2.imread(str(path)) for path in parts]
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"png "), 10, (width, height))  # loses nothing
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return "clip.avi"


def test_a_video(blemish: Any, model_file: Path, parts: list[Path], clip: str, inside: Path) -> None:
    ran = blemish("predict", model_file, clip, clip, "--json", "--out", "rows.jsonl", "--save", "mask", "--overwrite")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json == {"inspected": 6, "anomalous": 4, "output": "rows.jsonl", "failures": [], "passed_over": {}}
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["path"] for row in rows] == [f"clip.avi#{number}" for number in (0, 1, 2)] * 2
    expected = [load(model_file)(path)[0].raw_score for path in parts]
    assert [row["raw_score"] for row in rows[:3]] == pytest.approx(expected, rel=1e-5)
    assert sorted(path.name for path in Path("predictions").iterdir())[1] == "clip.avi#1.mask.png"


def test_lines_have_a_header_and_one_scale(blemish: Any, model_file: Path, clip: str) -> None:
    header, *lines, summary = blemish("predict", model_file, clip).out.splitlines()
    threshold = f"{load(model_file).threshold:.4g}"
    assert header == f"verdict      score  image (raw scores; anomalous from {threshold} on)"
    assert header.index("image") == lines[0].index("clip.avi#0")
    for line in lines:
        verdict, score, _ = line.split()
        assert verdict == ("anomalous" if float(score) >= float(threshold) else "normal")
    assert summary.startswith("3 images inspected, 2 anomalous")


class Standard:
    """What standard input is to Python."""

    def __init__(self, data: bytes) -> None:
        self.buffer = io.BytesIO(data)


def test_standard_input(
    blemish: Any, model_file: Path, parts: list[Path], inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = "".join(f"{path}\n" for path in (*parts, "no.png"))
    monkeypatch.setattr(sys, "stdin", Standard(lines.encode()))
    ran = blemish("predict", model_file, "-", "--json")
    assert ran.code == 3
    assert [row["path"] for row in ran.run["predictions"]] == list(map(str, parts))
    assert [failure["path"] for failure in ran.run["failures"]] == ["no.png"]
    monkeypatch.setattr(sys, "stdin", Standard(parts[1].read_bytes()))
    assert blemish("predict", model_file, "-", "--fail-on-anomaly").code == 1


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals as POSIX does")
def test_a_watched_folder_until_ctrl_c(model_file: Path, parts: list[Path], inside: Path) -> None:
    """The verdict on each picture is printed before the next one comes."""
    Path("new").mkdir()
    words = ("predict", model_file, "new", "--watch", "--out", "rows.jsonl")
    with Script(COMMAND, *words) as process:
        assert process.stdout.readline().startswith("verdict")
        for name, part in zip(("a.png", "b.png"), parts, strict=False):
            shutil.copy(part, f"new/{name}")
            assert process.stdout.readline().rstrip().endswith(f"new/{name}")
        process.signal(signal.SIGINT)
        ended, printed = process.wait(60), process.stdout.read()
    assert ended == (0, "")
    assert printed == "2 images inspected, 1 anomalous, 0 could not be inspected.\n"
    assert len(Path("rows.jsonl").read_text(encoding="utf-8").splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["clip.avi", "--resume", "--out", "rows.csv"], "--resume is for files that are all there. Drop it."),
        (["clip.avi", "--frames", "all"], "--frames all is for files that are all there. Drop it."),
        (["clip.avi", "clip.png"], "Images, such as 'clip.png', and sources that go on need a run each."),
        (["0", "clip.avi"], "A camera, or standard input, is a source of its own."),
        (["clip.avi", "--watch"], "--watch takes one folder. Got clip.avi."),
        (["nowhere", "--watch"], "nowhere: no such folder to watch."),
        (["nowhere.mp4"], "nowhere.mp4: no such video."),
        (["77"], "camera77 can't be opened. Check the index or address"),
        (["new", "--watch", "--ray"], "--watch is not for --ray."),
    ],
)
def test_what_can_not_be_is_said_before_the_model_is_loaded(
    words: list[str], complaint: str, blemish: Any, inside: Path
) -> None:
    Path("m.safetensors").write_bytes(b"no model")
    ran = blemish("predict", "m.safetensors", *words)
    assert ran.code in (2, 3)
    assert f"error: {complaint}" in ran.err


def test_a_folder_named_like_a_camera_is_a_folder(
    blemish: Any, model_file: Path, parts: list[Path], inside: Path
) -> None:
    Path("0").mkdir()
    shutil.copy(parts[0], "0/a.png")
    assert "0/a.png" in blemish("predict", model_file, "0").out
