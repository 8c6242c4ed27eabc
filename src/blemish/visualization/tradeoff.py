"""False alarms against finds: scores of good images and of defects on one axis, with the threshold between them.

`tradeoff_svg` draws for notebooks and reports (one element, no fonts, no scripts), `tradeoff_text` for terminals. The
axis is logarithmic, as scores of good images spread so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

GOOD, BAD, LINE = "#3b78b5", "#d9822b", "#d93025"
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _MIDDLE, _REACH = 720, 300, 16, 16, 144, 84


@dataclass(frozen=True)
class Bin:
    """Scores from `low` on, below `high`: how many of good images, how many of defects. The last one has no upper end,
    the first no lower.
    """

    low: float
    high: float
    good: int
    bad: int


@dataclass(frozen=True)
class Point:
    """What a threshold does: shares of good images called anomalous, and of defects found."""

    threshold: float
    alarms: float
    found: float


def bins(good: Sequence[float], bad: Sequence[float], threshold: float, count: int = 24) -> list[Bin]:
    """Both histograms over the same bins, the threshold at an edge.

    Args:
        good: scores of good images, at least one.
        bad: scores of defects; those far above all others are counted in the last bin.
        threshold: raw.
        count: how many bins, at least 2.
    """
    reach = [*good, threshold, *([float(np.quantile(bad, 0.9))] if len(bad) else [])]
    low, high = min([*good, threshold, *bad]), max(reach)
    scale = math.log if low > 0 else float  # scores can be 0 in made-up data
    ends = scale(low), max(scale(high), scale(low) + 1e-3)
    width = (ends[1] - ends[0]) / count
    first = scale(threshold) - width * math.ceil((scale(threshold) - ends[0]) / width)
    steps = [first + width * i for i in range(count + 2)]
    edges = [math.exp(step) if low > 0 else step for step in steps]
    edges[int(np.argmin(np.abs(np.asarray(edges) - threshold)))] = threshold  # exactly: rounding moves no image
    inner = np.asarray(edges[1:-1])
    tallies = [
        np.bincount(np.searchsorted(inner, np.asarray(some, float), side="right"), minlength=count + 1)
        for some in (good, bad)
    ]
    return [Bin(*each) for each in zip(edges[:-1], edges[1:], tallies[0].tolist(), tallies[1].tolist(), strict=True)]


def operating_points(
    good: Sequence[float], bad: Sequence[float], rates: Sequence[float] = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)
) -> list[Point]:
    """What other thresholds would do: for each rate, the lowest one that calls at most that share of `good` anomalous.

    Rates that so few images can't tell apart give one point.
    """
    ordered = np.sort(np.asarray(good, np.float32))
    points: dict[int, Point] = {}
    for rate in rates:
        allowed = math.floor(rate * len(ordered) + 1e-9)
        threshold = float(np.nextafter(ordered[len(ordered) - 1 - allowed], np.float32(np.inf)))
        alarms = int((ordered >= threshold).sum())
        points.setdefault(alarms, Point(threshold, alarms / len(ordered), _share(bad, threshold)))
    return list(points.values())


def tradeoff_svg(good: Sequence[float], bad: Sequence[float], threshold: float, what: str = "planted defects") -> str:
    """The picture, as an `<svg>` element.

    Args:
        good: raw scores of good images, at least one.
        bad: raw scores of defects; may be empty.
        threshold: raw.
        what: what `bad` are called.
    """
    found = bins(good, bad, threshold)
    tallest = max(max(one.good for one in found), 1), max(max(one.bad for one in found), 1)
    width = (_WIDTH - _LEFT - _RIGHT) / len(found)
    parts = []
    for i, one in enumerate(found):
        x = _LEFT + i * width
        span = f"{one.low:.4g} to {one.high:.4g}" if i < len(found) - 1 else f"{one.low:.4g} and more"
        for number, most, up, color, name in (
            (one.good, tallest[0], True, GOOD, "good images"),
            (one.bad, tallest[1], False, BAD, what),
        ):
            tall = _REACH * number / most
            y = _MIDDLE - tall if up else _MIDDLE + 1
            parts.append(
                f'<rect x="{x + 0.5:.1f}" y="{y:.1f}" width="{width - 1:.1f}" height="{tall:.1f}" fill="{color}">'
                f"<title>{number} {escape(name)}, scores {span}</title></rect>"
            )
    place = next((i for i, one in enumerate(found) if one.low == threshold), len(found))
    x = _LEFT + place * width
    alarms, hits = _share(good, threshold), _share(bad, threshold)
    parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="44" y2="{_HEIGHT - 52}" stroke="{LINE}" stroke-width="2"/>')
    parts.append(_text(x, 36, f"threshold {threshold:.4g}", "middle" if 60 < x < _WIDTH - 60 else "end", LINE))
    parts.append(_text(_LEFT, 16, f"of 100 good images {100 * alarms:.0f} are called anomalous", color=GOOD))
    if len(bad):
        words = f"of 100 {what} {100 * hits:.0f} are found"
        parts.append(_text(_LEFT, _HEIGHT - 6, words, color=BAD))
    parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{_MIDDLE}" y2="{_MIDDLE}" stroke="currentColor"/>')
    base = _HEIGHT - 34
    for i in range(0, len(found) - 2, max(1, len(found) // 6)):  # the last place is for the word "score"
        parts.append(_text(_LEFT + i * width, base, f"{found[i].low:.3g}", "start" if i == 0 else "middle", size=11))
    parts.append(_text(_WIDTH - _RIGHT, base, "score", "end", size=11))
    parts.append(_text(x - 8, 56, "normal", "end", size=11))
    parts.append(_text(x + 8, 56, "anomalous", size=11))
    label = f"Scores of good images and {what} with the threshold {threshold:.4g}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(label)}" style="max-width:100%;height:auto;font-family:sans-serif">{"".join(parts)}</svg>'
    )


def tradeoff_text(good: Sequence[float], bad: Sequence[float], threshold: float, *, block: str = "█") -> str:
    """The same for terminals, 77 columns wide: a line for each bin, a line for the threshold.

    Args:
        good: raw scores of good images, at least one.
        bad: raw scores of defects; may be empty.
        threshold: raw.
        block: what bars are made of.
    """
    found = bins(good, bad, threshold, count=14)
    found = found[next(i for i, one in enumerate(found) if one.good or one.bad or one.low == threshold) :]
    most = max(max(one.good for one in found), 1), max(max(one.bad for one in found), 1)
    lines = [f"{'score':>9}  {'good images':<28}  {'planted defects' if len(bad) else ''}"]
    for one in found:
        if one.low == threshold:
            words = f" {threshold:.4g}: of 100 good images {100 * _share(good, threshold):.0f} called anomalous"
            words += f", of 100 planted defects {100 * _share(bad, threshold):.0f} found" if len(bad) else ""
            lines.append(f"{'-' * 9}{words} ".ljust(77, "-"))
        bars = [
            (block * max(round(22 * number / top), number > 0) + (f" {number}" if number else "")).ljust(28)
            for number, top in zip((one.good, one.bad), most, strict=True)
        ]
        lines.append(f"{one.low:>9.4g}  {'  '.join(bars)}".rstrip())
    return "\n".join(line.rstrip() for line in lines)


def _text(x: float, y: float, words: str, anchor: str = "start", color: str = "currentColor", size: int = 13) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f'<text {place} fill="{color}">{escape(words)}</text>'


def _share(scores: Sequence[float], threshold: float) -> float:
    return float(np.mean(np.asarray(scores, np.float32) >= threshold)) if len(scores) else 0.0
