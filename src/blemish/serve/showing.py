"""Pictures of parts for browsers: as they came, as an overlay of what was found, or small."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.good_images import GoodPictures
from blemish.data.image_io import read_image
from blemish.errors import ImageReadError, UsageError
from blemish.functional.pixels import to_uint8
from blemish.runtime.session import Session
from blemish.serve.history import Verdict
from blemish.serve.pictures import Pictures
from blemish.visualization import overlay
from blemish.visualization.side_by_side import side_by_side

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
        return encoded(np.asarray(small), "JPEG"), "image/jpeg"
    anomaly_map = pictures.anomaly_map(verdict) if view == "overlay" else None
    if anomaly_map is not None and anomaly_map.shape == image.shape[:2]:
        cut = verdict["pixel_threshold"]
        image = overlay(image, anomaly_map, threshold=cut, mask=anomaly_map >= cut, caption=False)
    return encoded(image, "PNG"), "image/png"


def explanation_of(pictures: Pictures, verdict: Verdict, session: Session) -> bytes | None:
    """A PNG with what was found beside good parts; None if the picture is gone, another model judged it, or this one
    knows no good parts: exported graphs don't.

    Args:
        pictures: of the station.
        verdict: to be explained.
        session: of the product's model.
    """
    path = pictures.find(verdict)
    if path is None or verdict["model"] != session.fingerprint:
        return None
    try:
        [result] = session(path)
        explanation = session.explain(result)
    except (UsageError, ImageReadError):
        return None
    assert result.image is not None
    good = GoodPictures(session.good_images, None, session.reading)
    return encoded(side_by_side(to_uint8(result.image), explanation, good), "PNG")


def encoded(image: npt.NDArray[np.uint8], kind: str) -> bytes:
    """A picture as "PNG", quickly rather than small, or "JPEG"."""
    content = io.BytesIO()
    Image.fromarray(image).save(content, kind, **({"compress_level": 1} if kind == "PNG" else {"quality": 80}))
    return content.getvalue()
