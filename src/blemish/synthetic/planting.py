"""Defects planted into photographs of good parts: something to measure on where nobody has kept a defective part.

A square window of the picture is taken for a drawn part, and a defect of `blemish.synthetic.products` is laid over it.
Its mask is known to the pixel; outside it the picture stays bit for bit what it was. Windows are drawn more often where
the picture has contrast, so that a part on a plain ground is hit more often than the ground.

Planted defects are not real ones. They show which of two detectors sees more of *these* scratches and stains; a real
defect can be harder or easier for both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blemish.data.image_io import AS_DECLARED, Reading, write_png
from blemish.data.index import Sample
from blemish.data.roi import Mask, cells_inside, stretched
from blemish.errors import UsageError
from blemish.synthetic.parts import Array, Frame, Part, cover, disk, noise, over
from blemish.synthetic.products import DEFECTS, FAINT, MIN_SIDE

KINDS = ("scratch", "crack", "stain", "hole", "contamination", "displaced")
"""What can be planted: defects of `synthetic.DEFECTS`, and a piece of the picture from somewhere else."""

SIZES, STRENGTHS = (0.2, 1.0), (0.4, 1.0)
"""From which `size` and `strength` are drawn."""


class Draw(NamedTuple):
    """What `plant` is told for one defect."""

    rng: np.random.Generator
    kind: str
    size: float
    strength: float


def draw(name: str, turn: int, number: int, seed: int) -> Draw:
    """A defect of its own for one picture: kinds take turns, size and strength run from barely visible to obvious.

    Args:
        name: of the picture; with the seed and the turn it keys the generator, so that one more picture or defect
            leaves all others as they were.
        turn: how many defects the picture was given before.
        number: how many all pictures were given before.
        seed: draws others.
    """
    key = hashlib.sha256(f"{name}/{turn}".encode("utf-8", "surrogateescape")).digest()[:16]
    rng = np.random.default_rng([seed, int.from_bytes(key, "big")])
    return Draw(rng, KINDS[(number + turn) % len(KINDS)], rng.uniform(*SIZES), rng.uniform(*STRENGTHS))


_SPAN = 0.75  # half a window, in part units: the longest defects are a little longer than 0.8
_VISIBLE = 8 / 255
"""Mean change, over the mask, of the channel that changes most; a black hole in a black part is nobody's defect."""
_DRAWS = 12


