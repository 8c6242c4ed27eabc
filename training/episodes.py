"""Episodes: good pictures of a product, and damaged ones of the same product with the truth to the pixel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from defects import plant
from pictures import Array, Rng
from torch import Tensor
from torch.utils.data import IterableDataset

NORMALS, QUERIES = 3, 1


@dataclass
class Episodes:
    """A batch.

    Attributes:
        images: (E, NORMALS + QUERIES, 3, side, side) float32 in [0, 1]; the last QUERIES of each episode are damaged.
        masks: (E, QUERIES, side, side) bool.
        products: (E,) int64.
    """

    images: Tensor
    masks: Tensor
    products: Tensor


class EpisodeStream(IterableDataset[Episodes]):
    """Endless batches of episodes from a pool of pictures; batch i depends on the seed and i alone.

    Args:
        pool: (products, pictures, side, side, 3) uint8.
        episodes: per batch.
        side: of the crops, in pixels.
        seed: of everything drawn here.
        first: number of the first batch, to go on where an earlier stream stopped.
    """

    def __init__(self, pool: npt.NDArray[np.uint8], episodes: int, side: int, seed: int, first: int = 0) -> None:
        self.pool, self.episodes, self.side, self.seed, self.first = pool, episodes, side, seed, first

    def __iter__(self) -> Iterator[Episodes]:
        cv2.setNumThreads(0)
        info = torch.utils.data.get_worker_info()
        number = self.first + (info.id if info else 0)
        while True:
            yield self.batch(number)
            number += info.num_workers if info else 1

    def batch(self, number: int) -> Episodes:
        """The batch of this number."""
        rng = np.random.default_rng([self.seed, number])
        products = rng.choice(len(self.pool), self.episodes, replace=False)
        drawn = [self._episode(rng, int(index)) for index in products]
        images = torch.from_numpy(np.stack([images for images, _ in drawn])).permute(0, 1, 4, 2, 3)
        return Episodes(images, torch.from_numpy(np.stack([masks for _, masks in drawn])), torch.from_numpy(products))

    def _episode(self, rng: Rng, product: int) -> tuple[Array, npt.NDArray[np.bool_]]:
        count, full = NORMALS + QUERIES, self.pool.shape[2]
        chosen = rng.choice(self.pool.shape[1], count, replace=False)
        window = int(rng.uniform(0.55, 1.0) * full)
        corner = rng.integers(0, full - window + 1, 2)
        flip, turn = rng.random() < 0.5, int(rng.integers(4))
        images, masks = [], []
        color = _Color(rng)
        for index, picture in enumerate(chosen):
            top, left = np.clip(corner + rng.integers(-3, 4, 2), 0, full - window)
            image = self._crop(self.pool[product, picture], top, left, window)
            if index >= NORMALS:
                other = self.pool[int(rng.integers(len(self.pool))), int(rng.integers(self.pool.shape[1]))]
                image, mask = plant(image, self._crop(other, 0, 0, full), rng)
                masks.append(np.rot90(mask[:, ::-1] if flip else mask, turn))
            image = color(image, rng)
            images.append(np.rot90(image[:, ::-1] if flip else image, turn))
        return np.stack(images), np.stack(masks)

    def _crop(self, image: npt.NDArray[np.uint8], top: int, left: int, window: int) -> Array:
        crop = np.ascontiguousarray(image[top : top + window, left : left + window])
        return cv2.resize(crop, (self.side, self.side), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


class _Color:
    """Camera settings of an episode; each picture of it deviates a little."""

    def __init__(self, rng: Rng) -> None:
        self.gray = rng.random() < 0.3
        self.order = rng.permutation(3)
        self.invert = rng.random() < 0.1
        self.gain = np.exp(rng.normal(0, 0.2))
        self.contrast = np.exp(rng.normal(0, 0.3))
        self.gamma = np.exp(rng.normal(0, 0.25))
        self.spread = rng.choice([0.0, 0.03, 0.1])
        self.noise = rng.choice([0.0, 0.0, 0.01, 0.03])
        self.blur = rng.choice([0.0, 0.0, 0.0, 0.6, 1.0])

    def __call__(self, image: Array, rng: Rng) -> Array:
        image = image[..., self.order]
        if self.gray:
            image = np.repeat(image @ np.array([[0.299], [0.587], [0.114]], np.float32), 3, axis=-1)
        if self.invert:
            image = 1 - image
        gain = self.gain * np.exp(rng.normal(0, self.spread))
        gamma = self.gamma * np.exp(rng.normal(0, 0.5 * self.spread))
        level = (np.arange(256) / 255 - 0.5) * self.contrast + 0.5
        curve = (np.clip(level * gain, 0, 1) ** gamma).astype(np.float32)
        image = curve[np.round(image * 255).astype(np.uint8)]
        if self.blur:
            image = cv2.GaussianBlur(image.astype(np.float32), (0, 0), self.blur)
        if self.noise:
            image = image + self.noise * rng.standard_normal((*image.shape[:2], 1), np.float32)
        return np.clip(image, 0, 1).astype(np.float32)
