"""Files that are whole or absent, and a few words on files that every room needs.

What is written gets its name when it is complete: a block writes under a temporary name beside the target; if it
succeeds, its bytes are on the disk before they take the target's place in one step, and if it fails or is interrupted,
what was there is still there.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from blemish.errors import OutputError
from blemish.escaping import as_utf8

READ_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
    *(".gif", ".jp2", ".j2k", ".jpc", ".j2c", ".jpf", ".jpx", ".avif", ".avifs"),
    *(".pbm", ".pgm", ".ppm", ".pnm", ".pfm", ".tga", ".pcx", ".qoi"),
)
"""Suffixes of the formats that can be read, in lower case."""

UNREAD_SUFFIXES = (
    *(".heic", ".heif", ".jxl", ".exr", ".psd", ".dds", ".sgi", ".fits", ".dcm", ".xcf"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"),
)
"""Suffixes of pictures in formats that can't be read. A folder scan takes them along all the same: a part whose picture
is passed over in silence would count as inspected."""

IMAGE_SUFFIXES = tuple(sorted((*READ_SUFFIXES, *UNREAD_SUFFIXES)))
"""What a folder scan takes for an image, compared in lower case. A file given by name is judged by content alone."""

_ADVICE = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "Free some space, or choose another place."),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "Choose a place that you may write to."),
    errno.ENAMETOOLONG: "Choose a shorter name.",
}


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns what the system has against writing `path` into an `OutputError`."""
    try:
        yield
    except OutputError:
        raise  # of another file, which it names
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "Choose another place.")
        raise OutputError(path, error.strerror or str(error).rstrip("."), advice) from error


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary file name that becomes `path` if the block succeeds and vanishes if it doesn't.

    Parents are created. The file gets the mode of any new file, whatever the library that writes it prefers.

    Raises:
        OutputError: if the folder or the file can't be written, or `path` is a folder.
    """
    with replacing_together(path) as folder:
        yield folder / Path(path).name


@contextmanager
def replacing_together(*paths: str | os.PathLike[str]) -> Iterator[Path]:
    """As `replacing`, for files that belong together.

    Args:
        paths: in one folder; the one that is opened by its name comes last. It is absent while the others are replaced,
            so that it is never beside those of another writing.

    Yields:
        A temporary folder beside them. Files in it that are named as `paths` take their places, others vanish.

    Raises:
        OutputError: see `replacing`.
    """
    *others, main = map(Path, paths)
    with writing(main):
        if any(path.is_dir() for path in (*others, main)):
            raise IsADirectoryError(errno.EISDIR, "this is a folder")
        main.parent.mkdir(parents=True, exist_ok=True)
        folder = main.parent / f".blemish-{secrets.token_hex(8)}"  # short: names of files may be as long as they can be
        folder.mkdir()
        try:
            yield folder
            for path in (*others, main):
                _settle(folder / path.name, folder.stat().st_mode & 0o666)
            if others:
                main.unlink(missing_ok=True)
            for path in (*others, main):
                os.replace(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps whoever else locks `path`, in this process or another, from it while the block runs.

    The lock is the system's, on an empty file beside `path`, and ends with the process, however that ends; what
    remains of it then keeps nobody out. Where the file system knows no locks, as some in networks, there is none.

    Raises:
        OutputError: if somebody else holds it, or the folder can't be written.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        name = f".blemish-{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.lock"  # short, as in `replacing`
        lock = path.parent / name
        while True:
            with ExitStack() as failing:
                stream = failing.enter_context(lock.open("ab"))
                try:
                    _take_lock(stream.fileno())
                except BlockingIOError:
                    advice = "Wait for it, or name another file."
                    raise OutputError(path, "another process is writing it", advice) from None
                with suppress(FileNotFoundError):  # its last holder removed it between our opening and our locking
                    if os.path.samestat(os.fstat(stream.fileno()), lock.stat()):
                        failing.pop_all()
                        break
    with stream:
        try:
            yield
        finally:
            with suppress(OSError):  # Windows keeps what is open
                lock.unlink()


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes text in UTF-8, see `replacing`. File names that aren't Unicode are written with backslashes."""
    with replacing(path) as temporary:
        temporary.write_bytes(as_utf8(text).encode())


def write_json(path: str | os.PathLike[str], content: Any) -> None:
    """Writes JSON, see `replacing`. Raises ValueError for NaN and infinity, which JSON doesn't have."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False))


def digest(*paths: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of the bytes of files, one behind the other, read in pieces. Raises OSError."""
    found = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while piece := stream.read(1 << 20):
                found.update(piece)
    return found.hexdigest()


def is_image(path: Path) -> bool:
    """Whether a name is that of an image, and not hidden."""
    return not path.name.startswith(".") and path.suffix.lower() in IMAGE_SUFFIXES


def _take_lock(descriptor: int) -> None:
    """Raises BlockingIOError if somebody else has it."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            raise BlockingIOError(*error.args) from error
    else:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError):
                raise


def _settle(file: Path, mode: int) -> None:
    """Sees a written file to the disk: a rename may get there before the bytes, and leave an empty file in a crash."""
    with file.open("r+b") as stream:
        os.fsync(stream.fileno())
    with suppress(OSError):  # of file systems without modes
        file.chmod(mode)
