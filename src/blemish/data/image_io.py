"""One image file <-> one array, at the depth of the file, or an `ImageReadError` that names the file and the reason.

Arrays are HWC, RGB. A file with 8 bits per sample (or fewer) becomes uint8. A deeper one becomes float32 in [0, 1],
divided by the *declared* range: 65535 for 16 bit, less where BitsPerSample or MaxSampleValue of a TIFF says so. The
observed maximum is never used: it would make the brightness of a part depend on its brightest pixel. (A PNG's sBIT
chunk changes nothing: the PNG standard has the writer stretch samples over the whole range; sBIT only records how many
bits they had before.)

Why the plug-in classes of Pillow and not `PIL.Image.open`: that function applies a limit and a warning of Pillow's own,
process wide. Here the size is read from the header and compared with `max_pixels` before anything is decoded, and no
global of Pillow's is touched. Color profiles are ignored; pixels are taken as sRGB.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from blemish.errors import DataError, ImageReadError, UsageError
from blemish.files import digest, replacing

Source: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of an image file, or an open binary file (read from where it stands)."""

"""What a folder scan takes for an image, compared in lower case. A file given by name is judged by content alone."""

MAX_PIXELS = 200_000_000
"""Default limit on width x height: about 600 MB as 8-bit RGB."""

