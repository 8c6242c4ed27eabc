"""Draws the pictures that training samples from, once, into one memory-mapped array that a second start goes on with.

Drawing costs more than a training step on the same crop: each picture is used many times, cropped, turned, lit and
damaged differently each time.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pictures import picture, product


def _draw(job: tuple[str, int]) -> int:
    path, index = job
    pool = np.lib.format.open_memmap(path, mode="r+")
    paint = product(index)
    for number in range(pool.shape[1]):
        pool[index, number] = picture(paint, (index, number), pool.shape[2])
    pool.flush()
    return index


def open_pool(path: Path, products: int, pictures: int, side: int, processes: int = 2) -> npt.NDArray[np.uint8]:
    """The array (products, pictures, side, side, 3), drawn where it isn't yet; product i is `pictures.product(i)`."""
    shape = (products, pictures, side, side, 3)
    if not path.is_file() or np.load(path, mmap_mode="r").shape != shape:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    pool = np.load(path, mmap_mode="r")
    todo = [index for index in range(products) if not pool[index, -1, ::16, ::16].any()]
    if todo:
        with multiprocessing.get_context("spawn").Pool(processes) as workers:
            for done, _ in enumerate(workers.imap_unordered(_draw, [(str(path), index) for index in todo]), 1):
                if done % 100 == 0 or done == len(todo):
                    print(f"drawn: {done} of {len(todo)} products", flush=True)
    return pool
