"""One Gaussian per patch position, fitted in a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

import torch
from torch import Tensor

from blemish.errors import DataError
from blemish.functional.gaussian import (
    Moments,
    cholesky_factors,
    mahalanobis,
    mahalanobis_by_solving,
    pack,
    scatter_from_whitening,
    unpack,
    whitening_factors,
)
from blemish.models.components.dynamic_buffer import DynamicBufferModule
from blemish.models.components.moments import MomentStream


class PatchGaussians(DynamicBufferModule):
    """Means and whitening factors of P positions with D features; see `functional.gaussian`.

    The result depends on the images and their order alone, not on batches, nor on how many workers observed pieces of
    consecutive images; see `components.moments`. The state dict holds the lower triangles alone, (P, D (D + 1) / 2):
    half of the largest tensor of the model.

    Args:
        epsilon: added to every covariance's diagonal, greater than 0.
        dtype: how the factors are kept after fitting; arithmetic is float32 either way.
        shrinkage: share of the mean covariance of all positions in each one's, in [0, 1).

    Attributes:
        mean: (P, D) float32. whitening: (P, D, D) `dtype`, lower triangular; both empty before fitting.
        count: () int64, images seen.
        factors: (P, D, D) float32, what `finish_briefly` leaves in place of `whitening`; not in the state dict.
    """

    mean: Tensor
    whitening: Tensor
    count: Tensor
    factors: Tensor

    def __init__(
        self,
        epsilon: float,
        dtype: Literal["float32", "float16"] = "float32",
        shrinkage: float = 0.0,
    ) -> None:
        super().__init__()
        self.epsilon, self.shrinkage = epsilon, shrinkage
        self.dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]
        self.register_buffer("mean", torch.empty(0, 0))
        self.register_buffer("whitening", torch.empty(0, 0, 0, dtype=self.dtype))
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("factors", torch.empty(0, 0, 0), persistent=False)
        self._stream = MomentStream()

    def start(self) -> None:
        """Forgets everything."""
        self._stream = MomentStream()
        self._forget()

    def resume(self) -> None:
        """Goes back from whitening factors to moments, so that more images can be added. Their numbers begin at 0."""
        count = int(self.count)
        scatter = scatter_from_whitening(count, self.whitening.float(), self.epsilon, self.shrinkage)
        self._stream = MomentStream(base=Moments(count, self.mean, pack(scatter)))
        self._forget()

    def observe(self, embedding: Tensor, images: Sequence[int] | None = None) -> None:
        """Takes (N, P, D) float32, and the numbers of the images within the whole set, see `MomentStream.observe`."""
        self._stream.observe(embedding, images)

    def observed_state(self) -> dict[str, Tensor]:
        """What was observed since `start` or `resume`, as tensors to send, see `MomentStream.state`."""
        return self._stream.state()

    def merge(self, other: PatchGaussians | Mapping[str, Tensor]) -> None:
        """Adds what another instance, or one whose `observed_state` is given, has observed of the same set.

        Raises:
            UsageError: if both have seen the same images, or features of different shapes.
        """
        self._stream.merge(other.observed_state() if isinstance(other, PatchGaussians) else other)

    def finish(self) -> None:
        """Factors the covariances.

        Raises:
            DataError: if fewer than 2 images were seen.
        """
        count, scatter = self._take_moments()
        self.whitening = whitening_factors(count, scatter, self.epsilon, self.shrinkage, self.dtype)

    def finish_briefly(self) -> None:
        """`finish` for distances of a few images alone: it takes half the time, and each image longer."""
        count, scatter = self._take_moments()
        self.factors = cholesky_factors(count, scatter, self.epsilon, self.shrinkage)

    def distance(self, embedding: Tensor) -> Tensor:
        """(N, P, D) -> Mahalanobis distances (N, P)."""
        if len(self.factors):
            return mahalanobis_by_solving(embedding, self.mean, self.factors)
        return mahalanobis(embedding, self.mean, self.whitening)

    def _take_moments(self) -> tuple[int, list[Tensor]]:
        """Images, and the scatter of what was observed, alone in a list; there is nothing left of it."""
        moments = self._stream.finish()
        self._stream = MomentStream()
        if moments is None or moments.count < 2:
            seen = 0 if moments is None else moments.count
            raise DataError(f"PaDiM needs at least 2 good images to estimate a covariance. Got {seen}.")
        self.mean = moments.mean
        self.count.fill_(moments.count)
        return moments.count, [moments.scatter]

    def _forget(self) -> None:
        self.mean = self.mean.new_empty(0, 0)
        self.whitening = self.whitening.new_empty(0, 0, 0)
        self.factors = self.factors.new_empty(0, 0, 0)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}whitening"] = pack(self.whitening)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        packed = state_dict.get(f"{prefix}whitening")
        if isinstance(packed, Tensor) and packed.ndim == 2:
            with suppress(ValueError):  # the shapes don't fit, and loading says so
                state_dict = {**state_dict, f"{prefix}whitening": unpack(packed)}
        super()._load_from_state_dict(state_dict, prefix, *args)
