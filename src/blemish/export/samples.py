"""The images an export is tried out on, and the good ones that tell 8-bit integers their ranges."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from blemish.data.image_io import AS_DECLARED, Reading
from blemish.data.index import index_folder
from blemish.data.walk import walk
from blemish.data.words import GOOD_NAMES
from blemish.errors import DataError
from blemish.functional.pixels import to_uint8

Pictures = str | os.PathLike[str] | Iterable[str | os.PathLike[str] | npt.NDArray[np.uint8]]
"""A folder or manifest, or files and (H, W, 3) uint8 arrays. Folders that `index_folder` understands tell labels."""


class Candidate(NamedTuple):
    """An image, or its file, and what is known of it."""

    source: Path | npt.NDArray[np.uint8]
    anomalous: bool | None = None
    subset: str | None = None


def list_samples(images: Pictures) -> list[Candidate]:
    """What `images` names, before anything is read.

    Raises:
        DataError: if there is nothing.
    """
    if isinstance(images, (str, os.PathLike)):
        found = _of_folder(Path(images))
        if not found:
            raise DataError(f"{os.fspath(images)} is no folder with images. Name one, or leave images out.")
        return found
    return [Candidate(one if isinstance(one, np.ndarray) else Path(one)) for one in images]


def to_compare(samples: Sequence[Candidate]) -> list[Candidate]:
    """The test images where there are such, else all: images a model was fitted on say little."""
    return [one for one in samples if one.subset == "test"] or list(samples)


def good_ones(samples: Sequence[Candidate]) -> list[Candidate]:
    """The images known to be good, those of the test last resort; all, where nothing is known."""
    good = [one for one in samples if one.anomalous is False]
    return [one for one in good if one.subset != "test"] or good or list(samples)


def spread(samples: Sequence[Candidate], most: int) -> Sequence[Candidate]:
    """At `most` so many of the samples, evenly spaced."""
    return samples[:: -(-len(samples) // most) or 1]


def read_samples(
    samples: Sequence[Candidate], size: Sequence[int] | None, reading: Reading = AS_DECLARED
) -> list[tuple[npt.NDArray[np.uint8], Candidate]]:
    """The images as (H, W, 3) uint8, files read as `reading` says; with a `size` (H, W), only those of that size.

    Raises:
        DataError: if none is left. ImageReadError: for a file that can't be read.
    """
    pairs = [
        (to_uint8(one.source if isinstance(one.source, np.ndarray) else reading(one.source)), one) for one in samples
    ]
    fitting = [pair for pair in pairs if size is None or pair[0].shape[:2] == tuple(size)]
    if not fitting:
        of_size = "" if size is None else f" of {size[0]} x {size[1]} pixels"
        raise DataError(f"There is no image{of_size} to compare on.")
    return fitting


def _of_folder(folder: Path) -> list[Candidate]:
    try:
        return [Candidate(one.path, one.label, one.subset) for one in index_folder(folder).samples]
    except DataError:  # nothing to fit on, which isn't wanted here
        found = walk(folder).images if folder.is_dir() else {}
        files = list(found.values())
        above = [name.partition("/")[0].lower() for name in found]  # test/: good, scratch, hole, ...
        labeled = not set(GOOD_NAMES).isdisjoint(above)
        return [
            Candidate(file, name not in GOOD_NAMES if labeled else None)
            for file, name in zip(files, above, strict=True)
        ]
