"""Pictures as they come: files of a folder that is watched, and what another program writes to this one's input.

Each is a `Shot`, given as soon as it is there. The frames of videos and cameras are `blemish.data.video`.

Nothing tells for sure that a file is complete. Here it counts as complete when size and time of change stay the same
for a while, and a PNG or JPEG has its end, for which one waits longer; after that it counts as it is. Names with a
leading dot are passed over: write under one and rename, and no picture is ever read half-written.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from blemish.data.walk import walk
from blemish.errors import DataError

_LOG = logging.getLogger(__name__)


class Shot(NamedTuple):
    """One picture of a source that goes on.

    Attributes:
        name: what rows call it: a path; of a frame, its video or camera and, behind "#", its number or time.
        image: a path, the bytes of an image file, or an array (H, W, 3) uint8, always RGB.
        place: relative path under which pictures of it are kept.
    """

    name: str
    image: Any
    place: Path


@dataclass
class _Seen:
    identity: tuple[int, int]  # size, time of change in nanoseconds
    since: float  # monotonic


def watch(
    root: str | os.PathLike[str], *, settle: float = 0.2, patience: float = 10.0, look: float = 0.2
) -> Iterator[Shot]:
    """Every image below a folder, once: those that are there, then those that come, for ever. One that is written anew
    comes again.

    Args:
        root: the folder. While it can't be read, as a share that is gone for a while, nothing comes.
        settle: seconds for which a file must not change.
        patience: seconds that a PNG or JPEG without its end is waited for.
        look: seconds between two looks at the folder, more where looking itself takes long.

    Raises:
        DataError: if there is no such folder to begin with.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder to watch. Make it first.")
    return _watched(root, settle, patience, look)


def _watched(root: Path, settle: float, patience: float, look: float) -> Iterator[Shot]:
    done: dict[Path, tuple[int, int]] = {}
    pending: dict[Path, _Seen] = {}
    reachable = True
    while True:
        started = time.monotonic()
        files: list[Path] = []
        try:
            files = list(walk(root).images.values())
            reachable = True
        except DataError as error:
            if reachable:
                _LOG.warning("%s Waiting for it.", error)
            reachable = False
        took = time.monotonic() - started
        if reachable:
            settled = _settled(files, done, pending, settle, patience)
            yield from (Shot(str(path), path, path.relative_to(root)) for path in settled)
        time.sleep(max(look, 10 * took))


def _settled(
    files: list[Path], done: dict[Path, tuple[int, int]], pending: dict[Path, _Seen], settle: float, patience: float
) -> list[Path]:
    """The files that are complete now, oldest first; `done` and `pending` are brought up to date."""
    now = time.monotonic()
    ready: list[tuple[int, Path]] = []
    for known in (done, pending):
        for path in known.keys() - set(files):
            del known[path]
    for path in files:
        try:
            status = path.stat()
        except OSError:
            continue  # it was removed since
        identity = (status.st_size, status.st_mtime_ns)
        if done.get(path) == identity:
            continue
        seen = pending.setdefault(path, _Seen(identity, now))
        if seen.identity != identity:
            pending[path] = _Seen(identity, now)
        elif now - seen.since >= patience or (now - seen.since >= settle and not cut_off(path)):
            done[path] = identity
            del pending[path]
            ready.append((status.st_mtime_ns, path))
    return [path for _, path in sorted(ready)]


def cut_off(path: Path) -> bool:
    """Whether a PNG or JPEG lacks its end, or the file is empty. Of other formats nothing is known: False."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
            size = file.seek(0, 2)
            file.seek(max(0, size - 65_536))
            end = file.read()
    except OSError:
        return True
    if start == b"\x89PNG":
        return b"IEND" not in end
    if start[:3] == b"\xff\xd8\xff":
        return b"\xff\xd9" not in end
    return size == 0


def piped(stream: BinaryIO) -> Iterator[Shot]:
    """What another program writes: paths of images, one a line, each given when its line ends; or the bytes of one
    image.

    Args:
        stream: such as `sys.stdin.buffer`; read to its end.
    """
    line = stream.readline(_LONGEST)
    if b"\0" in line or _IMAGE.match(line):  # no path holds a zero byte, and every other format does
        yield Shot("stdin", line + stream.read(), Path("stdin"))
        return
    while line:
        text = os.fsdecode(line.rstrip(b"\r\n"))
        if text:
            parts = (part for part in Path(text).parts if part not in ("..", Path(text).anchor))
            yield Shot(text, Path(text), Path(*parts))
        line = stream.readline(_LONGEST)


_LONGEST = 1 << 16
_IMAGE = re.compile(rb"\x89PNG|\xff\xd8\xff|P[1-6]\s*$")
