"""Pictures of predictions as files, in a tree that mirrors the images."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from blemish.data.explanation import Explanation
from blemish.data.good_images import GoodPictures
from blemish.data.image_io import write_png
from blemish.errors import UsageError
from blemish.files import writing
from blemish.functional.pixels import to_uint8
from blemish.runtime.result import PICTURES, Result
from blemish.visualization.side_by_side import side_by_side

EXPLANATION = "explanation"
"""The kind of what `--explain` writes."""


class PictureFolder:
    """Writes pictures of results below `folder`, under the image's path relative to `root`, with the kind in the name.

    Args:
        folder: where to write; created when needed.
        kinds: out of `blemish.runtime.result.PICTURES`.
        overwrite: replace pictures that are there.
        good: finds pictures of good images; given, explanations are drawn beside the `kinds`, which may then be none.

    Raises:
        UsageError: for an unknown kind.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        kinds: Sequence[str],
        *,
        overwrite: bool = False,
        good: GoodPictures | None = None,
    ) -> None:
        unknown = [kind for kind in kinds if kind not in PICTURES]
        if unknown or not (kinds or good):
            raise UsageError(f"--save takes a list out of {', '.join(PICTURES)}. Got {','.join(kinds)!r}.")
        self.folder, self.overwrite, self.good = Path(folder), overwrite, good
        self.kinds = (*kinds, *([EXPLANATION] if good else []))

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
                self._require_free(path)
                wanted.add(path)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, result: Result, relative: Path, explanation: Explanation | None = None) -> list[Path]:
        """Writes the pictures of one result, and of its explanation where there is one; returns their paths.

        Raises:
            UsageError: if a file is there already, and may not be replaced. OutputError: if it can't be written.
        """
        written = []
        for kind in self.kinds:
            path = self._path(relative, kind)
            if kind != EXPLANATION:
                picture = result.picture(kind)
            elif explanation is not None and self.good is not None and result.image is not None:
                picture = side_by_side(to_uint8(result.image), explanation, self.good)
            else:
                continue
            self._require_free(path)
            write_png(path, picture)
            written.append(path)
        return written

    def _path(self, relative: Path, kind: str) -> Path:
        return self.folder / relative.parent / f"{relative.name}.{kind}.png"

    def _require_free(self, path: Path) -> None:
        with writing(path), suppress(FileNotFoundError):
            path.lstat()  # unlike `exists`, it also tells that a name is too long
            if not self.overwrite:
                raise UsageError(
                    f"{path} exists. Replace it with --overwrite, or choose an empty folder with --save-dir."
                )