_SIGNATURES: tuple[tuple[bytes, int, type[ImageFile.ImageFile]], ...] = (  # bytes, where they stand, reader
    (b"\x89PNG\r\n\x1a\n", 0, PngImageFile),
    (b"\xff\xd8\xff", 0, JpegImageFile),
    (b"BM", 0, BmpImageFile),
    (b"II*\0", 0, TiffImageFile),
    (b"MM\0*", 0, TiffImageFile),
    (b"II+\0", 0, TiffImageFile),
    (b"MM\0+", 0, TiffImageFile),
    (b"WEBP", 8, WebPImageFile),
)
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_MAX, _TIFF_PLANAR, _TIFF_FORMAT, _TIFF_SMAX = 258, 262, 281, 284, 339, 341
_ORIENTATION = 0x0112
_TURN: dict[int, Callable[[npt.NDArray[Any]], npt.NDArray[Any]]] = {  # EXIF orientation -> upright
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@dataclass(frozen=True)
class ImageHeader:
    """What a file says about itself before any pixel is decoded.

    Attributes:
        format: "PNG", "JPEG", "BMP", "TIFF" or "WEBP".
        size: (H, W) after EXIF rotation.
        mode: "gray", "RGB", "palette", ..., with " + alpha" where there is an alpha channel.
        bits: bits per sample as stored.
    """

    format: str
    size: tuple[int, int]
    mode: str
    bits: int


def read_image(source: Source, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[Any]:
    """Decode the first frame of an image, upright.

    Gray becomes three equal channels, a palette its colors. Transparency is composited on black: a transparent pixel
    shows nothing, and the colors some programs leave underneath it are not part of the picture.

    Args:
        source: a path, bytes or binary file holding PNG, JPEG, BMP, TIFF or WebP.
        max_pixels: largest width x height that is decoded; judged from the header.

    Returns:
        (H, W, 3) RGB, contiguous and writable: uint8, or float32 in [0, 1] for files deeper than 8 bits.

    Raises:
        ImageReadError: missing, empty, truncated, not an image, too many pixels, or deep without a declared range.
    """
    with _opened(source) as (image, stream, name):
        samples, top = _decode(image, stream, name, max_pixels)
        if top is None:
            raise ImageReadError(
                name,
                "32-bit or signed integer samples without a declared range. Save as 16-bit or float in [0, 1], or "
                "write the MaxSampleValue tag.",
            )
        pixels = samples if samples.dtype == np.uint8 else _to_unit_range(samples, top, name)
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[..., None], 3, axis=2)
        return np.ascontiguousarray(pixels)


def read_mask(path: Source, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Read a defect mask.

    Args:
        path: an image file; a pixel of any non-zero color is defect.
        size: (H, W) of the image the mask belongs to, after EXIF rotation.

    Returns:
        (H, W) bool, True on defect pixels.

    Raises:
        ImageReadError: the file can't be decoded.
        DataError: the mask has another size; masks are never resized, since a shift of one pixel would go unnoticed.
    """
    with _opened(path) as (image, stream, name):
        samples, _ = _decode(image, stream, name, MAX_PIXELS)
    if samples.shape[:2] != tuple(size):
        raise DataError(
            f"{name}: the mask is {samples.shape[0]} x {samples.shape[1]} (height x width), "
            f"its image {size[0]} x {size[1]}. Save the mask at the size of the image."
        )
    defect: npt.NDArray[np.bool_] = samples.reshape(*size, -1).astype(np.bool_).max(axis=2)
    return defect


def read_header(source: Source) -> ImageHeader:
    """Read size, mode and depth without decoding pixels. Raises `ImageReadError` as `read_image` does."""
    with _opened(source) as (image, stream, _):
        modes = {"1": "gray", "L": "gray", "I": "gray", "F": "gray", "P": "palette", "LA": "gray + alpha"}
        modes |= {"La": "gray + alpha", "PA": "palette + alpha", "RGBA": "RGB + alpha", "RGBa": "RGB + alpha"}
        mode = "gray" if image.mode.startswith("I;16") else modes.get(image.mode, image.mode)
        if _rawmode(image) == "LA;16B":
            mode = "gray + alpha"
        return ImageHeader(image.format or "", _size(image, stream), mode, _bits(image))


def read_size(source: Source) -> tuple[int, int]:
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
        return digest(path)
    except OSError as error:
        raise ImageReadError(path, error.strerror or str(error)) from error


@contextmanager
def _opened(source: Source) -> Iterator[tuple[ImageFile.ImageFile, BinaryIO, str]]:
    """Open by content, not by suffix. Whatever goes wrong in the block leaves it as an `ImageReadError`."""
    if isinstance(source, bytes):
        name = "<bytes>"
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
    else:
        name = str(getattr(source, "name", "<stream>"))
    kind = "image"
    try:
        with _stream(source) as stream:
            start = stream.read(12)
            if not start:
                raise ImageReadError(name, "the file is empty (0 bytes)")
            reader = next((cls for sign, at, cls in _SIGNATURES if start[at : at + len(sign)] == sign), None)
            if reader is None:
                raise ImageReadError(name, "not an image. PNG, JPEG, BMP, TIFF and WebP can be read.")
            kind = reader.format or kind
            stream.seek(0)
            yield reader(stream), stream, name
    except ImageReadError:
        raise
    except FileNotFoundError as error:
        raise ImageReadError(name, "no such file") from error
    except IsADirectoryError as error:
        raise ImageReadError(name, "this is a folder, not an image file") from error
    except PermissionError as error:
        raise ImageReadError(name, "permission denied") from error
    except (
        Exception
    ) as error:  # on damaged bytes Pillow raises nearly anything: SyntaxError, struct.error, ValueError, ...
        raise ImageReadError(name, f"damaged, truncated or unsupported {kind} file ({error})") from error


def _stream(source: Source) -> BinaryIO:
    if isinstance(source, (str, os.PathLike)):
        return open(source, "rb")
    return io.BytesIO(source if isinstance(source, bytes) else source.read())


def _decode(
    image: ImageFile.ImageFile, stream: BinaryIO, name: str, max_pixels: int
) -> tuple[npt.NDArray[Any], float | None]:
    """Return samples as stored, upright, with the largest value they may take (None where the file doesn't say).

    uint8 samples are (H, W) or (H, W, 3) with transparency already applied; deeper ones are (H, W) or (H, W, C) with
    C = 2, 3, 4 where 2 and 4 end in alpha.
    """
    height, width = _size(image, stream)
    if height * width > max_pixels:
        raise ImageReadError(
            name,
            f"{height} x {width} = {height * width:,} pixels are more than max_pixels = {max_pixels:,}. "
            "Raise max_pixels if the file is genuine.",
        )
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageReadError(
            name,
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is switched on in this process: a truncated file would be "
            "filled up with gray and taken for a picture. Set it to False.",
        )
    if isinstance(image, JpegImageFile) and b"\xff\xd9" not in stream.read():
        # The reader stands behind the start-of-scan marker. Pillow drops libjpeg's warnings, so a tail overwritten with
        # zeros would pass as gray. In entropy-coded data FF is always escaped: FFD9 can only be the end marker.
        raise ImageReadError(name, "truncated JPEG file (the end marker is missing)")
    orientation = _orientation(image, stream)
    samples, top = _deep_samples(image, stream, name) if _bits(image) > 8 else (_shallow_samples(image), 255.0)
    if isinstance(image, TiffImageFile):
        orientation = 1  # the one format that Pillow turns upright by itself, while decoding
    turn = _TURN.get(orientation)
    return (samples if turn is None else turn(samples)), top


def _shallow_samples(image: ImageFile.ImageFile) -> npt.NDArray[np.uint8]:
    """Return 8-bit samples: (H, W) gray or (H, W, 3) RGB."""
    _load(image)
    if image.has_transparency_data:
        straight = image.convert("LA") if image.mode == "La" else image
        rgba = np.asarray(straight.convert("RGBA"))
        light: npt.NDArray[np.uint16] = rgba[..., :3].astype(np.uint16) * rgba[..., 3:] + 127
        return (light // 255).astype(np.uint8)
    return np.array(image.convert("L" if image.mode in ("1", "L") else "RGB"), dtype=np.uint8)


def _deep_samples(image: ImageFile.ImageFile, stream: BinaryIO, name: str) -> tuple[npt.NDArray[Any], float | None]:
    """Return samples of more than 8 bits with their declared range."""
    raw, bits = _rawmode(image), _bits(image)  # decoding empties the tile list that tells them
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    key = image.info.get("transparency")
    if image.mode in ("RGB", "RGBA"):
        # Pillow has no mode for deep color and keeps the high bytes only. The same tiles unpacked in the other byte
        # order give the low bytes; gray + alpha comes out whole when unpacked as four 8-bit channels.
        if tags.get(_TIFF_PLANAR, 1) != 1 or raw[:-1] not in ("RGB;16", "RGBX;16", "RGBA;16", "LA;16"):
            raise ImageReadError(
                name, f"16-bit layout {raw} is not supported. Save as 16-bit RGB with interleaved channels."
            )
        if raw == "LA;16B":
            _unpack_as(image, "RGBA")
            _load(image)
            samples = np.array(image).view(">u2")
        else:
            stream.seek(0)
            twin = type(image)(stream)
            native = "L" if sys.byteorder == "little" else "B"
            first = native if raw[-1] == "N" else raw[-1]  # the byte order of the file
            _unpack_as(twin, raw[:-1] + ("L" if first == "B" else "B"))
            _load(image)
            _load(twin)
            samples = np.asarray(image).astype(np.uint16) << 8 | np.asarray(twin)
    else:
        _load(image)
        samples = np.array(image)
    if key is not None:
        samples[(samples == key).all(axis=2) if samples.ndim == 3 else samples == key] = 0  # one color is see-through

    kind = tags.get(_TIFF_FORMAT, (1,))[0]  # 1 unsigned, 2 signed, 3 float
    if image.mode == "I" and kind == 1 and bits == 32:
        samples = samples.view(np.uint32)  # mode I is signed
    declared = tags.get(_TIFF_SMAX, tags.get(_TIFF_MAX))
    if declared is not None:
        top: float | None = float(np.max(declared))
    elif kind == 3:
        top = 1.0
    else:
        top = float(2**bits - 1) if kind == 1 and bits <= 16 else None
    if top is not None and samples.ndim == 2 and tags.get(_TIFF_PHOTOMETRIC, 1) == 0:
        samples = top - samples.astype(np.float32)  # white is zero; Pillow inverts this for 8 bits only
    return samples, top


def _to_unit_range(samples: npt.NDArray[Any], top: float, name: str) -> npt.NDArray[np.float32]:
    """Divide by the declared range and apply alpha: (H, W) or (H, W, 3) float32 in [0, 1]."""
    low, high = float(samples.min()), float(samples.max())
    if not (low >= 0 and high <= top):  # NaN fails both
        raise ImageReadError(
            name,
            f"samples lie in [{low:g}, {high:g}], outside the declared range [0, {top:g}]. "
            "Rescale them, or declare the range in the MaxSampleValue tag.",
        )
    unit: npt.NDArray[np.float32] = samples.astype(np.float32) / np.float32(top)
    if unit.ndim == 2 or unit.shape[2] == 3:
        return unit
    light: npt.NDArray[np.float32] = unit[..., :-1] * unit[..., -1:]
    return light[..., 0] if light.shape[2] == 1 else light


def _load(image: ImageFile.ImageFile) -> None:
    if isinstance(image, TiffImageFile):
        # With the canvas in place Pillow skips its own pixel limit; ours was applied to the header.
        image.im = Image.new(image.mode, (image.tag_v2[256], image.tag_v2[257])).im
    image.load()


def _rawmode(image: ImageFile.ImageFile) -> str:
    """Layout of the stored samples, such as "RGB;16B"; empty for formats without deep variants."""
    if not image.tile or not isinstance(image, (PngImageFile, TiffImageFile)):
        return ""
    arguments: Any = image.tile[0][3]
    return str(arguments if isinstance(arguments, str) else arguments[0])


def _unpack_as(image: ImageFile.ImageFile, rawmode: str) -> None:
    """Have the same stored bytes interpreted as another sample layout of the same width."""
    tiles: list[Any] = []
    for tile in image.tile:
        stored: Any = tile[3]
        arguments = rawmode if isinstance(stored, str) else (rawmode, *stored[1:])
        tiles.append(getattr(type(tile), "_make", tuple)((*tile[:3], arguments)))  # a plain tuple before Pillow 11
    image.tile = tiles


def _bits(image: ImageFile.ImageFile) -> int:
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(_TIFF_BITS, (1,))))
    if ";16" in _rawmode(image):
        return 16
    return 1 if image.mode == "1" else 8


def _size(image: ImageFile.ImageFile, stream: BinaryIO) -> tuple[int, int]:
    """(H, W), upright."""
    width, height = (image.tag_v2[256], image.tag_v2[257]) if isinstance(image, TiffImageFile) else image.size
    return (width, height) if _orientation(image, stream) >= 5 else (height, width)


def _orientation(image: ImageFile.ImageFile, stream: BinaryIO) -> int:
    """EXIF orientation 1..8, found without decoding."""
    exif = Image.Image.getexif(image)  # PngImageFile.getexif would decode the picture
    if isinstance(image, PngImageFile) and _ORIENTATION not in exif:
        where = stream.tell()
        stream.seek(8)
        while len(head := stream.read(8)) == 8:  # some programs append EXIF behind the pixels
            length, chunk = struct.unpack(">I4s", head)
            if chunk == b"eXIf":
                exif.load(stream.read(length))
                break
            stream.seek(length + 4, os.SEEK_CUR)
        stream.seek(where)
    return int(exif.get(_ORIENTATION, 1))
