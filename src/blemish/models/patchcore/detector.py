"""PatchCore: how far is each patch from the nearest good patch? (Roth et al., arXiv 2106.08265.)"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from blemish.data.roi import Roi
from blemish.errors import UsageError
from blemish.functional.patches import average_neighborhood, join_layers
from blemish.models.base import AnomalyModule
from blemish.models.patchcore.bank import MemoryBank
from blemish.post_processing import BasePostProcessor


class Patchcore(AnomalyModule):
    """Memory bank of good patches, reduced by greedy k-center; scores are distances to it in feature units.

    Args:
        coreset_sampling_ratio: share of all patches to keep, in (0, 1]; the paper uses 0.25, 0.1 and 0.01.
        bank_size: most rows to keep, at least 1. None sets no limit (the paper's setting): memory then grows with the
            images.
        selection_channels: select the coreset in a random projection to so many channels, at least 1; faster for wide
            features. None selects in the features themselves.
        bank_dtype: "float32" or "float16"; how the rows are stored.
        num_neighbors: b of the paper's equation 7, at least 1; 1 switches the re-weighting off.
        neighbor_search: "exact", or "faiss" for large banks: faster, a few scores come out too high and none too low.
            An exported graph searches exactly either way.
        sigma: blur of the map in pixels of the model's image size, greater than 0.
        backbone, layers, image_size, fit_mode, crop_from, roi, pretrained, weights, tile_size, tile_stride, seed,
            post_processor: see `AnomalyModule`. Layers default to "layer2" and "layer3", the paper's, for timm
            backbones.

    Raises:
        UsageError: for arguments outside their range. MissingExtraError: for "faiss" where it isn't installed.
    """

    layer_strides: ClassVar[tuple[int, int]] = (8, 16)
    name: ClassVar[str] = "patchcore"

    def __init__(
        self,
        *,
        backbone: str = "bundled",
        layers: Sequence[str] | None = None,
        image_size: int | Sequence[int] = 256,
        fit_mode: Literal["stretch", "letterbox"] = "stretch",
        crop_from: int | Sequence[int] | None = None,
        roi: Roi | None = None,
        coreset_sampling_ratio: float = 0.1,
        bank_size: int | None = 10_000,
        selection_channels: int | None = None,
        bank_dtype: Literal["float32", "float16"] = "float32",
        num_neighbors: int = 9,
        neighbor_search: Literal["exact", "faiss"] = "exact",
        sigma: float = 4.0,
        pretrained: bool = True,
        weights: str | os.PathLike[str] | None = None,
        tile_size: int | Sequence[int] | None = None,
        tile_stride: int | Sequence[int] | None = None,
        seed: int = 0,
        post_processor: BasePostProcessor | bool | None = None,
    ) -> None:
        if not 0.0 < coreset_sampling_ratio <= 1.0:
            raise UsageError(f"coreset_sampling_ratio must be above 0 and at most 1. Got {coreset_sampling_ratio}.")
        if bank_size is not None and bank_size < 1:
            raise UsageError(f"bank_size must be at least 1, or None for no limit. Got {bank_size}.")
        if selection_channels is not None and selection_channels < 1:
            raise UsageError(f"selection_channels must be at least 1, or None. Got {selection_channels}.")
        if bank_dtype not in ("float32", "float16"):
            raise UsageError(f"bank_dtype must be 'float32' or 'float16'. Got {bank_dtype!r}.")
        if num_neighbors < 1:
            raise UsageError(f"num_neighbors must be at least 1. Got {num_neighbors}.")
        if neighbor_search not in ("exact", "faiss"):
            raise UsageError(f"neighbor_search must be 'exact' or 'faiss'. Got {neighbor_search!r}.")
        super().__init__(
            backbone=backbone,
            layers=layers,
            image_size=image_size,
            fit_mode=fit_mode,
            crop_from=crop_from,
            roi=roi,
            pretrained=pretrained,
            weights=weights,
            tile_size=tile_size,
            tile_stride=tile_stride,
            sigma=sigma,
            seed=seed,
            post_processor=post_processor,
        )
        self.num_neighbors = num_neighbors
        self.bank = MemoryBank(coreset_sampling_ratio, bank_size, selection_channels, bank_dtype, seed, neighbor_search)
        self._bank_dtype = bank_dtype

    def _has_state(self) -> bool:
        return len(self.bank.rows) > 0

    def check_state(self) -> None:
        """See `AnomalyModule.check_state`."""
        rows = len(self.bank.rows)
        expected = {"center": (self.channels,), "rows": (rows, self.channels), "norms": (rows,), "radius": ()}
        for name, shape in expected.items():
            if tuple(getattr(self.bank, name).shape) != shape:
                raise ValueError(f"bank.{name} must be {shape}. Got {tuple(getattr(self.bank, name).shape)}.")

    def arguments(self) -> dict[str, Any]:
        """See `AnomalyModule.arguments`."""
        return {
            **super().arguments(),
            "coreset_sampling_ratio": self.bank.ratio,
            "bank_size": self.bank.size,
            "selection_channels": self.bank.selection_channels,
            "bank_dtype": self._bank_dtype,
            "num_neighbors": self.num_neighbors,
            "neighbor_search": self.bank.neighbor_search,
        }

    def start(self) -> None:
        """See `AnomalyModule.start`."""
        super().start()
        self.bank.start()

    def resume(self) -> None:
        """See `AnomalyModule.resume`: rows that the bank doesn't cover yet will be added."""
        super().resume()
        self.bank.resume()

    def observe(self, features: Tensor) -> None:
        """See `AnomalyModule.observe`."""
        self.bank.observe(self.map_maker.patches(features).flatten(0, 1), self._report_coreset)

    def finish(self) -> None:
        """Selects the coreset."""
        self.bank.finish(self._report_coreset)
        super().finish()

    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Averages 3 x 3 neighborhoods, then joins the layers at the resolution of the finest."""
        return join_layers([average_neighborhood(layer) for layer in layers])

    def score(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of every patch to the bank; the image score is that of the worst patch, re-weighted."""
        images = features.shape[0]
        patches = self.map_maker.patches(features).flatten(0, 1)  # (N * P, D)
        found = self.bank.nearest(patches)
        maps = self.map_maker(found.distance.view(images, self.map_maker.count))
        return self.bank.image_scores(patches, found, images, self.num_neighbors), maps

    def _report_coreset(self, done: int, total: int, radius: float) -> None:
        self.progress("coreset", done, total)
