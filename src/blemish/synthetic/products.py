"""Drawn parts with planted defects: data without a download, whose truth is known to the pixel.

A defect is a paint laid over a good part with a coverage in [0, 1]. Its mask is where the coverage is not zero.
Lighting and sensor noise come afterwards, from a generator of their own: a part with and without its defect are the
same picture outside the mask, bit for bit. The parts themselves are in `synthetic_parts`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from blemish.data.image_io import write_png
from blemish.errors import UsageError
from blemish.synthetic.parts import (
    Array,
    Component,
    Frame,
    Part,
    board,
    cover,
    disk,
    fabric,
    gray,
    knob,
    noise,
    over,
    plate,
    relief,
    stroke,
    tile,
)

MIN_SIDE = 32
"""Smallest picture side in pixels at which every part and defect can still be told apart."""

FAINT = 0.15
"""Coverage below which a defect is cut off, so that its mask ends where the eye sees it end."""

Planted = tuple[Array, Array]
"""(H, W, 3) the picture to show through and (H, W) its coverage."""


@dataclass(frozen=True)
class Product:
    """How to draw a product, and which of `DEFECTS` can befall it."""

    draw: Callable[[tuple[int, int], np.random.Generator], Part]
    defects: tuple[str, ...]


# -------------------------------------------------------------------------------------------------------------- defects


def _scratch(part: Part, rng: np.random.Generator) -> Planted:
    """Plant a slightly bent groove: a bright burr beside a dark floor, fading out at both ends."""
    place = _somewhere(part, rng)
    half = rng.uniform(0.22, 0.42)
    along = np.linspace(-half, half, 9)
    points = np.stack([along, rng.uniform(-0.25, 0.25) * along**2 / half], axis=1)
    width = max(rng.uniform(0.010, 0.018), 0.8 * place.pixel)
    fade = np.clip(1.3 * (1 - np.abs(place.x / half) ** 3), 0, 1)
    groove = cover(stroke(place, points) - width, place.pixel)
    burr = cover(stroke(place.at(0, -width), points) - width / 2, place.pixel)
    paint = over(part.picture() * 0.45, (0.92, 0.92, 0.92), 0.8 * burr)
    return _on(part, paint, groove * fade)


def _crack(part: Part, rng: np.random.Generator) -> Planted:
    """Plant a jagged dark line that forks once and gets thinner."""
    place = _somewhere(part, rng)
    trunk = _jagged(rng, 14, 0.0)
    middle = trunk[6].copy()
    fork = _jagged(rng, 6, rng.choice([-1, 1]) * rng.uniform(0.6, 1.0))
    width = max(0.010, 0.7 * place.pixel)
    taper = width * np.clip(1.2 - np.hypot(place.x, place.y) / 0.45, 0.5, 1)
    distance = np.minimum(stroke(place, trunk - middle) - taper, stroke(place, fork - fork[0]) - 0.7 * taper)
    return _on(part, part.picture() * 0.22, cover(distance, place.pixel, 1.5))


def _jagged(rng: np.random.Generator, steps: int, bearing: float) -> Array:
    """Return (steps, 2) points of a walk that holds its bearing (radians) only roughly."""
    heading = bearing + np.cumsum(rng.normal(0, 0.12, steps)) + rng.normal(0, 0.45, steps)
    stride = rng.uniform(0.03, 0.07, steps)
    return np.asarray(np.cumsum(np.stack([np.cos(heading), np.sin(heading)], axis=1) * stride[:, None], axis=0))


def _stain(part: Part, rng: np.random.Generator) -> Planted:
    """Plant a dried drop: a brown film that is darkest along its uneven rim."""
    place = _somewhere(part, rng)
    distance = _blot(place, rng, rng.uniform(0.14, 0.22), unevenness=0.2)
    tint = np.array([(0.62, 0.48, 0.30), (0.50, 0.52, 0.42), (0.66, 0.42, 0.34)][rng.integers(3)])
    rim = np.exp(-((distance / 0.025) ** 2))
    return _on(part, part.picture() * tint + 0.04, cover(distance, place.pixel, 2.0) * (0.6 + 0.35 * rim))


def _hole(part: Part, rng: np.random.Generator) -> Planted:
    """Plant a pit or hole: dark inside, its far edge lit."""
    place = _somewhere(part, rng)
    distance = _blot(place, rng, rng.uniform(0.055, 0.10), unevenness=0.3)
    paint = gray(0.07 - 0.55 * np.minimum(relief(place, distance, 0.035), 0))
    return _on(part, paint, cover(distance, place.pixel))


def _contamination(part: Part, rng: np.random.Generator) -> Planted:
    """Plant a foreign colored fibre lying on the part, curled, with its shadow."""
    place = _somewhere(part, rng)
    turn = np.linspace(0, rng.uniform(0.5, 3.0), 24) + np.cumsum(rng.normal(0, 0.22, 24))
    points = np.cumsum(np.stack([np.cos(turn), np.sin(turn)], axis=1) * 0.024, axis=0)
    points -= points.mean(axis=0)
    width = max(0.014, 0.9 * place.pixel)
    distance = stroke(place, points) - width
    color = [(0.80, 0.12, 0.16), (0.95, 0.75, 0.10), (0.15, 0.35, 0.85), (0.75, 0.15, 0.65)][rng.integers(4)]
    fibre = cover(distance, place.pixel)
    shadow = 0.5 * cover(stroke(place.at(0.015, 0.02), points) - width, place.pixel, 3.0)
    lit = gray(1 - 0.35 * np.clip(distance / width + 1, 0, 1), color)
    coverage = np.maximum(fibre, shadow)
    return _on(part, over(part.picture() * 0.25, lit, fibre), coverage)


def _missing(part: Part, rng: np.random.Generator) -> Planted:
    """Leave one component out."""
    lost = int(rng.integers(len(part.components)))
    left = [component for index, component in enumerate(part.components) if index != lost]
    return part.picture(left), _footprint(part, part.components[lost])


def _misplaced(part: Part, rng: np.random.Generator) -> Planted:
    """Put one component beside its place, turned."""
    moved = int(rng.integers(len(part.components)))
    old, bearing = part.components[moved], rng.uniform(0, 2 * np.pi)
    shift = rng.uniform(0.07, 0.11)
    new = replace(
        old,
        x=old.x + shift * np.cos(bearing),
        y=old.y + shift * np.sin(bearing),
        angle=old.angle + rng.choice([-1, 1]) * rng.uniform(0.2, 0.4),
    )
    others = [component for index, component in enumerate(part.components) if index != moved]
    return part.picture([*others, new]), np.maximum(_footprint(part, old), _footprint(part, new))


def _on(part: Part, paint: Array, coverage: Array) -> Planted:
    """Cut a defect off where the surface it lies on ends."""
    return paint, np.where(part.body < 0, coverage, 0.0)


def _footprint(part: Part, component: Component) -> Array:
    """Cover all that a component touches, fully: what lies beneath must not shine through its half-transparent edge."""
    coverage, _ = component.draw(part.frame.at(component.x, component.y, component.angle))
    return (coverage > 0.02).astype(np.float64)


def _somewhere(part: Part, rng: np.random.Generator) -> Frame:
    """Return a frame at a random point well inside the part and the picture, turned at random."""
    sight = Frame.of((part.body.shape[0], part.body.shape[1]))
    margin = 0.22
    inside = (np.abs(sight.x) < -sight.x[0, 0] - margin) & (np.abs(sight.y) < -sight.y[0, 0] - margin)
    spots = np.flatnonzero(inside & (part.body < -margin))
    spot = spots[rng.integers(len(spots))]
    return part.frame.at(float(part.frame.x.flat[spot]), float(part.frame.y.flat[spot]), rng.uniform(0, 2 * np.pi))


def _blot(place: Frame, rng: np.random.Generator, radius: float, unevenness: float) -> Array:
    """Return the signed distance, roughly, to a disk with a wavy outline."""
    return disk(place, radius) + unevenness * radius * np.clip(noise(place, rng, 0.8 * radius), -2, 2)


DEFECTS: dict[str, Callable[[Part, np.random.Generator], Planted]] = {
    "scratch": _scratch,
    "crack": _crack,
    "stain": _stain,
    "hole": _hole,
    "contamination": _contamination,
    "missing": _missing,
    "misplaced": _misplaced,
}
PRODUCTS: dict[str, Product] = {
    "fabric": Product(fabric, ("stain", "hole", "contamination")),
    "tile": Product(tile, ("scratch", "crack", "stain", "hole", "contamination")),
    "plate": Product(plate, ("scratch", "stain", "hole", "contamination", "missing", "misplaced")),
    "board": Product(board, ("scratch", "stain", "contamination", "missing", "misplaced")),
    "knob": Product(knob, ("scratch", "crack", "contamination", "missing", "misplaced")),
}


# --------------------------------------------------------------------------------------------------------------- public


def render(
    product: str, *, size: tuple[int, int] = (256, 256), rng: np.random.Generator, defect: str | None = None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw one part.

    Two generators in the same state give the same part, whether a defect is planted or not.

    Args:
        product: a key of `PRODUCTS`.
        size: (H, W) in pixels, each at least `MIN_SIDE`.
        rng: source of the part, the defect and the noise; three numbers are drawn from it.
        defect: one of `PRODUCTS[product].defects`; None for a good part.

    Returns:
        (H, W, 3) uint8 RGB picture and (H, W) bool mask, True on the defect.

    Raises:
        UsageError: unknown product, a defect the product can't have, or a picture too small.

    """
    if product not in PRODUCTS:
        raise UsageError(f"product must be one of {', '.join(PRODUCTS)}. Got {product!r}.")
    if defect is not None and defect not in PRODUCTS[product].defects:
        allowed = ", ".join(PRODUCTS[product].defects)
        raise UsageError(f"defect of {product!r} must be one of {allowed}, or None for a good part. Got {defect!r}.")
    if min(size) < MIN_SIDE:
        raise UsageError(f"size must be at least {MIN_SIDE} x {MIN_SIDE} pixels. Got {size[0]} x {size[1]}.")
    part_rng, defect_rng, camera_rng = (np.random.default_rng(seed) for seed in rng.integers(0, 2**63, 3))
    part = PRODUCTS[product].draw(size, part_rng)
    scene, mask = part.picture(), np.zeros(size, dtype=bool)
    if defect is not None:
        paint, coverage = DEFECTS[defect](part, defect_rng)
        mask = coverage >= FAINT
        scene = over(scene, paint, np.where(mask, coverage, 0.0))
    return _photograph(scene, camera_rng), mask


