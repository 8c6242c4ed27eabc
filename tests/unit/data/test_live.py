"""A watched folder gives every picture once, when it is whole; a pipe gives each as soon as its line ends."""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from blemish.data.live import Shot, piped, watch
from blemish.errors import DataError


def picture(path: Path, value: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), value).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "in"
    root.mkdir()
    return root


def watched(folder: Path, **how: float) -> Iterator[Shot]:
    return watch(folder, **{"settle": 0.03, "patience": 60.0, "look": 0.01} | how)


def test_those_that_are_there_by_age_then_those_that_come(folder: Path) -> None:
    for age, name in enumerate(("c.png", "below/b.png", "a.jpg")):
        os.utime(picture(folder / name), ns=(0, age))
    (folder / "notes.txt").write_text("no picture")
    shots = watched(folder)
    found = [next(shots) for _ in range(3)]
    assert [shot.place.as_posix() for shot in found] == ["c.png", "below/b.png", "a.jpg"]
    assert [shot.name for shot in found] == [str(shot.image) for shot in found]
    picture(folder / "late.png")
    assert next(shots).place == Path("late.png")


def test_half_a_file_is_waited_for(folder: Path) -> None:
    whole = picture(folder / "whole.png").read_bytes()
    half = folder / "half.png"
    half.write_bytes(whole[:-8])
    shots = watched(folder)
    assert next(shots).place == Path("whole.png")
    threading.Timer(0.2, half.write_bytes, [whole]).start()
    started = time.monotonic()
    assert next(shots).image.read_bytes() == whole
    assert time.monotonic() - started > 0.15


def test_what_stays_half_counts_as_it_is_in_the_end(folder: Path) -> None:
    (folder / "half.png").write_bytes(b"\x89PNG\r\n")
    assert next(watched(folder, patience=0.1)).place == Path("half.png")


def test_a_file_that_is_written_anew_comes_again(folder: Path) -> None:
    shots = watched(folder)
    for value in (10, 20):
        path = picture(folder / "latest.png", value)
        os.utime(path, ns=(value, value))
        assert next(shots).name == str(path)


def test_a_folder_that_is_gone_for_a_while(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    picture(folder / "a.png")
    shots = watched(folder)
    assert next(shots).place == Path("a.png")
    away = folder.rename(folder.with_name("away"))
    picture(away / "b.png")
    threading.Timer(0.2, away.rename, [folder]).start()
    assert next(shots).place == Path("b.png")
    assert caplog.text.count("Waiting for it.") == 1


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no such folder to watch\. Make it first"):
        watch(tmp_path / "no")


def test_paths_come_as_soon_as_their_lines_end() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as program:
        shots = piped(stream)
        for name in ("a.png", "/there/ü.png", "../up.png"):
            program.write(f"{name}\n".encode())
            assert next(shots).name == name
        program.write(b"\r\n/last.png")
        program.close()
        assert list(shots) == [Shot("/last.png", Path("/last.png"), Path("last.png"))]


def test_pictures_of_piped_paths_stay_below_their_folder() -> None:
    places = [shot.place.as_posix() for shot in piped(io.BytesIO(b"/a/b.png\n../../c.png\nd/../e.png\n"))]
    assert places == ["a/b.png", "c.png", "d/e.png"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
def test_one_image_as_bytes(kind: str) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 48), 90).convert("RGB").save(stream, kind)
    [shot] = piped(io.BytesIO(stream.getvalue()))
    assert (shot.name, shot.image) == ("stdin", stream.getvalue())


def test_nothing_is_piped() -> None:
    assert list(piped(io.BytesIO())) == []
