"""The images of a report that are worth a look, bounded in number and size, and what inspecting them cost.

Which images: the false alarms with the highest scores, the misses with the lowest, the finds with the highest, and
those with the lowest, which were nearly missed. They are chosen from the rows after a test and inspected once more, one
at a time: maps of all images need not be kept meanwhile, and the time each takes is the latency of a single part.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.image_io import AS_DECLARED, Reading, read_mask
from blemish.data.layouts import Sample
from blemish.errors import DataError, ImageReadError
from blemish.functional.pixels import to_uint8
from blemish.progress import Progress, silent, watched
from blemish.report.html_rows import ImageRow
from blemish.runtime.backend import Backend
from blemish.runtime.session import Failure, Result, Session
from blemish.visualization import overlay
from blemish.visualization.caption import MISPLACED
from blemish.visualization.overlay import misplaced

SHOWN = 8
"""Images per group."""
SIDE = 560
"""Longer side of an embedded picture in pixels."""
PROBED = 24
"""Images whose latency is measured."""

NO_VERDICTS = "no verdicts: the model is not calibrated"


@dataclass(frozen=True)
class Shown:
    """One image of the gallery.

    Attributes:
        row: what is known of it.
        photo: data URI; empty where the image can't be read, and `problem` says why.
        overlay: the same with what was predicted; "" where that isn't known.
        heatmap: the same of the whole map, for what asks for an explanation; "" otherwise.
        note: what a reader might not expect, such as marks in the wrong place; "" otherwise.
    """

    row: ImageRow
    photo: str = ""
    overlay: str = ""
    problem: str = ""
    heatmap: str = ""
    note: str = ""


@dataclass(frozen=True)
class Group:
    """Images of one kind of verdict.

    Attributes:
        key: "false_alarms", "misses", "finds" or "near_misses".
        total: how many images of this kind there are; `shown` holds the first few.
        reason: why there are none, if there are none.
    """

    key: str
    total: int
    shown: list[Shown]
    reason: str


@dataclass(frozen=True)
class Speed:
    """Seconds per image; None where they weren't measured.

    Attributes:
        images: how many were measured.
        how: in words.
        median, slow: of inspecting one image; `slow` is the 95th percentile.
        reading: median of reading and decoding a file.
    """

    images: int
    how: str
    median: float | None = None
    slow: float | None = None
    reading: float | None = None

    @classmethod
    def of(cls, inspecting: Sequence[float], reading: Sequence[float], how: str) -> Speed:
        """From seconds per image."""
        if not inspecting:
            return cls(0, how)
        slow, median = float(np.quantile(inspecting, 0.95)), float(np.median(inspecting))
        return cls(len(inspecting), how, median, slow, float(np.median(reading)) if len(reading) else None)


@dataclass
class Gallery:
    """Groups in the order of interest, and the latency of the images behind them.

    Attributes:
        has_maps: whether heat and outlines are drawn, or boxes alone.
    """

    groups: list[Group] = field(default_factory=list)
    speed: Speed = field(default_factory=lambda: Speed(0, NO_VERDICTS))
    has_maps: bool = True


def choose(rows: Sequence[ImageRow], count: int = SHOWN) -> dict[str, tuple[int, list[ImageRow], str]]:
    """Key -> how many images, the first `count` of them, and why there are none if there are none."""
    good, anomalous = [row for row in rows if not row.truth], [row for row in rows if row.truth]
    verdicts = any(row.anomalous is not None for row in rows)
    groups = {
        "false_alarms": (good, [row for row in good if row.anomalous], True, "no good image was called anomalous"),
        "misses": (anomalous, [row for row in anomalous if not row.anomalous], False, "no anomalous image was missed"),
        "finds": (anomalous, [row for row in anomalous if row.anomalous], True, "no anomalous image was found"),
        "near_misses": (anomalous, [row for row in anomalous if row.anomalous], False, "no anomalous image was found"),
    }
    chosen: dict[str, tuple[int, list[ImageRow], str]] = {}
    for key, (base, found, falling, none) in groups.items():
        if not verdicts:
            chosen[key] = (0, [], NO_VERDICTS)
            continue
        found.sort(key=lambda row: row.score, reverse=falling)
        missing = "good" if key == "false_alarms" else "anomalous"
        reason = "" if found else none if base else f"no {missing} test images"
        chosen[key] = (len(found), found[: count // 2 if key == "near_misses" else count], reason)
    return chosen


def from_model(
    rows: Sequence[ImageRow],
    backend: Backend | None,
    *,
    reading: Reading = AS_DECLARED,
    progress: Progress = silent,
) -> Gallery:
    """Inspects the chosen images, and others up to `PROBED`, one at a time.

    Args:
        rows: of the test.
        backend: the model; None if it isn't calibrated.
        reading: how images are read.
        progress: called for each image, in the phase "pictures".
    """
    chosen = choose(rows)
    picked = {row.sample.relative: row for _, some, _ in chosen.values() for row in some}
    if backend is None:
        return Gallery([Group(key, total, [], reason) for key, (total, _, reason) in chosen.items()])
    others = [row for row in rows if row.sample.relative not in picked][: max(0, PROBED - len(picked))]
    session = Session(
        backend, batch_size=1, max_pixels=reading.max_pixels, frames="refuse" if reading.frame is None else "first"
    )
    pictures: dict[str, Shown] = {}
    inspecting, loading = [], []
    for position, row in enumerate(watched([*picked.values(), *others], "pictures", progress)):
        result = next(session.stream([row.sample.path]))
        if isinstance(result, Failure):
            pictures[row.sample.relative] = Shown(row, problem=result.reason)
            continue
        if position == 0:  # a runtime's first run is slower than all that follow
            result = _again(session, row, result)
        inspecting.append(result.seconds["inspect"])
        loading.append(result.seconds["read"])
        if row.sample.relative in picked:
            pictures[row.sample.relative] = _drawn(row, result)
    groups = [
        Group(key, total, [pictures[row.sample.relative] for row in some], reason)
        for key, (total, some, reason) in chosen.items()
    ]
    return Gallery(groups, Speed.of(inspecting, loading, "one image at a time"))


def deciding(sample: Sample, threshold: float, *, reading: Reading = AS_DECLARED) -> Shown:
    """The good image whose score is the threshold. What the finished model says of it would mislead: it may have
    learned from it since.
    """
    row = ImageRow(sample, threshold, None)
    try:
        return Shown(row, data_uri(to_uint8(reading(sample.path))))
    except ImageReadError as error:
        return Shown(row, problem=error.reason)


def from_predictions(rows: Sequence[ImageRow], seconds: Sequence[float], *, reading: Reading = AS_DECLARED) -> Gallery:
    """The chosen images with the boxes that were predicted, and the times that were noted down."""
    groups = []
    for key, (total, some, reason) in choose(rows).items():
        groups.append(Group(key, total, [_with_boxes(row, reading) for row in some], reason))
    speed = Speed.of(seconds, [], "reading and inspecting, noted down when the images were predicted")
    return Gallery(groups, speed, has_maps=False)


def _again(session: Session, row: ImageRow, first: Result) -> Result:
    second = next(session.stream([row.sample.path]))
    return first if isinstance(second, Failure) else second


def _drawn(row: ImageRow, result: Result) -> Shown:
    assert result.image is not None  # a session's result
    photo = to_uint8(result.image)
    truth = _truth(row, photo)
    elsewhere = truth is not None and misplaced(result.mask, truth)
    return Shown(
        row,
        data_uri(photo),
        data_uri(result.overlay(gt_mask=truth, caption=False)),
        heatmap=data_uri(result.heatmap(gt_mask=truth, caption=False)),
        note=MISPLACED if elsewhere else result.note,
    )


def _with_boxes(row: ImageRow, reading: Reading) -> Shown:
    try:
        photo = to_uint8(reading(row.sample.path))
    except ImageReadError as error:
        return Shown(row, problem=error.reason)
    boxed = np.zeros(photo.shape[:2], dtype=bool)
    for x0, y0, x1, y1 in row.boxes:
        boxed[max(y0, 0) : y1, max(x0, 0) : x1] = True
    nothing_hot = np.zeros(photo.shape[:2], np.float32)
    picture = overlay(photo, nothing_hot, threshold=1.0, mask=boxed, gt_mask=_truth(row, photo), caption=False)
    return Shown(row, data_uri(photo), data_uri(picture))


def _truth(row: ImageRow, photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_] | None:
    if row.sample.mask is None:
        return None
    try:
        return read_mask(row.sample.mask, (photo.shape[0], photo.shape[1]))
    except DataError:  # `data check` reports it
        return None


def data_uri(picture: npt.NDArray[np.uint8]) -> str:
    """A picture for a page, its longer side at most `SIDE`."""
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=82, subsampling=0)  # thin colored outlines keep their color
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode()
