"""Predictions as a COCO data set, which annotation tools open.

Every image is listed, every region is an annotation of category 1, "defect", with its box as (x, y, width, height), its
area, its highest normalized score and one polygon along the edges of its pixels. COCO's polygons know no holes: a hole
is reached by a bridge of no width, walked forth and back, so that filling the polygon leaves the hole empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from blemish._version import __version__

CATEGORY = {"id": 1, "name": "defect", "supercategory": ""}


def write_coco(rows: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Writes a COCO file.

    Args:
        rows: made by `predictions.row_of`; gone through twice, so that no more than one is in memory.
        path: the file.
    """
    with path.open("w", encoding="utf-8") as file:
        info = {"description": "Predictions of blemish", "version": __version__}
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": [{json.dumps(CATEGORY)}],\n')
        file.write('"images": [')
        for number, row in enumerate(rows, 1):
            copied = ("height", "width", "label", "raw_score", "score", "threshold", "model")
            image = {"id": number, "file_name": row["path"], **{key: row[key] for key in copied}}
            file.write((",\n" if number > 1 else "\n") + json.dumps(image, ensure_ascii=False))
        file.write('],\n"annotations": [')
        count = 0
        for number, row in enumerate(rows, 1):
            for region in row["regions"]:
                count += 1
                file.write((",\n" if count > 1 else "\n") + json.dumps(_annotation(count, number, region)))
        file.write("]}\n")


def single_ring(rings: Sequence[Sequence[Sequence[int]]]) -> list[Sequence[int]]:
    """An outline with its holes as one closed line of (x, y) points; a bridge starts at the nearest corner."""
    line = list(rings[0])
    for hole in rings[1:]:
        x, y = hole[0]
        near = min(range(len(line)), key=lambda i: abs(line[i][0] - x) + abs(line[i][1] - y))
        line[near + 1 : near + 1] = [*hole, hole[0], line[near]]
    return line


def _annotation(number: int, image: int, region: Mapping[str, Any]) -> dict[str, Any]:
    x0, y0, x1, y1 = region["box"]
    return {
        "id": number,
        "image_id": image,
        "category_id": CATEGORY["id"],
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": region["area"],
        "iscrowd": 0,
        "segmentation": [[coordinate for point in single_ring(region["polygon"]) for coordinate in point]],
        "score": region["peak_score"],
        "mean_score": region["mean_score"],
        "peak": region["peak"],
    }
