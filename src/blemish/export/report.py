"""What a comparison found, and what it may find. No torch: exported files carry their report and are read without it.

A graph in float32 has to be `EXACT`. One with 8-bit integers can't be; its limits are `int8_limits`, those
of weights in half precision `HALF`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple


class Limits(NamedTuple):
    """What an exported graph may differ by: raw scores relatively, normalized maps absolutely, verdicts by number."""

    score: float
    map: float
    flips: int


EXACT = Limits(1e-4, 1e-3, 0)


def int8_limits(max_flips: int) -> Limits:
    """For 8-bit integers: verdicts decide, and AUROC tells; scores and maps are bounded to catch what is broken."""
    return Limits(0.1, 0.2, max_flips)


HALF = Limits(0.02, 0.05, 0)
"""For weights in half precision: no verdict may differ; scores and maps move by the rounding of weights."""


@dataclass(frozen=True)
class Comparison:
    """One runtime at one batch size against eager torch.

    Attributes:
        runtime, batch: what was compared. images: how many verdicts.
        score: largest difference of raw scores, relative. map: largest difference of normalized maps.
        flips: verdicts that differ. ties: verdicts that differ on a score that is the threshold up to rounding.
    """

    runtime: str
    batch: int
    images: int
    score: float
    map: float
    flips: int
    ties: int

    def within(self, limits: Limits) -> bool:
        """Whether the runtime gives the model's verdicts; NaN doesn't."""
        return self.score <= limits.score and self.map <= limits.map and self.flips <= limits.flips


@dataclass(frozen=True)
class ParityReport:
    """All comparisons of an export; empty where nothing was compared: for the artifact without images.

    Attributes:
        rows: one for each runtime and batch size. limits: what they had to keep to.
        auroc: "torch" or runtime -> AUROC of its raw scores, where good and anomalous images were known.
    """

    rows: tuple[Comparison, ...]
    limits: Limits = EXACT
    auroc: Mapping[str, float] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every runtime gives the model's verdicts."""
        return all(row.within(self.limits) for row in self.rows)

    def to_dict(self) -> dict[str, Any]:
        """JSON values, for the file's metadata; differences that aren't numbers are None."""
        rows = [asdict(row) for row in self.rows]
        finite = [
            {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()} for row in rows
        ]
        return {
            "tolerance": self.limits._asdict(),
            "passed": self.passed,
            "rows": finite,
            "auroc": dict(self.auroc),
        }

    def __str__(self) -> str:
        lines = [f"{'runtime':<14}{'batch':>6}{'images':>8}{'score':>11}{'map':>11}{'flips':>7}{'ties':>6}"]
        for row in self.rows:
            verdict = "" if row.within(self.limits) else "  refused"
            lines.append(
                f"{row.runtime:<14}{row.batch:>6}{row.images:>8}{row.score:>11.1e}{row.map:>11.1e}{row.flips:>7}"
                f"{row.ties:>6}{verdict}"
            )
        limits = self.limits
        lines.append(f"{'at most':<28}{limits.score:>11.1e}{limits.map:>11.1e}{limits.flips:>7}")
        if self.auroc:
            figures = sorted(self.auroc.items(), key=lambda one: one[0] != "torch")  # before, after
            lines.append("AUROC: " + ", ".join(f"{value:.4f} {name}" for name, value in figures))
        return "\n".join(lines)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ParityReport:
        """The inverse of `to_dict`.

        Raises:
            KeyError, TypeError: if that isn't where `content` comes from.
        """
        rows: list[dict[str, Any]] = [
            {k: math.nan if v is None else v for k, v in row.items()} for row in content["rows"]
        ]
        limits = Limits(**content["tolerance"])
        return cls(tuple(Comparison(**row) for row in rows), limits, content["auroc"])
