"""One file, one array: kinds of files against arrays computed by hand, and every way a file can be bad."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile, ImageOps

from blemish.data.image_io import (
    file_sha256,
    highest_sample,
    read_header,
    read_image,
    read_mask,
    read_mask_closely,
    read_size,
    write_png,
)
from blemish.errors import DataError, ImageReadError, OutputError, UsageError

RNG = np.random.default_rng(7)
GRAY = RNG.integers(0, 256, (11, 17), dtype=np.uint8)
COLOR = RNG.integers(0, 256, (11, 17, 3), dtype=np.uint8)
ALPHA = RNG.integers(0, 256, (11, 17), dtype=np.uint8)
DEEP = RNG.integers(0, 65536, (11, 17), dtype=np.uint16)
DEEP_COLOR = RNG.integers(0, 65536, (11, 17, 3), dtype=np.uint16)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def cv_encoded(array: np.ndarray, suffix: str, *parameters: int) -> bytes:
    return bytes(cv2.imencode(suffix, array, parameters)[1])


def tiff(array: np.ndarray, *, big_endian: bool = False, **tags: tuple[int, ...]) -> bytes:
    """A one-strip TIFF with any tags (t258=(12,) sets BitsPerSample). No library's writer lets one lie this freely."""
    order = ">" if big_endian else "<"
    pixels = array.astype(array.dtype.newbyteorder(order)).tobytes()
    channels = array.shape[2] if array.ndim == 3 else 1
    kind = {"u": 1, "i": 2, "f": 3}[array.dtype.kind]
    fields: dict[int, tuple[int, ...]] = {
        256: (array.shape[1],),
        257: (array.shape[0],),
        258: (array.itemsize * 8,) * channels,
        259: (1,),
        262: (2 if channels > 1 else 1,),
        273: (8,),
        277: (channels,),
        278: (array.shape[0],),
        279: (len(pixels),),
        339: (kind,) * channels,
    }
    fields |= {int(name[1:]): value for name, value in tags.items()}
    directory, extra = struct.pack(order + "H", len(fields)), b""
    after = 8 + len(pixels) + 2 + 12 * len(fields) + 4
    for tag, values in sorted(fields.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            packed, extra = struct.pack(order + "I", after + len(extra)), extra + packed
        directory += struct.pack(order + "HHI", tag, 4, len(values)) + packed
    head = (b"MM\0*" if big_endian else b"II*\0") + struct.pack(order + "I", 8 + len(pixels))
    return head + pixels + directory + bytes(4) + extra


def png(array: np.ndarray, color_type: int, *extra: tuple[bytes, bytes]) -> bytes:
    """A 16-bit PNG of any color type; `extra` chunks follow the header."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, color_type, 0, 0, 0)
    early = b"".join(chunk(*item) for item in extra)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + early
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def three(gray: np.ndarray) -> np.ndarray:
    return np.stack([gray] * 3, axis=2)


def on_black(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(color.astype(np.float64) * alpha[..., None] / 255).astype(np.uint8)


def paletted(transparency: bytes | None = None) -> bytes:
    image = Image.fromarray(GRAY % 4, "L").convert("P")
    image.putpalette([10, 20, 30, 200, 100, 50, 0, 0, 0, 255, 255, 255])
    return encoded(image, "PNG", **({"transparency": transparency} if transparency else {}))


PALETTE = np.array([[10, 20, 30], [200, 100, 50], [0, 0, 0], [255, 255, 255]], dtype=np.uint8)
RGBA = np.dstack([COLOR, ALPHA])


def pages(*arrays: tuple[np.ndarray, int]) -> bytes:
    """A TIFF with one page per array, each with its NewSubfileType."""
    content, links = bytearray(b"II*\0"), [4]
    content += bytes(4)
    for array, subfile in arrays:
        at = len(content)
        content += array.tobytes()
        channels = array.shape[2] if array.ndim == 3 else 1
        depth = len(content)
        content += struct.pack(f"<{channels}H", *[8 * array.itemsize] * channels) + b"\0" * (channels % 2 * 2)
        struct.pack_into("<I", content, links[-1], len(content))
        bits = depth if channels > 2 else 8 * array.itemsize
        fields = [(254, 4, 1, subfile), (256, 4, 1, array.shape[1]), (257, 4, 1, array.shape[0])]
        fields += [(258, 3, channels, bits), (259, 3, 1, 1), (262, 3, 1, 2 if channels > 1 else 1), (273, 4, 1, at)]
        fields += [(277, 3, 1, channels), (278, 4, 1, array.shape[0]), (279, 4, 1, array.nbytes)]
        content += struct.pack("<H", len(fields)) + b"".join(struct.pack("<HHII", *field) for field in fields)
        links.append(len(content))
        content += bytes(4)
    return bytes(content)


def qoi(color: np.ndarray) -> bytes:
    """Every pixel as itself; the reference for the format is its one-page text."""
    return (
        b"qoif"
        + struct.pack(">IIBB", color.shape[1], color.shape[0], 3, 0)
        + b"".join(b"\xfe" + pixel.tobytes() for pixel in color.reshape(-1, 3))
        + bytes(7)
        + b"\1"
    )


EIGHT_BIT: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "png gray": (lambda: encoded(Image.fromarray(GRAY), "PNG"), three(GRAY)),
    "png color": (lambda: encoded(Image.fromarray(COLOR), "PNG"), COLOR),
    "png one bit": (lambda: encoded(Image.fromarray(GRAY > 99), "PNG"), three((GRAY > 99) * np.uint8(255))),
    "png palette": (paletted, PALETTE[GRAY % 4]),
    "png palette, see-through": (
        lambda: paletted(bytes([128, 255, 255, 0])),
        on_black(PALETTE[GRAY % 4], np.array([128, 255, 255, 0])[GRAY % 4]),
    ),
    "png gray + alpha": (
        lambda: encoded(Image.fromarray(np.dstack([GRAY, ALPHA]), "LA"), "PNG"),
        on_black(three(GRAY), ALPHA),
    ),
    "png color + alpha": (lambda: encoded(Image.fromarray(RGBA), "PNG"), on_black(COLOR, ALPHA)),
    "bmp": (lambda: encoded(Image.fromarray(COLOR), "BMP"), COLOR),
    "tiff": (lambda: encoded(Image.fromarray(COLOR), "TIFF"), COLOR),
    "tiff lzw": (lambda: encoded(Image.fromarray(COLOR), "TIFF", compression="tiff_lzw"), COLOR),
    "tiff white is zero": (lambda: tiff(GRAY, t262=(0,)), three(255 - GRAY)),
    "tiff, its thumbnail first": (lambda: pages((COLOR[::2, ::2].copy(), 1), (COLOR, 0)), COLOR),
    "tiff, a smaller level and a mask behind it": (
        lambda: pages((COLOR, 0), (COLOR[::2, ::2].copy(), 1), (GRAY, 4)),
        COLOR,
    ),
    "webp lossless": (lambda: encoded(Image.fromarray(COLOR), "WEBP", lossless=True), COLOR),
    "gif": (lambda: encoded(Image.fromarray(GRAY), "GIF"), three(GRAY)),
    "jpeg 2000": (lambda: encoded(Image.fromarray(COLOR), "JPEG2000"), COLOR),
    "jpeg 2000, bare codestream": (lambda: encoded(Image.fromarray(GRAY), "JPEG2000", no_jp2=True), three(GRAY)),
    "pgm": (lambda: b"P5\n# from a camera\n17 11\n255\n" + GRAY.tobytes(), three(GRAY)),
    "pgm in plain text": (lambda: b"P2 17 11 255\n" + b" ".join(b"%d" % v for v in GRAY.ravel()), three(GRAY)),
    "pbm": (
        lambda: b"P4 17 11\n" + np.packbits(GRAY <= 99, axis=1).tobytes(),  # 1 is black
        three((GRAY > 99) * np.uint8(255)),
    ),
    "ppm": (lambda: b"P6 17 11 255\n" + COLOR.tobytes(), COLOR),
    "tga": (lambda: encoded(Image.fromarray(COLOR), "TGA"), COLOR),
    "pcx": (lambda: encoded(Image.fromarray(COLOR), "PCX"), COLOR),
    "qoi": (lambda: qoi(COLOR), COLOR),
    "png, a fourth channel that nobody filled": (
        lambda: encoded(Image.fromarray(np.dstack([COLOR, 0 * ALPHA])), "PNG"),
        COLOR,
    ),
}


@pytest.mark.parametrize("kind", EIGHT_BIT)
def test_eight_bit_files_become_uint8_rgb(kind: str) -> None:
    make, expected = EIGHT_BIT[kind]
    found = read_image(make())
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    assert found.flags.writeable
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
@pytest.mark.parametrize("shape", [(40, 56), (40, 56, 3)])
def test_lossy_files_agree_with_opencv(suffix: str, shape: tuple[int, ...]) -> None:
    smooth = cv2.GaussianBlur(RNG.integers(0, 256, shape, dtype=np.uint8), (0, 0), 3)
    data = cv_encoded(smooth, suffix)
    reference = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_allclose(read_image(data).astype(int), reference.astype(int), atol=3)


def test_cmyk_jpeg_shows_its_colors() -> None:
    plain = np.full((16, 16, 3), (200, 40, 90), np.uint8)
    found = read_image(encoded(Image.fromarray(plain).convert("CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(found.astype(int), plain.astype(int), atol=6)


def unit(array: np.ndarray, top: float) -> np.ndarray:
    return array.astype(np.float64) / top


DEEP_ALPHA = np.dstack([DEEP_COLOR, DEEP])
GRAY_ALPHA = np.dstack([DEEP_COLOR[..., 0], DEEP])
FLOATS = RNG.random((11, 17)).astype(np.float32)
TWELVE = DEEP >> 4
DEEP_BIT: dict[str, tuple[Callable[[], bytes], np.ndarray]] = {
    "png gray": (lambda: cv_encoded(DEEP, ".png"), three(unit(DEEP, 65535))),
    "png gray, dark": (lambda: cv_encoded(DEEP // 64, ".png"), three(unit(DEEP // 64, 65535))),
    "png color": (lambda: cv_encoded(DEEP_COLOR[..., ::-1], ".png"), unit(DEEP_COLOR, 65535)),
    "png color + alpha": (
        lambda: cv_encoded(DEEP_ALPHA[..., [2, 1, 0, 3]], ".png"),
        unit(DEEP_COLOR, 65535) * unit(DEEP, 65535)[..., None],
    ),
    "png gray + alpha": (
        lambda: png(GRAY_ALPHA, 4),
        three(unit(GRAY_ALPHA[..., 0], 65535) * unit(DEEP, 65535)),
    ),
    "png gray, one see-through value": (
        lambda: png(DEEP, 0, (b"tRNS", struct.pack(">H", DEEP[3, 4]))),
        three(unit(np.where(DEEP[3, 4] == DEEP, 0, DEEP), 65535)),
    ),
    "png with sBIT": (lambda: png(DEEP, 0, (b"sBIT", b"\x0c")), three(unit(DEEP, 65535))),
    "tiff gray": (lambda: tiff(DEEP), three(unit(DEEP, 65535))),
    "tiff gray, big endian": (lambda: tiff(DEEP, big_endian=True), three(unit(DEEP, 65535))),
    "tiff gray, compressed": (lambda: cv_encoded(DEEP, ".tiff"), three(unit(DEEP, 65535))),
    "tiff gray, white is zero": (lambda: tiff(DEEP, t262=(0,)), three(1 - unit(DEEP, 65535))),
    "tiff gray, 12 bits declared": (lambda: tiff(TWELVE, t281=(4095,)), three(unit(TWELVE, 4095))),
    "tiff gray, 10 bits declared": (lambda: tiff(DEEP >> 6, t281=(1023,)), three(unit(DEEP >> 6, 1023))),
    "tiff color": (lambda: tiff(DEEP_COLOR), unit(DEEP_COLOR, 65535)),
    "tiff color, big endian": (lambda: tiff(DEEP_COLOR, big_endian=True), unit(DEEP_COLOR, 65535)),
    "tiff color, compressed": (lambda: cv_encoded(DEEP_COLOR[..., ::-1], ".tiff"), unit(DEEP_COLOR, 65535)),
    "tiff color, 12 bits declared": (
        lambda: tiff(DEEP_COLOR >> 4, t281=(4095, 4095, 4095)),
        unit(DEEP_COLOR >> 4, 4095),
    ),
    "tiff color + alpha": (
        lambda: tiff(DEEP_ALPHA, t338=(2,)),
        unit(DEEP_COLOR, 65535) * unit(DEEP, 65535)[..., None],
    ),
    "png color, a fourth channel that nobody filled": (
        lambda: cv_encoded(np.dstack([DEEP_COLOR[..., ::-1], 0 * DEEP]), ".png"),
        unit(DEEP_COLOR, 65535),
    ),
    "tiff, second page the large one": (lambda: pages((DEEP_COLOR[::2], 1), (DEEP_COLOR, 0)), unit(DEEP_COLOR, 65535)),
    "pgm": (lambda: b"P5 17 11 65535\n" + DEEP.astype(">u2").tobytes(), three(unit(DEEP, 65535))),
    "pfm": (lambda: b"Pf\n17 11\n-1.0\n" + FLOATS[::-1].tobytes(), three(FLOATS)),
    "jpeg 2000": (lambda: encoded(Image.fromarray(DEEP), "JPEG2000"), three(unit(DEEP, 65535))),
    "tiff float": (lambda: tiff(FLOATS), three(FLOATS)),
    "tiff float with a range": (lambda: tiff(FLOATS * 900, t281=(1000,)), three(FLOATS * 0.9)),
    "tiff int32 with a range": (lambda: tiff(TWELVE.astype(np.int32), t281=(4095,)), three(unit(TWELVE, 4095))),
    "tiff uint32 with a range": (
        lambda: tiff(DEEP.astype(np.uint32) << 16, t281=(2**32 - 1,)),
        three(unit(DEEP.astype(np.uint64) << 16, 2**32 - 1)),
    ),
}


@pytest.mark.parametrize("kind", DEEP_BIT)
def test_deeper_files_become_float32_of_their_declared_range(kind: str) -> None:
    make, expected = DEEP_BIT[kind]
    found = read_image(make())
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=3e-7)


def test_sixteen_bit_keeps_its_lowest_bit() -> None:
    """High bytes alone would make both pixels equal."""
    pair = np.array([[[4096, 4097, 4098]]], dtype=np.uint16)
    np.testing.assert_array_equal(np.rint(read_image(tiff(pair)) * 65535), pair)


def test_twelve_packed_bits() -> None:
    values = np.array([[0, 4095, 1, 2048]], dtype=np.uint16)
    packed = bytes([0x00, 0x0F, 0xFF, 0x00, 0x18, 0x00])
    data = tiff(np.frombuffer(packed, np.uint8)[None], t256=(4,), t258=(12,))
    np.testing.assert_allclose(read_image(data), three(unit(values, 4095)), atol=1e-7)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff(FLOATS * 300), r"outside the declared range \[0, 1\]\. Rescale"),
        (tiff(FLOATS - 0.5), "outside the declared range"),
        (tiff(np.where(FLOATS > 0.5, np.nan, FLOATS).astype(np.float32)), "outside the declared range"),
        (tiff(DEEP, t281=(4095,)), r"outside the declared range \[0, 4095\]"),
        (tiff(TWELVE.astype(np.uint32)), "32-bit or signed integer samples without a declared range. Save as 16-bit"),
        (tiff(TWELVE.astype(np.int16)), "32-bit or signed integer"),
        (tiff(DEEP_COLOR, t284=(2,), t273=(8, 382, 756), t279=(374, 374, 374)), "interleaved channels"),
        (tiff(GRAY.astype(np.int8)), "signed 8-bit samples: -1 would be read as 255"),
        (tiff(FLOATS.astype(np.float64)), r"1 channel\(s\) of 64-bit float samples isn't supported\. Save as 8- or"),
        (tiff(FLOATS.astype(np.float16)), r"1 channel\(s\) of 16-bit float samples"),
        (tiff(np.dstack([FLOATS] * 3)), r"3 channel\(s\) of 32-bit float samples"),
        (b"P6 17 11 4095\n" + DEEP_COLOR.astype(">u2").tobytes(), "PNM of 12 bits in the layout RGB isn't supported"),
    ],
)
def test_a_range_that_is_unknown_or_a_lie_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(ImageReadError, match=message):
        read_image(data)


@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize(
    "write", [lambda a: cv_encoded(a, ".png"), tiff, lambda a: b"P5 17 11 65535\n" + a.astype(">u2").tobytes()]
)
def test_bit_depth_says_how_many_of_16_bits_are_used(bits: int, write: Callable[[np.ndarray], bytes]) -> None:
    values = DEEP >> (16 - bits)
    values[0, 0] = 2**bits - 1
    data, top = write(values), 2**bits - 1
    np.testing.assert_allclose(read_image(data, bit_depth=bits), three(unit(values, top)), atol=1e-7)
    np.testing.assert_allclose(read_image(data), three(unit(values, 65535)), atol=1e-7)
    assert highest_sample(data) == top
    with pytest.raises(ImageReadError, match=r"outside the expected range \[0, 127\]\. Tell how many bits they use"):
        read_image(data, bit_depth=7)


def test_bit_depth_never_overrules_a_file_that_says_it_itself() -> None:
    for data in (tiff(DEEP >> 6, t281=(1023,)), tiff(FLOATS), b"P5 17 11 1023\n" + (DEEP >> 6).astype(">u2").tobytes()):
        np.testing.assert_array_equal(read_image(data, bit_depth=14), read_image(data))
        assert highest_sample(data) is None
    assert highest_sample(encoded(Image.fromarray(COLOR), "PNG")) is None
    np.testing.assert_array_equal(read_image(encoded(Image.fromarray(COLOR), "PNG"), bit_depth=4), COLOR)
    signed = tiff((DEEP >> 4).astype(np.int16))
    np.testing.assert_allclose(read_image(signed, bit_depth=12), three(unit(DEEP >> 4, 4095)), atol=1e-7)


def test_avif_is_read(tmp_path: Path) -> None:
    smooth = cv2.GaussianBlur(COLOR, (0, 0), 4)
    data = encoded(Image.fromarray(smooth), "AVIF", quality=100, subsampling="4:4:4")
    np.testing.assert_allclose(read_image(data).astype(float), smooth.astype(float), atol=6)
    assert read_header(data).format == "AVIF"


SECOND = COLOR[::-1].copy()
SEVERAL = {
    "TIFF": {},
    "PNG": {},
    "GIF": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "MPO": {"quality": 100, "subsampling": 0},
}


VIEW = struct.pack("<I", 0x020002)  # type of a picture in an MPO: one of several views, here of a stereo camera


def several(kind: str, count: int = 3) -> bytes:
    frames = [Image.fromarray(COLOR if i == 0 else np.roll(SECOND, i, axis=1)) for i in range(count)]
    data = bytearray(encoded(frames[0], kind, save_all=True, append_images=frames[1:], **SEVERAL[kind]))
    if kind == "MPO" and count > 1:  # Pillow leaves the type of later pictures undefined, as phones do with gain maps
        (first,) = re.finditer(rb"\x00\x00\x03\x00.{4}\x00{12}", data, re.DOTALL)
        for i in range(1, count):
            data[first.start() + 16 * i : first.start() + 16 * i + 4] = VIEW
    return bytes(data)


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_file_of_several_pictures_is_refused_with_their_count(kind: str) -> None:
    """What follows a good first page may show a defect."""
    data = several(kind)
    for read in (read_image, highest_sample):
        with pytest.raises(
            ImageReadError, match=r"the file holds 3 pictures .* or take the first alone: --frames first"
        ):
            read(data)
    assert read_header(data).frames == 3
    exact = kind in ("TIFF", "PNG", "WEBP")
    for frame, expected in enumerate((COLOR, np.roll(SECOND, 1, axis=1), np.roll(SECOND, 2, axis=1))):
        found = read_image(data, frame=frame)
        if exact:
            np.testing.assert_array_equal(found, expected)
        else:
            assert np.abs(found.astype(float) - expected).mean() < 30  # other frames differ by 85
    with pytest.raises(ImageReadError, match=r"picture 3 was asked for \(from 0 on\), the file holds 3"):
        read_image(data, frame=3)


def test_one_frame_is_no_animation() -> None:
    for kind in SEVERAL:
        assert read_header(several(kind, 1)).frames == 1, kind
    deep = pages((DEEP_COLOR, 0), (DEEP_COLOR[::-1].copy(), 0))
    np.testing.assert_allclose(read_image(deep, frame=1), unit(DEEP_COLOR[::-1], 65535), atol=1e-7)


def test_the_gain_map_of_a_phone_is_no_second_picture() -> None:
    data = several("MPO", 2).replace(VIEW, bytes(4))
    assert read_header(data).frames == 1
    assert np.abs(read_image(data).astype(float) - COLOR).mean() < 30


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "deep TIFF", "deep color TIFF", "late PNG"])
def test_exif_orientation_is_applied(kind: str, orientation: int) -> None:
    smooth = cv2.GaussianBlur(COLOR, (0, 0), 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(_with_orientation(Image.fromarray(smooth), orientation)))
    tolerance = 0.0
    if kind == "deep TIFF":
        data = tiff(smooth[..., 0].astype(np.uint16) * 257, t274=(orientation,))
        upright = three(upright[..., 0]) / 255
    elif kind == "deep color TIFF":
        data = tiff(smooth.astype(np.uint16) * 257, t274=(orientation,))
        upright = upright / 255
    elif kind == "TIFF":
        data = tiff(smooth, t274=(orientation,))
    elif kind == "late PNG":
        plain, body = encoded(Image.fromarray(smooth), "PNG"), exif.tobytes().removeprefix(b"Exif\0\0")
        chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
        data = plain[:-12] + chunk + plain[-12:]
    else:
        options = {"PNG": {}, "JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}[kind]
        data = encoded(Image.fromarray(smooth), kind, exif=exif, **options)
        tolerance = 4.0 if kind == "JPEG" else 0.0
    found = read_image(data)
    np.testing.assert_allclose(found.astype(float), upright.astype(float), atol=max(tolerance, 1e-6))
    assert read_size(data) == found.shape[:2]


def _with_orientation(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[0x0112] = orientation
    return image


def test_paths_bytes_and_open_files_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "größe 零件.PNG"
    write_png(path, COLOR)
    with path.open("rb") as stream:
        results = [read_image(path), read_image(str(path)), read_image(path.read_bytes()), read_image(stream)]
    for result in results:
        np.testing.assert_array_equal(result, COLOR)


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(Image.fromarray(COLOR), "BMP"))
    np.testing.assert_array_equal(read_image(path), COLOR)


@pytest.mark.parametrize(
    ("data", "format", "mode", "bits"),
    [
        (cv_encoded(DEEP, ".png"), "PNG", "gray", 16),
        (png(GRAY_ALPHA, 4), "PNG", "gray + alpha", 16),
        (cv_encoded(DEEP_COLOR, ".tiff"), "TIFF", "RGB", 16),
        (encoded(Image.fromarray(GRAY > 9), "PNG"), "PNG", "gray", 1),
        (paletted(), "PNG", "palette", 8),
        (encoded(Image.fromarray(COLOR), "JPEG"), "JPEG", "RGB", 8),
        (tiff(FLOATS), "TIFF", "gray", 32),
    ],
)
def test_header(data: bytes, format: str, mode: str, bits: int) -> None:
    header = read_header(data)
    assert (header.format, header.size, header.mode, header.bits) == (format, (11, 17), mode, bits)


# --- bad files ---


def test_bad_paths_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    cases = {
        tmp_path / "absent.png": "no such file",
        tmp_path: "this is a folder",
        tmp_path / "empty.png": r"the file is empty \(0 bytes\)",
        tmp_path / "text.png": "not an image. PNG, JPEG, .* can be read. Convert others to PNG",
    }
    for path, reason in cases.items():
        for read in (read_image, read_size):
            with pytest.raises(ImageReadError, match=f"{re.escape(str(path))}: {reason}") as caught:
                read(path)
            assert caught.value.path == str(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = tmp_path / "locked.png"
    write_png(path, GRAY)
    path.chmod(0)
    with pytest.raises(ImageReadError, match="permission denied"):
        read_image(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_a_pipe_or_a_device_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket.png"))
    for path in (tmp_path / "pipe.png", tmp_path / "link.png", tmp_path / "socket.png", Path("/dev/zero")):
        for read in (read_image, read_size, file_sha256, lambda p: read_mask(p, (3, 4))):
            with pytest.raises(ImageReadError, match="not a regular file but a pipe, a socket or a device"):
                read(path)


BIG = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8), (0, 0), 1)
WHOLE = {
    "png": cv_encoded(BIG, ".png"),
    "jpeg": cv_encoded(BIG, ".jpg"),
    "progressive jpeg": encoded(Image.fromarray(BIG), "JPEG", progressive=True),
    "bmp": cv_encoded(BIG, ".bmp"),
    "tiff": tiff(BIG),
    "tiff, pillow": encoded(Image.fromarray(BIG), "TIFF"),
    "tiff lzw": encoded(Image.fromarray(BIG), "TIFF", compression="tiff_lzw"),
    "deep color tiff": cv_encoded(BIG.astype(np.uint16) * 257, ".tiff", cv2.IMWRITE_TIFF_COMPRESSION, 1),
    "deep color png": cv_encoded(BIG.astype(np.uint16) * 257, ".png"),
    "webp": cv_encoded(BIG, ".webp"),
}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_truncated_file_is_an_error_and_never_half_a_picture(kind: str) -> None:
    data = WHOLE[kind]
    whole = read_image(data)
    failures = 0
    cuts = sorted({*range(1, 64), *range(64, len(data), max(1, len(data) // 40)), *range(len(data) - 20, len(data))})
    for cut in cuts:
        try:
            np.testing.assert_array_equal(read_image(data[:cut]), whole)  # a lost trailer loses no pixels
        except ImageReadError:
            failures += 1
    assert failures > 0.8 * len(cuts)


@pytest.mark.parametrize("kind", ["jpeg", "progressive jpeg", "png", "deep color png", "tiff lzw"])
def test_a_tail_of_zeros_is_an_error(kind: str) -> None:
    """What an interrupted copy leaves behind. (BMP, raw TIFF and lossy WebP hold nothing to tell it by.)"""
    data = WHOLE[kind]
    with pytest.raises(ImageReadError):
        read_image(data[: len(data) // 2] + bytes(len(data) - len(data) // 2))


def test_leniency_switched_on_by_others_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(ImageReadError, match="LOAD_TRUNCATED_IMAGES is switched on"):
        read_image(WHOLE["png"])


def test_random_damage_gives_an_image_or_an_image_read_error() -> None:
    generator = np.random.default_rng(3)
    for data in WHOLE.values():
        for _ in range(30):
            damaged = bytearray(data)
            for at in generator.integers(0, len(data), 4):
                damaged[at] = generator.integers(0, 256)
            with contextlib.suppress(ImageReadError):
                assert read_image(bytes(damaged), max_pixels=10_000_000).shape[2] == 3


def bomb(width: int, height: int | None = None) -> bytes:
    """A PNG header that promises pixels and brings none."""
    header = struct.pack(">IIBBBBB", width, height or width, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(100)))]
    body = b"".join(struct.pack(">I", len(b)) + n + b + struct.pack(">I", zlib.crc32(n + b)) for n, b in chunks)
    return b"\x89PNG\r\n\x1a\n" + body


def test_too_many_pixels_are_refused_before_decoding() -> None:
    limit, message = (
        Image.MAX_IMAGE_PIXELS,
        r"50000 x 50000 = 2,500,000,000 pixels are more than max_pixels = 200,000,000",
    )
    with pytest.raises(ImageReadError, match=message):
        read_image(bomb(50_000))
    assert read_size(bomb(50_000)) == (50_000, 50_000)
    with pytest.raises(ImageReadError, match="11 x 17 = 187 pixels are more than max_pixels = 186"):
        read_image(tiff(GRAY), max_pixels=186)
    assert read_image(tiff(GRAY), max_pixels=187).shape == (11, 17, 3)
    assert limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("size", [(1, 199_999_999), (199_999_999, 1), (1_000, 131_073), (100, 100_001)])
def test_sides_and_aspect_are_bounded(size: tuple[int, int]) -> None:
    message = (
        f"{size[1]} x {size[0]} pixels: a side may have at most 131,072 and at most 1,000 times those of the other"
    )
    with pytest.raises(ImageReadError, match=message):
        read_image(bomb(*size))
    for allowed in ((131_072, 132), (10, 10_000)):
        with pytest.raises(ImageReadError, match="truncated"):  # past the door
            read_image(bomb(*allowed))


def test_a_file_too_large_to_be_a_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "x.png").open("wb") as stream:
        stream.write(WHOLE["png"])
        stream.truncate(4 * 2**30 + 1)  # sparse: takes no room
    with pytest.raises(ImageReadError, match="4,294,967,297 bytes are more than the 4,294,967,296 that are read"):
        read_image(tmp_path / "x.png")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "BMP"])
def test_our_limit_holds_and_not_the_one_of_pillow(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would warn (an error in these tests) above its limit and raise above twice that."""
    data = encoded(Image.fromarray(COLOR), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_image(data).shape == (11, 17, 3)


# --- masks and writing ---


def test_any_non_zero_pixel_of_a_mask_is_defect(tmp_path: Path) -> None:
    mask = GRAY > 200
    for value in (1, 255):
        write_png(tmp_path / "m.png", mask.astype(np.uint8) * np.uint8(value))
        found = read_mask(tmp_path / "m.png", (11, 17))
        assert found.dtype == np.bool_
        np.testing.assert_array_equal(found, mask)
    labels = mask.astype(np.uint16) * 3
    np.testing.assert_array_equal(read_mask(cv_encoded(labels, ".png"), (11, 17)), mask)
    np.testing.assert_array_equal(read_mask(tiff(mask.astype(np.int32) * 7), (11, 17)), mask)  # no range needed
    blue = np.zeros((11, 17, 4), np.uint8)
    blue[..., 2], blue[..., 3] = mask * 255, 255
    np.testing.assert_array_equal(read_mask(encoded(Image.fromarray(blue), "PNG"), (11, 17)), mask)


def test_soft_masks_count_from_half_on_and_are_told_from_labels(tmp_path: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 30:50] = 255
    soft = cv2.GaussianBlur(mask, (0, 0), 2)
    forms = {
        "jpeg": encoded(Image.fromarray(mask), "JPEG", quality=60),
        "soft": cv_encoded(soft, ".png"),
        "soft, deep": cv_encoded(soft.astype(np.uint16) * 257, ".png"),
        "soft, float": tiff((soft / 255).astype(np.float32)),
        "dark gray": cv_encoded((soft * 0.3).astype(np.uint8), ".png"),
    }
    for name, data in forms.items():
        found = read_mask_closely(data, (60, 80))
        assert found.soft, name
        assert found.mask.sum() == pytest.approx(400, rel=0.06), name
        assert (cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) > 0).sum() > 480, name
    labels = mask // 255
    labels[20:30, 30:50] = 7
    kinds = read_mask_closely(cv_encoded(labels, ".png"), (60, 80))
    assert (kinds.mask.sum(), kinds.soft) == (400, False)
    with pytest.raises(ImageReadError, match="the mask holds NaN"):
        read_mask(tiff(np.where(soft > 0, np.nan, 0).astype(np.float32)), (60, 80))


def test_a_transparent_mask_marks_nothing(tmp_path: Path) -> None:
    clear = np.dstack([COLOR, 0 * ALPHA])
    assert not read_mask(encoded(Image.fromarray(clear), "PNG"), (11, 17)).any()


def test_masks_in_a_folder_mark_a_defect_together(tmp_path: Path) -> None:
    first, second = GRAY > 200, GRAY < 20
    write_png(tmp_path / "m/000.png", first)
    write_png(tmp_path / "m/001.png", second)
    (tmp_path / "m/notes.txt").touch()
    np.testing.assert_array_equal(read_mask(tmp_path / "m", (11, 17)), first | second)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageReadError, match="this folder of masks holds no images"):
        read_mask(tmp_path / "empty", (11, 17))


