"""Paths that users give: outputs that can be written, inputs that exist."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import typer

from blemish.data.walk import OWN, Walk, describe, is_own_output, walk, without_masks
from blemish.errors import ArtifactError, DataError, UsageError
from blemish.files import locked

OVERWRITE = typer.Option(False, "--overwrite", help="Replace what is there already, once the new one is whole.")


def require_new(path: Path, overwrite: bool) -> None:
    """Nothing that exists is replaced unless that was asked for.

    Raises:
        UsageError: if `path` is a file.
    """
    if path.is_file() and not overwrite:
        raise UsageError(f"{path} exists. Replace it with --overwrite, or name another file.")


@contextmanager
def output_file(path: Path, suffix: str, overwrite: bool) -> Iterator[None]:
    """A file that is written at the end of the block, which nobody else writes meanwhile.

    Raises:
        UsageError: before hours of work, if their result could not be written, or `require_new` refuses it.
        OutputError: if another process writes the same file.
    """
    if path.suffix.lower() != suffix:
        raise UsageError(f"The output must end in {suffix}. Got {str(path)!r}.")
    folder = next(parent for parent in (path.absolute().parent, *path.absolute().parents) if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UsageError(f"{path} can't be written ({folder} is no writable folder, or the path is a folder).")
    require_new(path, overwrite)
    with locked(path):
        yield


MODEL = ".safetensors"
EXPORTED = (".onnx", ".xml")


def check_model(path: Path, *, exported: str = "") -> None:
    """Fails before anything heavy is imported if there is no model file.

    Args:
        path: as it was given.
        exported: what to do with an exported file; "" where one will do.

    Raises:
        UsageError: for another suffix. ArtifactError: if there is no such file.
    """
    suffix = path.suffix.lower()
    if suffix in EXPORTED and exported:
        raise UsageError(f"{path} is an exported model. {exported}")
    if suffix not in (MODEL, *EXPORTED):
        raise UsageError(f"A model file ends in {' or '.join((MODEL, *EXPORTED))}. Got {str(path)!r}.")
    if not path.is_file():
        raise ArtifactError(f"There is no model file at {path}.")


def check_source(path: Path) -> None:
    """Fails before anything heavy is imported if there is no such folder or manifest. Raises `DataError`."""
    if not path.exists():
        raise DataError(f"{path}: no such folder or manifest.")


@dataclass
class Inputs:
    """What users named.

    Attributes:
        images: files, each with its path relative to what was named: the folder, or the part of a pattern before the
            first wildcard.
        passed_over: reason -> files of folders and patterns that are not inspected, see `blemish.data.walk`.
    """

    images: list[tuple[Path, Path]] = field(default_factory=list)
    passed_over: dict[str, tuple[str, ...]] = field(default_factory=dict)


def expand(inputs: Sequence[str]) -> Inputs:
    """Images named by files, folders (searched through, as for `fit`) and glob patterns.

    Raises:
        DataError: if an input matches nothing.
    """
    found = Inputs()
    for text in inputs:
        path = Path(text)
        if path.is_dir():
            below = without_masks(walk(path))
        elif path.exists():
            below = Walk(path.parent, {path.name: path}, {})
        else:
            matches = sorted(Path(match) for match in glob.glob(text, recursive=True) if Path(match).is_file())
            fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
            own = tuple(str(match) for match in matches if is_own_output(match))
            images = {str(match.relative_to(fixed)): match for match in matches if not is_own_output(match)}
            below = Walk(fixed, images, {OWN: own} if own else {})
        if not below.images:
            rest = f" Passed over: {describe(below.passed_over)}." if below.passed_over else ""
            raise DataError(
                f"{text!r} is no file, no folder with images and no pattern that matches. Check the path.{rest}"
            )
        found.images += [(file, file.relative_to(below.root)) for file in below.images.values()]
        for reason, names in below.passed_over.items():
            found.passed_over[reason] = (*found.passed_over.get(reason, ()), *names)
    return found
