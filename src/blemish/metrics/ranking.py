"""How well scores rank anomalous above normal, whatever the threshold: AUROC, average precision, maximum F1.

The three differ in one formula each; state, streaming and reasons are shared. Labels are True for anomalous; higher
scores are more abnormal; raw scores are meant, since clipped ones tie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from torch import Tensor

from blemish.functional import curves
from blemish.functional.histogram import BITS, Ranked, Tally, ranked
from blemish.metrics.figure import Figure, Level
from blemish.metrics.spill import IN_MEMORY
from blemish.metrics.stores import BinnedScores, ExactScores, Scores, State

if TYPE_CHECKING:
    from typing_extensions import Self


class Ranking:
    """Base of the three: streams scores and labels, computes one figure from their tally.

    Args:
        level: what a score belongs to, "image" or "pixel".
        exact: keep every score (beyond `in_memory` in a temporary file, 20 bytes each), or count in a histogram, whose
            figure is exactly that of the scores rounded down to a relative precision of 2 ** -(bits - 9). None: exact
            for images, bounded for pixels.
        bits: size of the histogram (see `functional.histogram`). Changes nothing when exact.
        in_memory: scores kept in memory when exact; more go to a temporary file. Changes nothing otherwise.
    """

    needs_normal: ClassVar[bool] = False

    def __init__(
        self, level: Level = "image", *, exact: bool | None = None, bits: int = BITS, in_memory: int = IN_MEMORY
    ) -> None:
        self.level: Level = level
        self.exact = level == "image" if exact is None else exact
        self.bits = bits
        self.in_memory = in_memory
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._scores: Scores = ExactScores(self.in_memory) if self.exact else BinnedScores(self.bits)

    def update(self, scores: Tensor, labels: Tensor) -> None:
        """Take scores of any shape with bool labels of the same shape.

        Raises:
            NonFiniteError: a score is NaN or infinite.
            UsageError: the shapes differ.
        """
        self._scores.add(scores, labels)

    def state(self) -> dict[str, Tensor]:
        """The scores, as their store gives them, see `metrics.stores`."""
        return self._scores.state()

    def merge(self, other: Self | State) -> None:
        """Add what another instance with the same arguments has seen, or what its state holds."""
        self._scores.merge(other if isinstance(other, Mapping) else other._scores)

    @staticmethod
    def formula(tally: Tally | Ranked) -> float:
        """The figure of a tally that has what the figure needs."""
        raise NotImplementedError

    def compute(self) -> Figure:
        """The figure over all updates."""
        return self.from_tally(self._scores.tally(), self.level)

    @classmethod
    def from_tally(cls, tally: Tally | Ranked, level: Level) -> Figure:
        """The figure of a tally that somebody else has kept."""
        whole = ranked(tally)
        if not whole.positive:
            return Figure(None, f"no anomalous {level}s")
        if cls.needs_normal and not whole.negative:
            return Figure(None, f"no normal {level}s")
        return Figure(cls.formula(whole))


class AUROC(Ranking):
    """Area under the ROC curve: the chance that an anomalous score outranks a normal one, ties counting half."""

    formula = staticmethod(curves.auroc)
    needs_normal = True


class AveragePrecision(Ranking):
    """Step-wise area under the precision-recall curve. 1 when everything is anomalous."""

    formula = staticmethod(curves.average_precision)


class F1Max(Ranking):
    """The highest F1 of any threshold: an upper bound that needs the labels to be reached."""

    formula = staticmethod(curves.f1_max)