def test_a_mask_of_another_size_names_both(tmp_path: Path) -> None:
    write_png(tmp_path / "m.png", GRAY)
    message = r"m\.png: the mask is 11 x 17 \(height x width\), its image 17 x 11"
    with pytest.raises(DataError, match=message):
        read_mask(tmp_path / "m.png", (17, 11))


@pytest.mark.parametrize("array", [GRAY, COLOR, DEEP, GRAY > 100], ids=["gray", "color", "uint16", "bool"])
def test_write_png_is_read_back_by_opencv(tmp_path: Path, array: np.ndarray) -> None:
    path = tmp_path / "new" / "folder" / "x.png"
    write_png(path, array)
    write_png(path, array)  # replaces
    found = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    expected = array[..., ::-1] if array.ndim == 3 else array * np.uint8(255) if array.dtype == bool else array
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]


def test_write_png_refuses_what_it_cannot_keep(tmp_path: Path) -> None:
    for array in (FLOATS, DEEP_COLOR, RGBA, GRAY[None]):
        with pytest.raises(UsageError, match=re.escape(f"Got {array.shape} {array.dtype}")):
            write_png(tmp_path / "x.png", array)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.png"
    write_png(path, GRAY)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=r"x\.png can't be written: No space left on device. Free some space"):
        write_png(path, DEEP)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.png"]


def test_a_target_below_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="can't be written"):
        write_png(tmp_path / "file" / "x.png", GRAY)


def test_file_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(ImageReadError, match="No such file"):
        file_sha256(tmp_path / "b")


def test_imports_stay_light() -> None:
    code = (
        "import sys, blemish.data.image_io, blemish.data.index, blemish.data.splits, blemish.data.check;"
        "print([m for m in ('torch', 'lightning', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
