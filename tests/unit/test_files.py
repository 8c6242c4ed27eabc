"""Files are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import hashlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from blemish.errors import OutputError
from blemish.files import digest, is_image, locked, replacing, replacing_together, write_json, write_text, writing
from disks import files_end_at


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def test_the_old_file_stays_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with replacing(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MemoryError(), ValueError("no")], ids=repr)
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(error: BaseException, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_parents_are_created(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "ü b" / "c.txt", "text")
    assert (tmp_path / "a" / "ü b" / "c.txt").read_text(encoding="utf-8") == "text"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077], ids=oct)
def test_files_get_the_mode_of_any_new_file(umask: int, tmp_path: Path) -> None:
    """Even if the library that writes them makes them private."""
    before = os.umask(umask)
    try:
        with replacing(tmp_path / "file") as temporary:
            temporary.touch(mode=0o600)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~umask


def test_a_name_may_be_as_long_as_names_can_be(tmp_path: Path) -> None:
    name = "ü" * 125 + ".json"  # 255 bytes
    write_json(tmp_path / name, {"a": 1})
    assert names(tmp_path) == [name]
    message = r"ü.json can't be written: File name too long. Choose a shorter name."
    with pytest.raises(OutputError, match=message):
        write_json(tmp_path / f"ü{name}", {"a": 1})


def test_a_folder_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    entered = False
    message = r"taken can't be written: this is a folder. Choose another place."
    with pytest.raises(OutputError, match=message), replacing(tmp_path / "taken"):
        entered = True
    assert not entered  # before hours of work
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"c can't be written: Not a directory. Choose another place."):
        write_text(tmp_path / "file" / "b" / "c", "")


def test_a_full_disk(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    message = r"file can't be written: File too large. Free some space,"
    with pytest.raises(OutputError, match=message) as caught, files_end_at(1000):
        write_text(path, "x" * 5000)
    assert caught.value.path == str(path)
    assert isinstance(caught.value.__cause__, OSError)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OutputError, match=r"can't be written: Permission denied. Choose a place that you may"):
            write_text(tmp_path / "file", "")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


def test_an_inner_error_names_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    with pytest.raises(OutputError, match="inner can't be written"), writing(tmp_path / "outer"):
        write_text(tmp_path / "inner", "")


def test_files_that_belong_together(tmp_path: Path) -> None:
    xml, numbers = tmp_path / "m.xml", tmp_path / "m.bin"
    for text in ("one", "two"):
        with replacing_together(numbers, xml) as folder:
            for name in ("m.xml", "m.bin", "trial.xml"):
                (folder / name).write_text(text)
        assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"m.xml": text, "m.bin": text}
    message = r"m.xml can't be written: No such file"
    with pytest.raises(OutputError, match=message), replacing_together(numbers, xml) as folder:
        (folder / "m.bin").write_text("three")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"m.xml": "two", "m.bin": "two"}


WRITER = """
import sys
from pathlib import Path
from blemish.files import replacing_together
folder = Path(sys.argv[1])
print("ready", flush=True)
while True:
    for letter in "ab":
        with replacing_together(folder / "m.bin", folder / "m.xml") as inside:
            for name in ("m.bin", "m.xml"):
                (inside / name).write_text(letter * 300_000)
"""


def test_a_killed_writer_leaves_whole_files_of_one_writing(tmp_path: Path) -> None:
    for turn in range(8):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02 + 0.013 * turn)
            process.send_signal(signal.SIGKILL)
        numbers, graph = tmp_path / "m.bin", tmp_path / "m.xml"
        if graph.exists():
            assert graph.read_text() == numbers.read_text()
        if numbers.exists():
            assert numbers.read_text() in ("a" * 300_000, "b" * 300_000)


def test_text_is_utf_8_with_names_that_are_no_unicode(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "ü\udcff\n")
    assert (tmp_path / "file").read_bytes() == "ü\\udcff\n".encode()


def test_json_has_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"a": float("nan")})
    assert names(tmp_path) == []


def test_digest(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"ab")
    (tmp_path / "b").write_bytes(b"c" * 3_000_000)
    assert digest(tmp_path / "a", tmp_path / "b") == hashlib.sha256(b"ab" + b"c" * 3_000_000).hexdigest()


def test_is_image() -> None:
    assert [name for name in ("a.PNG", "b.tiff", ".c.png", "d.txt", "png") if is_image(Path(name))] == [
        "a.PNG",
        "b.tiff",
    ]


HOLDING = """
import sys, time
from blemish.files import locked
with locked(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 250)  # no name that is allowed is too long for it
    process = subprocess.Popen([sys.executable, "-c", HOLDING, str(path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        with pytest.raises(OutputError, match=r"another process is writing it\. Wait for it, or name another file\."):
            locked(path).__enter__()
        with locked(tmp_path / "another"):
            pass
    finally:
        process.kill()
        process.communicate()
    for _ in range(2):
        with locked(path):
            pass
    assert not list(tmp_path.iterdir())


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    """Threads that take and leave it as fast as they can: whoever is in is alone."""
    inside, most, times = 0, 0, 0

    def work() -> None:
        nonlocal inside, most, times
        for _ in range(50):
            try:
                with locked(tmp_path / "x"):
                    inside += 1
                    most, times = max(most, inside), times + 1
                    time.sleep(0.0005)
                    inside -= 1
            except OutputError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert times > 0