def _photograph(scene: Array, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Add uneven lamp light, white balance and sensor noise, all drawn independently of what is in the scene."""
    frame = Frame.of((scene.shape[0], scene.shape[1]))
    slope_x, slope_y = rng.uniform(-0.05, 0.05, 2)
    light = rng.uniform(0.94, 1.06) * (1 + slope_x * frame.x + slope_y * frame.y)
    exposed = scene * light[..., None] * rng.uniform(0.985, 1.015, 3)
    # Shot noise grows with the square root of the light; 0.004 is what the electronics add in the dark.
    grain = rng.standard_normal(scene.shape) * (0.004 + 0.012 * np.sqrt(np.clip(exposed, 0, 1)))
    return np.asarray(np.clip(np.rint(255 * (exposed + grain)), 0, 255), dtype=np.uint8)


def write_dataset(
    root: str | os.PathLike[str],
    *,
    product: str,
    good_train: int = 40,
    good_test: int = 10,
    per_defect: int = 5,
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
) -> Path:
    """Write a set of PNG files in the layout of MVTec AD below `root/product`, and return that folder.

    `train/good/000.png`, `test/good/`, `test/<defect>/` and `ground_truth/<defect>/000_mask.png` (0 or 255). Every
    picture has its own generator, keyed by the seed and its name: asking for more leaves the earlier ones as they were.

    Raises:
        UsageError: the folder exists and holds something, a count or the seed is negative, or what `render` raises.
        OutputError: a file can't be written.

    """
    counts = {"good_train": good_train, "good_test": good_test, "per_defect": per_defect, "seed": seed}
    for name, value in counts.items():
        if value < 0:
            raise UsageError(f"{name} must not be negative. Got {value}.")
    if product not in PRODUCTS:
        raise UsageError(f"product must be one of {', '.join(PRODUCTS)}. Got {product!r}.")
    folder = Path(root) / product
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty. Choose another folder or remove it: old pictures would mix with new.")
    wanted: list[tuple[str, str | None, int]] = [("train/good", None, good_train), ("test/good", None, good_test)]
    wanted += [(f"test/{defect}", defect, per_defect) for defect in PRODUCTS[product].defects]
    for place, defect, count in wanted:
        for index in range(count):
            image, mask = render(product, size=size, rng=_keyed(seed, f"{product}/{place}/{index}"), defect=defect)
            write_png(folder / place / f"{index:03d}.png", image)
            if defect is not None:
                write_png(folder / "ground_truth" / defect / f"{index:03d}_mask.png", mask)
    return folder


def _keyed(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, int.from_bytes(hashlib.sha256(name.encode()).digest()[:16], "big")])
