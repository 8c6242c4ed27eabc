"""Which file holds a picture, and of which format: by content, and never by waiting for one.

Why the plug-in classes of Pillow and not `PIL.Image.open`: that function tries programs and formats that nobody asked
for, and applies a limit and a warning of Pillow's own, process wide. Here a table says what is read, the size is read
from the header and compared with bounds before anything is decoded, and no global of Pillow's is touched.

A file may hold several pictures: pages of a TIFF, frames of an animation. Who asks for "the" picture of such a file is
told how many there are: a verdict on the first would pass for one on all.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, BinaryIO, TypeAlias

from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from blemish.errors import DataError, ImageReadError

FileSource: TypeAlias = str | os.PathLike[str] | bytes | BinaryIO
"""A path, the bytes of an image file, or an open binary file (read from where it stands)."""

READABLE = "PNG, JPEG, BMP, TIFF, WebP, GIF, JPEG 2000, AVIF, PNM, TGA, PCX and QOI can be read."

MAX_PIXELS = 200_000_000
"""Default limit on width x height: about 600 MB as 8-bit RGB."""
MAX_SIDE = 131_072
"""Longest side, in pixels: a matrix that resizes it to 1,024 takes half a gigabyte."""
MAX_ASPECT = 1_000
"""Most times that one side may be as long as the other."""
MAX_BYTES = 4 * 2**30
"""Largest file that is read."""
MAX_FRAMES = 10_000
"""Pictures of one file that are counted."""


@dataclass(frozen=True)
class _Format:
    """How a file of this format begins, and what reads it: PIL.<plugin>ImagePlugin.<plugin>ImageFile."""

    start: re.Pattern[bytes]
    plugin: str
    name: str


def _row(start: bytes, plugin: str, name: str) -> _Format:
    return _Format(re.compile(start, re.DOTALL), plugin, name)


_TGA_END = b"TRUEVISION-XFILE.\0"
_FORMATS = (
    _row(rb"\x89PNG\r\n\x1a\n", "Png", "PNG"),
    _row(rb"\xff\xd8\xff", "Jpeg", "JPEG"),
    _row(rb"BM", "Bmp", "BMP"),
    _row(rb"II[*+]\x00|MM\x00[*+]", "Tiff", "TIFF"),
    _row(rb".{8}WEBP", "WebP", "WebP"),
    _row(rb"GIF8", "Gif", "GIF"),
    _row(rb"\x00\x00\x00\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51", "Jpeg2K", "JPEG 2000"),
    _row(rb".{4}ftypavi[fs]", "Avif", "AVIF"),
    _row(rb"P[1-6f][\s#]", "Ppm", "PNM"),
    _row(rb"\n[\x00\x02\x03\x05]\x01", "Pcx", "PCX"),
    _row(rb"qoif", "Qoi", "QOI"),
)
_TGA = _row(rb"", "Tga", "TGA")  # known by how it ends

_TIFF_BITS, _TIFF_COMPRESSION, _TIFF_CHANNELS, _TIFF_FORMAT = 258, 259, 277, 339
_TIFF_SUBFILE, _TIFF_OLD_SUBFILE = 254, 255


@dataclass
class Opened:
    """An image file before any pixel of it is decoded.

    Attributes:
        image: Pillow's reader, standing at the frame that was asked for.
        stream: the file.
        name: for messages.
        format: such as "PNG".
        frames: how many pictures the file holds; thumbnails and smaller versions of one don't count.
        frame: the number, in Pillow's count, of the one it stands at.
    """

    image: ImageFile.ImageFile
    stream: BinaryIO
    name: str
    format: str
    frames: int
    frame: int


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read bytes, without ever waiting.

    Raises:
        ImageReadError: a pipe, a socket or a device, which would block or never end, or a file above `MAX_BYTES`.
        OSError: as `open`.
    """
    state = os.stat(path)
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(state.st_mode):
        raise ImageReadError(path, "not a regular file but a pipe, a socket or a device. Save the image to a file.")
    if state.st_size > MAX_BYTES:
        raise ImageReadError(path, f"{state.st_size:,} bytes are more than the {MAX_BYTES:,} that are read")
    waitless = getattr(os, "O_NONBLOCK", 0)  # should a pipe have taken the name by now
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | waitless))


@contextmanager
def opened(source: FileSource, *, frame: int | None = None, anyone: bool = False) -> Iterator[Opened]:
    """Open by content, not by suffix. Whatever goes wrong in the block leaves it as an `ImageReadError`.

    Args:
        source: what to open.
        frame: which picture of the file, from 0 on. None asks for the only one.
        anyone: with `frame=None`, stand at the first picture of several instead of refusing.
    """
    if isinstance(source, bytes):
        name = "<bytes>"
    elif isinstance(source, (str, os.PathLike)):
        name = os.fspath(source)
    else:
        name = str(getattr(source, "name", "<stream>"))
    kind = "image"
    try:
        with _stream(source, name) as stream:
            found = _format_of(stream, name)
            kind = found.name
            image = _reader(found, name)(stream)
            image, numbers = _pictures(image, stream)
            if frame is None and len(numbers) > 1 and not anyone:
                count = f"{MAX_FRAMES:,} or more" if len(numbers) >= MAX_FRAMES else f"{len(numbers):,}"
                raise ImageReadError(
                    name,
                    f"the file holds {count} pictures (pages or frames); a verdict on the first would say nothing "
                    "about the others. Save each as a file, or take the first alone: --frames first.",
                )
            if (frame or 0) >= len(numbers):
                raise ImageReadError(name, f"picture {frame} was asked for (from 0 on), the file holds {len(numbers)}")
            number = numbers[frame or 0]
            if number != image.tell():
                image.seek(number)
            yield Opened(image, stream, name, found.name, len(numbers), number)
    except DataError:
        raise
    except FileNotFoundError as error:
        raise ImageReadError(name, "no such file") from error
    except IsADirectoryError as error:
        raise ImageReadError(name, "this is a folder, not an image file") from error
    except PermissionError as error:
        raise ImageReadError(name, "permission denied") from error
    except MemoryError as error:
        raise ImageReadError(name, "the picture doesn't fit into the memory that is left. Cut or shrink it.") from error
    except (
        Exception
    ) as error:  # on damaged bytes Pillow raises nearly anything: SyntaxError, struct.error, ValueError, ...
        raise ImageReadError(name, f"damaged, truncated or unsupported {kind} file ({error})") from error


