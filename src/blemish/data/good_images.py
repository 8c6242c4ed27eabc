"""Pictures of the good images that explanations refer to: out of a folder, or out of the model file.

A model file names them by their paths below the folder it was fitted on, and tells them by a digest; it holds small
pictures of them only where that was asked for. Names come from a file that anyone may have written: they never lead out
of the folder that the user names.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.explanation import GoodImage
from blemish.data.image_io import AS_DECLARED, Reading, file_sha256
from blemish.errors import ImageReadError
from blemish.functional.pixels import to_uint8

MOST_IMAGES = 10_000
"""How many images a model file names; the bank's other patches are of unknown images."""

MOST_PICTURES = 250
"""How many small pictures it holds at most."""

SIDE = 384
"""Longer side of a small picture, in pixels."""

DIGITS = 12
"""Of a digest, that are kept."""

_QUALITY = 88
_KEPT = 4  # pictures in memory: regions of one image often resemble the same good ones


@dataclass(frozen=True)
class GoodImages:
    """The good images that a model file names.

    Attributes:
        images: those that matter most first.
        pictures: their small pictures as JPEG, one after the other; how long each is, the images say.

    Raises:
        ValueError: if these lengths don't add up, or an image has no size.
    """

    images: tuple[GoodImage, ...] = ()
    pictures: bytes = b""

    def __post_init__(self) -> None:
        lengths = [image.picture for image in self.images]
        if min(lengths, default=0) < 0 or sum(lengths) != len(self.pictures):
            raise ValueError(f"good_images tell of {sum(lengths)} bytes of pictures. Got {len(self.pictures)}.")
        if any(min(image.size) < 1 for image in self.images):
            raise ValueError("The sides of good_images must be at least 1.")

    def picture(self, image: GoodImage) -> bytes:
        """The small picture of one of the images; b"" without."""
        if not image.picture:
            return b""
        start = sum(other.picture for other in self.images[: self.images.index(image)])
        return self.pictures[start : start + image.picture]


def select(images: Iterable[GoodImage], picture: Callable[[GoodImage], bytes]) -> GoodImages:
    """The first `MOST_IMAGES` of some images, with the first `MOST_PICTURES` of their pictures.

    Args:
        images: those that matter most first.
        picture: the small picture of each, b"" for none.
    """
    named: list[GoodImage] = []
    pictures: list[bytes] = []
    for image in islice(images, MOST_IMAGES):
        found = picture(image) if len(pictures) < MOST_PICTURES else b""
        named.append(replace(image, picture=len(found)))
        pictures += [found] if found else []
    return GoodImages(tuple(named), b"".join(pictures))


def small_picture(image: npt.NDArray[Any]) -> bytes:
    """(H, W, 3) uint8, or float32 in [0, 1] -> JPEG whose longer side has `SIDE` pixels at most."""
    picture = Image.fromarray(to_uint8(image))
    picture.thumbnail((SIDE, SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()


class GoodPictures:
    """Finds the pictures of good images.

    Args:
        images: of a model.
        root: the folder that holds them, as for the fit, or a folder within; None looks into the model file alone.
        reading: how the model's images are read.

    Attributes:
        missing: name -> why there is no picture, of all that were asked for in vain.
    """

    def __init__(
        self, images: GoodImages, root: str | os.PathLike[str] | None = None, reading: Reading = AS_DECLARED
    ) -> None:
        self.images, self.root, self.reading = images, None if root is None else Path(root), reading
        self.missing: dict[str, str] = {}
        self._find = lru_cache(_KEPT)(self._found)

    def __call__(self, image: GoodImage) -> npt.NDArray[np.uint8] | None:
        """(H, W, 3) uint8 RGB, perhaps smaller than the image was; None where there is none."""
        return self._find(image)

    def _found(self, image: GoodImage) -> npt.NDArray[np.uint8] | None:
        reason = "its folder wasn't named"
        try:
            if self.root is not None:
                path, reason = self._path(self.root, image)
                if path is not None:
                    return to_uint8(self.reading(path))
            stored = self.images.picture(image)
            if stored:
                return to_uint8(Reading(max_pixels=SIDE**2)(stored))
        except ImageReadError as error:
            reason = error.reason
        self.missing[image.name] = reason
        return None

    @staticmethod
    def _path(root: Path, image: GoodImage) -> tuple[Path | None, str]:
        """The file with the right bytes, below the root by its name or by the end of its name; or why there is none."""
        parts = PurePosixPath(image.name).parts
        if ".." in parts or PurePosixPath(image.name).is_absolute():
            return None, f"its name leads out of {root}"
        tried = [root.joinpath(*parts[skipped:]) for skipped in range(len(parts))]
        files = [path for path in tried if path.is_file()]
        for path in files:
            if file_sha256(path)[:DIGITS] == image.digest:
                return path, ""
        return None, f"{files[0]} is another picture by now" if files else f"not found below {root}"
