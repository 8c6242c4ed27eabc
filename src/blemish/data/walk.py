"""Every image below a folder: the one walk that fitting, testing and prediction share.

Links are followed, folders whose names begin with a dot are not entered, and what is passed over is kept with the
reason: who inspects a folder must be able to see that a file in it was not looked at.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from blemish.data.words import MASK_NAMES
from blemish.errors import DataError
from blemish.files import IMAGE_SUFFIXES, is_image

HIDDEN = "hidden"
SYSTEM = "system folders"
OWN = "written by predict"
OTHER = "of no image format"
BROKEN = "links to nowhere"
SPECIAL = "pipes or devices"
MASKS = "in folders of masks"

SYSTEM_FOLDERS = (
    *("$recycle.bin", "recycler", "recycled", "#recycle", "@recycle", "system volume information"),
    *("lost+found", "__macosx", "@eadir", "thumbnails", "thumbs", "__pycache__"),
)
"""Folders that systems make, compared in lower case. They hold copies of pictures, or such that were thrown away."""

OUTPUT_KINDS = ("overlay", "heatmap", "panel", "mask", "map", "explanation")
"""What `predict` writes: <image>.<suffix>.<kind>.png."""

_OUTPUT = re.compile(rf".+({'|'.join(map(re.escape, IMAGE_SUFFIXES))})\.({'|'.join(OUTPUT_KINDS)})\.png", re.IGNORECASE)


@dataclass(frozen=True)
class Walk:
    """What lies below a folder.

    Attributes:
        root: the folder.
        images: path below the root, with "/" between folders and Unicode composed (NFC) -> file; ordered by that path.
        passed_over: reason (such as `HIDDEN`) -> paths below the root, ordered. A folder that isn't entered is one.
    """

    root: Path
    images: Mapping[str, Path]
    passed_over: Mapping[str, tuple[str, ...]]


def walk(root: Path) -> Walk:
    """Find all images below a folder; `root` itself may have any name.

    Raises:
        DataError: a folder that can't be read.
    """
    found: dict[str, Path] = {}
    passed_over: dict[str, list[str]] = defaultdict(list)
    for path, reason in entries(root):
        stored = path.relative_to(root).as_posix()
        if reason is not None:
            passed_over[reason].append(composed(stored))
        else:
            found[stored] = path
    # Two spellings of one name are two files: the second keeps its own.
    images = {name if (name := composed(stored)) not in found else stored: path for stored, path in found.items()}
    ordered = {reason: tuple(sorted(names)) for reason, names in sorted(passed_over.items())}
    return Walk(root, dict(sorted(images.items())), ordered)


def without_masks(found: Walk) -> Walk:
    """For those who inspect all images of a folder: what lies below it in one called `ground_truth` or the like is
    passed over, since a mask is no picture of a part.
    """
    folders = frozenset(MASK_NAMES)
    masks = {name: None for name in found.images if not folders.isdisjoint(name.lower().split("/")[:-1])}
    if not masks:
        return found
    images = {name: path for name, path in found.images.items() if name not in masks}
    return Walk(found.root, images, {**found.passed_over, MASKS: tuple(masks)})


def describe(passed_over: Mapping[str, tuple[str, ...]]) -> str:
    """Counts, reasons and a few names, such as "3 hidden (.a.png, ...)"; empty where nothing was passed over."""
    parts = []
    for reason, names in passed_over.items():
        shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        parts.append(f"{len(names)} {reason} ({shown})")
    return "; ".join(parts)


def composed(name: str) -> str:
    """Unicode NFC: macOS stores a file name decomposed that the mask's author typed composed."""
    return unicodedata.normalize("NFC", name)


def is_own_output(path: Path) -> bool:
    """Whether a name is one that `predict --save` gives."""
    return _OUTPUT.fullmatch(path.name) is not None


def entries(folder: Path, above: tuple[tuple[int, int], ...] = ()) -> Iterator[tuple[Path, str | None]]:
    """Every entry below a folder, ordered by path, with the reason to pass it over, None for images. Links to folders
    are followed, except to one that is being walked already.

    Args:
        folder: where to look.
        above: device and number of the folders that are being walked already.

    Raises:
        DataError: a folder that can't be read.
    """
    try:
        state = folder.stat()
        here = (state.st_dev, state.st_ino)
        if here in above:
            return
        found = sorted(os.scandir(folder), key=_in_paths)
    except OSError as error:
        raise DataError(
            f"{folder}: the folder can't be read ({error.strerror}). Give yourself the right to."
        ) from error
    for entry in found:
        path = folder / entry.name
        try:
            mode = path.stat().st_mode
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                yield path, BROKEN
                continue
            raise DataError(f"{path}: can't be looked at ({error.strerror}). Give yourself the right to.") from error
        if entry.name.startswith("."):
            yield path, HIDDEN
        elif stat.S_ISDIR(mode):
            if entry.name.lower() in SYSTEM_FOLDERS:
                yield path, SYSTEM
            else:
                yield from entries(path, (*above, here))
        elif not is_image(path):
            yield path, OTHER
        elif not stat.S_ISREG(mode):
            yield path, SPECIAL
        else:
            yield path, OWN if is_own_output(path) else None


def _in_paths(entry: os.DirEntry[str]) -> str:
    """How an entry's name goes on in the paths that have it, for their order."""
    with suppress(OSError):  # a link to itself
        return f"{entry.name}/" if entry.is_dir() else entry.name
    return entry.name