def plant(
    image: npt.NDArray[Any],
    *,
    rng: np.random.Generator,
    kind: str,
    size: float = 0.4,
    strength: float = 1.0,
    roi: Mask | None = None,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Plant one defect. Places where it would hardly be seen are drawn again, up to twelve times.

    Args:
        image: (H, W, 3) uint8, or float32 in [0, 1], RGB, both sides at least `synthetic.MIN_SIDE`; gray pictures, with
            three equal channels, stay gray.
        rng: draws the place and the defect.
        kind: one of `KINDS`.
        size: side of the window in which the defect lies, as a share of the shorter side, above 0 and at most 1. The
            longest defects are half as long.
        strength: opacity, above 0 and at most 1.
        roi: (H', W') bool, stretched over the picture: what of a defect lies outside is left away. None is everything.

    Returns:
        A new image of the same dtype and the mask, (H, W) bool, True on the defect.

    Raises:
        UsageError: an argument out of range, or a region of interest in which there is no room.
    """
    if kind not in KINDS:
        raise UsageError(f"kind must be one of {', '.join(KINDS)}. Got {kind!r}.")
    for name, value in (("size", size), ("strength", strength)):
        if not 0 < value <= 1:
            raise UsageError(f"{name} must be above 0 and at most 1. Got {value}.")
    if min(image.shape[:2]) < MIN_SIDE:
        raise UsageError(f"Images must be at least {MIN_SIDE} x {MIN_SIDE} pixels. Got {image.shape[:2]}.")
    side = max(MIN_SIDE, round(size * min(image.shape[:2])))
    top = 255.0 if image.dtype == np.uint8 else 1.0
    draw_place = _places(image, side, roi)
    gray = bool((image[..., :1] == image).all())
    shape = (image.shape[0], image.shape[1])
    inside = np.ones(shape, dtype=np.bool_) if roi is None else stretched(roi, shape)
    for _ in range(_DRAWS):
        row, column = draw_place(rng)
        base = _cut(image, (row, column), side) / top
        other = _cut(image, draw_place(rng), side) / top
        paint, coverage = _drawn(kind, base, other, rng)
        here = (coverage >= FAINT) & _cut(inside, (row, column), side)
        if gray:
            paint = np.repeat(paint.mean(axis=2, keepdims=True), 3, axis=2)
        changed = np.clip(over(base, paint, strength * coverage), 0, 1)
        if here.any() and np.abs(changed - base)[here].max(axis=1).mean() >= _VISIBLE * strength:
            break
    if not here.any():
        raise UsageError("The region of interest leaves no room for a defect. Make it wider, or plant smaller ones.")
    planted, mask = image.copy(), np.zeros(image.shape[:2], dtype=np.bool_)
    _cut(mask, (row, column), side)[...] = here
    stored = np.rint(changed * top) if image.dtype == np.uint8 else changed
    _cut(planted, (row, column), side)[here] = stored[here].astype(image.dtype)
    return planted, mask


def plant_files(
    samples: Sequence[Sample],
    folder: Path,
    *,
    count: int,
    seed: int = 0,
    roi: Mask | None = None,
    reading: Reading = AS_DECLARED,
) -> Iterator[Sample]:
    """Write pictures of good parts with planted defects, and yield each as an anomalous sample with its mask.

    Pictures take turns; see `draw` for the defects. Deep color pictures are stored with 8 bits a channel, all others at
    full depth.

    Args:
        samples: good parts, at least one.
        folder: where `<number>.png` and `<number>_mask.png` go.
        count: how many to write.
        seed: draws others.
        roi: as in `plant`.
        reading: how the pictures of good parts are read, and those that are written are to be.
    """
    for number in range(count):
        good = samples[number % len(samples)]
        turn = number // len(samples)
        rng, kind, size, strength = draw(good.relative, turn, number, seed)
        picture = reading(good.path)
        image, mask = plant(picture, rng=rng, kind=kind, size=size, strength=strength, roi=roi)
        path, mask_path = folder / f"{number:04d}.png", folder / f"{number:04d}_mask.png"
        write_png(path, _storable(image, reading.bit_depth))
        write_png(mask_path, mask)
        yield Sample(path, f"planted/{kind}/{number:04d}.png", True, kind, mask_path, "test")


def _drawn(kind: str, base: Array, other: Array, rng: np.random.Generator) -> tuple[Array, Array]:
    """Paint and coverage of a defect on a window (S, S, 3)."""
    whole = Frame.of((base.shape[0], base.shape[1]))
    frame = Frame(whole.x * _SPAN, whole.y * _SPAN, whole.pixel * _SPAN)
    if kind == "displaced":
        radius = rng.uniform(0.2, 0.45)
        blot = disk(frame, radius) + 0.3 * radius * np.clip(noise(frame, rng, 0.8 * radius), -2, 2)
        return np.rot90(other, int(rng.integers(4))), cover(blot, frame.pixel, 2.0)
    # The body is a disk inside the window: no defect is cut off by the window's straight edges.
    return DEFECTS[kind](Part(frame, base, (), disk(frame, _SPAN)), rng)


def _places(image: npt.NDArray[Any], side: int, roi: Mask | None) -> Callable[[np.random.Generator], tuple[int, int]]:
    """Draws the upper left corner of a window; nine times in ten by the contrast around its middle."""
    height, width = image.shape[:2]
    coarse = max(1, min(height, width) // 128)
    light = image[::coarse, ::coarse].astype(np.float32).mean(axis=2)
    down, right = np.gradient(light)
    contrast = np.hypot(down, right)
    rows = np.minimum(np.arange(contrast.shape[0]) * 16 // contrast.shape[0], 15)
    columns = np.minimum(np.arange(contrast.shape[1]) * 16 // contrast.shape[1], 15)
    cells = np.bincount((16 * rows[:, None] + columns).ravel(), contrast.ravel(), 256)
    chance = np.square(cells, dtype=np.float64)  # squared: the grain of a ground has contrast, too
    chance += chance.mean() / 9 + 1e-9
    if roi is not None:
        chance *= cells_inside(roi, (16, 16)).ravel()
    chance /= chance.sum()

    def draw(rng: np.random.Generator) -> tuple[int, int]:
        row, column = divmod(int(rng.choice(chance.size, p=chance)), 16)
        y, x = (row + rng.uniform()) / 16 * height, (column + rng.uniform()) / 16 * width
        return _within(y - side / 2, height - side), _within(x - side / 2, width - side)

    return draw


def _within(start: float, last: int) -> int:
    return min(max(0, round(start)), last)


def _cut(array: npt.NDArray[Any], corner: tuple[int, int], side: int) -> npt.NDArray[Any]:
    return array[corner[0] : corner[0] + side, corner[1] : corner[1] + side]


def _storable(image: npt.NDArray[Any], bit_depth: int | None) -> npt.NDArray[Any]:
    if image.dtype == np.uint8:
        return image
    gray = bool((image[..., :1] == image).all())
    samples, dtype, bits = (image[..., 0], np.uint16, bit_depth or 16) if gray else (image, np.uint8, 8)
    stored: npt.NDArray[Any] = np.rint(samples * (2**bits - 1)).astype(dtype)
    return stored
