"""Which of the settings that were tried? One rule, in words that are printed with its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from blemish.settings import Configuration

MARGIN = 0.01
RULE = (
    "Of the settings within the latency limit, those whose separation (the mean of image and pixel AUROC on planted "
    f"defects) is within {MARGIN} of the best count as equal; the fastest of them is taken."
)


@dataclass(frozen=True)
class Trial:
    """What one choice of settings is worth; higher scores are more abnormal everywhere.

    Attributes:
        settings: the configuration.
        image_auroc, pixel_auroc: planted defects against good images that were held out.
        found: share of the planted defects whose image is called anomalous at the calibrated threshold.
        false_alarm_rate: share of the held-out good images called anomalous.
        per_defect: image AUROC by kind of planted defect.
        milliseconds, slowest, megabytes, device: see `blemish.trials.measure.Cost`.
        memory, gpu_memory: highest memory while fitting and measuring, in 2**20 bytes, where the system says.
        seconds: how long the trial took.
    """

    settings: Configuration
    image_auroc: float
    pixel_auroc: float
    found: float
    false_alarm_rate: float
    milliseconds: float
    slowest: float
    megabytes: float
    device: str
    memory: float | None
    gpu_memory: float | None
    seconds: float
    per_defect: dict[str, float | None] = field(default_factory=dict)

    @property
    def separation(self) -> float:
        """Mean of image and pixel AUROC."""
        return (self.image_auroc + self.pixel_auroc) / 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**vars(self), "separation": self.separation}


def choose(trials: Sequence[Trial], limit: float | None) -> tuple[Trial, bool]:
    """The setting to take by `RULE`, and whether it is within the limit.

    Args:
        trials: at least one.
        limit: milliseconds per image; None for no limit. If nothing is within it, the fastest is taken.
    """
    within = [trial for trial in trials if limit is None or trial.milliseconds <= limit]
    if not within:
        return min(trials, key=lambda trial: trial.milliseconds), False
    best = max(trial.separation for trial in within)
    equal = [trial for trial in within if trial.separation >= best - MARGIN]
    return min(equal, key=lambda trial: trial.milliseconds), True


def pareto(trials: Sequence[Trial]) -> list[Trial]:
    """The trials that no other beats: none is at least as good in separation, time and file size, and better in one."""
    return [one for one in trials if not any(_beats(other, one) for other in trials)]


def _beats(one: Trial, other: Trial) -> bool:
    mine = (one.separation, -one.milliseconds, -one.megabytes)
    theirs = (other.separation, -other.milliseconds, -other.megabytes)
    return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))
