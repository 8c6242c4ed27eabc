"""How well maps cover defects: AUPRO counts every connected defect the same, AUPIMO looks at each image.

Both take maps with their masks. An image of 10 scratched pixels weighs as much as one of 10,000, which pixel AUROC
hides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from blemish.errors import UsageError
from blemish.functional.curves import aupimo_credit, aupro, top
from blemish.functional.histogram import (
    BITS,
    Ranked,
    Tally,
    bin_edge,
    bin_index,
    check_finite,
    check_shapes,
    ranked,
)
from blemish.functional.regions import label_components
from blemish.metrics.figure import Figure
from blemish.metrics.spill import IN_MEMORY
from blemish.metrics.stores import BinnedScores, ExactScores, Scores, State, below, under

if TYPE_CHECKING:
    from typing_extensions import Self


def region_weights(mask: Tensor) -> Tensor:
    """1 / A for every True pixel of a (H, W) mask in raster order, A being the area of its region. float64, CPU."""
    array = mask.cpu().numpy() != 0
    labels, _ = label_components(array)
    return torch.from_numpy((1 / np.maximum(np.bincount(labels.ravel()), 1))[labels[array]])


class AUPRO:
    """Area under the per-region overlap up to a false-positive rate (Bergmann et al. 2021), divided by that rate.

    Args:
        fpr_limit: in (0, 1].
        exact: keep every pixel instead of histograms (see `Ranking`).
        bits: size of the histograms. Changes nothing when exact.
        in_memory: scores kept in memory when exact; more go to a temporary file. Changes nothing otherwise.
    """

    def __init__(
        self, fpr_limit: float = 0.3, *, exact: bool = False, bits: int = BITS, in_memory: int = IN_MEMORY
    ) -> None:
        if not 0 < fpr_limit <= 1:
            raise UsageError(f"fpr_limit must lie in (0, 1]. Got {fpr_limit}.")
        self.fpr_limit = fpr_limit
        self.exact = exact
        self.bits = bits
        self.in_memory = in_memory
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._scores: Scores = ExactScores(self.in_memory) if self.exact else BinnedScores(self.bits)

    def update(self, maps: Iterable[Tensor], masks: Iterable[Tensor]) -> None:
        """Take N maps (H, W) with their bool masks, stacked or as lists; good images have an all-False mask.

        Raises:
            NonFiniteError: a map holds NaN or infinity.
            UsageError: a map and its mask differ in shape, or there are more of the one.
        """
        for scores, mask in zip(maps, masks, strict=True):
            check_shapes(scores, mask)
            self._scores.add(scores, mask, region_weights(mask))

    def state(self) -> dict[str, Tensor]:
        """The scores, as their store gives them, see `metrics.stores`."""
        return self._scores.state()

    def merge(self, other: Self | State) -> None:
        """Add what another instance with the same arguments has seen, or what its state holds."""
        self._scores.merge(other if isinstance(other, Mapping) else other._scores)

    def compute(self) -> Figure:
        """The figure over all updates."""
        return self.from_tally(self._scores.weighted_tally(), self.fpr_limit)

    @staticmethod
    def from_tally(tally: Tally | Ranked, fpr_limit: float) -> Figure:
        """The figure of a tally whose positives are region weights."""
        whole = ranked(tally)
        if not whole.positive:
            return Figure(None, "no anomalous pixels")
        if not whole.negative:
            return Figure(None, "no normal pixels")
        return Figure(aupro(whole, fpr_limit))


class AUPIMO:
    """Per-image overlap at rates so low that normal images stay clean (Bertoldo et al. 2024, arXiv 2401.01984).

    The rate is shared: it comes from normal images only. Bounded memory holds one histogram, and for each anomalous
    image the occupied bins of its defect pixels.

    Args:
        fpr_bounds: the integral runs over log-rates between these two.
        exact: keep every pixel of normal images instead of a histogram.
        bits: size of the histogram. Changes nothing when exact.
        in_memory: scores kept in memory when exact; more go to a temporary file. Changes nothing otherwise.
    """

    def __init__(
        self,
        fpr_bounds: tuple[float, float] = (1e-5, 1e-4),
        *,
        exact: bool = False,
        bits: int = BITS,
        in_memory: int = IN_MEMORY,
    ) -> None:
        if not 0 < fpr_bounds[0] < fpr_bounds[1] <= 1:
            raise UsageError(f"fpr_bounds must satisfy 0 < low < high <= 1. Got {fpr_bounds}.")
        self.fpr_bounds = fpr_bounds
        self.exact = exact
        self.bits = bits
        self.in_memory = in_memory
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._normal: Scores = ExactScores(self.in_memory) if self.exact else BinnedScores(self.bits)
        self._defects: list[tuple[Tensor, Tensor]] = []  # per anomalous image: ascending values and their counts

    def update(self, maps: Iterable[Tensor], masks: Iterable[Tensor]) -> None:
        """As `AUPRO.update`. An image whose mask is all False is a normal one."""
        for scores, mask in zip(maps, masks, strict=True):
            check_shapes(scores, mask)
            check_finite(scores)
            if bool(mask.any()):
                self._defects.append(self._compress(scores[mask != 0].float()))
            else:
                weight = torch.tensor([1 / scores.numel()], dtype=torch.float64).expand(scores.numel())
                self._normal.add(scores, torch.ones_like(mask, dtype=torch.bool), weight)

    def state(self) -> dict[str, Tensor]:
        """`normal.` and the names of the store's state; of k anomalous images `lengths` (k,) int64, how many distinct
        values each has, and one image after the other `values` float32 and `counts` int64.
        """
        empty = (torch.zeros(0), torch.zeros(0, dtype=torch.int64))
        values, counts = (torch.cat(column) for column in zip(empty, *self._defects, strict=True))
        lengths = torch.tensor([len(value) for value, _ in self._defects], dtype=torch.int64)
        return {**under("normal", self._normal.state()), "lengths": lengths, "values": values, "counts": counts}

    def merge(self, other: Self | State) -> None:
        """Add what another instance with the same arguments has seen, or what its state holds; its images follow the
        own ones.
        """
        if isinstance(other, Mapping):
            lengths = other["lengths"].tolist()
            self._normal.merge(below("normal", other))
            self._defects += zip(other["values"].split(lengths), other["counts"].split(lengths), strict=True)
        else:
            self._normal.merge(other._normal)
            self._defects += other._defects

    def per_image(self) -> list[float]:
        """AUPIMO of each anomalous image, in the order of updates. Needs a normal image to have been seen."""
        normal = ranked(self._normal.weighted_tally())
        tally = top(normal, self.fpr_bounds[1])  # what lies lower earns nothing
        credit = aupimo_credit(tally.positive, self.fpr_bounds, normal.positive)
        return [
            float((credit[torch.searchsorted(tally.value, value)] * count).sum() / count.sum())
            for value, count in self._defects
        ]

    def compute(self) -> Figure:
        """The mean over anomalous images."""
        if not self._defects:
            return Figure(None, "no anomalous pixels")
        if not ranked(self._normal.weighted_tally()).positive:
            return Figure(None, "no normal images")
        scores = self.per_image()
        return Figure(sum(scores) / len(scores))

    def _compress(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Distinct scores, or edges of occupied bins, with their counts."""
        if not self.exact:
            scores = bin_edge(bin_index(scores, self.bits), self.bits)
        value, count = torch.unique(scores.cpu(), return_counts=True)
        return value, count
