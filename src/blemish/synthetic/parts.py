"""Five procedurally drawn products: two textures (`fabric`, `tile`) and three objects (`plate`, `board`, `knob`).

A demo and a test need parts whose every pixel is known. A drawn part is a base picture with components on top, each
component a function of a coordinate frame, so that a planted defect can leave one out or move it and everything else
stays the same pixel for pixel. Shapes are signed distances (negative inside) in part units, hence smooth at any
resolution.

Axes: the short side of the picture spans [-1, 1], x to the right, y downwards. Pictures are (H, W, 3) floats in [0, 1],
RGB.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Color = tuple[float, float, float]

LIGHT = np.array([-0.6, -0.8])
"""Direction from a part towards the lamp, which hangs to the upper left."""


@dataclass(frozen=True)
class Frame:
    """Coordinates of every pixel. `x`, `y` are (H, W) in part units; `pixel` is the width of one pixel in them."""

    x: Array
    y: Array
    pixel: float

    @classmethod
    def of(cls, size: tuple[int, int]) -> Frame:
        """Return the frame of a picture of `size` (H, W) whose center is (0, 0)."""
        height, width = size
        pixel = 2.0 / min(size)
        y, x = np.meshgrid(
            (np.arange(height) - (height - 1) / 2) * pixel, (np.arange(width) - (width - 1) / 2) * pixel, indexing="ij"
        )
        return cls(x, y, pixel)

    def at(self, x: float, y: float, angle: float = 0.0) -> Frame:
        """Return the frame whose origin is the point (x, y) of this one, turned by `angle` radians."""
        cos, sin = np.cos(angle), np.sin(angle)
        dx, dy = self.x - x, self.y - y
        return Frame(cos * dx + sin * dy, cos * dy - sin * dx, self.pixel)


@dataclass(frozen=True)
class Component:
    """Something that sits on a part.

    Attributes:
        x, y, angle: where it sits, in part units and radians.
        draw: maps the component's own frame to its coverage (H, W) in [0, 1] and its paint (H, W, 3).

    """

    x: float
    y: float
    angle: float
    draw: Callable[[Frame], tuple[Array, Array]]


@dataclass(frozen=True)
class Part:
    """One good part.

    Attributes:
        frame: where the part lies: slightly shifted and turned.
        base: (H, W, 3) the picture without components.
        components: painted onto the base in this order.
        body: (H, W) signed distance to the surface that a scratch or a stain can be on; negative there.

    """

    frame: Frame
    base: Array
    components: Sequence[Component]
    body: Array

    def picture(self, components: Sequence[Component] | None = None) -> Array:
        """Draw the part, with `components` instead of its own when given."""
        image = self.base
        for component in self.components if components is None else components:
            coverage, paint = component.draw(self.frame.at(component.x, component.y, component.angle))
            image = over(image, paint, coverage)
        return image


# -------------------------------------------------------------------------------------------------------------- drawing


def over(image: Array, paint: Array | Color, coverage: Array) -> Array:
    """Lay `paint` over `image` with opacity `coverage` (H, W)."""
    return image + coverage[..., None] * (np.asarray(paint) - image)


def cover(distance: Array, pixel: float, softness: float = 1.0) -> Array:
    """Return the opacity of a shape from its signed distance; the edge is `softness` pixels wide."""
    return np.clip(0.5 - distance / (pixel * softness), 0.0, 1.0)


def disk(frame: Frame, radius: float) -> Array:
    """Return the signed distance to a disk around the origin."""
    return np.hypot(frame.x, frame.y) - radius


def box(frame: Frame, half_width: float, half_height: float, corner: float = 0.0) -> Array:
    """Return the signed distance to a rectangle around the origin with rounded corners."""
    dx = np.abs(frame.x) - (half_width - corner)
    dy = np.abs(frame.y) - (half_height - corner)
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - corner


def stroke(frame: Frame, points: Array) -> Array:
    """Return the distance to the polyline through `points` (P, 2), each (x, y)."""
    nearest = np.full(frame.x.shape, np.inf)
    for (ax, ay), (bx, by) in pairwise(points):
        dx, dy = frame.x - ax, frame.y - ay
        length = (bx - ax) ** 2 + (by - ay) ** 2
        along = np.clip((dx * (bx - ax) + dy * (by - ay)) / length, 0, 1)
        nearest = np.minimum(nearest, np.hypot(dx - along * (bx - ax), dy - along * (by - ay)))
    return nearest


def noise(frame: Frame, rng: np.random.Generator, scale: float | tuple[float, float]) -> Array:
    """Return (H, W) smooth noise of mean 0, deviation 1 and grains of size `scale` (or its x and y) in part units."""
    scale_x, scale_y = (scale, scale) if isinstance(scale, float) else scale
    height, width = frame.x.shape
    fx = np.fft.rfftfreq(width, frame.pixel)
    fy = np.fft.fftfreq(height, frame.pixel)[:, None]
    # A Gaussian blur is a product in the Fourier domain; its wrap-around at the borders is invisible in noise.
    gain = np.exp(-2 * (np.pi**2) * ((fx * scale_x) ** 2 + (fy * scale_y) ** 2) / 4)
    gain[0, 0] = 0.0
    smooth = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((height, width))) * gain, s=(height, width))
    return np.asarray(smooth / max(float(smooth.std()), 1e-9))


def gray(values: Array, tint: Color = (1.0, 1.0, 1.0)) -> Array:
    """Turn (H, W) brightness into (H, W, 3) in the hue of `tint`."""
    return np.asarray(values[..., None] * np.asarray(tint))


def relief(frame: Frame, distance: Array, width: float) -> Array:
    """Return the brightness in [-1, 1] of a bevel of `width` inside an outline: lit on the side of the lamp."""
    dy, dx = np.gradient(distance, frame.pixel)
    edge = np.clip(1 - np.abs(distance + width / 2) / (width / 2), 0, 1)
    return np.asarray(edge * np.clip(dx * LIGHT[0] + dy * LIGHT[1], -1, 1))


def _placed(size: tuple[int, int], rng: np.random.Generator, shift: float, turn: float) -> Frame:
    dx, dy = rng.uniform(-shift, shift, 2)
    return Frame.of(size).at(dx, dy, rng.uniform(-turn, turn))


def _with_shadow(frame: Frame, body: Array, paint: Array, distance: Array) -> tuple[Array, Array]:
    """Return coverage and paint of a raised component with the soft shadow around its foot."""
    shadow = 0.45 * np.clip(1 - np.maximum(distance, 0) / 0.035, 0, 1)
    coverage = body + (1 - body) * shadow
    return coverage, paint * (body / np.maximum(coverage, 1e-9))[..., None]


# ------------------------------------------------------------------------------------------------------------- products


def fabric(size: tuple[int, int], rng: np.random.Generator) -> Part:
    """Draw a 2/2 twill of a blue warp and a light weft; threads vary in brightness and course."""
    frame = _placed(size, rng, shift=0.2, turn=0.04)
    period = max(0.055, 4 * frame.pixel)
    u = frame.x / period + 0.25 * noise(frame, rng, 0.6)
    v = frame.y / period + 0.25 * noise(frame, rng, 0.6)
    column, row = np.floor(u), np.floor(v)
    warp_on_top = (column - row) % 4 < 2
    # On top, a thread shows a round profile across its width and dives under its neighbors at both ends of two cells.
    across = np.where(warp_on_top, u - column, v - row)
    along = np.where(warp_on_top, (column - v + 1) % 4, (u - row - 2) % 4) / 2
    height = np.sin(np.pi * across) ** 0.7 * (0.45 + 0.55 * np.sin(np.pi * np.clip(along, 0, 1)) ** 0.7)
    tones = 1 + 0.06 * rng.standard_normal((2, 4096))
    tone = np.where(warp_on_top, tones[0][column.astype(int) % 4096], tones[1][row.astype(int) % 4096])
    fibres = np.where(warp_on_top, noise(frame, rng, (0.012, 0.05)), noise(frame, rng, (0.05, 0.012)))
    shade = (0.35 + 0.65 * height) * tone * (1 + 0.05 * fibres)
    color = np.where(warp_on_top[..., None], (0.25, 0.35, 0.55), (0.72, 0.71, 0.67))
    return Part(frame, color * shade[..., None], (), np.full(size, -1.0))


def tile(size: tuple[int, int], rng: np.random.Generator) -> Part:
    """Draw glazed stone: clouds of two tones and soft gray veins that a detector must learn not to call cracks."""
    frame = _placed(size, rng, shift=0.2, turn=0.1)
    clouds = noise(frame, rng, 0.5) + 0.5 * noise(frame, rng, 0.18)
    grain = noise(frame, rng, 0.02)
    veins = np.exp(-((noise(frame, rng, (0.55, 0.3)) / 0.07) ** 2)) * np.clip(0.5 + 0.5 * noise(frame, rng, 0.6), 0, 1)
    image = gray(0.74 + 0.035 * clouds + 0.012 * grain, (1.0, 0.965, 0.90))
    return Part(frame, over(image, (0.52, 0.49, 0.47), 0.55 * veins), (), np.full(size, -1.0))


def plate(size: tuple[int, int], rng: np.random.Generator) -> Part:
    """Draw brushed steel on dark felt, with a bore in the middle and four countersunk holes (the components)."""
    frame = _placed(size, rng, shift=0.025, turn=0.03)
    felt = gray(0.13 + 0.018 * noise(frame, rng, 0.015) + 0.008 * noise(frame, rng, 0.2), (0.95, 0.97, 1.05))
    outline = box(frame, 0.84, 0.84, corner=0.12)
    brush = 0.6 * noise(frame, rng, (0.9, 0.012)) + 0.4 * noise(frame, rng, (0.25, 0.008))
    sheen = 0.06 * np.sin(2.2 * frame.y + rng.uniform(-0.4, 0.4))
    steel = 0.60 + 0.045 * brush + sheen + 0.25 * relief(frame, outline, 0.05)
    image = over(felt, (0.03, 0.03, 0.035), 0.7 * cover(outline - 0.05, frame.pixel, 0.12 / frame.pixel))
    image = over(image, gray(steel, (0.985, 1.0, 1.02)), cover(outline, frame.pixel))
    bore, paint = _hole(0.30, 0.255)(frame)
    components = [Component(x, y, 0.0, _hole(0.13, 0.085)) for y in (-0.55, 0.55) for x in (-0.55, 0.55)]
    body = np.maximum(outline, -disk(frame, 0.30))
    for component in components:
        body = np.maximum(body, -disk(frame.at(component.x, component.y), 0.13))
    return Part(frame, over(image, paint, bore), components, body)


def _hole(outer: float, inner: float) -> Callable[[Frame], tuple[Array, Array]]:
    """Return a countersunk hole: a conical ring, lit on the side away from the lamp, and a dark bore."""

    def draw(frame: Frame) -> tuple[Array, Array]:
        radius = np.maximum(np.hypot(frame.x, frame.y), 1e-9)
        facing = (frame.x * LIGHT[0] + frame.y * LIGHT[1]) / radius
        ring = gray(0.55 - 0.27 * facing, (0.985, 1.0, 1.02))
        depth = gray(0.05 + 0.05 * np.clip(-facing, 0, 1) * np.clip(radius / inner, 0, 1))
        return cover(disk(frame, outer), frame.pixel), over(ring, depth, cover(disk(frame, inner), frame.pixel))

    return draw


def board(size: tuple[int, int], rng: np.random.Generator) -> Part:
    """Draw a printed board: traces, gold pads and white marks below, two chips and six small components on top."""
    frame = _placed(size, rng, shift=0.03, turn=0.025)
    table = gray(0.80 + 0.01 * noise(frame, rng, 0.03), (1.0, 0.995, 0.98))
    outline = box(frame, 0.92, 0.86, corner=0.05)
    mask = gray(1 + 0.035 * noise(frame, rng, 0.03) + 0.03 * noise(frame, rng, 0.5), (0.07, 0.34, 0.20))
    image = over(table, (0.25, 0.25, 0.25), 0.6 * cover(outline - 0.02, frame.pixel, 0.07 / frame.pixel))
    image = over(image, mask, cover(outline, frame.pixel))
    for points in _TRACES:
        image = over(image, (0.16, 0.47, 0.28), cover(stroke(frame, np.array(points)) - 0.014, frame.pixel))
        for x, y in (points[0], points[-1]):
            via = frame.at(x, y)
            image = over(image, (0.80, 0.68, 0.36), cover(disk(via, 0.032), frame.pixel))
            image = over(image, (0.10, 0.09, 0.06), cover(disk(via, 0.014), frame.pixel))
    for mark in _MARKS:
        image = over(image, (0.88, 0.90, 0.86), cover(stroke(frame, np.array(mark)) - 0.010, frame.pixel))
    components = []
    for x, y, angle, kind in _PLACES:
        pads = cover(box(_mirrored(frame.at(x, y, angle), 0.085), 0.045, 0.062), frame.pixel)
        image = over(image, (0.80, 0.68, 0.36), pads) if kind is not _chip else image
        components.append(Component(x, y, angle + rng.normal(0, 0.015), kind))
    return Part(frame, image, components, outline)


def _mirrored(frame: Frame, offset: float) -> Frame:
    """Return a frame in which a shape appears twice: at +offset and at -offset of the x axis."""
    return Frame(np.abs(frame.x) - offset, frame.y, frame.pixel)


def _chip(frame: Frame) -> tuple[Array, Array]:
    """Draw a black chip of 2 x 6 legs with a round mark at leg 1 and two printed lines."""
    legs = np.maximum(box(_mirrored(frame, 0.25), 0.055, 0.24), np.abs((frame.y / 0.08) % 1 - 0.5) * 0.08 - 0.024)
    body = box(frame, 0.22, 0.26, corner=0.015)
    paint = over(
        gray(np.full(body.shape, 0.76)), gray(0.13 + 0.18 * relief(frame, body, 0.03)), cover(body, frame.pixel)
    )
    paint = over(paint, (0.42, 0.42, 0.42), cover(disk(frame.at(-0.14, -0.18), 0.028), frame.pixel))
    for y, end in ((-0.03, 0.14), (0.06, 0.08)):
        dashes = np.maximum(
            box(frame.at((end - 0.14) / 2, y), (end + 0.14) / 2, 0.022), (frame.x / 0.05) % 1 * 0.05 - 0.035
        )
        paint = over(paint, (0.62, 0.62, 0.60), cover(dashes, frame.pixel))
    distance = np.minimum(body, legs)
    return _with_shadow(frame, cover(distance, frame.pixel), paint, distance)


def _small(color: Color) -> Callable[[Frame], tuple[Array, Array]]:
    """Return a two-terminal component of the given color."""

    def draw(frame: Frame) -> tuple[Array, Array]:
        outline = box(frame, 0.125, 0.058, corner=0.012)
        body = gray(1 + 0.35 * relief(frame, outline, 0.03), color)
        paint = over(body, gray(0.74 + 0.2 * relief(frame, outline, 0.03)), cover(0.078 - np.abs(frame.x), frame.pixel))
        return _with_shadow(frame, cover(outline, frame.pixel), paint, outline)

    return draw


_BLACK, _TAN, _RED = _small((0.16, 0.16, 0.17)), _small((0.62, 0.50, 0.36)), _small((0.72, 0.16, 0.12))
_PLACES: Sequence[tuple[float, float, float, Callable[[Frame], tuple[Array, Array]]]] = (
    (-0.48, -0.36, 0.0, _chip),
    (0.46, 0.34, np.pi / 2, _chip),
    (0.14, -0.62, 0.0, _TAN),
    (0.56, -0.62, 0.0, _TAN),
    (0.56, -0.30, 0.0, _RED),
    (-0.62, 0.36, np.pi / 2, _BLACK),
    (-0.34, 0.36, np.pi / 2, _BLACK),
    (-0.48, 0.68, 0.0, _TAN),
)
_TRACES: Sequence[Sequence[tuple[float, float]]] = (
    [(-0.22, -0.52), (-0.06, -0.52), (0.04, -0.62), (0.02, -0.62)],
    [(-0.22, -0.36), (0.10, -0.36), (0.16, -0.30), (0.44, -0.30)],
    [(-0.22, -0.20), (0.00, -0.20), (0.26, 0.06)],
    [(0.42, 0.06), (0.42, -0.10), (0.74, -0.22), (0.74, -0.30)],
    [(-0.48, 0.02), (-0.62, 0.10), (-0.62, 0.24)],
    [(-0.34, 0.24), (-0.34, 0.14), (-0.12, 0.10), (-0.06, 0.20), (0.06, 0.20)],
    [(-0.34, 0.50), (-0.30, 0.68), (0.20, 0.72), (0.46, 0.64)],
    [(0.72, -0.62), (0.82, -0.56), (0.82, 0.34)],
)
_MARKS: Sequence[Sequence[tuple[float, float]]] = (
    [(-0.16, 0.46), (-0.16, 0.36), (-0.09, 0.36), (-0.09, 0.41), (-0.16, 0.41)],
    [(-0.03, 0.36), (-0.03, 0.46), (0.03, 0.46)],
    [(0.07, 0.38), (0.10, 0.36), (0.10, 0.46)],
    [(0.10, -0.50), (0.18, -0.50)],
    [(0.52, -0.50), (0.60, -0.50)],
    [(0.52, -0.18), (0.56, -0.14), (0.60, -0.18)],
    [(-0.80, -0.70), (-0.74, -0.76), (-0.68, -0.70), (-0.74, -0.64), (-0.80, -0.70)],
)


def knob(size: tuple[int, int], rng: np.random.Generator) -> Part:
    """Draw a ribbed control knob on a light panel; its pointer and five printed scale marks are the components."""
    frame = _placed(size, rng, shift=0.025, turn=0.035)
    panel = gray(0.70 + 0.012 * noise(frame, rng, 0.02) + 0.015 * noise(frame, rng, 0.6), (1.0, 0.985, 0.95))
    radius, angle = np.hypot(frame.x, frame.y), np.arctan2(frame.y, frame.x)
    facing = (frame.x * LIGHT[0] + frame.y * LIGHT[1]) / np.maximum(radius, 1e-9)
    grip, dome = disk(frame, 0.66), disk(frame, 0.47)
    shadow = np.clip(1 - np.maximum(disk(frame.at(0.06, 0.08), 0.64), 0) / 0.16, 0, 1)
    image = over(panel, (0.10, 0.09, 0.09), 0.6 * shadow**1.5)
    ribs = 0.16 + 0.05 * np.cos(36 * angle) + 0.10 * facing
    image = over(image, gray(ribs, (1.0, 1.02, 1.08)), cover(grip, frame.pixel))
    lamp = frame.at(-0.16, -0.2)
    gloss = 0.30 * np.exp(-((lamp.x / 0.2) ** 2) - (lamp.y / 0.16) ** 2)
    top = (
        0.24
        + 0.10 * facing * (radius / 0.47)
        + gloss
        + 0.10 * relief(frame, dome, 0.05)
        + 0.008 * noise(frame, rng, 0.015)
    )
    image = over(image, gray(top, (1.0, 1.02, 1.08)), cover(dome, frame.pixel))
    marks = [
        Component(0.83 * np.cos(turn), 0.83 * np.sin(turn), turn, _bar((0.20, 0.20, 0.22), 0.07, 0.018))
        for turn in np.linspace(-np.pi, 0, 5)
    ]
    pointer = Component(0.0, -0.30, np.pi / 2 + rng.normal(0, 0.01), _bar((0.93, 0.91, 0.84), 0.125, 0.028))
    return Part(frame, image, [pointer, *marks], grip)


def _bar(color: Color, half_length: float, half_width: float) -> Callable[[Frame], tuple[Array, Array]]:
    """Return a printed bar."""

    def draw(frame: Frame) -> tuple[Array, Array]:
        coverage = cover(box(frame, half_length, half_width, corner=half_width / 2), frame.pixel)
        return coverage, gray(np.ones_like(coverage), color)

    return draw
