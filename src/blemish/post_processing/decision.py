"""How a model decides, as a value: two scales, and the record of what they rest on. No torch.

A `Decision` is what calibration returns, what a model file and an exported graph carry, and what a session is asked
with. It is frozen: whoever wants another threshold makes another decision, and nobody else's changes::

    stricter = session.decision.replace(image_sensitivity=0.7)
    session(images, stricter)

All arithmetic is that of `blemish.functional.verdict`, which the post-processor and the graph run as well.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from blemish.errors import CalibrationError, UsageError
from blemish.functional import verdict
from blemish.functional.conformal import conditional_rate, normal_rank

SETTINGS = ("image_threshold", "pixel_threshold", "image_sensitivity", "pixel_sensitivity")
"""What may be changed in a finished model: raw thresholds at sensitivity 0.5, and sensitivities."""

BY_NORMAL_SCORES = ("highest normal score", "false-alarm rate")
"""Policies that scores of normal images decide alone: without a wanted rate, and with one."""


@dataclass(frozen=True)
class Scale:
    """Where normal ends for images, or for pixels; numbers are those of float32.

    Attributes:
        threshold: theta, the raw score from which something is anomalous at sensitivity 0.5.
        low, high: lowest and highest raw score of the calibration; the unit of normalized scores.
        sensitivity: alpha in [0, 1]; higher calls more anomalous.

    Raises:
        UsageError: for a number that float32 can't hold, a sensitivity outside [0, 1], or `low` above `high`.
    """

    threshold: float
    low: float
    high: float
    sensitivity: float = 0.5

    def __post_init__(self) -> None:
        for name in ("threshold", "low", "high"):
            object.__setattr__(self, name, _float32(name, getattr(self, name)))
        object.__setattr__(self, "sensitivity", checked_sensitivity("sensitivity", self.sensitivity))
        if self.low > self.high:
            raise UsageError(f"low must be at most high. Got {self.low} and {self.high}.")

    @property
    def effective_threshold(self) -> float:
        """The raw score from which something is anomalous at this sensitivity."""
        threshold, low, high, sensitivity = self.arrays()
        return float(verdict.raw_threshold(threshold, low, high, sensitivity))

    @property
    def cut(self) -> float:
        """1 - alpha: the normalized score from which something is anomalous."""
        return 1.0 - self.sensitivity

    def is_anomalous(self, scores: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Verdicts on raw scores of any shape, taken as float32; NaN and infinity are anomalous."""
        threshold, low, high, sensitivity = self.arrays()
        with np.errstate(invalid="ignore", over="ignore"):
            cut = verdict.raw_threshold(threshold, low, high, sensitivity)
            return np.asarray(verdict.is_anomalous(np.asarray(scores, np.float32), cut))

    def normalize(self, scores: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Raw scores of any shape, taken as float32, on the scale from 0 to 1, where `cut` decides as they do."""
        with np.errstate(invalid="ignore", over="ignore"):
            values = verdict.normalize_consistently(np.asarray(scores, np.float32), *self.arrays())
        return np.asarray(values)

    def arrays(self) -> tuple[Any, Any, Any, Any]:
        """Threshold, low, high and sensitivity as float32, in the order that `functional.verdict` takes them."""
        threshold, low, high, sensitivity = (np.float32(value) for value in dataclasses.astuple(self))
        return threshold, low, high, sensitivity


class Planted(NamedTuple):
    """A drawn defect in a good image, and the raw score that image then had; see `blemish.synthetic.planting`."""

    kind: str
    size: float  # side of its window as a share of the image's shorter side; the defect fills about half of that
    strength: float  # opacity
    score: float


@dataclass(frozen=True)
class CalibrationRecord:
    """What a threshold rests on; part of the model, its artifact and its reports.

    Attributes:
        policy: "highest normal score", "false-alarm rate", "lowest cost" or "maximum F1": how the image threshold was
            chosen.
        pixel_policy: the same for the pixel threshold.
        source: "cross" (all good images, each scored by a detector that didn't see it), "held_out", "validation" or
            "test": which images; "test" is an oracle no one has in production.
        normal, anomalous: how many images.
        certified_false_alarm_rate: the probability with which one more normal image from the same line is called
            anomalous, at most, whatever the distribution of scores; None where the policy certifies nothing: under
            "cross" the detector that is delivered is none of those that scored (Barber et al. 2021, section 1).
        f1: F1 at the image threshold on the calibration images; None without anomalous ones.
        decided_by: file name of the image whose score is the threshold; None where it isn't known.
        next_score: the highest score of a normal image below the threshold: far below, and one image, perhaps not a
            good part, decides alone. None without such an image.
        scores: raw scores of the normal calibration images; empty in files of earlier versions.
        names: their file names, "" where an image never was a file.
        expected_false_alarm_rate: what one more normal image is called anomalous with, if its score is drawn like the
            calibration's; under "cross" it is mostly less, since more images make scores lower. None for maximum F1.
        wanted_false_alarm_rate: what was asked for under "false-alarm rate".
        miss_cost: what a missed defect counts under "lowest cost", where a good image called anomalous counts 1, both
            as shares.
        defect_scores: raw scores of the anomalous calibration images. defect_names: their file names.
        parts: how many parts the normal images seem to show, see `blemish.data.likeness`, or how many groups they were
            given in; None where nobody looked.
        planted: what was planted into the normal calibration images, each scored by a detector that hasn't seen it.
    """

    policy: str
    pixel_policy: str
    source: str
    normal: int
    anomalous: int
    certified_false_alarm_rate: float | None
    f1: float | None
    decided_by: str | None = None
    next_score: float | None = None
    scores: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    expected_false_alarm_rate: float | None = None
    wanted_false_alarm_rate: float | None = None
    miss_cost: float | None = None
    defect_scores: tuple[float, ...] = ()
    defect_names: tuple[str, ...] = ()
    parts: int | None = None
    planted: tuple[Planted, ...] = ()

    def __post_init__(self) -> None:
        for name in ("scores", "names", "defect_scores", "defect_names"):  # lists, where JSON was read
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "planted", tuple(Planted(*one) for one in self.planted))
        if not self.names:  # images that never were files
            object.__setattr__(self, "names", ("",) * len(self.scores))
        if len(self.scores) != len(self.names):
            raise UsageError(f"Every score needs a name. Got {len(self.scores)} scores and {len(self.names)} names.")

    def alarms(self, threshold: float) -> int:
        """How many of the normal calibration images score at or above a raw threshold."""
        return sum(score >= threshold for score in self.scores)

    def found(self, threshold: float) -> int:
        """How many of the planted defects score at or above a raw threshold."""
        return sum(defect.score >= threshold for defect in self.planted)

    def threshold_without(self, names: Collection[str]) -> float | None:
        """The raw image threshold by the same policy, had these good images not been among the others.

        The scores stay those of detectors that learned from them, too. None where the policy isn't one of normal scores
        alone, or what is left is too little for the rate.
        """
        left = sorted(score for score, name in zip(self.scores, self.names, strict=True) if name not in names)
        if self.policy not in BY_NORMAL_SCORES:
            return None
        try:
            return left[normal_rank(len(left), self.wanted_false_alarm_rate) - 1]
        except CalibrationError:
            return None

    @property
    def odd(self) -> list[tuple[str, float]]:
        """Good images whose scores are unlike the others', highest first: name and score. See `unlike_others`."""
        return [(self.names[i], self.scores[i]) for i in unlike_others(self.scores)]

    @property
    def unlucky_false_alarm_rate(self) -> float | None:
        """What one calibration in 20 of this size exceeds; the certified rate is an average over them. None without."""
        rate, n = self.certified_false_alarm_rate, self.normal
        return None if rate is None else conditional_rate(n, n + 1 - round(rate * (n + 1)))

    @property
    def oracle(self) -> bool:
        """Whether test images chose the threshold, so that test figures flatter."""
        return self.source == "test"


@dataclass(frozen=True)
class Decision:
    """How a model decides about images and about pixels, and what that rests on.

    Attributes:
        image, pixel: see `Scale`.
        record: None where nothing is known of the calibration.
    """

    image: Scale
    pixel: Scale
    record: CalibrationRecord | None = None

    def replace(self, **settings: float) -> Decision:
        """The same decision with some of `SETTINGS` changed. What the calibration certified holds no longer.

        Raises:
            UsageError: for a threshold that is no finite number of float32, or a sensitivity outside [0, 1].
        """
        changed: dict[str, Any] = {}
        for setting, value in settings.items():
            if setting not in SETTINGS:
                raise UsageError(f"What can be changed is {', '.join(SETTINGS)}. Got {setting!r}.")
            scale, _, name = setting.partition("_")
            checked = (checked_sensitivity if name == "sensitivity" else _float32)(setting, value)
            changed[scale] = dataclasses.replace(changed.get(scale, getattr(self, scale)), **{name: checked})
        return dataclasses.replace(self, **changed)

    def _repr_html_(self) -> str:
        """In a notebook: the scores it rests on, with the threshold in force."""
        threshold = self.image.effective_threshold
        if self.record is None or not self.record.scores:
            return f"<p>Threshold {threshold:.4g}</p>"
        real = self.record.defect_scores
        bad = real or [defect.score for defect in self.record.planted]
        from blemish.visualization.tradeoff import tradeoff_svg  # nothing else here draws

        return tradeoff_svg(self.record.scores, bad, threshold, "defects" if real else "planted defects")

    def settings(self) -> dict[str, float]:
        """The current value of each of `SETTINGS`."""
        numbers = self.to_dict()
        return {name: numbers[name] for name in SETTINGS}

    def to_dict(self) -> dict[str, float]:
        """The eight numbers by name, as exported files carry them: "image_threshold", "image_min", ..."""
        return {
            f"{name}_{key}": value
            for name, scale in (("image", self.image), ("pixel", self.pixel))
            for key, value in zip(_KEYS, dataclasses.astuple(scale), strict=True)
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], record: CalibrationRecord | None = None) -> Decision:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError, ValueError: if that isn't where `content` comes from, or its numbers make no sense.
        """
        image, pixel = (Scale(*(content[f"{name}_{key}"] for key in _KEYS)) for name in ("image", "pixel"))
        return cls(image, pixel, record)


_KEYS = ("threshold", "min", "max", "sensitivity")


def unlike_others(scores: Sequence[float]) -> list[int]:
    """Which of n scores are unlike the others, highest first.

    Those whose logarithm lies more than 3.5 scaled median absolute deviations above the median (Iglewicz and Hoaglin
    1993). Of scores that are log-normal, one in 4,300 is. Empty for fewer than 8 scores, or scores that are 0.
    """
    values = np.asarray(scores)
    if len(values) < 8 or values.min() <= 0:
        return []
    logs = np.log(values)
    center = np.median(logs)
    deviation = 1.4826 * np.median(np.abs(logs - center))
    return [int(i) for i in np.argsort(-values) if logs[i] > center + 3.5 * deviation and deviation > 0]


def checked_sensitivity(name: str, value: float) -> float:
    """`value` rounded to float32, if it is a sensitivity.

    Raises:
        UsageError: outside [0, 1].
    """
    number = checked_number(name, value)
    if not 0.0 <= number <= 1.0:
        raise UsageError(f"{name} must be between 0 and 1. Got {number}.")
    return float(np.float32(number))


def checked_number(name: str, value: Any) -> float:
    """`value` as a float; infinity for whole numbers that none can hold.

    Raises:
        UsageError: for what is no number, as True and "0.5" aren't.
    """
    try:
        if not isinstance(value, (bool, np.bool_, str, bytes)):
            return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf
    except (TypeError, ValueError):
        pass
    raise UsageError(f"{name} must be a number. Got {value!r}.")


def _float32(name: str, value: float) -> float:
    number = checked_number(name, value)
    with np.errstate(over="ignore"):
        rounded = float(np.float32(number))
    if not math.isfinite(rounded):
        raise UsageError(f"{name} must be a finite number, at most 3.4e38 either way. Got {number}.")
    return rounded
