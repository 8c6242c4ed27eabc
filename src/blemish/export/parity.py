"""Does the exported graph say what the model says? Eager torch against every installed runtime, image by image.

Scores are compared relative to eager torch's, maps absolutely, since normalized maps lie in [0, 1]. A map that is
clipped everywhere would hide any difference, so each stack of images is compared with the pixel threshold in the middle
of its own raw maps; verdicts on images don't depend on it.

The image that decided the threshold scores exactly the threshold, and one rounding step turns its verdict around. Such
a score, within `ROUNDING` of the threshold, is counted as a tie and not as a flip.

Where labels are known, the AUROC of a runtime's scores stands beside that of the model's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blemish.export.report import EXACT, Comparison, Limits, ParityReport
from blemish.metrics import AUROC
from blemish.models.base import Detector
from blemish.post_processing.decision import Decision
from blemish.runtime.backend import Backend
from blemish.runtime.marks import normalized

BATCHES = (1, 2, 5)
ROUNDING = 5e-6
"""Of the threshold: about 40 steps of float32; runtimes differ by up to ten on photographs."""
MAX_STACK = 2**23
"""Pixels of a stack; larger images are compared in smaller batches."""


def compare(
    model: Detector,
    runtimes: Mapping[str, Backend],
    images: Sequence[npt.NDArray[np.uint8]],
    batches: Sequence[int] = BATCHES,
    limits: Limits = EXACT,
    anomalous: Sequence[bool | None] = (),
) -> ParityReport:
    """Runs images through the model and every runtime, in every batch size.

    Args:
        model: the truth.
        runtimes: name -> graph, or another that shall give the same.
        images: (H, W, 3) uint8, of any sizes.
        batches: batch sizes, the smallest first.
        limits: for the report's verdict.
        anomalous: what is known of each image, for AUROCs.

    Raises:
        NonFiniteError: if the model itself has no score for an image.
    """
    pairs = {(name, batch): _Differences() for name in runtimes for batch in batches}
    scores: dict[str, list[float]] = {name: [] for name in ("torch", *runtimes)}
    for batch in batches:
        for stack, count in _stacks(images, batch, MAX_STACK if batch > batches[0] else None):
            expected, decision = _reference(model, stack)
            found = {"torch": expected["raw_score"]}
            for name, backend in runtimes.items():
                found[name] = pairs[name, batch].add(backend, expected, stack, decision)
            if batch == batches[0]:
                for name, values in found.items():
                    scores[name] += values[:count].tolist()
    rows = tuple(one.summary(*key) for key, one in pairs.items())
    return ParityReport(rows, limits, _aurocs(scores, anomalous))


def _aurocs(scores: Mapping[str, Sequence[float]], anomalous: Sequence[bool | None]) -> dict[str, float]:
    known = [i for i, label in enumerate(anomalous) if label is not None]
    labels = torch.tensor([bool(anomalous[i]) for i in known])
    if labels.all() or not labels.any():
        return {}
    figures = {}
    for name, values in scores.items():
        metric = AUROC()
        metric.update(torch.tensor([values[i] for i in known]), labels)
        figures[name] = metric.compute().value
    return {name: value for name, value in figures.items() if value is not None}


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
    """Color patches with a little grain: structure at the scale of features, whatever the size."""
    coarse = rng.integers(0, 256, (9, 9, 3))
    rows, columns = (np.arange(side) * 9 // side for side in size)
    grain = rng.integers(-9, 10, (*size, 3))
    image: npt.NDArray[np.uint8] = np.clip(coarse[rows][:, columns] + grain, 0, 255).astype(np.uint8)
    return image


def _stacks(
    images: Sequence[npt.NDArray[np.uint8]], batch: int, most: int | None
) -> Iterator[tuple[npt.NDArray[np.uint8], int]]:
    """Neighbors of equal size in stacks of `batch`, at `most` so many pixels, and how many there are; a short stack is
    filled up with shifted copies.
    """
    waiting: list[npt.NDArray[np.uint8]] = []
    for image in images:
        if most is not None and batch * image.shape[0] * image.shape[1] > most:
            continue
        if waiting and (waiting[0].shape != image.shape or len(waiting) == batch):
            yield _filled(waiting, batch), len(waiting)
            waiting = []
        waiting.append(image)
    if waiting:
        yield _filled(waiting, batch), len(waiting)


def _filled(images: list[npt.NDArray[np.uint8]], batch: int) -> npt.NDArray[np.uint8]:
    return np.stack(images + [np.roll(images[0], 5 * k, axis=(0, 1)) for k in range(1, batch - len(images) + 1)])


@torch.no_grad()
def _reference(model: Detector, stack: npt.NDArray[np.uint8]) -> tuple[dict[str, npt.NDArray[Any]], Decision]:
    """The model's own results, with the pixel threshold in the middle of the raw maps, and the decision they are by."""
    raw = model.inspect(model.pre_processor(torch.from_numpy(stack).to(model.device)), stack.shape[1:3])
    maps = raw.maps if isinstance(raw.maps, torch.Tensor) else torch.stack(raw.maps)  # (N, H, W): of one size
    inside = maps if raw.roi is None else maps[torch.stack(list(raw.roi))]  # all are 0 outside
    low, high = inside.aminmax()
    decision = model.decider.decision.replace(pixel_threshold=float((low + high) / 2))
    expected = model.decider.with_decision(decision)(raw.batch())
    names = ("raw_score", "pred_label", "anomaly_map")
    return {name: getattr(expected, name).cpu().numpy() for name in names}, decision


class _Differences:
    """The largest differences of one runtime at one batch size, so far."""

    def __init__(self) -> None:
        self.images = self.flips = self.ties = 0
        self.score = self.map = 0.0

    def add(
        self,
        backend: Backend,
        want: Mapping[str, npt.NDArray[Any]],
        stack: npt.NDArray[np.uint8],
        decision: Decision,
    ) -> npt.NDArray[np.float32]:
        """Compares, and returns the runtime's raw scores."""
        got = backend.run(stack, decision)
        maps = got.anomaly_map
        if maps is None:  # from a backend that leaves pixels to sessions
            assert got.raw_map is not None
            maps = np.stack([normalized(raw, decision.pixel, backend.roi) for raw in got.raw_map])
        scale = np.maximum(np.abs(want["raw_score"]), np.finfo(np.float32).tiny)
        self.score = _worse(self.score, np.abs(got.raw_score - want["raw_score"]) / scale)
        self.map = _worse(self.map, np.abs(maps - want["anomaly_map"]))
        threshold = decision.image.effective_threshold
        other = got.pred_label != want["pred_label"]
        close = np.abs(want["raw_score"] - threshold) <= ROUNDING * abs(threshold)
        self.images += len(stack)
        self.flips += int((other & ~close).sum())
        self.ties += int((other & close).sum())
        return got.raw_score

    def summary(self, runtime: str, batch: int) -> Comparison:
        return Comparison(runtime, batch, self.images, self.score, self.map, self.flips, self.ties)


def _worse(so_far: float, differences: Iterable[Any]) -> float:
    return float(np.fmax(so_far, np.max(np.nan_to_num(np.asarray(differences), nan=np.inf))))
