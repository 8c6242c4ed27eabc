"""Which good images are unlike the others? A page to look at before a threshold rests on them.

Every good image is scored by a detector that hasn't seen it, as the calibration of a fit does; the highest are shown,
with what makes them so beside the same place in ordinary images. Nothing is left out here: the list that is written
names the odd ones behind "#", and whoever wants them gone takes the sign away.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish._version import __version__
from blemish.engine import Engine
from blemish.extras import require
from blemish.files import write_text
from blemish.functional.pixels import to_uint8
from blemish.post_processing.decision import CalibrationRecord, unlike_others
from blemish.post_processing.summary import calibration_summary, warnings
from blemish.report.html import template
from blemish.report.html_gallery import data_uri
from blemish.visualization.heatmap import heatmap
from blemish.visualization.tradeoff import tradeoff_svg

if TYPE_CHECKING:
    from blemish.data.batch import InferenceBatch
    from blemish.data.datamodule import ImageDataModule
    from blemish.data.index import Sample
    from blemish.models.base import Detector
    from blemish.post_processing.decision import Decision

SHOWN = 16
"""Images with pictures."""
SIDE = 480
"""Longer side of a picture in pixels."""
ZOOM = 0.25
"""Side of what is shown enlarged, as a share of the picture's shorter side."""


class Ranked(NamedTuple):
    """A good image: its name in the data set, its raw score, whether it is unlike the others."""

    name: str
    score: float
    odd: bool


@dataclass(frozen=True)
class Audit:
    """Good images, highest score first.

    Attributes:
        images: all that calibrated.
        record: of the calibration. threshold: raw.
        warnings: see `summary.warnings`.
    """

    images: list[Ranked]
    record: CalibrationRecord
    threshold: float
    warnings: list[str]

    @property
    def odd(self) -> list[Ranked]:
        """Those unlike the others."""
        return [image for image in self.images if image.odd]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {
            "images": [image._asdict() for image in self.images],
            "threshold": self.threshold,
            "threshold_without_odd": self.record.threshold_without([Path(image.name).name for image in self.odd]),
            "planted": len(self.record.planted),
            "planted_found": self.record.found(self.threshold),
            "warnings": self.warnings,
        }


def audit(
    model: Detector, data: ImageDataModule, page: Path, names: Path | None = None, *, engine: Engine | None = None
) -> Audit:
    """Fits, ranks the good images, and writes the page.

    Args:
        model: to be fitted.
        data: the images.
        page: the HTML file to write.
        names: a text file to write for `exclude`; None for none.
        engine: where to compute; None for the usual one.

    Raises:
        MissingExtraError: without jinja2. OutputError: if a file can't be written. Others as `Engine.fit`.
    """
    require("jinja2")
    seen = _Highest()
    (engine or Engine()).fit(model, data, watch=seen)
    decision = model.decider.decision
    assert decision.record is not None  # a fit has calibrated
    record, threshold = decision.record, model.decider.raw_image_threshold
    good = [sample for sample in data.calibration if sample.label is False]
    odd = set(unlike_others(record.scores))
    order = sorted(range(len(good)), key=lambda i: -record.scores[i])
    images = [Ranked(good[i].relative, record.scores[i], i in odd) for i in order]
    found = Audit(images, record, threshold, warnings(record, threshold))
    by_path = {str(sample.path): sample for sample in good}
    middle = len(order) // 2
    ordinary = [good[i] for i in order[middle : middle + 3]]
    ranked = {image.name: image for image in images}
    cards = []
    for one in seen.highest():
        sample = by_path[one.path]
        cards.append(_card(sample, ranked[sample.relative], one.map, ordinary, decision, data))
    text = require("jinja2").Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    rendered = text.from_string(template("audit.html.jinja")).render(
        audit=found,
        cards=cards,
        root=str(data.root),
        names=names,
        summary=calibration_summary(record, threshold),
        tradeoff=tradeoff_svg(record.scores, [defect.score for defect in record.planted], threshold),
        style=template("report.css"),
        version=__version__,
    )
    write_text(page, rendered)
    if names is not None:
        write_text(names, _list(found))
    return found


@dataclass(order=True)
class _Seen:
    score: float
    path: str = field(compare=False)
    map: npt.NDArray[np.float32] = field(compare=False)


class _Highest:
    """Keeps the maps of the images with the highest scores, small."""

    def __init__(self) -> None:
        self._kept: list[_Seen] = []

    def __call__(self, batch: InferenceBatch) -> None:
        assert batch.pred_score is not None  # a raw prediction with labels
        assert batch.anomaly_map is not None
        assert batch.gt_label is not None
        for i, (score, bad) in enumerate(zip(batch.pred_score.tolist(), batch.gt_label.tolist(), strict=True)):
            if bad or (len(self._kept) == SHOWN and score <= self._kept[0].score):
                continue
            one = _Seen(score, batch.path[i], _small(batch.anomaly_map[i].cpu().numpy()))
            (heapq.heappush if len(self._kept) < SHOWN else heapq.heappushpop)(self._kept, one)

    def highest(self) -> list[_Seen]:
        return sorted(self._kept, key=lambda one: -one.score)


def _card(
    sample: Sample,
    image: Ranked,
    values: npt.NDArray[np.float32],
    ordinary: Sequence[Sample],
    decision: Decision,
    data: ImageDataModule,
) -> dict[str, Any]:
    """Pictures of one image: itself, its heat, the hottest place enlarged, and that place in ordinary images."""
    photo = _fitted(to_uint8(data.pixels(sample)), values.shape)
    heat = heatmap(decision.pixel.normalize(values), threshold=decision.pixel.cut, caption=False)  # mostly below it
    place = np.unravel_index(int(values.argmax()), values.shape)
    where = tuple(float(at) / side for at, side in zip(place, values.shape, strict=True))
    others = [_fitted(to_uint8(data.pixels(one)), values.shape) for one in ordinary if one is not sample]
    return {
        "image": image,
        "photo": data_uri(photo),
        "heat": data_uri(heat),
        "place": data_uri(_zoomed(photo, where)),
        "others": [data_uri(_zoomed(other, where)) for other in others],
    }


def _small(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A map (H, W) with its longer side at most `SIDE`."""
    picture = Image.fromarray(np.ascontiguousarray(values, np.float32))
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(picture, np.float32)


def _fitted(photo: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """A picture (H, W, 3) of the size (h, w) of a small map."""
    picture = Image.fromarray(photo).resize((shape[1], shape[0]), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _zoomed(photo: npt.NDArray[np.uint8], where: tuple[float, ...]) -> npt.NDArray[np.uint8]:
    """A square around a place, given as shares of height and width, inside the picture."""
    side = max(8, round(ZOOM * min(photo.shape[:2])))
    top, left = (
        min(max(0, round(share * size - side / 2)), size - side)
        for share, size in zip(where, photo.shape[:2], strict=True)
    )
    square = Image.fromarray(photo[top : top + side, left : left + side])
    return np.asarray(square.resize((160, 160), Image.Resampling.LANCZOS))


def _list(found: Audit) -> str:
    """The odd ones, each behind "#"."""
    lines = [
        "# Good images that are unlike the others, highest score first. Nothing is left out as long as a line begins",
        "# with a sign like this one: take it away from those that show no good part, and give this file to",
        "# blemish fit --exclude.",
        *(f"# {image.name}" for image in found.odd if image.name.isprintable()),
    ]
    return "\n".join(lines) + "\n"
