"""The verdict on one image, for programs and for people: numbers, pictures, a row of a table.

A `Result` draws itself: it knows its image, its thresholds and the region of interest. NumPy and Pillow only; pandas
and supervision are used where they are installed, and required by nothing.
"""

from __future__ import annotations

import base64
import html
import io
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.image_io import write_png
from blemish.data.roi import stretched
from blemish.errors import BlemishError, UsageError
from blemish.escaping import as_utf8
from blemish.extras import require
from blemish.functional.outlines import fill
from blemish.functional.pixels import to_uint8
from blemish.functional.regions import Region
from blemish.post_processing.decision import Decision

Picture = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]

LARGEST = 3.4028234663852886e38
"""Of float32: stands for an infinite threshold, which JSON doesn't have."""


class Maps:
    """What was found in one image, and where; see `Result`.

    Args:
        anomaly_map: (H, W) float32 in [0, 1], or a function that makes it when it is asked for first: a program that
            acts on verdicts and regions never asks.
        mask: (H, W) bool.
        regions: of the mask.

    Attributes:
        mask, regions: the same.
    """

    def __init__(
        self,
        anomaly_map: npt.NDArray[np.float32] | Callable[[], npt.NDArray[np.float32]],
        mask: Mask,
        regions: tuple[Region, ...],
    ) -> None:
        self._map, self.mask, self.regions = anomaly_map, mask, regions

    @property
    def anomaly_map(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 in [0, 1]."""
        if callable(self._map):
            self._map = self._map()
        return self._map


@dataclass(frozen=True, repr=False)
class Result:
    """The verdict on one image.

    Attributes:
        path: where it came from; "" if it never was a file.
        label: "normal" or "anomalous".
        raw_score: the detector's own score, unbounded; the label is `raw_score >= threshold`.
        score: the score normalized to [0, 1], for people.
        threshold: raw threshold at the current sensitivity.
        size: (H, W) of the image.
        maps: `anomaly_map`, `mask` and `regions`; None where the verdict alone was wanted, see `blemish.runtime.load`.
        seconds: time for reading and for inspecting (an equal share of its stack).
        image: (H, W, 3) RGB as it was inspected, uint8 or float32 in [0, 1].
        decision: how it was decided.
        roi: (H', W') bool, the model's region of interest; None for everything.
    """

    path: str
    label: Literal["normal", "anomalous"]
    raw_score: float
    score: float
    threshold: float
    size: tuple[int, int]
    maps: Maps | None
    seconds: dict[str, float]
    image: npt.NDArray[Any] | None = field(default=None, compare=False)
    decision: Decision | None = field(default=None, compare=False)
    roi: Mask | None = field(default=None, compare=False)

    @property
    def anomaly_map(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 in [0, 1], in the pixels of the image. UsageError for a verdict alone."""
        return self._maps.anomaly_map

    @property
    def mask(self) -> Mask:
        """(H, W) bool, True on anomalous pixels. UsageError for a verdict alone."""
        return self._maps.mask

    @property
    def regions(self) -> tuple[Region, ...]:
        """One for each connected part of the mask, worst first: what reaches three quarters of its peak (see
        `blemish.functional.regions.cores`); box, area and peak in pixels of the image. UsageError for a verdict alone.
        """
        return self._maps.regions

    @property
    def is_anomalous(self) -> bool:
        """Whether the label is "anomalous"."""
        return self.label == "anomalous"

    @property
    def note(self) -> str:
        """What a reader might not expect: that an anomalous image has no marks. "" otherwise."""
        if not self.is_anomalous or self.maps is None or self.maps.mask.any():
            return ""
        from blemish.visualization.caption import NOTHING_MARKED

        return f"anomalous, {NOTHING_MARKED}"

    @property
    def pixel_threshold(self) -> float:
        """The normalized map value from which a pixel is marked."""
        return 0.5 if self.decision is None else self.decision.pixel.cut

    def overlay(self, *, gt_mask: npt.ArrayLike | None = None, opacity: float = 0.6, caption: bool = True) -> Picture:
        """The image with what is over the pixel threshold in color, outlines, boxes and the verdict.

        Args:
            gt_mask: (H, W) true mask, outlined in another color.
            opacity: of the colors, in [0, 1].
            caption: add a strip with verdict, color bar and legend.

        Returns:
            (H + strip, W or more, 3) uint8 RGB.

        Raises:
            UsageError: for a result without its image, or without maps.
        """
        from blemish.visualization import overlay  # fonts and drawing: most processes that judge draw nothing

        return overlay(
            self._photo(),
            self.anomaly_map,
            threshold=self.pixel_threshold,
            mask=self.mask,
            regions=self.regions,
            gt_mask=gt_mask,
            opacity=opacity,
            caption=caption,
            **self._verdict(),
        )

    def heatmap(self, *, gt_mask: npt.ArrayLike | None = None, caption: bool = True) -> Picture:
        """The whole map in color, below the threshold as well; see `blemish.visualization.heatmap.heatmap`."""
        from blemish.visualization.heatmap import heatmap

        return heatmap(
            self.anomaly_map,
            threshold=self.pixel_threshold,
            ticks=self._ticks(),
            gt_mask=gt_mask,
            caption=caption,
            **self._verdict(),
        )

    def panel(self, *, gt_mask: npt.ArrayLike | None = None) -> Picture:
        """Photo, heat map, overlay and truth, where it is given, side by side."""
        from blemish.visualization.heatmap import panel

        return panel(
            self._photo(),
            self.anomaly_map,
            threshold=self.pixel_threshold,
            ticks=self._ticks(),
            mask=self.mask,
            regions=self.regions,
            gt_mask=gt_mask,
            **self._verdict(),
        )

    def picture(self, kind: str) -> npt.NDArray[Any]:
        """One of `PICTURES`.

        Raises:
            UsageError: for another kind, or a result without its image, or without maps.
        """
        if kind not in PICTURES:
            raise UsageError(f"A picture is one of {', '.join(PICTURES)}. Got {kind!r}.")
        return PICTURES[kind](self)

    def save(self, path: str | os.PathLike[str], kind: str = "overlay") -> Path:
        """Writes one of `PICTURES` as PNG; parents are created, an existing file is replaced.

        Raises:
            UsageError: for another kind or suffix. OutputError: if it can't be written.
        """
        if Path(path).suffix.lower() != ".png":
            raise UsageError(f"A picture is written as .png. Got {os.fspath(path)!r}.")
        write_png(path, self.picture(kind))
        return Path(path)

    def show(self, kind: str = "panel") -> None:
        """Opens one of `PICTURES` in the system's viewer. In a notebook the result itself is a picture."""
        picture = self.picture(kind)
        Image.fromarray(picture if picture.dtype == np.uint8 else to_uint8(picture.astype(np.float32))).show()

    def to_dict(self, mm_per_pixel: float | None = None) -> dict[str, Any]:
        """Numbers, text and lists, ready for JSON: the columns of `blemish.predictions.rows` but for the model. Regions
        of a verdict alone are None.

        Args:
            mm_per_pixel: side of a pixel in millimetres, for areas in square millimetres; None leaves them out.
        """
        return {
            "path": as_utf8(self.path),
            "label": self.label,
            "raw_score": self.raw_score,
            "score": self.score,
            "threshold": max(self.threshold, -LARGEST),
            "pixel_threshold": self.pixel_threshold,
            "height": self.size[0],
            "width": self.size[1],
            "seconds": round(sum(self.seconds.values()), 6),
            "regions": self.maps and [region.to_dict(mm_per_pixel) for region in self.maps.regions],
        }

    def to_detections(self) -> Any:
        """The regions as `supervision.Detections`: boxes, masks, peaks as confidence, class 0 called "defect".

        Raises:
            ModuleNotFoundError: if supervision isn't installed.
        """
        import supervision

        if not self.regions:
            return supervision.Detections.empty()
        masks = np.zeros((len(self.regions), *self.mask.shape), dtype=bool)
        for mask, region in zip(masks, self.regions, strict=True):
            mask[:] = fill(region.polygon, self.mask.shape)
        return supervision.Detections(
            xyxy=np.array([region.box for region in self.regions], dtype=np.float32),
            mask=masks,
            confidence=np.array([region.peak_score for region in self.regions], dtype=np.float32),
            class_id=np.zeros(len(self.regions), dtype=int),
            data={"class_name": np.array(["defect"] * len(self.regions))},
        )

    def __repr__(self) -> str:
        height, width = self.size
        verdict = f"{self.label}, score {self.raw_score:.4g} (threshold {self.threshold:.4g})"
        if self.maps is not None:
            verdict += f", {len(self.regions)} region" + ("" if len(self.regions) == 1 else "s")
        return f"<Result {self.path!r} {height} x {width}: {verdict}>"

    def _repr_html_(self) -> str:
        """For notebooks: the panel, with the name below."""
        name = html.escape(as_utf8(self.path) or "an image without a name")
        if self.image is None or self.maps is None:
            return f"<code>{html.escape(repr(self))}</code>"
        encoded = io.BytesIO()
        Image.fromarray(self.panel()).save(encoded, "PNG")
        data = base64.b64encode(encoded.getvalue()).decode()
        return (
            f'<figure style="margin:0"><img style="max-width:100%" alt="{self.label}" '
            f'src="data:image/png;base64,{data}">'
            f"<figcaption>{name}: {html.escape(self.label)}</figcaption></figure>"
        )

    @property
    def _maps(self) -> Maps:
        if self.maps is None:
            raise UsageError(
                "This is a verdict alone, without map, mask and regions. Load the model without verdict_only for them."
            )
        return self.maps

    def _photo(self) -> Picture:
        if self.image is None:
            raise UsageError("This result doesn't hold its image, so nothing can be drawn. Take one from a session.")
        return to_uint8(self.image)

    def _verdict(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "score": self.raw_score,  # the verdict was taken on it, and it isn't cut off at 1
            "score_threshold": self.threshold,
            "roi": None if self.roi is None else stretched(self.roi, self.size),
        }

    def _ticks(self) -> list[tuple[float, str]]:
        """Raw numbers on the scale of the map: the threshold, its ends, and about where the peaks of good images lie:
        the record holds their scores, which are taken in proportion to the two thresholds.
        """
        if self.decision is None:
            return [(self.pixel_threshold, f"{self.pixel_threshold:.2f}"), (0.0, "0"), (1.0, "1")]
        pixel, image, record = self.decision.pixel, self.decision.image, self.decision.record
        span = pixel.high - pixel.low
        low, high = (pixel.threshold + (end - 0.5) * span for end in (0.0, 1.0))
        ticks = [(pixel.cut, f"threshold {pixel.effective_threshold:.3g}"), (0.0, f"{low:.3g}"), (1.0, f"{high:.3g}")]
        if record is not None and record.scores and image.threshold > 0 and span > 0:
            good = median(record.scores) / image.threshold * pixel.threshold
            place = float(pixel.normalize(good))
            ticks += [(place, f"good ~{good:.3g}")] if 0 < place < pixel.cut else []
        return ticks


PICTURES: dict[str, Callable[[Result], npt.NDArray[Any]]] = {
    "overlay": lambda result: result.overlay(),
    "heatmap": lambda result: result.heatmap(),
    "panel": lambda result: result.panel(),
    "mask": lambda result: result.mask,
    "map": lambda result: np.rint(result.anomaly_map * 65535).astype(np.uint16),
}
"""Pictures of a result. "map" is for programs, 16 bits, normalized value times 65535; "heatmap" is for people."""


@dataclass(frozen=True)
class Failure:
    """An image without a verdict, and why. Never to be counted as normal. `error` is what a single call raises."""

    path: str
    reason: str
    error: BlemishError = field(repr=False, compare=False)


def to_dataframe(results: Iterable[Result | Failure], mm_per_pixel: float | None = None) -> Any:
    """A `pandas.DataFrame` with a row for each result, columns as `Result.to_dict`; of failures only path and "error".

    Raises:
        MissingExtraError: without pandas.
    """
    pandas = require("pandas")
    return pandas.DataFrame.from_records(
        [
            {"path": one.path, "error": one.reason} if isinstance(one, Failure) else one.to_dict(mm_per_pixel)
            for one in results
        ]
    )