def check_size(size: tuple[int, int], max_pixels: int, name: str) -> None:
    """Refuse an (H, W) that would take minutes and gigabytes. Raises `ImageReadError`."""
    height, width = size
    if height * width > max_pixels:
        raise ImageReadError(
            name,
            f"{height} x {width} = {height * width:,} pixels are more than max_pixels = {max_pixels:,}. "
            "Raise max_pixels if the file is genuine.",
        )
    short, long = sorted(size)
    if long > MAX_SIDE or long > MAX_ASPECT * short:
        raise ImageReadError(
            name,
            f"{height} x {width} pixels: a side may have at most {MAX_SIDE:,} and at most {MAX_ASPECT:,} times those "
            "of the other. Cut the picture into pieces.",
        )


def _stream(source: FileSource, name: str) -> BinaryIO:
    if isinstance(source, (str, os.PathLike)):
        return open_regular(source)
    content = source if isinstance(source, bytes) else source.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ImageReadError(name, f"more than {MAX_BYTES:,} bytes, which is the most that is read")
    return io.BytesIO(content)


def _format_of(stream: BinaryIO, name: str) -> _Format:
    start = stream.read(16)
    if not start:
        raise ImageReadError(name, "the file is empty (0 bytes)")
    found = next((one for one in _FORMATS if one.start.match(start)), None)
    if found is None and stream.seek(0, os.SEEK_END) > len(_TGA_END):
        stream.seek(-len(_TGA_END), os.SEEK_END)
        found = _TGA if stream.read() == _TGA_END else None
    if found is None:
        raise ImageReadError(name, f"not an image. {READABLE} Convert others to PNG.")
    stream.seek(0)
    return found


def _reader(found: _Format, name: str) -> Any:
    if found.plugin == "Tiff":
        return lambda stream: _open_tiff(stream, name)
    try:
        return getattr(import_module(f"PIL.{found.plugin}ImagePlugin"), f"{found.plugin}ImageFile")
    except ModuleNotFoundError as error:
        raise ImageReadError(
            name, f"this Pillow is too old to read {found.name}. Run: pip install --upgrade pillow"
        ) from error


def _open_tiff(stream: BinaryIO, name: str) -> TiffImageFile:
    """Pillow's reader, or an error that says which samples it has no mode for."""
    try:
        return TiffImageFile(stream)
    except SyntaxError as error:
        if "unknown pixel mode" not in str(error):
            raise
        stream.seek(0)
        tags = ImageFileDirectory_v2(stream.read(8))
        stream.seek(tags.next)
        tags.load(stream)
        bits, kind = (tags.get(tag, (default,)) for tag, default in ((_TIFF_BITS, 1), (_TIFF_FORMAT, 1)))
        word = {1: "unsigned", 2: "signed", 3: "float"}.get(kind[0], "unknown")
        raise ImageReadError(
            name,
            f"TIFF with {tags.get(_TIFF_CHANNELS, 1)} channel(s) of {max(bits)}-bit {word} samples isn't supported. "
            "Save as 8- or 16-bit gray or RGB, or as 32-bit float gray in [0, 1].",
        ) from error


def _pictures(image: ImageFile.ImageFile, stream: BinaryIO) -> tuple[ImageFile.ImageFile, list[int]]:
    """The reader to use, and the numbers of the frames that are pictures of their own."""
    if isinstance(image, TiffImageFile):
        return image, _pages(image)
    if isinstance(image, JpegImageFile):
        return _shots(image, stream) if "mp" in image.info else (image, [0])
    return image, list(range(min(getattr(image, "n_frames", 1), MAX_FRAMES)))


def _pages(image: TiffImageFile) -> list[int]:
    """Pages of full size: a tag marks thumbnails, the smaller levels of a pyramid, and masks of other pages."""
    pages = []
    for number in range(MAX_FRAMES):
        try:
            image.seek(number)
        except EOFError:
            break
        reduced = image.tag_v2.get(_TIFF_SUBFILE, 0) & 0b101 or image.tag_v2.get(_TIFF_OLD_SUBFILE) == 2
        if not reduced:
            pages.append(number)
    return pages or [0]


def _shots(image: JpegImageFile, stream: BinaryIO) -> tuple[ImageFile.ImageFile, list[int]]:
    """Several views in one JPEG (stereo, panorama). Previews and gain maps, as phones add them, are no views."""
    from PIL.MpoImagePlugin import MpoImageFile

    try:
        several = MpoImageFile(stream)
        index: Any = several.mpinfo
        types = [entry["Attribute"]["MPType"] for entry in index[0xB002]]
        views = [0, *(number for number, kind in enumerate(types) if number and "Multi-Frame" in kind)]
    except Exception:  # an index that is damaged; the picture itself is whole
        views = [0]
    if len(views) > 1:
        return several, views
    stream.seek(0)
    return JpegImageFile(stream), [0]
