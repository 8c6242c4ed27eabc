"""Defects planted into pictures: a shape (where) times a change (what), mostly faint, with the mask of what changed."""

from __future__ import annotations

import cv2
import numpy as np
from pictures import Array, Rng, _outline, _smooth_noise

VISIBLE = 0.05
"""Change of a channel, of a range of 1, from which a pixel counts as changed."""


def _coverage(rng: Rng, side: int) -> Array:
    """(side, side) in [0, 1]: blot, line, dots, bar, cloud or ragged patch; the size is drawn on a log scale."""
    mask = np.zeros((side, side), np.float32)
    y, x = rng.uniform(0.08, 0.92, 2) * side
    radius = float(np.exp(rng.uniform(np.log(1.2), np.log(side / 6))))
    kind = rng.choice(6, p=[0.3, 0.25, 0.1, 0.08, 0.12, 0.15])
    if kind == 0:
        cv2.fillPoly(mask, [_outline(rng, 3, (x, y), radius, 0)], 1.0, cv2.LINE_AA, 3)
    elif kind == 1:  # scratch, crack, hair
        steps, bearing = int(rng.integers(3, 16)), rng.uniform(0, 2 * np.pi)
        turns = np.cumsum(rng.normal(0, rng.choice([0.05, 0.35, 0.9]), steps)) + bearing
        length = rng.uniform(0.1, 0.7) * side / steps
        path = np.cumsum(np.stack([np.cos(turns), np.sin(turns)], 1) * length, 0)
        path = path - path.mean(0) + (x, y)
        width = int(rng.choice([1, 1, 2, 2, 3, 5]))
        cv2.polylines(mask, [np.round(path * 8).astype(np.int32)], False, 1.0, width, cv2.LINE_AA, 3)
    elif kind == 2:
        for _ in range(int(rng.integers(2, 10))):
            at = rng.normal((x, y), side / 12)
            cv2.fillPoly(mask, [_outline(rng, 0, tuple(at), rng.uniform(0.8, 3), 0)], 1.0, cv2.LINE_AA, 3)
    elif kind == 3:
        cv2.fillPoly(mask, [_outline(rng, 1, (x, y), 1.5 * radius, rng.uniform(0, 360))], 1.0, cv2.LINE_AA, 3)
    else:
        v, u = np.mgrid[:side, :side].astype(np.float32)
        bump = np.exp(-((v - y) ** 2 + (u - x) ** 2) / (2 * (1.2 * radius + 2) ** 2))
        noise = _smooth_noise(rng, side, max(3.0, radius))
        mask = np.clip(bump * (1 + 0.6 * noise), 0, 1) if kind == 4 else (bump * (1 + 0.5 * noise) > 0.55) * 1.0
    return cv2.GaussianBlur(mask.astype(np.float32), (0, 0), float(rng.choice([0.4, 0.7, 1.5]))) if kind != 4 else mask


def _changed(rng: Rng, image: Array, donor: Array, coverage: Array) -> Array:
    """The picture with one change everywhere; the coverage decides where it shows."""
    side = image.shape[0]
    kind = rng.choice(10, p=[0.28, 0.1, 0.12, 0.08, 0.06, 0.08, 0.08, 0.08, 0.07, 0.05])
    strength = rng.choice([-1, 1], p=[0.6, 0.4]) * np.exp(rng.uniform(np.log(0.12), np.log(0.9)))
    if kind == 0:  # darker or lighter
        return image * (1 + strength) if rng.random() < 0.6 else image + 0.6 * strength
    if kind == 1:  # a color cast
        return image + rng.uniform(0.1, 0.5) * (rng.uniform(-1, 1, 3) if rng.random() < 0.7 else rng.uniform(-1, 1))
    if kind == 2:  # a hole or foreign matter
        color = rng.uniform(0, 1) * (rng.uniform(0.3, 1, 3) if rng.random() < 0.4 else np.ones(3))
        return color + 0.05 * _smooth_noise(rng, side, 3)[..., None]
    if kind == 3:  # the same surface, elsewhere and turned
        matrix = cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(20, 340), rng.uniform(0.7, 1.4))
        elsewhere = np.roll(image, rng.integers(side, size=2), (0, 1))
        return cv2.warpAffine(elsewhere, matrix, (side, side), borderMode=cv2.BORDER_REFLECT)
    if kind == 4:
        return donor
    if kind == 5:  # worn flat
        return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(2, 6)))
    if kind == 6:  # pushed aside
        v, u = np.mgrid[:side, :side].astype(np.float32)
        reach = rng.uniform(2, 8)
        dv, du = reach * _smooth_noise(rng, side, 12), reach * _smooth_noise(rng, side, 12)
        return cv2.remap(image, u + du, v + dv, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    if kind == 7:  # dent or bump: light on one flank, dark on the other
        height = cv2.GaussianBlur(coverage, (0, 0), float(rng.uniform(1, 4)))
        dy, dx = np.gradient(height / (height.max() + 1e-6))
        a = rng.uniform(0, 2 * np.pi)
        return image * (1 + 5 * rng.uniform(0.4, 2) * (np.cos(a) * dx + np.sin(a) * dy))[..., None]
    if kind == 8:  # rough
        return image + rng.uniform(0.08, 0.3) * _smooth_noise(rng, side, rng.uniform(1, 4))[..., None]
    return image.mean((0, 1)) + (image - image.mean((0, 1))) * rng.choice([0.2, 2.0])  # faded or harsh


def plant(image: Array, donor: Array, rng: Rng) -> tuple[Array, Array]:
    """One or two defects: the damaged picture (side, side, 3) and (side, side) bool where it changed visibly.

    What can't be seen is drawn again, at most eight times; the mask may then be empty.
    """
    damaged, mask = image, np.zeros(image.shape[:2], bool)
    for _ in range(8):
        coverage = _coverage(rng, image.shape[0])
        change = np.clip(_changed(rng, image, donor, coverage), 0, 1)
        share = coverage if rng.random() < 0.6 else coverage * rng.uniform(0.4, 1)
        candidate = image + (change - image) * share[..., None]
        mask = np.abs(candidate - image).max(-1) > VISIBLE
        if 4 <= mask.sum() <= 0.25 * mask.size and np.abs(candidate - image).max() > 2 * VISIBLE:
            damaged = candidate
            break
        mask = np.zeros_like(mask)
    return damaged.astype(np.float32), mask
