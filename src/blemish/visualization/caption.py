"""What stands below a picture: verdict, numbers, legend and color bar, as tiles that are wrapped to its width."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from blemish.visualization.drawing import MIN_TEXT, Color, Picture, font, text_box, text_tile

PAPER: Color = (24, 25, 28)
INK: Color = (232, 232, 232)
VERDICT: dict[str, tuple[Color, Color]] = {
    "normal": ((12, 60, 28), (140, 222, 160)),
    "anomalous": ((255, 255, 255), (200, 30, 48)),
}
"""Verdict -> text and background color."""
NOTHING_MARKED = "nothing above the pixel threshold"
MISPLACED = "found in the wrong place"

Colors = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
"""Normalized values -> colors (..., 3) in [0, 255]."""


def text_size(width: int) -> int:
    """Height of text in pixels below a picture of this width."""
    return max(MIN_TEXT, round(width / 55))


def verdict_tiles(size: int, label: str | None, score: float | None, score_threshold: float | None) -> list[Picture]:
    """The verdict, and the score with its threshold."""
    tiles = [] if label is None else [text_tile(label.upper(), size, *VERDICT[label])]
    if score is not None:
        words = f"score {score:.4g}" + (f" (threshold {score_threshold:.4g})" if score_threshold is not None else "")
        tiles.append(text_tile(words, size, INK, PAPER))
    return tiles


def legend_tile(text: str, size: int, color: Color, shape: Literal["outline", "box"]) -> Picture:
    """A small outline or box in its color, and what it stands for."""
    height = text_box("", size)[1]
    icon = Image.new("RGB", (height, height), PAPER)
    draw, corners = ImageDraw.Draw(icon), (height // 5, height // 5, height - height // 5, height - height // 5)
    width = max(2, size // 7)
    (draw.ellipse if shape == "outline" else draw.rectangle)(corners, outline=color, width=width)
    return np.concatenate([np.asarray(icon), text_tile(text, size, INK, PAPER)[:, size // 4 :]], axis=1)


def note_tile(text: str, size: int) -> Picture:
    """Something that a reader might not expect."""
    return text_tile(text, size, (20, 20, 20), (255, 214, 92))


def color_bar(size: int, colors: Colors, ticks: Sequence[tuple[float, str]]) -> Picture:
    """A bar of the colors from 0 to 1 with a tick and a text below it at each of `ticks`, as far as texts have room.

    Args:
        size: height of text in pixels.
        colors: of normalized values.
        ticks: (value in [0, 1], text), the more important ones first.
    """
    line = text_box("", size)[1]
    length = 16 * size
    ends = [(value * (length - 1), font(size).getlength(text) / 2) for value, text in ticks]
    left = max(0, *(ceil(half - at) for at, half in ends))
    right = max(0, *(ceil(at + half - length) for at, half in ends))
    bar = Image.new("RGB", (left + length + right, 2 * line), PAPER)
    draw = ImageDraw.Draw(bar)
    row = np.rint(colors(np.linspace(0, 1, length))).astype(np.uint8)
    bar.paste(Image.fromarray(np.repeat(row[None], line - line // 4, axis=0)), (left, line // 4))
    taken: list[tuple[float, float]] = []
    for (at, half), (_, text) in zip(ends, ticks, strict=True):
        x = left + at
        if any(x - half < last + size / 2 and x + half > first - size / 2 for first, last in taken):
            continue
        taken.append((x - half, x + half))
        draw.line((x, line // 4, x, line + line // 5), fill=INK, width=max(2, size // 8))
        draw.text((x, 1.6 * line), text, fill=INK, font=font(size), anchor="mm")
    return np.asarray(bar)


def wrapped(tiles: Sequence[Picture], width: int, size: int) -> Picture:
    """Tiles side by side from the left, in as many rows as the width needs; wider where a tile is."""
    gap = size // 2
    width = max(width, *(tile.shape[1] + 2 * gap for tile in tiles))
    rows: list[list[Picture]] = [[]]
    for tile in tiles:
        if rows[-1] and gap + sum(other.shape[1] + gap for other in rows[-1]) + tile.shape[1] > width - gap:
            rows.append([])
        rows[-1].append(tile)
    strip = np.full((gap + sum(max(map(len, row)) + gap for row in rows), width, 3), PAPER, dtype=np.uint8)
    top = gap
    for row in rows:
        left = gap
        for tile in row:
            strip[top : top + len(tile), left : left + tile.shape[1]] = tile
            left += tile.shape[1] + gap
        top += max(map(len, row)) + gap
    return strip


def below(picture: Picture, strip: Picture) -> Picture:
    """The picture with a strip below it, on a canvas as wide as the wider one; alone where it isn't twice as high."""
    height, width = picture.shape[:2]
    if 2 * len(strip) > height:
        return picture
    canvas = np.full((height, max(width, strip.shape[1]), 3), PAPER, dtype=np.uint8)
    canvas[:, :width] = picture
    foot = np.full((len(strip), canvas.shape[1], 3), PAPER, dtype=np.uint8)
    foot[:, : strip.shape[1]] = strip
    return np.concatenate([canvas, foot])
