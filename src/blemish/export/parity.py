"""Does the exported graph say what the model says? Eager torch against every installed runtime, image by image.

Scores are compared relative to eager torch's, maps absolutely, since normalised maps lie in [0, 1]. A map that is
clipped everywhere would hide any difference, so each stack of images is compared with the pixel threshold in the middle
of its own raw maps; verdicts on images don't depend on it.

The image that decided the threshold scores exactly the threshold, and one rounding step turns its verdict around. Such
a score, within `ROUNDING` of the threshold, is counted as a tie and not as a flip.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blemish.data.batch import InferenceBatch
from blemish.models.base import AnomalyModule
from blemish.post_processing import PostProcessor
from blemish.runtime.graph_session import GraphBackend

Images = Sequence[npt.NDArray[np.uint8]]

BATCHES = (1, 2, 5)
SCORE_TOLERANCE = 1e-4
MAP_TOLERANCE = 1e-3
ROUNDING = 5e-6
"""Of the threshold: about 40 steps of float32; runtimes differ by up to ten on photographs."""
MAX_STACK = 2**23
"""Pixels of a stack; larger images are compared in smaller batches."""


@dataclass(frozen=True)
class Comparison:
    """One runtime at one batch size against eager torch.

    Attributes:
        runtime, batch: what was compared. images: how many verdicts.
        score: largest difference of raw scores, relative. map: largest difference of normalised maps.
        flips: verdicts that differ. ties: verdicts that differ on a score that is the threshold up to rounding.
    """

    runtime: str
    batch: int
    images: int
    score: float
    map: float
    flips: int
    ties: int

    @property
    def passed(self) -> bool:
        """Whether the runtime gives the model's verdicts; NaN doesn't."""
        return self.score <= SCORE_TOLERANCE and self.map <= MAP_TOLERANCE and not self.flips


@dataclass(frozen=True)
class ParityReport:
    """All comparisons of an export; empty where nothing was translated, that is, for the artifact."""

    rows: tuple[Comparison, ...]

    @property
    def passed(self) -> bool:
        """Whether every runtime gives the model's verdicts."""
        return all(row.passed for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for the file's metadata; differences that aren't numbers are None."""
        tolerance = {"score": SCORE_TOLERANCE, "map": MAP_TOLERANCE, "flips": 0}
        rows = [asdict(row) for row in self.rows]
        finite = [
            {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()} for row in rows
        ]
        return {"tolerance": tolerance, "passed": self.passed, "rows": finite}

    def __str__(self) -> str:
        lines = [f"{'runtime':<14}{'batch':>6}{'images':>8}{'score':>11}{'map':>11}{'flips':>7}{'ties':>6}"]
        for row in self.rows:
            verdict = "" if row.passed else "  refused"
            lines.append(
                f"{row.runtime:<14}{row.batch:>6}{row.images:>8}{row.score:>11.1e}{row.map:>11.1e}{row.flips:>7}"
                f"{row.ties:>6}{verdict}"
            )
        return "\n".join(lines)


def compare(
    model: AnomalyModule,
    runtimes: Mapping[str, GraphBackend],
    images: Images,
    batches: Sequence[int] = BATCHES,
) -> ParityReport:
    """Runs `images` ((H, W, 3) uint8, of any sizes) through the model and every runtime, in every batch size.

    Raises:
        NonFiniteError: if the model itself has no score for an image.
    """
    pairs = {(name, batch): _Differences() for name in runtimes for batch in batches}
    for batch in batches:
        for stack in _stacks(images, batch):
            expected, middle = _reference(model, stack)
            for name, backend in runtimes.items():
                backend.set(pixel_threshold=middle)
                pairs[name, batch].add(backend, expected, stack)
    return ParityReport(tuple(one.summary(*key) for key, one in pairs.items()))


def generated_images(size: tuple[int, int], static: tuple[int, int] | None = None) -> list[npt.NDArray[np.uint8]]:
    """Images that find faults where the user names none: odd sizes, ten times the model's input `size` (h, w), nearly
    black, all white. With a `static` size (H, W), all of that size.
    """
    rng = np.random.default_rng(0)
    height, width = size
    odd, wide, large = (97, 301), (16, 601), (10 * height, 10 * width)
    images = [_smooth_noise(static or one, rng) for one in (size, odd, wide, large)]
    black = rng.integers(0, 2, (*(static or (130, 61)), 3), dtype=np.uint8)
    return [*images, black, np.full((*(static or (75, 50)), 3), 255, dtype=np.uint8)]


def _smooth_noise(size: tuple[int, int], rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Colour patches with a little grain: structure at the scale of features, whatever the size."""
    coarse = rng.integers(0, 256, (9, 9, 3))
    rows, columns = (np.arange(side) * 9 // side for side in size)
    grain = rng.integers(-9, 10, (*size, 3))
    image: npt.NDArray[np.uint8] = np.clip(coarse[rows][:, columns] + grain, 0, 255).astype(np.uint8)
    return image


def _stacks(images: Images, batch: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Neighbours of equal size in stacks of `batch`; a short stack is filled up with shifted copies."""
    waiting: list[npt.NDArray[np.uint8]] = []
    for image in images:
        if batch > 1 and batch * image.shape[0] * image.shape[1] > MAX_STACK:
            continue
        if waiting and waiting[0].shape != image.shape:
            yield _filled(waiting, batch)
            waiting = []
        waiting.append(image)
        if len(waiting) == batch:
            yield np.stack(waiting)
            waiting = []
    if waiting:
        yield _filled(waiting, batch)


def _filled(images: list[npt.NDArray[np.uint8]], batch: int) -> npt.NDArray[np.uint8]:
    return np.stack(images + [np.roll(images[0], 5 * k, axis=(0, 1)) for k in range(1, batch - len(images) + 1)])


@torch.no_grad()
def _reference(model: AnomalyModule, stack: npt.NDArray[np.uint8]) -> tuple[InferenceBatch, float]:
    """The model's own results, with the pixel threshold in the middle of the raw maps, and that middle."""
    raw: InferenceBatch = model(torch.from_numpy(stack).to(model.device))
    maps = raw.raw_map
    assert isinstance(maps, torch.Tensor)
    low, high = (maps if raw.roi is None else maps[raw.roi]).aminmax()  # all are 0 outside
    middle = float((low + high) / 2)
    processor = copy.deepcopy(model.post_processor)
    assert isinstance(processor, PostProcessor)
    processor.get_buffer("_pixel_threshold").fill_(middle)
    return processor(raw), middle


class _Differences:
    """The largest differences of one runtime at one batch size, so far."""

    def __init__(self) -> None:
        self.images = self.flips = self.ties = 0
        self.score = self.map = 0.0

    def add(self, backend: GraphBackend, expected: InferenceBatch, stack: npt.NDArray[np.uint8]) -> None:
        got = backend.run(stack)
        want = {name: getattr(expected, name).cpu().numpy() for name in ("raw_score", "pred_label", "anomaly_map")}
        scale = np.maximum(np.abs(want["raw_score"]), np.finfo(np.float32).tiny)
        self.score = _worse(self.score, np.abs(got.raw_score - want["raw_score"]) / scale)
        self.map = _worse(self.map, np.abs(got.anomaly_map - want["anomaly_map"]))
        threshold = backend.threshold
        other = got.pred_label != want["pred_label"]
        close = np.abs(want["raw_score"] - threshold) <= ROUNDING * abs(threshold)
        self.images += len(stack)
        self.flips += int((other & ~close).sum())
        self.ties += int((other & close).sum())

    def summary(self, runtime: str, batch: int) -> Comparison:
        return Comparison(runtime, batch, self.images, self.score, self.map, self.flips, self.ties)


def _worse(so_far: float, differences: Iterable[Any]) -> float:
    return float(np.fmax(so_far, np.max(np.nan_to_num(np.asarray(differences), nan=np.inf))))
