"""Images in whatever form people have them, as the one form that backends take: (H, W, 3) RGB, uint8 or float32.

Files, encoded bytes and pictures of Pillow say themselves what their channels are. Arrays and tensors don't: `channels`
tells, and a picture whose colors are unlike those that the model was fitted on is remarked on (`odd_colors`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from blemish.data.image_io import Reading, read_header
from blemish.data.live import Shot
from blemish.data.record import ColorRecord, color_of
from blemish.errors import ImageReadError, UsageError


class Frame(NamedTuple):
    """One picture of a file that holds several, from 0 on."""

    path: str | os.PathLike[str]
    number: int

    def __str__(self) -> str:
        return f"{os.fspath(self.path)}#{self.number}"


def frames_of(path: str | os.PathLike[str]) -> list[Frame]:
    """The pictures of a file that holds several; empty for one that holds one, or can't be read."""
    try:
        count = read_header(path).frames
    except ImageReadError:
        return []
    return [Frame(path, number) for number in range(count)] if count > 1 else []


Channels: TypeAlias = Literal["rgb", "bgr", "gray"]
CHANNELS = get_args(Channels)

Source: TypeAlias = Any
"""A file name, encoded bytes, an open binary file, a picture of Pillow, an array (H, W, 3) or (H, W), or a tensor
(3, H, W), (1, H, W) or as an array: uint8, uint16, or floats in [0, 1]; or one picture of a file, a `Frame`, or of a
video, camera or watched folder, a `Shot`."""

_ALLOWED = (
    "a file name, bytes, an open binary file, a picture of Pillow, an array (H, W, 3) or (H, W), or a tensor (3, H, W)"
)


def each(images: Any) -> Iterator[Source]:
    """The single images of what a session is called with: one image, a stack of them, or any iterable of images."""
    array = _as_array(images)
    if array is not None and array.ndim == 4:
        yield from array
    elif array is not None or is_single(images):
        yield images
    elif images is None or not hasattr(images, "__iter__"):
        raise _refused(images)
    else:
        yield from images


def is_single(source: Any) -> bool:
    """Whether this is one image, and not several."""
    single = (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, Frame, Shot)
    return isinstance(source, single) or hasattr(source, "read")


def read_source(source: Source, reading: Reading, channels: Channels = "rgb") -> npt.NDArray[Any]:
    """One image as (H, W, 3) RGB, uint8, or float32 in [0, 1].

    Args:
        source: see `Source`.
        reading: how files are read; its bit depth is that of uint16 arrays.
        channels: order of arrays and tensors; "gray" expects one channel.

    Raises:
        ImageReadError: for a file that can't be read. UsageError: for anything else that is no image.
    """
    if isinstance(source, Shot):
        return read_source(source.image, reading)
    if isinstance(source, Frame):
        return replace(reading, frame=source.number)(source.path)
    if isinstance(source, Image.Image):
        return _from_pillow(source, reading)
    if isinstance(source, (str, os.PathLike, bytes)):
        return reading(source)
    if isinstance(source, (bytearray, memoryview)):
        return reading(bytes(source))
    if hasattr(source, "read"):
        return reading(_content(source))
    array = _as_array(source)
    if array is None:
        raise _refused(source)
    return _pixels(array, type(source).__name__, reading.bit_depth, channels)


def odd_colors(image: npt.NDArray[Any], color: ColorRecord) -> str | None:
    """What is odd about the colors of an image, beside those that a model was fitted on, with the likely cause.

    Args:
        image: (H, W, 3), uint8 or float32 in [0, 1].
        color: of the good images.
    """
    tilt, saturation = color_of(image)
    if color.saturation > 0.06 and saturation < 0.004:
        return "is gray, and the model was fitted on colors. Give it as the camera does for the good images."
    if color.saturation < 0.004 and saturation > 0.06:
        return "has colors, and the model was fitted on gray images. Convert it as the good images were converted."
    apart = 4 * color.tilt_deviation + 0.02
    if abs(tilt - color.tilt) > apart and abs(-tilt - color.tilt) < abs(tilt - color.tilt) / 3:
        return (
            f"looks as if red and blue were exchanged: red - blue is {tilt:+.2f} on average, {color.tilt:+.2f} in good "
            f'images. Arrays of OpenCV are BGR: load(..., channels="bgr").'
        )
    return None


def _as_array(source: Any) -> npt.NDArray[Any] | None:
    """An array or tensor as NumPy's, channels last; None for anything else. torch is not imported for it."""
    if isinstance(source, np.ndarray):
        return source
    if not (hasattr(source, "detach") and hasattr(source, "cpu")):
        return None
    array: npt.NDArray[Any] = source.detach().cpu().numpy()
    if array.ndim in (3, 4) and array.shape[-3] in (1, 3):  # (..., C, H, W), torch's order
        array = np.moveaxis(array, -3, -1)
    return array


def _pixels(array: npt.NDArray[Any], kind: str, bits: int | None, channels: Channels) -> npt.NDArray[Any]:
    got = f"Got {kind} of shape {array.shape}, {array.dtype}."
    gray = array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 1)
    if not (gray or (array.ndim == 3 and array.shape[2] == 3)) or not array.size:
        first = " Its channels seem to come first: move them to the end." if array.shape[:1] in ((1,), (3,)) else ""
        raise UsageError(f"An image array must be (H, W, 3) or (H, W). {got}{first}")
    if channels == "gray" and not gray:
        raise UsageError(f'channels is "gray", so an image array must be (H, W) or (H, W, 1). {got}')
    if array.dtype == np.uint16:
        array = array.astype(np.float32) / np.float32(2 ** (bits or 16) - 1)
    elif array.dtype.kind == "f":
        array = array.astype(np.float32)
    elif array.dtype != np.uint8:
        raise UsageError(f"An image array must be uint8, uint16, or floats in [0, 1]. {got}")
    if array.dtype == np.float32 and ((array < 0).any() or (array > 1).any()):  # NaN is the backend's to refuse
        low, high = np.nanmin(array), np.nanmax(array)
        raise UsageError(f"An image array of floats must lie in [0, 1]. Got {low:.4g} to {high:.4g}.")
    if gray:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(array[..., ::-1]) if channels == "bgr" else array


def _content(file: Any) -> bytes:
    if getattr(file, "closed", False):
        raise UsageError(f"The file {getattr(file, 'name', '')!r} is closed. Open it again, or give its name.")
    content = file.read()
    if not isinstance(content, bytes):
        raise UsageError(f"A file must be open in binary mode, open(name, 'rb'). Got {type(file).__name__}.")
    return content


def _refused(source: Any) -> UsageError:
    what = "None" if source is None else f"{type(source).__name__}"
    return UsageError(f"An image must be {_ALLOWED}, or a list of such. Got {what}.")


def _from_pillow(picture: Image.Image, reading: Reading) -> npt.NDArray[Any]:
    """As `read_image` takes the same picture from a file: upright, at full depth, transparency on black."""
    encoded = io.BytesIO()
    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in ("F", "I"):
            raise OSError(f"mode {upright.mode} has no declared range; give RGB, L or I;16")
        if upright.mode in ("CMYK", "YCbCr"):
            upright = upright.convert("RGB")
        upright.save(encoded, "PNG", compress_level=0)
    except OSError as error:
        raise ImageReadError("picture", f"can't be taken from Pillow ({error})") from error
    return reading(encoded.getvalue())
