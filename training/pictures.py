"""Pictures from formulas: products that look alike without being equal, for training a backbone nobody has to license.

A product is drawn from a seed: a family (noise, cells, weave, dead leaves, fractal, print, relief, part, ...) with its
parameters fixed. Each picture of it draws what may differ between two good parts: the noise, small shifts and turns,
light and sensor. Families are combined: one gives the height that another one is shaded by, or the material of a part.

Arrays are float32 (side, side, 3) in [0, 1] inside this module; `picture` returns uint8.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

Array = npt.NDArray[np.float32]
Rng = np.random.Generator
Field = Callable[[Rng, int], Array]
"""Draws one (side, side) field of mean 0 and deviation 1; what it draws next differs, but is alike."""
Painter = Callable[[Rng, int], Array]
"""Draws one (side, side, 3) picture in [0, 1]."""

MARGIN = 1e-6


# --------------------------------------------------------------------------------------------------------------- tools


def _standard(field: npt.NDArray[np.floating]) -> Array:
    field = field - field.mean()
    return (field / (field.std() + MARGIN)).astype(np.float32)


def _unit(field: npt.NDArray[np.floating]) -> Array:
    low, high = np.percentile(field, (1, 99))
    return np.clip((field - low) / (high - low + MARGIN), 0, 1).astype(np.float32)


def _grid(side: int) -> tuple[Array, Array]:
    axis = np.arange(side, dtype=np.float32)
    return np.meshgrid(axis, axis, indexing="ij")  # type: ignore[return-value]


def _frequencies(side: int, angle: float, stretch: float) -> npt.NDArray[np.floating]:
    v, u = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    along, across = u * np.cos(angle) + v * np.sin(angle), v * np.cos(angle) - u * np.sin(angle)
    return np.sqrt((along * stretch) ** 2 + (across / stretch) ** 2)


def _filtered(rng: Rng, side: int, gain: npt.NDArray[np.floating]) -> Array:
    noise = np.fft.rfft2(rng.standard_normal((side, side)))
    return _standard(np.fft.irfft2(noise * gain, s=(side, side)))


def _sample(image: Array, y: Array, x: Array) -> Array:
    return cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _smooth_noise(rng: Rng, side: int, scale: float) -> Array:
    """Noise whose structures are about `scale` pixels wide."""
    small = max(3, round(side / scale) + 2)
    return _standard(cv2.resize(rng.standard_normal((small, small)).astype(np.float32), (side, side), interpolation=2))


def _palette(rng: Rng, colors: int) -> Array:
    """(colors, 3): gray in two cases of five, else around one hue, else anything."""
    kind = rng.random()
    light = np.sort(rng.uniform(0.05, 0.95, colors)) if rng.random() < 0.7 else rng.uniform(0.05, 0.95, colors)
    if light.max() - light.min() < 0.15:
        light = np.clip(light + np.linspace(-0.15, 0.15, colors), 0.03, 0.97)
    gray = np.repeat(light[:, None], 3, axis=1)
    if kind < 0.4:
        return gray.astype(np.float32)
    tint = rng.uniform(0.4, 1.0, 3)
    if kind < 0.75:
        return np.clip(gray * tint + rng.normal(0, 0.04, (colors, 3)), 0, 1).astype(np.float32)
    return rng.uniform(0.02, 0.98, (colors, 3)).astype(np.float32)


def _ramp(colors: Array, values: Array) -> Array:
    """Values in [0, 1] to colors, linear between the entries of a palette."""
    stops = np.linspace(0, 1, len(colors))
    return np.stack([np.interp(values, stops, colors[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def _mix(below: Array, above: Array, coverage: Array) -> Array:
    return below + (above - below) * coverage[..., None]


# -------------------------------------------------------------------------------------------------------------- fields


def spectral(rng: Rng) -> Field:
    """Noise with a power-law spectrum, stretched along one direction: clouds, grain, brushed metal, wood."""
    exponent, angle = rng.uniform(0.3, 2.2), rng.uniform(0, np.pi)
    stretch = rng.choice([1.0, rng.uniform(1.2, 3), rng.uniform(3, 8)])
    cut = rng.uniform(0.1, 0.7)
    bend = rng.choice([0.0, 0.0, rng.uniform(1, 6)])

    def field(rng: Rng, side: int) -> Array:
        radius = _frequencies(side, angle, stretch)
        noise = _filtered(rng, side, (radius + 1 / side) ** -exponent * np.exp(-((radius / cut) ** 2)))
        return _standard(np.sin(bend * noise)) if bend else noise

    return field


def turing(rng: Rng) -> Field:
    """Spots and stripes that a reaction-diffusion system settles at: band-passed noise, saturated several times."""
    center, width = rng.uniform(0.03, 0.16), rng.uniform(0.2, 0.6)
    angle, stretch = rng.uniform(0, np.pi), rng.choice([1.0, 1.0, 1.7])
    push, offset = rng.uniform(1, 4), rng.normal(0, 0.5)
    steps = int(rng.integers(3, 7))

    def field(rng: Rng, side: int) -> Array:
        gain = np.exp(-(np.log((_frequencies(side, angle, stretch) + 1e-4) / center) ** 2) / (2 * width**2))
        u = _filtered(rng, side, gain)
        for _ in range(steps):
            u = _standard(np.fft.irfft2(np.fft.rfft2(np.tanh(push * u + offset)) * gain, s=(side, side)))
        return _standard(np.tanh(push * u + offset))

    return field


def cells(rng: Rng) -> Field:
    """Worley cells: distance to the nearest point, the border between two, or a value per cell."""
    pitch, jitter, kind = rng.uniform(7, 32), rng.uniform(0.05, 0.7), int(rng.integers(3))
    aspect, angle = rng.choice([1.0, rng.uniform(1, 2.5)]), rng.uniform(0, np.pi)

    def field(rng: Rng, side: int) -> Array:
        reach = int(side * 0.75 / pitch) + 2
        lattice = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
        lattice = (lattice + np.stack([np.zeros(len(lattice)), 0.5 * (lattice[:, 0] % 2)], 1)) * pitch
        points = lattice + rng.uniform(-0.5, 0.5, lattice.shape) * pitch * jitter * 1.5 + rng.uniform(0, pitch, 2)
        y, x = _grid(side)
        y, x = y - side / 2, x - side / 2
        y, x = (y * np.cos(angle) + x * np.sin(angle)) * aspect, (x * np.cos(angle) - y * np.sin(angle))
        near, index = cKDTree(points).query(np.stack([y.ravel(), x.ravel()], 1), k=2)
        first, second = near[:, 0].reshape(side, side), near[:, 1].reshape(side, side)
        if kind == 0:
            return _standard(first)
        if kind == 1:
            return _standard(np.minimum(second - first, pitch * 0.25))
        values = rng.standard_normal(len(points))
        return _standard(values[index[:, 0]].reshape(side, side) + 2 * np.minimum((second - first) / pitch, 0.1))

    return field


def weave(rng: Rng) -> Field:
    """Regular patterns: plain and twill weaves, meshes, bricks, gratings, dots; with uneven threads."""
    kind, pitch, angle = int(rng.integers(6)), rng.uniform(5, 22), rng.choice([0.0, rng.uniform(0, np.pi)])
    aspect, shift = rng.uniform(0.5, 2), int(rng.integers(1, 4))
    power, wobble, uneven = rng.uniform(0.3, 3), rng.uniform(0, 0.8), rng.uniform(0, 0.4)
    joint = rng.uniform(0.06, 0.2)

    def field(rng: Rng, side: int) -> Array:
        y, x = _grid(side)
        y, x = y + wobble * _smooth_noise(rng, side, 3 * pitch), x + wobble * _smooth_noise(rng, side, 3 * pitch)
        turn = angle + rng.normal(0, 0.02)
        v = (y * np.cos(turn) + x * np.sin(turn)) / pitch + rng.random()
        u = (x * np.cos(turn) - y * np.sin(turn)) / (pitch * aspect) + rng.random()
        row, column = np.floor(v).astype(int), np.floor(u).astype(int)
        fv, fu = v - row, u - column
        if kind == 0:  # warp over weft
            over = ((row + shift * column) % (shift + 1)) == 0
            out = np.where(over, np.sin(np.pi * fu), np.sin(np.pi * fv) * 0.8) ** power
        elif kind == 1:  # mesh
            out = -((np.maximum(np.cos(2 * np.pi * v), np.cos(2 * np.pi * u)) * 0.5 + 0.5) ** (power + 1))
        elif kind == 2:  # bricks
            fu = (u + 0.5 * (row % 2)) % 1
            column = np.floor(u + 0.5 * (row % 2)).astype(int)
            out = ((fu > joint) & (fv > joint * aspect)).astype(np.float32) * 2
        elif kind == 3:  # grating
            out = np.sign(np.sin(2 * np.pi * v)) * np.abs(np.sin(2 * np.pi * v)) ** (1 / power)
        elif kind == 4:  # dots
            fu = (u + 0.5 * (row % 2)) % 1
            out = -np.tanh(8 * (np.hypot(fv - 0.5, fu - 0.5) - 0.15 - 0.1 * min(power, 2)))
        else:  # two gratings
            out = np.sin(2 * np.pi * v) + np.sin(2 * np.pi * (u + shift * v))
        table = rng.standard_normal((64, 64))
        return _standard(_standard(out) + uneven * table[row % 64, column % 64])

    return field


def convolved(rng: Rng) -> Field:
    """A random two-layer convolution programme on noise."""
    sizes, inner = rng.choice([3, 5, 7, 9], 2), int(rng.integers(2, 6))
    first = rng.standard_normal((inner, sizes[0], sizes[0])).astype(np.float32)
    second = rng.standard_normal((inner, sizes[1], sizes[1])).astype(np.float32)
    bend, coarse = int(rng.integers(4)), rng.choice([1.0, 1.0, 2.0, 3.0])

    def field(rng: Rng, side: int) -> Array:
        small = int(np.ceil(side / coarse))
        noise = rng.standard_normal((small, small)).astype(np.float32)
        out = np.zeros_like(noise)
        for one, two in zip(first, second, strict=True):
            layer = _standard(cv2.filter2D(noise, -1, one, borderType=cv2.BORDER_REFLECT))
            layer = (np.tanh(3 * layer), np.abs(layer), np.sin(3 * layer), np.maximum(layer, 0))[bend]
            out += cv2.filter2D(layer, -1, two, borderType=cv2.BORDER_REFLECT)
        return _standard(cv2.resize(out, (side, side), interpolation=cv2.INTER_CUBIC))

    return field


def fractal(rng: Rng) -> Field:
    """The density of an iterated function system, turned and scaled a little from picture to picture."""
    while True:
        maps = int(rng.integers(2, 6))
        matrices = rng.uniform(-1, 1, (maps, 2, 2))
        singular = np.linalg.svd(matrices, compute_uv=False)
        matrices *= (rng.uniform(0.4, 0.85, maps) / singular[:, 0])[:, None, None]
        offsets = rng.uniform(-1, 1, (maps, 2))
        points = np.zeros((500, 2))
        for _ in range(30):
            pick = rng.integers(maps, size=len(points))
            points = np.einsum("nij,nj->ni", matrices[pick], points) + offsets[pick]
        spread = np.ptp(points, axis=0)
        if spread.min() > 0.2:
            break
    center = (points.max(0) + points.min(0)) / 2
    grain, gamma = rng.uniform(0.5, 1.5), rng.uniform(0.3, 0.8)

    def field(rng: Rng, side: int) -> Array:
        cloud, density = rng.uniform(-1, 1, (1500, 2)), np.zeros((side, side), np.float32)
        turn, zoom = rng.normal(0, 0.05), side * rng.uniform(0.8, 0.95)
        for step in range(40):
            pick = rng.integers(maps, size=len(cloud))
            cloud = np.einsum("nij,nj->ni", matrices[pick], cloud) + offsets[pick]
            if step >= 10:
                at = (cloud - center) / spread
                y = (at[:, 0] * np.cos(turn) + at[:, 1] * np.sin(turn)) * zoom + side / 2
                x = (at[:, 1] * np.cos(turn) - at[:, 0] * np.sin(turn)) * zoom + side / 2
                inside = (y >= 0) & (y < side) & (x >= 0) & (x < side)
                np.add.at(density, (y[inside].astype(int), x[inside].astype(int)), 1)
        return _standard(cv2.GaussianBlur(density, (0, 0), grain) ** gamma)

    return field


FIELDS = (spectral, spectral, turing, cells, cells, weave, weave, convolved, convolved, fractal)


def _any_field(rng: Rng) -> Field:
    return FIELDS[int(rng.integers(len(FIELDS)))](rng)


# ------------------------------------------------------------------------------------------------------------- painters


def colored(rng: Rng) -> Painter:
    """A field through a palette, with a second, faint one on it."""
    field, grain, colors = _any_field(rng), spectral(rng), _palette(rng, int(rng.integers(2, 5)))
    faint, contrast, steps = rng.uniform(0, 0.15), rng.uniform(0.25, 1.0), rng.choice([0, 0, 0, 2, 3])

    def paint(rng: Rng, side: int) -> Array:
        values = _unit(field(rng, side))
        if steps:
            values = np.round(values * steps) / steps
            values = cv2.GaussianBlur(values.astype(np.float32), (0, 0), 0.7)
        values = 0.5 + (values - 0.5) * contrast
        return _ramp(colors, values + faint * grain(rng, side))

    return paint


def relief(rng: Rng) -> Painter:
    """A field as height, lit from the side: leather, cast and hammered metal, plaster, tissue."""
    height, stain = _any_field(rng), spectral(rng)
    colors, depth, bearing = _palette(rng, 2), rng.uniform(0.6, 5), rng.uniform(0, 2 * np.pi)
    gloss, hardness, blur = rng.choice([0.0, rng.uniform(0.1, 0.7)]), rng.uniform(4, 40), rng.uniform(0.5, 2)

    def paint(rng: Rng, side: int) -> Array:
        surface = cv2.GaussianBlur(height(rng, side), (0, 0), blur) * depth
        return _shade(surface, _ramp(colors, _unit(stain(rng, side))), bearing + rng.normal(0, 0.1), gloss, hardness)

    return paint


def _shade(height: Array, albedo: Array, bearing: float, gloss: float, hardness: float) -> Array:
    """Lambert and Blinn-Phong, light 40 degrees above the horizon, from `bearing`."""
    dy, dx = np.gradient(height)
    normal = np.stack([-dx, -dy, np.ones_like(dx)], -1)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
    light = np.array([0.77 * np.cos(bearing), 0.77 * np.sin(bearing), 0.64])
    half = light + np.array([0, 0, 1])
    diffuse = np.clip(normal @ light, 0, 1)[..., None]
    shine = np.clip(normal @ (half / np.linalg.norm(half)), 0, 1)[..., None] ** hardness
    return np.clip(albedo * (0.3 + 1.0 * diffuse) + gloss * shine, 0, 1).astype(np.float32)


def leaves(rng: Rng) -> Painter:
    """Dead leaves: shapes of power-law sizes that hide each other, each with its color and shading."""
    kinds, count = rng.choice(4, int(rng.integers(1, 3)), replace=False), int(rng.integers(40, 260))
    largest, power, colors = rng.uniform(8, 45), rng.uniform(1.5, 3.5), _palette(rng, int(rng.integers(3, 9)))
    edge, variation, grain = rng.choice([0, 0, 1]), rng.uniform(0, 0.12), spectral(rng)
    faint, ground = rng.uniform(0, 0.08), _ramp(_palette(rng, 2), np.zeros((1, 1), np.float32))[0, 0]

    def paint(rng: Rng, side: int) -> Array:
        image = np.tile(ground, (side, side, 1)).astype(np.float32)
        for _ in range(count):
            radius = min(largest, 2.5 * (1 - rng.random()) ** (-1 / (power - 0.5)) + 0.1 * largest)
            color = np.clip(colors[rng.integers(len(colors))] + rng.normal(0, variation, 3), 0, 1)
            y, x, turn = rng.uniform(-radius, side + radius), rng.uniform(-radius, side + radius), rng.uniform(0, 360)
            outline = _outline(rng, int(rng.choice(kinds)), (x, y), radius, turn)
            cv2.fillPoly(image, [outline], color.tolist(), lineType=cv2.LINE_AA, shift=3)
            if edge:
                cv2.polylines(image, [outline], True, (color * 0.55).tolist(), 1, cv2.LINE_AA, shift=3)
        return np.clip(image + faint * grain(rng, side)[..., None], 0, 1)

    return paint


def _outline(rng: Rng, kind: int, center: tuple[float, float], radius: float, turn: float) -> npt.NDArray[np.int32]:
    """Polygon of an ellipse, rectangle, polygon or blob, in eighths of a pixel."""
    if kind == 1:
        long, short = radius, radius * rng.uniform(0.2, 1)
        points = np.array([[-long, -short], [long, -short], [long, short], [-long, short]])
    else:
        corners = (24, 4, int(rng.integers(3, 7)), 24)[kind]
        angles = np.linspace(0, 2 * np.pi, corners, endpoint=False)
        reach = np.full(corners, radius)
        if kind == 3:
            for wave in range(2, 6):
                reach += radius * rng.normal(0, 0.25 / wave) * np.cos(wave * angles + rng.uniform(0, 2 * np.pi))
        flat = rng.uniform(0.4, 1) if kind == 0 else 1.0
        points = np.stack([reach * np.cos(angles), flat * reach * np.sin(angles)], 1)
    a = np.deg2rad(turn)
    points = points @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) + center
    return np.round(points * 8).astype(np.int32)


def _word(rng: Rng) -> str:
    return "".join(chr(rng.integers(33, 127)) for _ in range(int(rng.integers(1, 9))))


def printed(rng: Rng) -> Painter:
    """Glyphs, lines and pads printed in a fixed layout that sits a little differently on every part."""
    ground, ink = (colored, relief)[int(rng.integers(2))](rng), _palette(rng, 2)[int(rng.integers(2))]
    texts = [_word(rng) for _ in range(int(rng.integers(1, 9)))]
    fonts = rng.integers(0, 8, len(texts))
    places = rng.random((len(texts), 2))
    scales, weights = rng.uniform(0.35, 2.2, len(texts)), rng.integers(1, 4, len(texts))
    lines, marks = rng.random((int(rng.integers(0, 10)), 4)), rng.random((int(rng.integers(0, 14)), 3))
    soft, opacity, ortho = rng.uniform(0.3, 0.9), rng.uniform(0.5, 1), rng.random() < 0.7

    def paint(rng: Rng, side: int) -> Array:
        mask = np.zeros((side, side), np.uint8)
        for text, font, place, scale, weight in zip(texts, fonts, places, scales, weights, strict=True):
            at = (int(place[1] * side * 0.9), int(place[0] * side))
            cv2.putText(mask, text, at, int(font), float(scale), 255, int(weight), cv2.LINE_AA)
        for y0, x0, y1, x1 in lines * side:
            end = ((x1, y0) if abs(x1 - x0) > abs(y1 - y0) else (x0, y1)) if ortho else (x1, y1)
            cv2.line(mask, (int(x0), int(y0)), (int(end[0]), int(end[1])), 255, 1 + int(x0) % 3, cv2.LINE_AA)
        for index, (y, x, size) in enumerate(marks):
            r, at = 2 + 6 * size, (int(x * side), int(y * side))
            if index % 2:
                cv2.circle(mask, at, int(r), 255, -1 if size > 0.5 else 1, cv2.LINE_AA)
            else:
                cv2.rectangle(mask, at, (int(at[0] + 2 * r), int(at[1] + r)), 255, -1 if size > 0.5 else 1)
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), rng.normal(0, 1), rng.normal(1, 0.01))
        turn[:, 2] += rng.normal(0, 1.5, 2)
        mask = cv2.warpAffine(cv2.GaussianBlur(mask.astype(np.float32) / 255, (0, 0), soft), turn, (side, side))
        return _mix(ground(rng, side), np.broadcast_to(ink, (side, side, 3)), np.clip(mask * opacity, 0, 1))

    return paint


def part(rng: Rng) -> Painter:
    """A body with holes, ribs and bosses, of one material, lying on another."""
    plain = (colored, relief, leaves)
    ground, body = plain[int(rng.integers(2))](rng), plain[int(rng.integers(3))](rng)
    flat = np.tile(_palette(rng, 2)[0], (1, 1, 1))
    bare = rng.random() < 0.5
    layout = [
        (
            int(rng.integers(4)),
            rng.uniform(-0.6, 0.6, 2),
            rng.uniform(0.06, 0.28),
            rng.uniform(0, 360),
            rng.choice([-1, 1]),
        )
        for _ in range(int(rng.integers(1, 7)))
    ]
    outline_seed, size, kind = int(rng.integers(2**31)), rng.uniform(0.28, 0.45), int(rng.integers(4))
    bearing, gloss, height = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.5), rng.uniform(1, 4)
    symmetric, rim = rng.random() < 0.4, rng.uniform(1, 4)

    def paint(rng: Rng, side: int) -> Array:
        center = side / 2 + rng.normal(0, 0.01 * side, 2)
        turn = rng.normal(0, 1.5)
        shape = np.random.default_rng(outline_seed)
        silhouette = np.zeros((side, side), np.float32)
        cv2.fillPoly(silhouette, [_outline(shape, kind, tuple(center), size * side, turn)], 1.0, cv2.LINE_AA, 3)
        level = silhouette * 1.0
        for feature, place, reach, angle, sign in layout:
            for mirror in (1, -1) if symmetric else (1,):
                a = np.deg2rad(turn)
                offset = np.array([place[0] * mirror, place[1]]) * size * side
                at = center + offset @ np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
                stamp = np.zeros_like(level)
                outline = _outline(
                    np.random.default_rng(outline_seed + feature), feature, tuple(at), reach * size * side, angle + turn
                )
                cv2.fillPoly(stamp, [outline], 1.0, cv2.LINE_AA, 3)
                level += sign * 0.8 * stamp * silhouette
        material = np.broadcast_to(flat, (side, side, 3)) if bare else body(rng, side)
        surface = cv2.GaussianBlur(level, (0, 0), rim) * height * rim
        lit = _shade(surface, material.astype(np.float32), bearing, gloss, 20)
        below = ground(rng, side) if not bare else np.tile(flat[..., ::-1] * 0.5 + 0.1, (side, side, 1))
        shadow = np.roll(cv2.GaussianBlur(silhouette, (0, 0), 4), (3, 2), (0, 1))
        return np.clip(_mix(below * (1 - 0.4 * shadow[..., None]), lit, silhouette), 0, 1).astype(np.float32)

    return paint


def patchwork(rng: Rng) -> Painter:
    """Two materials that meet along a field's level line or at straight borders."""
    one, two, border = colored(rng), relief(rng), _any_field(rng)
    level, width, straight = rng.normal(0, 0.5), rng.uniform(0.02, 0.3), rng.random() < 0.5
    angle, distance = rng.uniform(0, np.pi), rng.uniform(-0.2, 0.2)

    def paint(rng: Rng, side: int) -> Array:
        if straight:
            y, x = _grid(side)
            a = angle + rng.normal(0, 0.01)
            edge = ((y - side / 2) * np.cos(a) + (x - side / 2) * np.sin(a)) / side - distance + rng.normal(0, 0.01)
            coverage = 1 / (1 + np.exp(-np.clip(edge * side / 0.7, -30, 30)))
        else:
            coverage = 1 / (1 + np.exp(-np.clip((border(rng, side) - level) / width, -30, 30)))
        return _mix(one(rng, side), two(rng, side), coverage.astype(np.float32))

    return paint


