"""Paths that users give: outputs that can be written, inputs that exist."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from blemish.errors import DataError, UsageError
from blemish.files import is_image


def check_writable(path: Path, suffix: str) -> None:
    """Fails before hours of work if their result could not be written.

    Raises:
        UsageError: naming what stands in the way.
    """
    if path.suffix.lower() != suffix:
        raise UsageError(f"The output must end in {suffix}. Got {str(path)!r}.")
    folder = next(parent for parent in (path.absolute().parent, *path.absolute().parents) if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"{path} can't be written ({folder} is no writable folder, or the path is a folder).")


def expand(inputs: Sequence[str]) -> Iterator[tuple[Path, Path]]:
    """Images named by files, folders (searched through) and glob patterns, each with its path relative to what was
    named: the folder, or the part of the pattern before the first wildcard.

    Raises:
        DataError: if an input matches nothing.
    """
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            found = sorted(one for one in path.rglob("*") if is_image(one) and one.is_file())
            yield from ((one, one.relative_to(path)) for one in found)
        elif path.exists():
            found = [path]
            yield path, Path(path.name)
        else:
            found = sorted(Path(one) for one in glob.glob(text, recursive=True) if Path(one).is_file())
            fixed = list(itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
            yield from ((one, one.relative_to(Path(*fixed))) for one in found)
        if not found:
            raise DataError(f"{text!r} is no file, no folder with images and no pattern that matches. Check the path.")
