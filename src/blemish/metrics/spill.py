"""Sorted scores on disk, for exact figures of more pixels than fit in memory.

A run is a batch of scores that was sorted in memory, ties summed, and written behind the runs before it. All runs
together are read from the highest score downwards in parts of bounded size: the next rows of every run are looked at,
and whatever is as high as the best row that wasn't looked at yet is final. Equal scores of different runs thus always
meet in one part.

The file is a temporary one without a name where the system can do that, so it is gone when its owner is, whatever
happens.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from typing import IO, NamedTuple

import numpy as np
import torch
from torch import Tensor

from blemish.functional.histogram import sum_ties

IN_MEMORY = 1 << 20
"""Scores that are kept in memory before they are sorted into a file, and read from it at a time."""

ROW = np.dtype([("value", "<f4"), ("negative", "<u4"), ("positive", "<u4"), ("weight", "<f8")])


class Scored(NamedTuple):
    """(n,) float32 scores, how many negatives and positives have each (int64), and the weight of those positives
    (float64).
    """

    value: Tensor
    negative: Tensor
    positive: Tensor
    weight: Tensor

    def distinct(self) -> Scored:
        """Ascending, every value once."""
        value, amounts = sum_ties(self.value, *self[1:])
        return Scored(value, *amounts)


class SortedRuns:
    """Runs in one temporary file: 20 bytes on disk for each distinct score of a run.

    Args:
        in_memory: rows read at a time, shared among all runs; the working memory is some 100 bytes for each.
    """

    def __init__(self, in_memory: int = IN_MEMORY) -> None:
        self._in_memory = in_memory
        self._file: IO[bytes] | None = None
        self._ends = [0]  # run i is made of the rows from ends[i] to ends[i + 1]

    def __len__(self) -> int:
        return len(self._ends) - 1

    def append(self, scored: Scored) -> None:
        """Writes a run."""
        run = scored.distinct()
        rows = np.empty(len(run.value), ROW)
        for name, column in run._asdict().items():
            rows[name] = column.numpy()
        self._end_of_file().write(rows.tobytes())
        self._ends.append(self._ends[-1] + len(rows))

    def extend(self, other: SortedRuns) -> None:
        """Copies the runs of another."""
        if other._file is not None:
            ends = [self._ends[-1] + end for end in other._ends[1:]]
            other._file.seek(0)
            shutil.copyfileobj(other._file, self._end_of_file(), 1 << 20)
            self._ends += ends

    def __iter__(self) -> Iterator[Scored]:
        """All scores in falling parts: every value of a part lies below those of the part before."""
        rows = max(1, self._in_memory // max(1, len(self)))  # of each run
        left = [[start, stop] for start, stop in zip(self._ends[:-1], self._ends[1:], strict=True)]
        while left:
            heads = [self._read(max(start, stop - rows), stop) for start, stop in left]
            unseen = [head["value"][0] for head, (start, stop) in zip(heads, left, strict=True) if stop - start > rows]
            bound = max(unseen, default=-np.inf)
            final = [head[np.searchsorted(head["value"], bound) :] for head in heads]
            yield _joined(final).distinct()
            left = [[a, b - len(run)] for (a, b), run in zip(left, final, strict=True) if b - len(run) > a]

    def _end_of_file(self) -> IO[bytes]:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="blemish-")  # noqa: SIM115 - it outlives this call
            weakref.finalize(self, self._file.close)
        self._file.seek(self._ends[-1] * ROW.itemsize)
        return self._file

    def _read(self, start: int, stop: int) -> np.ndarray:
        assert self._file is not None
        self._file.seek(start * ROW.itemsize)
        return np.frombuffer(self._file.read((stop - start) * ROW.itemsize), ROW)


def _joined(rows: list[np.ndarray]) -> Scored:
    whole = np.concatenate(rows)
    columns = ((whole["value"], np.float32), (whole["negative"], np.int64), (whole["positive"], np.int64))
    value, negative, positive = (torch.from_numpy(column.astype(dtype)) for column, dtype in columns)
    return Scored(value, negative, positive, torch.from_numpy(whole["weight"].astype(np.float64)))
