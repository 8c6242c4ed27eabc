"""One image file <-> one array, at the depth of the file, or an `ImageReadError` that names the file and the reason.

Arrays are HWC, RGB. A file with 8 bits per sample (or fewer) becomes uint8. A deeper one becomes float32 in [0, 1],
divided by its *declared* range: 65535 for 16 bit, less where BitsPerSample or MaxSampleValue of a TIFF says so. The
maximum of a picture is never used: it would make the brightness of a part depend on its brightest pixel. (A PNG's sBIT
chunk changes nothing: the PNG standard has the writer stretch samples over the whole range; sBIT only records how many
bits they had before.)

Cameras of 10 or 12 bits are often stored in 16 without being stretched, at a sixteenth of their brightness. No file
says so; `bit_depth` does, one number for all pictures of a model.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.decoding import bits_of, decode, mode_of, size_of, to_unit_range
from blemish.data.formats import MAX_PIXELS, FileSource, open_regular, opened
from blemish.errors import DataError, ImageReadError, UsageError
from blemish.files import digest, is_image, replacing

__all__ = [
    "AS_DECLARED",
    "HALF",
    "MAX_PIXELS",
    "FileSource",
    "ImageHeader",
    "MaskReading",
    "Reading",
    "file_sha256",
    "highest_sample",
    "inverted_sentence",
    "looks_like_a_mask",
    "read_header",
    "read_image",
    "read_mask",
    "read_mask_closely",
    "read_size",
    "write_png",
]

LABELS = 32
"""Masks whose highest value is at most this number kinds of defects; in brighter ones gray is the edge of a white
area."""

_KINDS = 8  # of defects in one mask: a picture as dark as that has more values


@dataclass(frozen=True)
class Reading:
    """How the images of a model are read: whoever reads one for it must do the same. See `read_image`."""

    max_pixels: int = MAX_PIXELS
    frame: int | None = None
    bit_depth: int | None = None

    def __call__(self, source: FileSource) -> npt.NDArray[Any]:
        """(H, W, 3) RGB, uint8 or float32 in [0, 1]; `ImageReadError` as `read_image`."""
        return read_image(source, max_pixels=self.max_pixels, frame=self.frame, bit_depth=self.bit_depth)


AS_DECLARED = Reading()
"""As files declare, one picture each."""


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about itself before any pixel is decoded.

    Attributes:
        format: "PNG", "JPEG", "BMP", "TIFF", "WebP", "GIF", "JPEG 2000", "AVIF", "PNM", "TGA", "PCX" or "QOI".
        size: (H, W) after EXIF rotation.
        mode: "gray", "RGB", "palette", ..., with " + alpha" where there is an alpha channel.
        bits: bits per sample as stored.
        frames: how many pictures the file holds.
    """

    format: str
    size: tuple[int, int]
    mode: str
    bits: int
    frames: int = 1


def read_image(
    source: FileSource, *, max_pixels: int = MAX_PIXELS, frame: int | None = None, bit_depth: int | None = None
) -> npt.NDArray[Any]:
    """Decode an image, upright.

    Gray becomes three equal channels, a palette its colors. Transparency is composited on black, see
    `blemish.data.decoding.decode`.

    Args:
        source: a path, bytes or binary file in a format of `blemish.data.formats`.
        max_pixels: largest width x height that is decoded; judged from the header.
        frame: which picture of a file that holds several (pages, frames of an animation), from 0 on. With None such a
            file is refused.
        bit_depth: how many bits the samples of 16-bit PNG, PNM and TIFF files use, where the file doesn't say: 12 for
            values up to 4095. None takes all 16.

    Returns:
        (H, W, 3) RGB, contiguous and writable: uint8, or float32 in [0, 1] for files deeper than 8 bits.

    Raises:
        ImageReadError: missing, empty, truncated, not an image, too large, several pictures, deep without a declared
            range, or samples above it.
    """
    with opened(source, frame=frame) as file:
        samples = decode(file, max_pixels)
        pixels = samples.values
        if pixels.dtype != np.uint8:
            top = samples.top if bit_depth is None or not samples.loose else float(2**bit_depth - 1)
            if top is None:
                raise ImageReadError(
                    file.name,
                    "32-bit or signed integer samples without a declared range. Save as 16-bit or float in [0, 1], "
                    "write the MaxSampleValue tag, or tell how many bits they use with bit_depth.",
                )
            pixels = to_unit_range(samples, top, file.name)
        if pixels.ndim == 2:
            pixels = np.stack([pixels] * 3, axis=2)  # twice as fast as np.repeat
        return np.ascontiguousarray(pixels)


def highest_sample(source: FileSource, *, max_pixels: int = MAX_PIXELS, frame: int | None = None) -> int | None:
    """The largest sample of a file that `bit_depth` can say something about; None for all others, undecoded if they
    have 8 bits. Raises `ImageReadError` as `read_image` does.
    """
    with opened(source, frame=frame) as file:
        if bits_of(file) <= 8:
            return None
        samples = decode(file, max_pixels)
        return int(samples.values.max()) if samples.loose else None


