"""The default post-processor: one decision rule, calibrated once, the same in every runtime.

With raw threshold theta, calibration range [lo, hi] and sensitivity alpha, for images and
pixels alike,

    normalized = clip((s - theta) / (hi - lo) + 0.5, 0, 1)        anomalous  <=>  normalized >= 1 - alpha

which on raw scores is `s >= theta + (0.5 - alpha)(hi - lo)`. The verdict is always taken on raw scores, so that
rounding of the normalized ones can't flip it. NaN and infinity are anomalous in a graph and an error in Python: nothing
broken passes as normal.

Thresholds: with normal images only, the highest normal score, which one more normal image reaches with probability 1 /
(n + 1) (split conformal prediction); with a wanted false-alarm rate, the matching order statistic; with labeled
anomalies, the highest score that maximizes F1. Pixels follow the same rule on each normal map's maximum, unless masks
are given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blemish.data.batch import InferenceBatch, PerImage
from blemish.data.gather import own_share
from blemish.errors import CalibrationError, NotCalibratedError, UsageError
from blemish.functional.conformal import certified_rate
from blemish.functional.thresholds import (
    f1_threshold,
    f1_threshold_from_histogram,
    is_anomalous,
    normal_threshold,
    normalize_consistently,
    raw_threshold,
)
from blemish.post_processing.base import BasePostProcessor
from blemish.post_processing.calibration import CalibrationRecord, Evidence, raw_of

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_LOG = logging.getLogger(__name__)


class PostProcessor(BasePostProcessor):
    """Thresholds, normalizes and masks raw predictions; calibrates itself during Lightning's validation loop.

    Args:
        image_sensitivity: alpha in [0, 1] for images; higher calls more anomalous. None means 0.5: exactly the
            threshold.
        pixel_sensitivity: the same for pixels.
        max_false_alarm_rate: wanted share of good images called anomalous, in (0, 1). None takes the highest normal
            score, or the F1 optimum when the calibration images include labeled anomalies.

    Raises:
        UsageError: for numbers outside their range.
    """

    _image_threshold: Tensor
    _image_min: Tensor
    _image_max: Tensor
    _image_sensitivity: Tensor
    _pixel_threshold: Tensor
    _pixel_min: Tensor
    _pixel_max: Tensor
    _pixel_sensitivity: Tensor

    def __init__(
        self,
        image_sensitivity: float | None = None,
        pixel_sensitivity: float | None = None,
        *,
        max_false_alarm_rate: float | None = None,
    ) -> None:
        super().__init__()
        if max_false_alarm_rate is not None and not 0.0 < max_false_alarm_rate < 1.0:
            raise UsageError(
                f"max_false_alarm_rate must be between 0 and 1, both excluded. Got {max_false_alarm_rate}."
            )
        self.max_false_alarm_rate = max_false_alarm_rate
        for scale in ("image", "pixel"):
            for name in ("threshold", "min", "max"):
                self.register_buffer(f"_{scale}_{name}", torch.tensor(torch.nan))
            self.register_buffer(f"_{scale}_sensitivity", torch.tensor(0.5))
        self.image_sensitivity = 0.5 if image_sensitivity is None else image_sensitivity
        self.pixel_sensitivity = 0.5 if pixel_sensitivity is None else pixel_sensitivity
        self.record: CalibrationRecord | None = None
        self._calibrated = False
        self._evidence: Evidence | None = None

    def forward(
        self, predictions: InferenceBatch | None = None, *, anomaly_maps: PerImage | None = None
    ) -> InferenceBatch:
        """Raw predictions to verdicts. Running it again on its own result changes nothing.

        Args:
            predictions: with `pred_score` (N,), `anomaly_map` (N, H, W), or both; raw. Without a score, an image's
                score is the maximum of its map.
            anomaly_maps: maps alone, in place of a batch; the spelling of older examples.

        Returns:
            A new batch with `raw_score` and `raw_map`, `pred_score` and `anomaly_map` normalized to [0, 1],
            `pred_label` and `pred_mask`. Before calibration scores and maps stay raw and the verdicts None.

        Raises:
            ValueError: if neither a score nor a map is given.
            UsageError: if both spellings are used at once.
            NonFiniteError: in eager mode, if a score is NaN or infinite.
        """
        if predictions is None:
            predictions = InferenceBatch(anomaly_map=anomaly_maps)
        elif anomaly_maps is not None:
            raise UsageError("predictions and anomaly_maps were both given. Give one of them.")
        score, maps = raw_of(predictions)
        done = replace(predictions, pred_score=score, anomaly_map=maps, raw_score=score, raw_map=maps)
        if self._calibrated:
            self.normalize_batch(done)
            self.threshold_batch(done)
        return done

    def forget(self) -> None:
        """Drops thresholds, ranges and their record: back to the state before calibration. Sensitivities stay."""
        for scale in ("image", "pixel"):
            for statistic in self._statistics(scale)[:3]:
                statistic.fill_(torch.nan)
        self._calibrated = False
        self.record = None

    def normalize_batch(self, batch: InferenceBatch) -> None:
        """Puts normalized scores and maps into `batch`, in place; `raw_score` and `raw_map` keep the raw ones.

        Raises:
            NotCalibratedError: without thresholds. ValueError: without score and map.
        """
        self._require_calibration()
        batch.raw_score, batch.raw_map = raw_of(batch)
        image, pixel = self._statistics("image"), self._statistics("pixel")
        batch.pred_score = normalize_consistently(batch.raw_score, *image)
        normalized = _each(batch.raw_map, lambda values: normalize_consistently(values, *pixel))
        batch.anomaly_map = _inside(normalized, batch.roi)

    def threshold_batch(self, batch: InferenceBatch) -> None:
        """Puts `pred_label` and `pred_mask` into `batch`, in place, decided on raw values.

        Raises:
            NotCalibratedError: without thresholds. ValueError: without score and map.
        """
        self._require_calibration()
        score, maps = raw_of(batch)
        image, pixel = raw_threshold(*self._statistics("image")), raw_threshold(*self._statistics("pixel"))
        batch.pred_label = is_anomalous(score, image)
        batch.pred_mask = _inside(_each(maps, lambda values: is_anomalous(values, pixel)), batch.roi)

    def post_process_batch(self, batch: InferenceBatch) -> None:
        """`forward`, in place: fills `batch` with normalized scores, raw scores and verdicts."""
        vars(batch).update(vars(self(batch)))

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forgets the evidence of an earlier calibration."""
        self._evidence = Evidence()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Adds a batch of raw predictions with `gt_label` (and `gt_mask`, where there is one) to the evidence.

        Raises:
            CalibrationError: if the batch has no labels.
        """
        if isinstance(outputs, InferenceBatch):
            self._evidence = self._evidence or Evidence()
            self._evidence.add(outputs, own_share(trainer, self._evidence.images))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Chooses thresholds and ranges from the evidence of all processes.

        Raises:
            CalibrationError: without normal images, or with too few for `max_false_alarm_rate`.
        """
        if self._evidence is not None and not getattr(trainer, "sanity_checking", False):
            datamodule = getattr(trainer, "datamodule", None)
            self._calibrate(self._evidence, source=getattr(datamodule, "policy", "validation"))
        self._evidence = None

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Post-processes the batch in place."""
        if isinstance(outputs, InferenceBatch):
            self.post_process_batch(outputs)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *args: Any, **kwargs: Any
    ) -> None:
        """Post-processes the batch in place."""
        if isinstance(outputs, InferenceBatch):
            self.post_process_batch(outputs)

    @property
    def is_calibrated(self) -> bool:
        """Whether thresholds exist."""
        return self._calibrated

    @property
    def image_sensitivity(self) -> float:
        """Alpha for images, in [0, 1]; may be set at any time."""
        return float(self._image_sensitivity)

    @image_sensitivity.setter
    def image_sensitivity(self, value: float) -> None:
        self._image_sensitivity.fill_(_checked_sensitivity("image_sensitivity", value))

    @property
    def pixel_sensitivity(self) -> float:
        """Alpha for pixels, in [0, 1]; may be set at any time."""
        return float(self._pixel_sensitivity)

    @pixel_sensitivity.setter
    def pixel_sensitivity(self, value: float) -> None:
        self._pixel_sensitivity.fill_(_checked_sensitivity("pixel_sensitivity", value))

    @property
    def image_min(self) -> float:
        """Lowest raw score of the calibration images; NaN before calibration."""
        return float(self._image_min)

    @property
    def image_max(self) -> float:
        """Highest raw score of the calibration images; NaN before calibration."""
        return float(self._image_max)

    @property
    def pixel_min(self) -> float:
        """Lowest raw map value of the calibration images; NaN before calibration."""
        return float(self._pixel_min)

    @property
    def pixel_max(self) -> float:
        """Highest raw map value of the calibration images; NaN before calibration."""
        return float(self._pixel_max)

    @property
    def raw_image_threshold(self) -> float:
        """Theta for images, before sensitivity; NaN before calibration."""
        return float(self._image_threshold)

    @property
    def raw_pixel_threshold(self) -> float:
        """Theta for pixels, before sensitivity; NaN before calibration."""
        return float(self._pixel_threshold)

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
        for scale in ("image", "pixel"):
            threshold, low, high, sensitivity = (float(value) for value in self._statistics(scale))
            lines.append(f"{scale}: {threshold=:.4g}, min={low:.4g}, max={high:.4g}, {sensitivity=:.2g}")
        return "\n".join(lines)

    def _statistics(self, scale: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Threshold, min, max and sensitivity of one scale, as the functions of `functional.thresholds` take them."""
        threshold, low, high, sensitivity = (
            getattr(self, f"_{scale}_{name}") for name in ("threshold", "min", "max", "sensitivity")
        )
        return threshold, low, high, sensitivity

    def _require_calibration(self) -> None:
        if not self._calibrated:
            raise NotCalibratedError(
                "The post-processor has no thresholds yet. Run Engine.fit or Engine.validate with calibration images "
                "first."
            )

    def _calibrate(self, evidence: Evidence, source: str) -> None:
        scores, labels, map_maxima, map_minima, histogram = evidence.merged(self._image_threshold.device)
        normal = scores[~labels]
        if not len(normal):
            raise CalibrationError(f"Calibration needs normal images. Got {len(labels)} images, none of them normal.")
        rate = self.max_false_alarm_rate
        f1: float | None = None
        if labels.any() and rate is None:
            policy = "maximum F1"
            threshold, f1 = f1_threshold(scores, labels)
        else:
            policy = "highest normal score" if rate is None else "false-alarm rate"
            threshold = normal_threshold(normal, rate)
        rank = int((normal < threshold).sum()) + 1  # with ties, the lowest of their ranks: certify less, not more
        certified = None if policy == "maximum F1" else certified_rate(len(normal), rank)
        if policy == "maximum F1" and histogram is not None and bool(histogram[1].any()):
            pixel_policy = policy
            pixel_threshold, _ = f1_threshold_from_histogram(histogram)
        else:
            pixel_policy = "highest normal score" if rate is None else "false-alarm rate"
            pixel_threshold = normal_threshold(map_maxima[~labels], rate)
        self._image_threshold.fill_(threshold)
        self._image_min.copy_(scores.min())
        self._image_max.copy_(scores.max())
        self._pixel_threshold.fill_(pixel_threshold)
        self._pixel_min.copy_(map_minima.min())
        self._pixel_max.copy_(map_maxima.max())
        self._calibrated = True
        anomalous = int(labels.sum())
        below = normal[normal < threshold]
        self.record = CalibrationRecord(
            policy=policy,
            pixel_policy=pixel_policy,
            source=source,
            normal=len(normal),
            anomalous=anomalous,
            certified_false_alarm_rate=certified,
            f1=f1,
            decided_by=evidence.name_of(threshold),
            next_score=float(below.max()) if len(below) else None,
        )
        if not anomalous:
            _LOG.info(
                "Calibrated on %d normal images and no anomalous one: the threshold is the %s observed among them.",
                len(normal),
                "highest score" if rate is None else "order statistic for the wanted false-alarm rate",
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        # A Python flag, because a graph that is being exported can't branch on the value of a buffer.
        self._calibrated = not bool(self._image_threshold.isnan())


OneClassPostProcessor = PostProcessor
"""The name of `PostProcessor` in an older library."""


def _each(maps: PerImage | None, function: Callable[[Tensor], Tensor]) -> PerImage | None:
    if maps is None:
        return None
    return function(maps) if isinstance(maps, Tensor) else [function(one) for one in maps]


def _inside(maps: PerImage | None, roi: PerImage | None) -> PerImage | None:
    """0 (or False) outside the region of interest, whatever the sensitivity makes of a raw 0."""
    if maps is None or roi is None:
        return maps
    if isinstance(maps, Tensor) and isinstance(roi, Tensor):
        return maps * roi
    return [one * inside for one, inside in zip(maps, roi, strict=True)]


def _checked_sensitivity(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"{name} must be between 0 and 1. Got {value}.")
    return float(value)
