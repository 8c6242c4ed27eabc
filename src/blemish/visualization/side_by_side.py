"""What was found beside good parts: every row a place that deviates, cut out, and the good patches it is compared with.

All cut-outs of a row show as much of their images, around the patches that are compared, which are framed. They lie at
the same place of every cut-out, unless the border of an image comes between.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.explanation import Box, Explanation, Finding, GoodImage, GoodPatch
from blemish.escaping import one_line
from blemish.functional.outlines import fill
from blemish.visualization.drawing import (
    Color,
    Mask,
    Picture,
    as_picture,
    contour,
    font,
    frame,
    text_box,
    text_tile,
)
from blemish.visualization.overlay import PREDICTED

COMPARED: Color = (0, 205, 255)
MOST = 6
"""Rows; what else was found is counted below them."""

_SIDE, _GAP, _TEXT = 240, 8, 13
_AROUND = 1.4  # a region fills so much less of its cut-out
_RIM = 0.25  # no patch of another place lies nearer to the rim: what is around it tells what it is
_CELLS = 7  # least cells across a cut-out: one cell alone shows nothing
_PAPER: Color = (24, 25, 28)
_INK: Color = (232, 232, 232)
_FAINT: Color = (150, 152, 158)


def side_by_side(
    image: npt.ArrayLike, explanation: Explanation, picture_of: Callable[[GoodImage], Picture | None]
) -> Picture:
    """Draw an explanation.

    Args:
        image: (H, W, 3) uint8 RGB that was inspected, or gray (H, W).
        explanation: of it.
        picture_of: (h, w, 3) uint8 of a good image, of its size or smaller; None where there is none.

    Returns:
        (h, w, 3) uint8. What was found is outlined, the patches that are compared are framed.
    """
    picture = as_picture(image)
    shown = explanation.findings[:MOST]
    columns = 1 + max(len(finding.good) for finding in shown)
    width = max(columns, 3) * (_SIDE + _GAP) + _GAP
    rows = [_row(picture, finding, number, explanation, picture_of) for number, finding in enumerate(shown, 1)]
    left = len(explanation.findings) - len(shown)
    words = [*([f"{left} more not shown."] if left else []), explanation.statement]
    return np.concatenate([*(_widened(row, width) for row in rows), _text(words, width)])


def _text(paragraphs: Sequence[str], width: int) -> Picture:
    """Paragraphs on a strip of this width."""
    line = text_box("", _TEXT)[1]
    letters = [int((width - 2 * _GAP - _TEXT) * len(words) / font(_TEXT).getlength(words)) for words in paragraphs]
    lines = [
        part
        for words, most in zip(paragraphs, letters, strict=True)
        for part in textwrap.wrap(words, max(20, int(0.95 * most)))  # some letters are wider than others
    ]
    strip = np.full((2 * _GAP + line * len(lines), width, 3), _PAPER, dtype=np.uint8)
    for number, words in enumerate(lines):
        tile = text_tile(words, _TEXT, _FAINT, _PAPER)[:, : width - _GAP]
        top = _GAP + number * line
        strip[top : top + line, _GAP : _GAP + tile.shape[1]] = tile
    return strip


def _widened(row: Picture, width: int) -> Picture:
    canvas = np.full((len(row), width, 3), _PAPER, dtype=np.uint8)
    canvas[:, : row.shape[1]] = row
    return canvas


def _row(
    image: Picture,
    finding: Finding,
    number: int,
    explanation: Explanation,
    picture_of: Callable[[GoodImage], Picture | None],
) -> Picture:
    size = (image.shape[0], image.shape[1])
    window = _window(finding, size)
    region = None if finding.region is None else fill(finding.region.polygon, size)
    name = f"region {number}" if region is not None else "highest value"
    value = f"{finding.value:.4g} here, anomalous from {explanation.threshold:.4g}"
    tiles = [_tile(_cut(image, size, window, finding.box, region), name, value)]
    for patch in finding.good:
        words = "the same place" if patch.distance is None else f"distance {patch.distance:.4g}"
        if patch.image is None or patch.box is None:
            tiles.append(_tile(_blank("image not known"), "a good patch", words))
            continue
        good = picture_of(patch.image)
        shown = _blank("no picture") if good is None else _cut_good(good, patch, patch.image, window, finding.box)
        tiles.append(_tile(shown, f"good: {patch.image.name}", words))
    return np.concatenate(tiles, axis=1)


def _window(finding: Finding, size: tuple[int, int]) -> Box:
    """What a cut-out shows: all of the region, and the patch with something around it; a square where there is room."""
    boxes = [finding.box, *([] if finding.region is None else [finding.region.box])]
    x0, y0 = (min(box[i] for box in boxes) for i in (0, 1))
    x1, y1 = (max(box[i] for box in boxes) for i in (2, 3))
    cell = max(finding.box[2] - finding.box[0], finding.box[3] - finding.box[1])
    side = max(round(_AROUND * max(x1 - x0, y1 - y0)), _CELLS * cell)
    left, right = _placed((x0 + x1 - side) // 2, side, size[1])
    top, bottom = _placed((y0 + y1 - side) // 2, side, size[0])
    return left, top, right, bottom


def _placed(start: int, length: int, side: int) -> tuple[int, int]:
    """A stretch of an axis, moved and cut so that it lies within 0 ... side."""
    length = min(length, side)
    start = min(max(start, 0), side - length)
    return start, start + length


def _cut_good(good: Picture, patch: GoodPatch, image: GoodImage, window: Box, box: Box) -> Picture:
    """As much of a good image as `window` shows, around the patch as the latter lies around `box`; off the rim where
    it is another place.
    """
    assert patch.box is not None
    ends = []
    for axis in (0, 1):
        side = window[axis + 2] - window[axis]
        scale = (patch.box[axis + 2] - patch.box[axis]) / (box[axis + 2] - box[axis])
        before = box[axis] - window[axis]
        if patch.distance is not None:
            before = min(max(before, round(_RIM * side)), round((1 - _RIM) * side))
        start = round(patch.box[axis] - before * scale)
        ends.append(_placed(start, max(1, round(side * scale)), image.size[1 - axis]))
    (x0, x1), (y0, y1) = ends
    return _cut(good, image.size, (x0, y0, x1, y1), patch.box, None)


def _cut(picture: Picture, size: tuple[int, int], window: Box, patch: Box, region: Mask | None) -> Picture:
    """A window of an image of `size` (H, W), out of a picture that may be smaller, at the size of a tile."""
    x0, y0, x1, y1 = window
    zoom = _SIDE / max(x1 - x0, y1 - y0)
    across, down = max(1, round((x1 - x0) * zoom)), max(1, round((y1 - y0) * zoom))
    rows, columns = picture.shape[0] / size[0], picture.shape[1] / size[1]
    part = Image.fromarray(np.ascontiguousarray(picture)).resize(
        (across, down), Image.Resampling.BICUBIC, box=(x0 * columns, y0 * rows, x1 * columns, y1 * rows)
    )
    drawn = np.array(part)
    if region is not None:
        inside = Image.fromarray(region[y0:y1, x0:x1]).resize((across, down), Image.Resampling.NEAREST)
        drawn[contour(np.asarray(inside), 2)] = PREDICTED
    left, top, right, bottom = (round((end - start) * zoom) for end, start in zip(patch, (x0, y0, x0, y0), strict=True))
    drawn[frame((left, top, right, bottom), (down, across), 2)] = COMPARED
    tile = np.full((_SIDE, _SIDE, 3), _PAPER, dtype=np.uint8)
    y, x = (_SIDE - down) // 2, (_SIDE - across) // 2
    tile[y : y + down, x : x + across] = drawn
    return tile


def _blank(words: str) -> Picture:
    tile = np.full((_SIDE, _SIDE, 3), (52, 53, 57), dtype=np.uint8)
    text = text_tile(words, _TEXT, _FAINT, (52, 53, 57))
    y, x = (_SIDE - text.shape[0]) // 2, (_SIDE - text.shape[1]) // 2
    tile[y : y + text.shape[0], x : x + text.shape[1]] = text
    return tile


def _tile(picture: Picture, *lines: str) -> Picture:
    """A picture with lines of text below, and space around it."""
    line = text_box("", _TEXT)[1]
    tile = np.full((_GAP + _SIDE + len(lines) * line, _GAP + _SIDE, 3), _PAPER, dtype=np.uint8)
    tile[_GAP : _GAP + _SIDE, _GAP:] = picture
    for number, words in enumerate(lines):
        text = text_tile(_shortened(words), _TEXT, _FAINT if number else _INK, _PAPER)[:, :_SIDE]
        top = _GAP + _SIDE + number * line
        tile[top : top + line, _GAP : _GAP + text.shape[1]] = text
    return tile


def _shortened(words: str) -> str:
    """Words that fit below a tile; the end of a name tells more than its beginning."""
    cut = one_line(words)
    while text_box(cut, _TEXT)[0] > _SIDE and len(cut) > 2:
        cut = f"...{cut.removeprefix('...')[1:]}"
    return cut
