"""A number, or the reason why it can't be given: what every metric returns instead of NaN."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Literal, TypeAlias

Level: TypeAlias = Literal["image", "pixel"]
"""What is counted: one score per image, or one per pixel."""


@dataclass(frozen=True)
class Figure:
    """One of the two is None.

    Attributes:
        value: the figure, finite.
        reason: why there is no value, as a phrase: "no anomalous images".
    """

    value: float | None
    reason: str | None = None

    def _repr_html_(self) -> str:
        """In a notebook: three digits, or why there are none."""
        return f"<b>{self.value:.3f}</b>" if self.value is not None else f"<i>{escape(self.reason or 'no value')}</i>"


def ratio(part: float, whole: float, reason: str) -> Figure:
    """`part / whole`, or `reason` where `whole` is 0."""
    return Figure(part / whole) if whole else Figure(None, reason)