PAINTERS: tuple[Callable[[Rng], Painter], ...] = (
    colored, colored, colored, relief, relief, relief, leaves, leaves, printed, part, part, patchwork,
)  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- products


def product(seed: int) -> Painter:
    """The product that a seed stands for."""
    rng = np.random.default_rng([0x9A27, seed])
    return PAINTERS[int(rng.integers(len(PAINTERS)))](rng)


def picture(paint: Painter, seed: tuple[int, int], side: int) -> npt.NDArray[np.uint8]:
    """One photograph of a product: (side, side, 3) uint8, equal for equal arguments.

    Args:
        paint: from `product`.
        seed: of the product and of the picture.
        side: pixels.
    """
    rng = np.random.default_rng([0xF070, *seed])
    return photograph(paint(rng, side), rng, np.random.default_rng([0xCA3E, seed[0]]))


def photograph(scene: Array, rng: Rng, camera: Rng) -> npt.NDArray[np.uint8]:
    """Light, lens, sensor and file of a scene; the camera's own generator gives what is alike in all its pictures."""
    side = scene.shape[0]
    noise, blur = camera.choice([0.0, 0.01, 0.02, 0.04]), camera.choice([0.0, 0.5, 0.9, 1.3])
    uneven = camera.uniform(0, 0.25)
    quality = int(camera.choice([0, 0, 60, 85]))
    y, x = _grid(side)
    bearing = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(bearing) * (y / side - 0.5) + np.sin(bearing) * (x / side - 0.5)) * 2
    scene = scene * (rng.uniform(0.85, 1.15) * (1 + uneven * rng.uniform(0, 1) * slope))[..., None]
    if blur:
        scene = cv2.GaussianBlur(scene, (0, 0), float(blur * rng.uniform(0.8, 1.2)))
    scene = scene + noise * rng.standard_normal((side, side, 3 if camera.random() < 0.5 else 1))
    image = np.round(np.clip(scene, 0, 1) * 255).astype(np.uint8)
    if quality:
        _, data = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        image = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    return image
