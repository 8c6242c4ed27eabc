"""Pixels of an opened image file: samples as they are stored, upright, and the range they are declared to have.

Color profiles are ignored; pixels are taken as sRGB.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from blemish.data.formats import Opened, check_size
from blemish.errors import ImageReadError

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


@dataclass
class Samples:
    """What a file stores.

    Attributes:
        values: uint8 (H, W) or (H, W, 3), with transparency already applied; deeper ones are (H, W) or (H, W, C) with
            C = 2, 3, 4, where 2 and 4 end in alpha.
        top: the largest value they may take; None where the file doesn't say.
        loose: `top` is merely the most that 16 bits hold, and a camera of 10 or 12 bits may have filled them in part.
    """

    values: npt.NDArray[Any]
    top: float | None = 255.0
    loose: bool = False


def decode(file: Opened, max_pixels: int, *, keep_unused_alpha: bool = False) -> Samples:
    """Decode the picture at which `file` stands.

    Transparency is composited on black: a transparent pixel shows nothing, and the colors some programs leave
    underneath it are not part of the picture. A fourth channel that is 0 everywhere isn't transparency, but one that a
    camera's driver left unused.

    Args:
        file: see `opened`.
        max_pixels: largest width x height that is decoded; judged from the header.
        keep_unused_alpha: take a channel of zeros for transparency all the same, as a mask that marks nothing has it.

    Raises:
        ImageReadError: too large, truncated, or samples that can't be told. Pillow's own errors pass.
    """
    image, stream, name = file.image, file.stream, file.name
    check_size(size_of(file), max_pixels, name)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ImageReadError(
            name,
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is switched on in this process: a truncated file would be "
            "filled up with gray and taken for a picture. Set it to False.",
        )
    if isinstance(image, JpegImageFile) and stream.read().rfind(b"\xff\xd9") < 0:  # from the end, where it should be
        # The reader stands behind the start-of-scan marker. Pillow drops libjpeg's warnings, so a tail overwritten with
        # zeros would pass as gray. In entropy-coded data FF is always escaped: FFD9 can only be the end marker.
        raise ImageReadError(name, "truncated JPEG file (the end marker is missing)")
    turn = _TURN.get(1 if isinstance(image, TiffImageFile) else _orientation(image, stream))  # TIFF: Pillow turns it
    deep = bits_of(file) > 8
    samples = _deep_samples(file) if deep else Samples(_shallow_samples(image, name, keep_unused_alpha))
    if turn is not None:
        samples.values = turn(samples.values)
    return samples


def to_unit_range(samples: Samples, top: float, name: str) -> npt.NDArray[np.float32]:
    """Divide deep samples by their range and apply alpha: (H, W) or (H, W, 3) float32 in [0, 1]."""
    values = samples.values
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= top):  # NaN fails both
        raise ImageReadError(
            name,
            f"samples lie in [{low:g}, {high:g}], outside the {'expected' if samples.loose else 'declared'} range "
            f"[0, {top:g}]. "
            + (
                "Tell how many bits they use with bit_depth."
                if samples.loose
                else "Rescale them, or declare the range in the MaxSampleValue tag."
            ),
        )
    unit: npt.NDArray[np.float32] = values.astype(np.float32) / np.float32(top)
    if unit.ndim == 2 or unit.shape[2] == 3:
        return unit
    light: npt.NDArray[np.float32] = unit[..., :-1]
    if values[..., -1].any():  # else a channel that nobody filled
        light = light * unit[..., -1:]
    return light[..., 0] if light.shape[2] == 1 else light


def bits_of(file: Opened) -> int:
    """Bits per sample as stored."""
    image = file.image
    if isinstance(image, TiffImageFile):
        return int(max(image.tag_v2.get(_TIFF_BITS, (1,))))
    if ";16" in _rawmode(image) or image.mode.startswith("I"):
        return 16
    if file.format == "PNM" and image.mode == "RGB" and (top := _pnm_top(image)):
        return max(8, top.bit_length())
    if file.format == "JPEG 2000":
        file.stream.seek(0)
        at = (head := file.stream.read(1 << 16)).find(b"\xff\x4f\xff\x51")
        return (head[at + 42] & 127) + 1
    return 32 if image.mode == "F" else 1 if image.mode == "1" else 8


def size_of(file: Opened) -> tuple[int, int]:
    """(H, W), upright."""
    image = file.image
    width, height = (image.tag_v2[256], image.tag_v2[257]) if isinstance(image, TiffImageFile) else image.size
    return (width, height) if _orientation(image, file.stream) >= 5 else (height, width)


def mode_of(file: Opened) -> str:
    """Such as "gray", "RGB", "palette", with " + alpha" where there is an alpha channel."""
    mode = file.image.mode
    names = {"1": "gray", "L": "gray", "I": "gray", "F": "gray", "P": "palette", "LA": "gray + alpha"}
    names |= {"La": "gray + alpha", "PA": "palette + alpha", "RGBA": "RGB + alpha", "RGBa": "RGB + alpha"}
    if _rawmode(file.image) == "LA;16B":
        return "gray + alpha"
    return "gray" if mode.startswith("I;16") else names.get(mode, mode)


def _shallow_samples(image: ImageFile.ImageFile, name: str, keep_unused_alpha: bool) -> npt.NDArray[np.uint8]:
    """8-bit samples: (H, W) gray or (H, W, 3) RGB."""
    if isinstance(image, TiffImageFile) and 2 in image.tag_v2.get(_TIFF_FORMAT, (1,)):
        raise ImageReadError(name, "signed 8-bit samples: -1 would be read as 255. Save as unsigned samples.")
    _load(image)
    if not image.has_transparency_data:
        plain = image if image.mode in ("L", "RGB") else image.convert("L" if image.mode == "1" else "RGB")
        return np.array(plain)
    rgba = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (0, 0) and not keep_unused_alpha:
        return np.array(rgba.convert("RGB"))
    black = Image.new("RGB", rgba.size)
    black.paste(rgba, mask=alpha)  # color times alpha, rounded
    return np.array(black)


def _deep_samples(file: Opened) -> Samples:
    """Samples of more than 8 bits with their declared range."""
    image, stream, name = file.image, file.stream, file.name
    raw, bits = _rawmode(image), bits_of(file)  # decoding empties the tile list that tells them
    stretched = file.format == "PNM" and _pnm_top(image) is not None
    tags = image.tag_v2 if isinstance(image, TiffImageFile) else {}
    key = image.info.get("transparency")
    if image.mode not in ("L", "I", "F") and not image.mode.startswith("I;16"):
        # Pillow has no mode for deep color and keeps the high bytes only. The same tiles unpacked in the other byte
        # order give the low bytes; gray + alpha comes out whole when unpacked as four 8-bit channels.
        if tags.get(_TIFF_PLANAR, 1) != 1 or raw[:-1] not in ("RGB;16", "RGBX;16", "RGBA;16", "LA;16"):
            raise ImageReadError(
                name,
                f"{file.format} of {bits} bits in the layout {raw or mode_of(file)} isn't supported. Save as 16-bit "
                "RGB PNG or TIFF with interleaved channels.",
            )
        if raw == "LA;16B":
            _unpack_as(image, "RGBA")
            _load(image)
            values = np.array(image).view(">u2")
        else:
            stream.seek(0)
            twin = type(image)(stream)
            if file.frame:
                twin.seek(file.frame)
            native = "L" if sys.byteorder == "little" else "B"
            first = native if raw[-1] == "N" else raw[-1]  # the byte order of the file
            _unpack_as(twin, raw[:-1] + ("L" if first == "B" else "B"))
            _load(image)
            _load(twin)
            values = np.asarray(image).astype(np.uint16) << 8 | np.asarray(twin)
    else:
        _load(image)
        values = np.array(image)
    if key is not None:
        values[(values == key).all(axis=2) if values.ndim == 3 else values == key] = 0  # one color is see-through

    kind = tags.get(_TIFF_FORMAT, (3 if image.mode == "F" else 1,))[0]  # 1 unsigned, 2 signed, 3 float
    if image.mode == "I" and kind == 1 and bits == 32:
        values = values.view(np.uint32)  # mode I is signed
    declared = tags.get(_TIFF_SMAX, tags.get(_TIFF_MAX))
    loose = False
    if declared is not None:
        top: float | None = float(np.max(declared))
    elif kind == 3:
        top = 1.0
    else:
        top = float(2**bits - 1) if kind == 1 and bits <= 16 else None
        loose = top is None or (bits == 16 and file.format in ("PNG", "TIFF", "PNM") and not stretched)
    if top is not None and values.ndim == 2 and tags.get(_TIFF_PHOTOMETRIC, 1) == 0:
        values = top - values.astype(np.float32)  # white is zero; Pillow inverts this for 8 bits only
        loose = False
    return Samples(values, top, loose)


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


def _pnm_top(image: ImageFile.ImageFile) -> int | None:
    """The largest value that a PNM declares, where Pillow stretches it to the whole range."""
    arguments: Any = image.tile[0][3] if image.tile else None
    return int(arguments[1]) if isinstance(arguments, tuple) and len(arguments) == 2 else None


def _unpack_as(image: ImageFile.ImageFile, rawmode: str) -> None:
    """Have the same stored bytes interpreted as another sample layout of the same width."""
    tiles: list[Any] = []
    for tile in image.tile:
        stored: Any = tile[3]
        arguments = rawmode if isinstance(stored, str) else (rawmode, *stored[1:])
        tiles.append(getattr(type(tile), "_make", tuple)((*tile[:3], arguments)))  # a plain tuple before Pillow 11
    image.tile = tiles


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
