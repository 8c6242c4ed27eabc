"""Approximate neighbors: faiss proposes a row, the distance to it is measured.

An inverted file sorts the bank into cells and looks only into those nearest to a query, so the row it finds may not be
the nearest one. The distance is still that to a row of the bank: a score can come out too high, never too low, and a
defect that the exact search finds is found.

The cells need no k-means. A bank is selected farthest point first, so its leading rows are a coarser selection of the
same kind: spread out, none of their cells empty, and the same in every run.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blemish.extras import require
from blemish.functional.distances import Neighbors, squared_distances

CELLS = 2
"""Cells per square root of the number of rows: finding the cells then costs about as much as searching them."""

PROBES = 16
"""One cell in so many is searched, and at least two: the nearest row often lies across a border."""


class ApproximateIndex:
    """An inverted file over (M, D) bank rows in the order of their selection. It lives on the CPU and holds a float32
    copy of the rows.
    """

    def __init__(self, rows: Tensor) -> None:
        faiss = require("faiss")
        self.rows = rows
        points = rows.float().cpu().numpy()
        cells = min(len(points), math.ceil(CELLS * math.sqrt(len(points))))
        self._quantizer = faiss.IndexFlatL2(points.shape[1])  # kept: the index only refers to it
        self._quantizer.add(points[:cells])
        self._index = faiss.IndexIVFFlat(self._quantizer, points.shape[1], cells)
        self._index.nprobe = max(2, cells // PROBES)
        self._index.train(points)  # nothing to learn: the quantizer has its cells
        self._index.add(points)

    def nearest(self, queries: Tensor) -> Neighbors:
        """A near row, mostly the nearest, of each of (Q, D) float32 queries, with its true distance; k = 1."""
        _, found = self._index.search(queries.cpu().numpy(), 1)
        row = torch.from_numpy(found).to(self.rows.device)  # (Q, 1)
        return Neighbors(squared_distances(queries, self.rows, row).sqrt(), row)