HALF = 0.5
"""A mask that marks more of its picture than this is probably inverted."""


def inverted_sentence(mask: npt.NDArray[np.bool_]) -> str:
    """What a user is told about such a mask."""
    return f"its mask marks {mask.mean():.0%} of the picture. Is it inverted? White marks the defect"


@dataclass(frozen=True)
class MaskReading:
    """A mask, and what is odd about it.

    Attributes:
        mask: (H, W) bool, True on defect pixels.
        soft: it has more than two values, as JPEG and resizing leave them; those below half were dropped.
    """

    mask: npt.NDArray[np.bool_]
    soft: bool = False


def read_mask(path: FileSource, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a defect mask.

    Args:
        path: an image file, or a folder of such that mark a defect together. A pixel is defect from half of the mask's
            highest value on, in its brightest channel; where that value is at most `LABELS` and the samples are whole
            numbers, they count kinds of defects, and any but 0 is defect.
        size: (H, W) of the image the mask belongs to, after EXIF rotation.

    Returns:
        (H, W) bool, True on defect pixels.

    Raises:
        ImageReadError: the file can't be decoded.
        DataError: the mask has another size; masks are never resized, since a shift of one pixel would go unnoticed.
    """
    return read_mask_closely(path, size).mask


def read_mask_closely(path: FileSource, size: tuple[int, int]) -> MaskReading:
    """As `read_mask`, with what `blemish data check` remarks on."""
    if isinstance(path, (str, os.PathLike)) and os.path.isdir(path):
        files = sorted(one for one in Path(path).iterdir() if is_image(one))
        if not files:
            raise ImageReadError(path, "this folder of masks holds no images")
        parts = [read_mask_closely(one, size) for one in files]
        return MaskReading(np.logical_or.reduce([part.mask for part in parts]), any(part.soft for part in parts))
    with opened(path) as file:
        values = decode(file, MAX_PIXELS, keep_unused_alpha=True).values
        if values.shape[:2] != tuple(size):
            raise DataError(
                f"{file.name}: the mask is {values.shape[0]} x {values.shape[1]} (height x width), "
                f"its image {size[0]} x {size[1]}. Save the mask at the size of the image."
            )
        values = values.reshape(*size, -1).max(axis=2)
        top = values.max()
        if not np.isfinite(top):
            raise ImageReadError(file.name, "the mask holds NaN or infinity")
        if np.issubdtype(values.dtype, np.integer) and top <= LABELS:
            return MaskReading(values != 0)
        return MaskReading(values * 2.0 >= top, soft=len(np.unique(values)) > 2)


def looks_like_a_mask(path: FileSource) -> bool:
    """Whether a picture has two values at most, or small numbers that count kinds of defects. False if it can't be
    read.
    """
    try:
        with opened(path) as file:
            values = decode(file, MAX_PIXELS, keep_unused_alpha=True).values
    except ImageReadError:
        return False
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            return False
        values = values[..., 0]
    low, high = values.min(), values.max()
    if ((values == low) | (values == high)).all():
        return True
    return bool(low == 0 and high <= LABELS and len(np.unique(values)) <= _KINDS)


def read_header(source: FileSource) -> ImageHeader:
    """Read size, mode, depth and number of frames without decoding pixels. Raises `ImageReadError` as `read_image`."""
    with opened(source, anyone=True) as file:
        return ImageHeader(file.format, size_of(file), mode_of(file), bits_of(file), file.frames)


def read_size(source: FileSource) -> tuple[int, int]:
    """(H, W) after EXIF rotation, from the header alone. Raises `ImageReadError` as `read_image` does."""
    return read_header(source).size


def write_png(path: str | os.PathLike[str], array: npt.NDArray[Any]) -> None:
    """Write a PNG so that the file is either whole or absent; missing parent folders are created.

    Args:
        path: target; an existing file is replaced.
        array: (H, W) uint8, uint16 or bool (True becomes 255), or (H, W, 3) uint8 RGB.

    Raises:
        UsageError: another shape or dtype.
        OutputError: the target can't be written.
    """
    gray, color = array.ndim == 2, array.ndim == 3 and array.shape[-1] == 3
    if not (gray and array.dtype in (np.uint8, np.uint16, np.bool_)) and not (color and array.dtype == np.uint8):
        raise UsageError(
            f"write_png takes (H, W) uint8, uint16 or bool, or (H, W, 3) uint8. Got {array.shape} {array.dtype}."
        )
    pixels = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
    with replacing(path) as temporary:
        Image.fromarray(np.ascontiguousarray(pixels)).save(temporary, format="PNG")


def file_sha256(path: str | os.PathLike[str]) -> str:
    """Hex digest of a file's bytes, read in pieces. Raises `ImageReadError` where the file can't be read."""
    try:
        with open_regular(path):
            return digest(path)
    except OSError as error:
        raise ImageReadError(path, error.strerror or str(error)) from error
