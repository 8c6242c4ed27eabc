"""One Gaussian per patch position, fitted in a stream."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from blemish.errors import DataError
from blemish.functional.gaussian import mahalanobis, merge_moments_, scatter_from_whitening, whitening_
from blemish.models.components.dynamic_buffer import DynamicBufferModule

CHUNK_BYTES = 64 * 2**20
CHUNK_IMAGES = 32


class PatchGaussians(DynamicBufferModule):
    """Means and whitening factors of P positions with D features; see `functional.gaussian`.

    Images are merged in chunks whose size depends on P and D alone, so the result doesn't depend on the batch size. The
    state dict holds the lower triangles alone, (P, D (D + 1) / 2): half of the largest tensor of the model.

    Args:
        epsilon: added to every covariance's diagonal, greater than 0.
        dtype: how the factors are kept after fitting; arithmetic is float32 either way.

    Attributes:
        mean: (P, D) float32. whitening: (P, D, D) `dtype`, lower triangular; both empty before fitting.
        count: () int64, images seen.
    """

    mean: Tensor
    whitening: Tensor
    count: Tensor

    def __init__(self, epsilon: float, dtype: Literal["float32", "float16"] = "float32") -> None:
        super().__init__()
        self.epsilon = epsilon
        self.dtype = {"float32": torch.float32, "float16": torch.float16}[dtype]
        self.register_buffer("mean", torch.empty(0, 0))
        self.register_buffer("whitening", torch.empty(0, 0, 0, dtype=self.dtype))
        self.register_buffer("count", torch.tensor(0))
        self._pending: list[Tensor] = []
        self._seen = 0

    def start(self) -> None:
        """Forgets everything."""
        self.mean = self.mean.new_empty(0, 0)
        self.whitening = torch.empty(0, 0, 0, dtype=self.dtype, device=self.mean.device)
        self._pending, self._seen = [], 0

    def resume(self) -> None:
        """Goes back from whitening factors to scatter matrices, so that more images can be merged."""
        self._seen = int(self.count)
        self.whitening = scatter_from_whitening(self._seen, self.whitening.float(), self.epsilon)

    def observe(self, embedding: Tensor) -> None:
        """Takes (N, P, D) float32."""
        if not len(self.mean):
            positions, channels = embedding.shape[1:]
            self.mean = embedding.new_zeros(positions, channels)
            self.whitening = embedding.new_zeros(positions, channels, channels)  # holds the scatter until `finish`
        self._pending.extend(embedding)
        chunk = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (4 * embedding[0].numel())))
        while len(self._pending) >= chunk:
            self._merge(self._pending[:chunk])
            del self._pending[:chunk]

    def finish(self) -> None:
        """Factors the covariances.

        Raises:
            DataError: if fewer than 2 images were seen.
        """
        if self._pending:
            self._merge(self._pending)
            self._pending = []
        if self._seen < 2:
            raise DataError(f"PaDiM needs at least 2 good images to estimate a covariance. Got {self._seen}.")
        self.whitening = whitening_(self._seen, self.whitening, self.epsilon).to(self.dtype)
        self.count.fill_(self._seen)

    def distance(self, embedding: Tensor) -> Tensor:
        """(N, P, D) -> Mahalanobis distances (N, P)."""
        return mahalanobis(embedding, self.mean, self.whitening)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        rows, columns = torch.tril_indices(*self.whitening.shape[1:], device=self.whitening.device)
        destination[f"{prefix}whitening"] = self.whitening[:, rows, columns]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        packed = state_dict.get(f"{prefix}whitening")
        if isinstance(packed, Tensor) and packed.ndim == 2:
            channels = (math.isqrt(8 * packed.shape[1] + 1) - 1) // 2
            rows, columns = torch.tril_indices(channels, channels)
            if len(rows) == packed.shape[1]:  # else the shapes don't fit, and loading says so
                whitening = packed.new_zeros(len(packed), channels, channels)
                whitening[:, rows, columns] = packed
                state_dict = {**state_dict, f"{prefix}whitening": whitening}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _merge(self, images: list[Tensor]) -> None:
        self._seen = merge_moments_(self._seen, self.mean, self.whitening, torch.stack(images))
