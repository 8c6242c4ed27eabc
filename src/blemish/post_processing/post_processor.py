"""The decision as a module: it holds the numbers of a `Decision` as buffers, so that they travel in a model's state and
in its exported graph, and applies `functional.verdict` with them.

The verdict is always taken on raw scores, so that rounding of the normalized ones can't flip it. NaN and infinity are
anomalous in a graph and an error in Python: nothing broken passes as normal. What calibrates it during Lightning's
validation loop is in `blemish.engine.post_processor`.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from blemish.data.batch import InferenceBatch, PerImage, RawPrediction
from blemish.errors import NotCalibratedError, UsageError
from blemish.functional.verdict import judge, raw_threshold
from blemish.post_processing.calibration import Evidence, calibrate, raw_of
from blemish.post_processing.decision import SETTINGS, CalibrationRecord, Decision, checked_sensitivity
from blemish.post_processing.moving import by_hand
from blemish.settings import DecisionSettings

if TYPE_CHECKING:
    from typing_extensions import Self

_LOG = logging.getLogger(__name__)

SETTING_BUFFERS = {name: f"_{name}" for name in SETTINGS}
"""Setting of a finished model -> the buffer of a `DecisionModule` that holds it: inputs of an exported graph."""

_SCALES = ("image", "pixel")
_STATISTICS = ("threshold", "min", "max", "sensitivity")


class DecisionModule(nn.Module):
    """Thresholds, normalizes and masks raw predictions.

    Args:
        image_sensitivity: alpha in [0, 1] for images; higher calls more anomalous. None means 0.5: exactly the
            threshold.
        pixel_sensitivity: the same for pixels.
        max_false_alarm_rate: wanted share of good images called anomalous, in (0, 1). None takes the highest normal
            score, or the F1 optimum when the calibration images include labeled anomalies.
        miss_cost: with labeled anomalies, the threshold of the lowest cost in place of the F1 optimum: a missed defect
            counts this much, a good image called anomalous 1.

    Attributes:
        record: what the thresholds rest on; None before calibration.

    Raises:
        UsageError: for numbers outside their range.
    """

    def __init__(
        self,
        image_sensitivity: float | None = None,
        pixel_sensitivity: float | None = None,
        *,
        max_false_alarm_rate: float | None = None,
        miss_cost: float | None = None,
    ) -> None:
        super().__init__()
        checked = DecisionSettings(max_false_alarm_rate=max_false_alarm_rate, miss_cost=miss_cost)
        self.max_false_alarm_rate, self.miss_cost = checked.max_false_alarm_rate, checked.miss_cost
        for scale in _SCALES:
            for name in ("threshold", "min", "max"):
                self.register_buffer(f"_{scale}_{name}", torch.tensor(torch.nan))
            self.register_buffer(f"_{scale}_sensitivity", torch.tensor(0.5))
        self.image_sensitivity = 0.5 if image_sensitivity is None else image_sensitivity
        self.pixel_sensitivity = 0.5 if pixel_sensitivity is None else pixel_sensitivity
        self.record: CalibrationRecord | None = None
        self._calibrated = False

    def forward(
        self,
        predictions: RawPrediction | InferenceBatch | None = None,
        *,
        anomaly_maps: PerImage | None = None,
    ) -> InferenceBatch:
        """Raw predictions to verdicts. Running it again on its own result changes nothing.

        Args:
            predictions: what a detector returned; or a batch with `pred_score` (N,), `anomaly_map` (N, H, W), or both,
                raw. Without a score, an image's score is the maximum of its map.
            anomaly_maps: maps alone, in place of a batch; the spelling of older examples.

        Returns:
            A new batch with `raw_score` and `raw_map`, `pred_score` and `anomaly_map` normalized to [0, 1],
            `pred_label` and `pred_mask`. Before calibration scores and maps stay raw and the verdicts None.

        Raises:
            ValueError: if neither a score nor a map is given.
            UsageError: if both spellings are used at once.
            NonFiniteError: in eager mode, if a score is NaN or infinite.
        """
        if isinstance(predictions, RawPrediction):
            predictions = predictions.batch()
        if predictions is None:
            predictions = InferenceBatch(anomaly_map=anomaly_maps)
        elif anomaly_maps is not None:
            raise UsageError("predictions and anomaly_maps were both given. Give one of them.")
        score, maps = raw_of(predictions)
        raw = replace(predictions, pred_score=score, anomaly_map=maps, raw_score=score, raw_map=maps)
        if not self._calibrated:
            return raw
        image, pixel = (self._statistics(scale) for scale in _SCALES)
        pred_score, pred_label = judge(score, *image)
        normalized, mask = _judged(maps, pixel)
        return replace(
            raw,
            pred_score=pred_score,
            anomaly_map=_inside(normalized, raw.roi),
            pred_label=pred_label,
            pred_mask=_inside(mask, raw.roi),
        )

    @property
    def decision(self) -> Decision:
        """The numbers in force, with their record; setting it puts others in their place.

        Raises:
            NotCalibratedError: (when read) before calibration.
        """
        self._require_calibration()
        numbers = {f"{scale}_{name}": float(getattr(self, f"_{scale}_{name}")) for scale, name in _names()}
        return Decision.from_dict(numbers, self.record)

    @decision.setter
    def decision(self, decision: Decision) -> None:
        numbers = decision.to_dict()
        for scale, name in _names():
            self.get_buffer(f"_{scale}_{name}").fill_(numbers[f"{scale}_{name}"])
        self.record = decision.record
        self._calibrated = True

    def with_decision(self, decision: Decision) -> Self:
        """A twin that decides otherwise; this module and whoever else uses it don't notice."""
        device = self.get_buffer("_image_threshold").device
        twin = copy.copy(self)
        twin._buffers = {f"_{name}": torch.tensor(value, device=device) for name, value in decision.to_dict().items()}
        twin.record, twin._calibrated = decision.record, True
        return twin

    def calibrate(self, evidence: Evidence, source: str) -> Decision:
        """Decides from now on as the evidence of all processes supports, at the sensitivities there are.

        Args:
            evidence: of this process.
            source: which images it is of, for the record.

        Raises:
            CalibrationError: without normal images, or with too few for `max_false_alarm_rate`.
        """
        found = calibrate(
            evidence.collected(self.get_buffer("_image_threshold").device),
            max_false_alarm_rate=self.max_false_alarm_rate,
            miss_cost=self.miss_cost,
            source=source,
        )
        self.decision = found.replace(
            image_sensitivity=self.image_sensitivity, pixel_sensitivity=self.pixel_sensitivity
        )
        if found.record is not None and not found.record.anomalous:
            _LOG.info(
                "Calibrated on %d normal images and no anomalous one: the threshold is the %s observed among them.",
                found.record.normal,
                "highest score"
                if self.max_false_alarm_rate is None
                else "order statistic for the wanted false-alarm rate",
            )
        return self.decision

    def note(self, **found: Any) -> None:
        """Adds to the record what was learned beside the thresholds: fields of `CalibrationRecord`, by name."""
        if self.record is not None:
            self.record = replace(self.record, **found)

    def forget(self) -> None:
        """Drops thresholds, ranges and their record: back to the state before calibration. Sensitivities stay."""
        for scale, name in _names():
            if name != "sensitivity":
                self.get_buffer(f"_{scale}_{name}").fill_(torch.nan)
        self._calibrated = False
        self.record = None

    def normalize_batch(self, batch: InferenceBatch) -> None:
        """Puts normalized scores and maps into `batch`, in place; `raw_score` and `raw_map` keep the raw ones.

        Raises:
            NotCalibratedError: without thresholds. ValueError: without score and map.
        """
        self._fill(batch, "pred_score", "anomaly_map", "raw_score", "raw_map")

    def threshold_batch(self, batch: InferenceBatch) -> None:
        """Puts `pred_label` and `pred_mask` into `batch`, in place, decided on raw values.

        Raises:
            NotCalibratedError: without thresholds. ValueError: without score and map.
        """
        self._fill(batch, "pred_label", "pred_mask")

    def post_process_batch(self, batch: InferenceBatch) -> None:
        """`forward`, in place: fills `batch` with normalized scores, raw scores and verdicts."""
        vars(batch).update(vars(self(batch)))

    def _fill(self, batch: InferenceBatch, *names: str) -> None:
        self._require_calibration()
        done = self(batch)
        vars(batch).update({name: getattr(done, name) for name in names})

    @property
    def is_calibrated(self) -> bool:
        """Whether thresholds exist."""
        return self._calibrated

    @property
    def image_sensitivity(self) -> float:
        """Alpha for images, in [0, 1]; may be set at any time."""
        return self._number("image_sensitivity")

    @image_sensitivity.setter
    def image_sensitivity(self, value: float) -> None:
        self.get_buffer("_image_sensitivity").fill_(checked_sensitivity("image_sensitivity", value))

    @property
    def pixel_sensitivity(self) -> float:
        """Alpha for pixels, in [0, 1]; may be set at any time."""
        return self._number("pixel_sensitivity")

    @pixel_sensitivity.setter
    def pixel_sensitivity(self, value: float) -> None:
        self.get_buffer("_pixel_sensitivity").fill_(checked_sensitivity("pixel_sensitivity", value))

    @property
    def image_min(self) -> float:
        """Lowest raw score of the calibration images; NaN before calibration."""
        return self._number("image_min")

    @property
    def image_max(self) -> float:
        """Highest raw score of the calibration images; NaN before calibration."""
        return self._number("image_max")

    @property
    def pixel_min(self) -> float:
        """Lowest raw map value of the calibration images; NaN before calibration."""
        return self._number("pixel_min")

    @property
    def pixel_max(self) -> float:
        """Highest raw map value of the calibration images; NaN before calibration."""
        return self._number("pixel_max")

    @property
    def raw_image_threshold(self) -> float:
        """Theta for images, before sensitivity; NaN before calibration. Once calibrated it may be set at any time, and
        that of pixels follows in proportion, see `blemish.post_processing.moving`.

        Raises:
            NotCalibratedError: (when set) before calibration. UsageError: (when set) for what isn't a finite number.
        """
        return self._number("image_threshold")

    @raw_image_threshold.setter
    def raw_image_threshold(self, value: float) -> None:
        self.decision = by_hand(self.decision, pixel_follows=True, image_threshold=value)

    @property
    def raw_pixel_threshold(self) -> float:
        """Theta for pixels, before sensitivity; NaN before calibration. May be set as `raw_image_threshold`."""
        return self._number("pixel_threshold")

    @raw_pixel_threshold.setter
    def raw_pixel_threshold(self, value: float) -> None:
        self.decision = by_hand(self.decision, pixel_follows=False, pixel_threshold=value)

    @property
    def effective_image_threshold(self) -> float:
        """The raw score from which an image is anomalous at the current sensitivity; NaN before calibration."""
        return float(raw_threshold(*self._statistics("image")))

    @property
    def effective_pixel_threshold(self) -> float:
        """The raw map value from which a pixel is anomalous at the current sensitivity; NaN before calibration."""
        return float(raw_threshold(*self._statistics("pixel")))

    @property
    def normalized_image_threshold(self) -> float:
        """1 - alpha: the normalized score from which an image is anomalous."""
        return 1.0 - self.image_sensitivity

    @property
    def normalized_pixel_threshold(self) -> float:
        """1 - alpha: the normalized map value from which a pixel is anomalous."""
        return 1.0 - self.pixel_sensitivity

    def extra_repr(self) -> str:
        """Thresholds and ranges, shown by `print`."""
        if not self._calibrated:
            return "not calibrated"
        lines = []
        for scale in _SCALES:
            threshold, low, high, sensitivity = (float(value) for value in self._statistics(scale))
            lines.append(f"{scale}: {threshold=:.4g}, min={low:.4g}, max={high:.4g}, {sensitivity=:.2g}")
        return "\n".join(lines)

    def _number(self, name: str) -> float:
        return float(self.get_buffer(f"_{name}"))

    def _statistics(self, scale: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Threshold, min, max and sensitivity of one scale, as the functions of `functional.verdict` take them."""
        threshold, low, high, sensitivity = (self.get_buffer(f"_{scale}_{name}") for name in _STATISTICS)
        return threshold, low, high, sensitivity

    def _require_calibration(self) -> None:
        if not self._calibrated:
            raise NotCalibratedError(
                "The post-processor has no thresholds yet. Run Engine.fit or Engine.validate with calibration images "
                "first."
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # A Python flag, because a graph that is being exported can't branch on the value of a buffer.
        self._calibrated = not bool(self.get_buffer("_image_threshold").isnan())


def _names() -> list[tuple[str, str]]:
    return [(scale, name) for scale in _SCALES for name in _STATISTICS]


def _judged(maps: PerImage | None, statistics: tuple[Tensor, ...]) -> tuple[PerImage | None, PerImage | None]:
    """Normalized maps and masks."""
    if maps is None:
        return None, None
    if isinstance(maps, Tensor):
        return judge(maps, *statistics)
    pairs = [judge(single, *statistics) for single in maps]
    return [normalized for normalized, _ in pairs], [mask for _, mask in pairs]


def _inside(maps: PerImage | None, roi: PerImage | None) -> PerImage | None:
    """0 (or False) outside the region of interest, whatever the sensitivity makes of a raw 0."""
    if maps is None or roi is None:
        return maps
    if isinstance(maps, Tensor) and isinstance(roi, Tensor):
        return maps * roi
    return [single * inside for single, inside in zip(maps, roi, strict=True)]
