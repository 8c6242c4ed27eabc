"""Pictures of predictions as files, in a tree that mirrors the images."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blemish.data.image_io import AS_DECLARED, write_png
from blemish.data.roi import Mask, stretched
from blemish.errors import UsageError
from blemish.files import writing
from blemish.functional.pixels import to_uint8
from blemish.runtime.session import Result
from blemish.visualization import overlay

Read: TypeAlias = Callable[[str], npt.NDArray[Any]]
"""Reads the image of a result again, by its path, as it was read: a `Reading`, say."""


def _overlay(result: Result, pixel_cut: float, roi: Mask | None, reading: Read) -> npt.NDArray[Any]:
    return overlay(
        to_uint8(reading(result.path)),
        result.anomaly_map,
        threshold=pixel_cut,
        mask=result.mask,
        regions=result.regions,
        label=result.label,
        score=result.raw_score,  # the verdict was taken on it, and it isn't cut off at 1
        score_threshold=result.threshold,
        roi=None if roi is None else stretched(roi, (result.mask.shape[0], result.mask.shape[1])),
    )


KINDS: dict[str, Callable[[Result, float, Mask | None, Read], npt.NDArray[Any]]] = {
    "overlay": _overlay,
    "mask": lambda result, *_: result.mask,
    "map": lambda result, *_: np.rint(result.anomaly_map * 65535).astype(np.uint16),
}
"""What `--save` can write. The map is a 16-bit PNG: normalized value times 65535."""


class PictureFolder:
    """Writes pictures of results below `folder`, under the image's path relative to `root`, with the kind in the name.

    Args:
        folder: where to write; created when needed.
        kinds: out of `KINDS`.
        pixel_cut: normalized map value from which a pixel is anomalous.
        roi: the model's region of interest, over pictures of any size; None for everything.
        reading: how the images were read that the results are of.

    Raises:
        UsageError: for an unknown kind.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        kinds: Sequence[str],
        pixel_cut: float,
        roi: Mask | None = None,
        reading: Read = AS_DECLARED,
    ) -> None:
        unknown = [kind for kind in kinds if kind not in KINDS]
        if unknown or not kinds:
            raise UsageError(f"--save takes a list out of {', '.join(KINDS)}. Got {','.join(kinds)!r}.")
        self.folder, self.kinds, self.pixel_cut, self.roi = Path(folder), tuple(kinds), pixel_cut, roi
        self.reading = reading

    def prepare(self, relatives: Iterable[Path], *, again: int = 0) -> None:
        """Makes the folder, and fails before hours of work if the pictures of these images can't all be written.

        Args:
            relatives: as for `write`.
            again: of how many images at the start there may be pictures, from the batch in which a run was cut off.
                They are removed, to be written again.

        Raises:
            UsageError, OutputError: as `write`, or if two images share a picture.
        """
        wanted: set[Path] = set()
        for number, relative in enumerate(relatives):
            for kind in self.kinds:
                path = self._path(relative, kind)
                if number < again:
                    with writing(path):
                        path.unlink(missing_ok=True)
                if path in wanted:
                    raise UsageError(f"{path} would be written twice. Name the folder that holds both images instead.")
                _require_absent(path)
                wanted.add(path)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, result: Result, relative: Path) -> list[Path]:
        """Writes the pictures of one result and returns their paths.

        Raises:
            UsageError: if a file is there already; nothing is overwritten. OutputError: if it can't be written.
        """
        written = []
        for kind in self.kinds:
            path = self._path(relative, kind)
            _require_absent(path)
            write_png(path, KINDS[kind](result, self.pixel_cut, self.roi, self.reading))
            written.append(path)
        return written

    def _path(self, relative: Path, kind: str) -> Path:
        return self.folder / relative.parent / f"{relative.name}.{kind}.png"


def _require_absent(path: Path) -> None:
    with writing(path), suppress(FileNotFoundError):
        path.lstat()  # unlike `exists`, it also tells that a name is too long
        raise UsageError(f"{path} exists and is not overwritten. Choose an empty folder with --save-dir.")
