"""Which images show one part? Photographs that are more alike than different parts are.

One part photographed five times gives five images that know each other: a detector that has seen four of them scores
the fifth too low, and a threshold that rests on such scores is too low for the next part. So images that are alike stay
in one fold. They are told by what is left of a small gray picture once its brightness and contrast, and what all images
share, are taken away: the correlation of two such rests is near 0 for different parts and near 1 for one. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32
"""Of the small pictures, in pixels."""
MOST_IMAGES = 5000
"""For more, nothing is compared: the work and the memory grow with the square."""
_LEAST = 0.7
"""Mean correlation from which two clusters are one."""


def small(pixels: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """An image (H, W, 3) of any scale as a small gray picture (SIDE, SIDE), of mean 0 and deviation 1.

    A picture without any contrast is 0 everywhere, and like no other.
    """
    gray = pixels[..., 0].astype(np.float32)  # added by hand: NumPy's mean is slow along an axis of three
    for channel in (1, 2):
        np.add(gray, pixels[..., channel], out=gray)
    values = np.asarray(Image.fromarray(gray / np.float32(3)).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    deviation = float(values.std())
    return (values - values.mean()) / deviation if deviation > 1e-6 else np.zeros_like(values)


def clusters(pictures: Sequence[npt.NDArray[np.float32]]) -> list[int]:
    """Numbers, from 0 in the order of appearance: images of one number show one part, as far as can be told.

    Average linkage (Sokal and Michener 1958) on correlations, by chains of nearest neighbors. A cluster of more than a
    fifth of the images is rather something many share, such as a place in the picture, than one part: it is divided at
    a higher correlation.

    Args:
        pictures: n of `small`.
    """
    count = len(pictures)
    rest = np.stack(pictures).reshape(count, -1)
    rest = rest - rest.mean(axis=0)
    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-6)
    merges = _merges(rest @ rest.T)
    number = _cut(merges, list(range(count)), _LEAST, max(2, count // 5))
    first: dict[int, int] = {}
    return [first.setdefault(label, len(first)) for label in number]


def _merges(alike: npt.NDArray[np.float32]) -> list[tuple[int, int, float]]:
    """All n - 1 merges: two images of the clusters that became one, and the mean correlation between those."""
    count = len(alike)
    size = np.ones(count)
    np.fill_diagonal(alike, -np.inf)
    merges: list[tuple[int, int, float]] = []
    chain: list[int] = []
    left = set(range(count))
    while len(left) > 1:
        if not chain:
            chain = [min(left)]
        one = chain[-1]
        other = int(alike[one].argmax())
        if len(chain) > 1 and alike[one, chain[-2]] >= alike[one, other]:
            other = chain[-2]
        if len(chain) < 2 or other != chain[-2]:
            chain.append(other)
            continue
        del chain[-2:]
        merges.append((one, other, float(alike[one, other])))
        mean = (size[one] * alike[one] + size[other] * alike[other]) / (size[one] + size[other])
        alike[one], alike[:, one] = mean, mean
        alike[other], alike[:, other], alike[one, one] = -np.inf, -np.inf, -np.inf
        size[one] += size[other]
        left.remove(other)
    return merges


def _cut(merges: Sequence[tuple[int, int, float]], members: Sequence[int], least: float, most: int) -> list[int]:
    """A label for each of `members`: merges from `least` on hold, none larger than `most`."""
    root = {member: member for member in members}

    def find(member: int) -> int:
        while root[member] != member:
            member = root[member]
        return member

    for one, other, correlation in merges:
        if correlation >= least and one in root and other in root:
            root[find(other)] = find(one)
    labels = {member: find(member) for member in members}
    if least < 1:
        for label in set(labels.values()):
            crowd = [member for member in members if labels[member] == label]
            if len(crowd) > most:
                labels.update(zip(crowd, _cut(merges, crowd, least + 0.05, most), strict=True))
    return [labels[member] for member in members]
