"""How a detector comes to know good images: it observes them, batch after batch, and makes a model of them at the end.

    start() or resume()  ->  observe(features) ...  ->  finish()

Several may observe parts of a set and be merged before they finish.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from blemish.data.good_images import GoodImages
from blemish.errors import NotFittedError, UsageError
from blemish.models.components import moments
from blemish.settings import DetectorSettings


class Observer(nn.Module, ABC):
    """What observes good images.

    Attributes:
        settings: what it was built from, with everything filled in.
        good_images: those that explanations refer to; none where the fit wasn't the engine's.
    """

    Settings: ClassVar[type[DetectorSettings]]
    settings: DetectorSettings

    def __init__(self) -> None:
        super().__init__()
        self.good_images = GoodImages()
        self._observing = self._resumed = False

    @property
    def name(self) -> str:
        """What configurations and model files call the detector."""
        return self.Settings.name

    @property
    def is_fitted(self) -> bool:
        """Whether `finish` has run, or fitted state was loaded."""
        return not self._observing and self._has_state()

    @property
    def is_observing(self) -> bool:
        """Whether images were observed that `finish` hasn't made a model of."""
        return self._observing

    def arguments(self) -> dict[str, Any]:
        """The settings that, with the state dict, rebuild this detector without network: JSON values only."""
        return self.settings.arguments()

    @abstractmethod
    def _has_state(self) -> bool:
        """Whether there is fitted state; decided on shapes, so that a graph can be exported."""

    @abstractmethod
    def _forget_thresholds(self) -> None:
        """Thresholds of other features mean nothing: if the new calibration fails, there must be none."""

    def start(self) -> None:
        """Forgets everything observed: a second fit starts afresh."""
        self._observing, self._resumed = True, False
        self.good_images = GoodImages()
        self._forget_thresholds()

    def resume(self) -> None:
        """Prepares a fitted detector to observe more good images, which `finish` adds to what it knows.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        self._observing = self._resumed = True
        self._forget_thresholds()

    def begin(self) -> None:
        """Starts observing, or goes on where `resume` was called just before."""
        if not self._resumed:  # an interrupted fit leaves `_observing` behind, and nothing to go on from
            self.start()
        self._resumed = False

    @abstractmethod
    def observe(self, features: Tensor, images: Sequence[int] | None = None) -> None:
        """Takes a batch of good images.

        Args:
            features: (N, D, gh, gw) float32.
            images: the numbers that the N images have in the whole set, rising from 0; needed where several detectors
                observe parts of it. None numbers them on from the last one.

        Raises:
            UsageError: if numbers don't rise.
        """

    def observed_state(self) -> dict[str, Tensor]:
        """What was observed since `start` or `resume`, as plain tensors for `merge` in another process.

        Raises:
            UsageError: if this kind of detector can't.
        """
        raise UsageError(f"{type(self).__name__} can't be merged, so one process has to observe all images.")

    @property
    def scattered(self) -> int:
        """How many images out of a set, any of them, are observed before something is made of them: detectors that saw
        as many at most, merged, give the bytes of one pass. (Consecutive ones do so in any number, see `merge`.)
        """
        return moments.BLOCK_IMAGES

    def finish(self) -> None:
        """Turns what was observed into the fitted model."""
        self._observing = False

    def finish_for(self, images: int) -> None:
        """`finish` of a detector that scores so many images and is never saved: without what only pays for more."""
        self.finish()

    def merge(self, other: Observer | Mapping[str, Tensor]) -> None:
        """Adds what another detector of the same settings has observed; both before `finish`.

        Parts of consecutive images, cut anywhere and merged in any order, give the same bytes as one pass. Other parts
        (every second image, say) give the same bytes while they are small, and beyond that the same up to rounding, or
        another selection that covers as well.

        Args:
            other: a detector that has observed other images of the same set, by their numbers; or its
                `observed_state`.

        Raises:
            UsageError: if this kind of detector can't, if this one doesn't observe, if the two differ in their
                settings, or if both have seen the same images.
        """
        if not self._observing:
            raise UsageError("Only a detector that observes can merge another. Call start() or resume() first.")
        if isinstance(other, Observer):
            if (other.name, other.arguments()) != (self.name, self.arguments()):
                raise UsageError("Only detectors of one kind with the same settings can be merged.")
            other = other.observed_state()
        self.merge_state(other)

    def merge_state(self, state: Mapping[str, Tensor]) -> None:
        """Adds an `observed_state`: what `merge` does, without its checks."""
        raise UsageError(f"{type(self).__name__} can't be merged, so one process has to observe all images.")

    def _require_fitted(self) -> None:
        if not self.is_fitted:
            raise NotFittedError(
                f"This {self.Settings.title} has not seen any good images yet. Run Engine.fit(model, datamodule) first."
            )
