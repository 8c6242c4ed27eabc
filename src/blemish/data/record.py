"""What a model remembers of the images that it was made from; part of its artifact. No torch."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, replace
from statistics import fmean, pstdev
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class ColorRecord:
    """The colors of the good images, of channels in [0, 1].

    Attributes:
        tilt: mean of red - blue over all images. tilt_deviation: standard deviation of that of single images.
        saturation: mean of the highest less the lowest channel; 0 for gray images.
    """

    tilt: float
    tilt_deviation: float
    saturation: float


_SAMPLED = 2**16
"""Pixels of which the colors of a picture are judged."""


def color_of(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Mean of red - blue, and of the highest less the lowest channel, of (H, W, 3), uint8 or float32 in [0, 1]."""
    step = max(1, int((image.shape[0] * image.shape[1] / _SAMPLED) ** 0.5))
    # Planes, each in one piece: NumPy is slow along an axis of three, and where it has to skip.
    red, green, blue = np.ascontiguousarray(np.moveaxis(image[::step, ::step], 2, 0))
    highest, lowest = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    exact = np.int64 if image.dtype == np.uint8 else np.float64
    red, blue, highest, lowest = (plane.sum(dtype=exact) for plane in (red, blue, highest, lowest))
    full = green.size * (255 if image.dtype == np.uint8 else 1)
    return float((red - blue) / full), float((highest - lowest) / full)


def colors_of(images: Iterable[npt.NDArray[Any]]) -> ColorRecord:
    """The record of at least one image, see `color_of`."""
    tilts, saturations = zip(*map(color_of, images), strict=True)
    return ColorRecord(round(fmean(tilts), 4), round(pstdev(tilts), 4), round(fmean(saturations), 4))


@dataclass(frozen=True)
class DataRecord:
    """Which images a model was made from, and how they were dealt; part of its artifact.

    Attributes:
        fingerprint: hex SHA-256 over names and bytes of the images that were fitted and calibrated on.
        calibration_fraction, test_fraction, group, seed, calibrate_on: see `blemish.data.splits.split`; a later test
            deals the same way.
        good, bad, all_good: see `blemish.data.index.index_folder`.
        frames: see `blemish.data.datamodule.ImageDataModule`.
        bit_depth: how many bits of 16-bit files the images use, see `blemish.data.image_io.read_image`: whoever reads
            images for the model must say the same. None for all of them.
        digests: the first six bytes of the SHA-256 of every image that was fitted on or held out from it, ordered, in
            Base64: a later test never measures on one of them, whatever became of its name and folder. Two different
            images of a million have one in common with a chance of 1 in 500; "" in files of earlier versions.
        exclude: names of images that were left out by the user's word.
        color: what colors the images have that were fitted on; None where that isn't known.
    """

    fingerprint: str
    calibration_fraction: float
    test_fraction: float
    group: str | None
    seed: int
    calibrate_on: str
    good: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()
    all_good: bool = False
    frames: str = "refuse"
    bit_depth: int | None = None
    digests: str = ""
    exclude: tuple[str, ...] = ()
    color: ColorRecord | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of `ImageDataModule` that read and deal a folder as for the fit."""
        return {key: value for key, value in vars(self).items() if key not in ("fingerprint", "digests", "color")}

    def after(self, earlier: DataRecord | None) -> DataRecord:
        """This record of images that were added to a model, with those it was made from before."""
        if earlier is None or not earlier.digests:
            return self
        left_out = tuple(sorted({*self.exclude, *earlier.exclude}))
        return replace(self, digests=_pack(self.seen() | earlier.seen()), exclude=left_out)

    def seen(self) -> frozenset[bytes]:
        """What `short_digest` gives for the images that made the model."""
        packed = base64.b64decode(self.digests)
        return frozenset(packed[i : i + _SHORT] for i in range(0, len(packed), _SHORT))


_SHORT = 6


def short_digest(sha256: str) -> bytes:
    """The part of a hex digest that a `DataRecord` keeps."""
    return bytes.fromhex(sha256[: 2 * _SHORT])


def pack_digests(digests: Iterable[str]) -> str:
    """Hex digests as `DataRecord.digests` holds them."""
    return _pack(map(short_digest, digests))


def _pack(short: Iterable[bytes]) -> str:
    return base64.b64encode(b"".join(sorted(set(short)))).decode("ascii")
