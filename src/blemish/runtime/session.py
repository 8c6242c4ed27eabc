"""From files to results: what every runtime has in common.

A runtime contributes one function, `Backend.run`, from a stack of equally sized images to arrays in their own pixels.
Reading, micro-batching, regions and errors are here, once. Images of a folder have many sizes, and a stack has one:
neighbors of equal size share a stack, others go alone. NumPy and Pillow only.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from blemish.data.explanation import Explanation
from blemish.data.good_images import GoodImages
from blemish.data.image_io import MAX_PIXELS, Reading
from blemish.data.live import Shot
from blemish.errors import DataError, ImageReadError, NonFiniteError, UsageError, one_of
from blemish.post_processing.decision import Decision
from blemish.post_processing.moving import at_rate, at_sensitivity, at_threshold
from blemish.runtime.ahead import ahead
from blemish.runtime.backend import Backend
from blemish.runtime.inputs import CHANNELS, Channels, Frame, Source, each, frames_of, odd_colors, read_source
from blemish.runtime.marks import maps_of
from blemish.runtime.result import Failure as Failure
from blemish.runtime.result import Result as Result

_LOG = logging.getLogger(__name__)

FRAMES = ("refuse", "first", "all")

STACKED = 8
"""How many images are stacked where nobody says."""

STACKED_PIXELS = 2**23
"""How many pixels (H x W, over all images) are inspected at once, unless a single image has more: a bound for memory,
of which a pixel needs some 40 bytes on its way."""


class _Item(NamedTuple):
    path: str
    image: npt.NDArray[Any]
    seconds: float
    odd: str | None  # about its colors

    @property
    def pixels(self) -> int:
        return self.image.size // 3  # channels


class Session:
    """A loaded model that takes images in whatever form they come.

    Args:
        backend: the model in its runtime.
        decision: how to decide; None takes the model's own. A call may bring another.
        batch_size: how many images of equal size are stacked at most, at least 1, and never more than
            `STACKED_PIXELS`. None takes `STACKED`, but 1 for streams, so that every verdict is there before the next
            image is asked for.
        max_pixels: refuse larger images, see `read_image`.
        min_area: connected regions of fewer pixels are not listed, at least 1. Score, verdict, map and mask keep them.
        frames: what happens to a file that holds several pictures: "refuse", which makes it a `Failure`, "first", or
            "all", which gives a result for each.
        channels: of arrays and tensors: "rgb", "bgr" as OpenCV gives them, or "gray" for one channel alone. Files and
            pictures of Pillow say it themselves.
        workers: how many stacks are inspected at once, at least 1, each by a thread, while as many others read what
            comes next. Results and their order don't depend on it. 1 does one after the other, in the calling thread;
            so do streams without a `batch_size`.

    Attributes:
        decision: in force from the next image on; frozen, so that replacing it changes no other session.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        decision: Decision | None = None,
        batch_size: int | None = None,
        max_pixels: int = MAX_PIXELS,
        min_area: int = 1,
        frames: Literal["refuse", "first", "all"] = "refuse",
        channels: Channels = "rgb",
        workers: int = 1,
    ) -> None:
        if channels not in CHANNELS:
            raise UsageError(f"channels must be one of {', '.join(CHANNELS)}. Got {channels!r}.")
        check_options(
            batch_size=STACKED if batch_size is None else batch_size, min_area=min_area, frames=frames, known=FRAMES
        )
        if workers < 1:
            raise UsageError(f"workers must be at least 1. Got {workers}.")
        self.backend = backend
        self.decision = backend.decision if decision is None else decision
        self.batch_size = STACKED if batch_size is None else batch_size
        self.workers = workers
        self._streamed = (1, 1) if batch_size is None else (batch_size, workers)
        self.max_pixels = max_pixels
        self.min_area = min_area
        self.frames = frames
        self.channels = channels
        self._colors_told = False

    def __repr__(self) -> str:
        kind = type(self.backend).__name__.removesuffix("Backend")
        model = "" if self.fingerprint is None else f", model {self.fingerprint[:16]}"
        settings = f"threshold {self.threshold:.4g}, batch_size {self.batch_size}"
        return f"<Session in {kind}: {settings}{model}; call it with images>"

    @property
    def reading(self) -> Reading:
        """How files are read."""
        return Reading(self.max_pixels, 0 if self.frames == "first" else None, self.backend.bit_depth)

    @property
    def threshold(self) -> float:
        """The raw score from which an image is anomalous."""
        return self.decision.image.effective_threshold

    @property
    def pixel_cut(self) -> float:
        """The normalized map value from which a pixel is marked."""
        return self.decision.pixel.cut

    @property
    def settings(self) -> dict[str, float]:
        """Thresholds and sensitivities in force, by the names of `blemish.post_processing.decision.SETTINGS`."""
        return self.decision.settings()

    @property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """The model's region of interest, (H', W') bool over pictures of any size; None for everything."""
        return self.backend.roi

    @property
    def verdict_only(self) -> bool:
        """Whether results have no maps, see `blemish.runtime.load`."""
        return getattr(self.backend, "verdict_only", False)  # backends of one's own need not know

    @property
    def good_images(self) -> GoodImages:
        """The good images that explanations refer to. UsageError for an exported graph, which can't explain."""
        return self.backend.good_images

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the model's file, hexadecimal; None for a model that never was a file."""
        return self.backend.fingerprint

    def __call__(self, images: Source | Iterable[Source], decision: Decision | None = None) -> list[Result]:
        """Verdicts for one image or several, in their order.

        Args:
            images: see `blemish.runtime.inputs.Source`; also a stack (N, H, W, 3) or (N, 3, H, W), or any iterable.
            decision: how to decide about these; None takes the session's.

        Raises:
            ImageReadError: for the first image that can't be read. NonFiniteError: for a score without a meaning.
            UsageError: for an array of another layout or range. DataError: for a size that an exported file can't take.
        """
        results = []
        for batch in self.batches(each(images), decision):
            for result in batch:
                if isinstance(result, Failure):
                    raise result.error
                results.append(result)
        return results

    def explain(self, image: Source | Result, *, count: int = 3) -> Explanation:
        """Good patches beside everything that was found in an image.

        Args:
            image: see `Source`, or the result of one.
            count: how many good patches beside each region, at most.

        Raises:
            UsageError: from an exported graph, which names no good images; for a result without its image, or without
                regions. Others as when it is inspected.
        """
        result = image if isinstance(image, Result) else self(image)[0]
        if result.image is None:
            raise UsageError("This result doesn't hold its image, so it can't be explained. Take one from a session.")
        return self.backend.explain(result.image, result.regions, result.decision or self.decision, count)

    def set_sensitivity(self, image: float | None = None, pixel: float | None = None) -> None:
        """Moves the verdicts of images, or of pixels, or both, from the next call on: raw scores don't change.

        Args:
            image: in [0, 1]; higher calls more anomalous, 0.5 decides at the threshold. None changes nothing.
            pixel: the same for pixels. Where `image` alone is given, the marks follow it in proportion, see
                `blemish.post_processing.moving`.

        Raises:
            UsageError: for a number outside the range.
        """
        self.decision = at_sensitivity(
            self.decision, image, pixel
        )  # one assignment: another thread sees all or nothing

    def set_threshold(self, image: float | None = None, pixel: float | None = None) -> None:
        """Puts thresholds in place of the calibrated ones, from the next call on. What the calibration certified holds
        no longer.

        Args:
            image: raw score from which an image is anomalous; the sensitivity becomes 0.5. None changes nothing.
            pixel: the same for pixels, on the raw map. Where `image` alone is given, that of pixels follows in
                proportion, see `blemish.post_processing.moving`.

        Raises:
            UsageError: for NaN, infinity, and numbers that float32 can't hold.
        """
        self.decision = at_threshold(self.decision, image, pixel)

    def set_rate(self, rate: float) -> None:
        """The threshold that a wanted false-alarm rate asks for, by the calibration scores in the model's record.

        Args:
            rate: in (0, 1), see `blemish.post_processing.moving.at_rate`.

        Raises:
            UsageError: outside, or without those scores. CalibrationError: too few of them for the rate.
        """
        self.decision = at_rate(self.decision, rate)

    def warmup(self, size: tuple[int, int] = (256, 256)) -> float:
        """Runs one black image of `size` (H, W) and returns the seconds it took: a runtime's first run of a size is
        slower than the next ones.
        """
        started = time.perf_counter()
        self.backend.run(np.zeros((1, *size, 3), dtype=np.uint8), self.decision)
        return time.perf_counter() - started

    def stream(self, images: Iterable[Source], decision: Decision | None = None) -> Iterator[Result | Failure]:
        """Verdicts one after the other, in constant memory; an image that can't be inspected gives a `Failure` in its
        place. The next image is asked for when the verdict was given, unless a `batch_size` was.
        """
        return (result for batch in self._batches(images, decision, *self._streamed) for result in batch)

    def batches(self, images: Iterable[Source], decision: Decision | None = None) -> Iterator[list[Result | Failure]]:
        """As `stream`, in lists of what was inspected together. What comes after a batch doesn't depend on what came
        before it: a run that is continued there goes on as it would have. With several `workers`, later images are
        asked for, and decided about, while earlier ones are being inspected.
        """
        return self._batches(images, decision, self.batch_size, self.workers)

    def _batches(
        self, images: Iterable[Source], decision: Decision | None, size: int, workers: int
    ) -> Iterator[list[Result | Failure]]:
        sources = self._each_frame(images)
        if workers == 1:
            for stack in self._stacks(map(self._read, sources), size):
                yield self._inspect(stack, decision)
            return
        pixels = (workers + 1) * STACKED_PIXELS  # of the last image: those that follow are likely as large

        def noting(items: Iterator[_Item | Failure]) -> Iterator[_Item | Failure]:
            nonlocal pixels
            for item in items:
                pixels = pixels if isinstance(item, Failure) else item.pixels
                yield item

        def room(count: int) -> int:  # for images, or for stacks, which have more pixels than allowed only if one has
            return max(1, min(count, (workers + 1) * STACKED_PIXELS // pixels))

        reads = ahead(self._read, sources, workers=workers, most=lambda: room(size * workers))
        stacks = self._stacks(noting(reads), size)
        results = ahead(
            lambda stack: self._inspect(stack, decision), stacks, workers=workers, most=lambda: room(workers + 1)
        )
        with closing(reads), closing(results):
            yield from results

    def _stacks(self, items: Iterator[_Item | Failure], size: int) -> Iterator[list[_Item] | Failure]:
        """Neighbors of equal size together, at most `size` of them; a failure by itself."""
        stack: list[_Item] = []
        for item in items:
            if stack and (isinstance(item, Failure) or not _stackable(stack, item)):
                yield stack
                stack = []
            if isinstance(item, Failure):
                yield item
                continue
            if item.odd is not None and not self._colors_told:
                self._colors_told = True
                _LOG.warning("%s %s (Said once.)", item.path or "An image", item.odd)
            stack.append(item)
            if len(stack) == size:
                yield stack
                stack = []
        if stack:
            yield stack

    def _each_frame(self, images: Iterable[Source]) -> Iterator[Source]:
        for source in images:
            if self.frames == "all" and isinstance(source, (str, os.PathLike)):
                frames = frames_of(source)
                if frames:
                    yield from frames
                    continue
            yield source

    def _read(self, source: Source) -> _Item | Failure:
        started = time.perf_counter()
        named = source.name if isinstance(source, Shot) else str(source) if isinstance(source, Frame) else source
        path = os.fspath(named) if isinstance(named, (str, os.PathLike)) else ""
        try:
            image = read_source(source, self.reading, self.channels)
        except ImageReadError as error:
            return Failure(path, error.reason, error)
        except UsageError as error:  # a torn frame of a camera costs that frame
            return Failure(path, str(error), error)
        color = getattr(self.backend, "color", None)  # backends of one's own need not know
        odd = None if color is None or self._colors_told else odd_colors(image, color)
        return _Item(path, image, time.perf_counter() - started, odd)

    def _inspect(self, stack: list[_Item] | Failure, decision: Decision | None) -> list[Result | Failure]:
        return [stack] if isinstance(stack, Failure) else list(self._inspected(stack, decision))

    def _inspected(self, stack: list[_Item], decision: Decision | None) -> Iterator[Result | Failure]:
        started = time.perf_counter()
        decision = decision or self.decision  # read once: label and threshold of a result belong together
        try:
            images = stack[0].image[None] if len(stack) == 1 else np.stack([item.image for item in stack])
            outputs = self.backend.run(images, decision)
        except (NonFiniteError, DataError) as error:
            if len(stack) > 1:  # one bad image must not take its neighbors along
                for item in stack:
                    yield from self._inspected([item], decision)
            else:
                yield Failure(stack[0].path, str(error), error)
            return
        share = (time.perf_counter() - started) / len(stack)
        for i, item in enumerate(stack):
            yield Result(
                path=item.path,
                label="anomalous" if outputs.pred_label[i] else "normal",
                raw_score=float(outputs.raw_score[i]),
                score=float(outputs.pred_score[i]),
                threshold=decision.image.effective_threshold,
                size=item.image.shape[:2],
                maps=maps_of(outputs, i, decision.pixel, self.roi, min_area=self.min_area),
                seconds={"read": item.seconds, "inspect": share},
                image=item.image,
                decision=decision,
                roi=self.roi,
            )


def check_options(*, batch_size: int, min_area: int, frames: str, known: Sequence[str] = FRAMES[:2]) -> None:
    """Checks arguments of `Session` before there is a model; `known` are the values of `frames`, without "all" where a
    file gets one row. Raises `UsageError`.
    """
    if frames not in known:
        raise UsageError(f"frames must be {one_of(known)}. Got {frames!r}.")
    for name, value in (("batch_size", batch_size), ("min_area", min_area)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1. Got {value}.")


def _stackable(stack: list[_Item], item: _Item) -> bool:
    first, image = stack[0].image, item.image
    return (
        first.shape == image.shape and first.dtype == image.dtype and (len(stack) + 1) * item.pixels <= STACKED_PIXELS
    )
