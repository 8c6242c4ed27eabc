"""Pictures of parts for browsers: as they came, as an overlay of what was found, or small."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.image_io import read_image
from blemish.errors import ImageReadError
from blemish.functional.pixels import to_uint8
from blemish.serve.history import Verdict
from blemish.serve.pictures import Pictures
from blemish.visualization import overlay

View = Literal["picture", "overlay", "thumbnail"]
THUMBNAIL = 240
"""Longer side in pixels."""


def picture_of(pictures: Pictures, verdict: Verdict, view: View, max_pixels: int) -> tuple[bytes, str] | None:
    """An encoded picture and its media type; None if there is none any more, or it can't be read."""
    path = pictures.find(verdict)
    if path is None:
        return None
    try:
        image = to_uint8(read_image(path, frame=0, max_pixels=max_pixels))
    except ImageReadError:
        return None
    if view == "thumbnail":
        small = Image.fromarray(image)
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        return _encoded(np.asarray(small), "JPEG"), "image/jpeg"
    anomaly_map = pictures.anomaly_map(verdict) if view == "overlay" else None
    if anomaly_map is not None and anomaly_map.shape == image.shape[:2]:
        cut = verdict["pixel_threshold"]
        image = overlay(image, anomaly_map, threshold=cut, mask=anomaly_map >= cut, caption=False)
    return _encoded(image, "PNG"), "image/png"


def _encoded(image: npt.NDArray[np.uint8], kind: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 80}))
    return content.getvalue()
