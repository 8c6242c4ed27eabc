"""PaDiM: how many standard deviations is each patch from the good ones at its position? (Defard et al., arXiv
2011.08785.)
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from blemish.data.roi import Roi
from blemish.errors import UsageError
from blemish.functional.patches import join_layers
from blemish.models.base import AnomalyModule
from blemish.models.padim.gaussians import PatchGaussians
from blemish.post_processing import BasePostProcessor

PAPER_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550}
DEFAULT_FEATURES = 100


class Padim(AnomalyModule):
    """Gaussians of good features per position; scores are Mahalanobis distances, in standard deviations.

    For parts that always lie in the same place: every position has its own idea of what is normal.

    Args:
        n_features: how many channels to keep, drawn at random once (section III-D of the paper). None keeps the paper's
            100 for "resnet18" and 550 for "wide_resnet50_2", and at most 100 of any other backbone.
        epsilon: added to the diagonal of every covariance (the paper's regularization, 0.01), greater than 0.
        factor_dtype: "float32" or "float16"; how the covariances' factors are kept. float16 halves the model; scores
            keep about three digits.
        sigma: blur of the map in pixels of the model's image size, greater than 0.
        backbone, layers, image_size, fit_mode, crop_from, roi, pretrained, weights, tile_size, tile_stride, seed,
            post_processor: see `AnomalyModule`. Layers default to "layer1" to "layer3", the paper's, for timm
            backbones.

    Raises:
        UsageError: for arguments outside their range.
    """

    layer_strides: ClassVar[tuple[int, int]] = (4, 16)
    name: ClassVar[str] = "padim"
    channel_index: Tensor

    def __init__(
        self,
        *,
        backbone: str = "bundled",
        layers: Sequence[str] | None = None,
        image_size: int | Sequence[int] = 256,
        fit_mode: Literal["stretch", "letterbox"] = "stretch",
        crop_from: int | Sequence[int] | None = None,
        roi: Roi | None = None,
        n_features: int | None = None,
        epsilon: float = 0.01,
        factor_dtype: Literal["float32", "float16"] = "float32",
        sigma: float = 4.0,
        pretrained: bool = True,
        weights: str | os.PathLike[str] | None = None,
        tile_size: int | Sequence[int] | None = None,
        tile_stride: int | Sequence[int] | None = None,
        seed: int = 0,
        post_processor: BasePostProcessor | bool | None = None,
    ) -> None:
        if not epsilon > 0.0:
            raise UsageError(f"epsilon must be above 0, or covariances can't be inverted. Got {epsilon}.")
        if factor_dtype not in ("float32", "float16"):
            raise UsageError(f"factor_dtype must be 'float32' or 'float16'. Got {factor_dtype!r}.")
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
        wanted = n_features
        if wanted is None:
            wanted = min(PAPER_FEATURES.get(backbone.partition(".")[0], DEFAULT_FEATURES), self.channels)
        if not 1 <= wanted <= self.channels:
            raise UsageError(
                f"n_features must be between 1 and {self.channels}, the channels of these layers. Got {n_features}."
            )
        generator = torch.Generator().manual_seed(seed)
        index = torch.randperm(self.channels, generator=generator)[:wanted].sort()[0]
        self.register_buffer("channel_index", index)
        self._shares = self._per_layer(index)
        self.gaussians = PatchGaussians(epsilon, factor_dtype)
        self._factor_dtype = factor_dtype

    def _has_state(self) -> bool:
        return len(self.gaussians.mean) > 0

    def check_state(self) -> None:
        """See `AnomalyModule.check_state`."""
        positions, channels = self.map_maker.count, len(self.channel_index)
        expected = {"mean": (positions, channels), "whitening": (positions, channels, channels), "count": ()}
        for name, shape in expected.items():
            if tuple(getattr(self.gaussians, name).shape) != shape:
                raise ValueError(f"gaussians.{name} must be {shape}. Got {tuple(getattr(self.gaussians, name).shape)}.")
        index = self.channel_index
        if int(index.min()) < 0 or int(index.max()) >= self.channels:
            raise ValueError(f"channel_index must be between 0 and {self.channels - 1}.")
        if self._per_layer(index) != self._shares or not bool((index.diff() > 0).all()):
            raise ValueError(f"channel_index must rise, with {self._shares} channels of the layers in turn.")

    def arguments(self) -> dict[str, Any]:
        """See `AnomalyModule.arguments`."""
        return {
            **super().arguments(),
            "n_features": len(self.channel_index),
            "epsilon": self.gaussians.epsilon,
            "factor_dtype": self._factor_dtype,
        }

    def start(self) -> None:
        """See `AnomalyModule.start`."""
        super().start()
        self.gaussians.start()

    def resume(self) -> None:
        """See `AnomalyModule.resume`: more images refine means and covariances."""
        super().resume()
        self.gaussians.resume()

    def observe(self, features: Tensor) -> None:
        """See `AnomalyModule.observe`."""
        self.gaussians.observe(self.map_maker.patches(features))

    def finish(self) -> None:
        """Factors the covariances."""
        self.gaussians.finish()
        super().finish()

    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Keeps the drawn channels of each layer, then joins the layers at the resolution of the finest."""
        first, chosen = 0, []
        for layer, index in zip(layers, self.channel_index.split(self._shares), strict=True):
            chosen.append(layer[:, index - first])
            first += layer.shape[1]
        return join_layers(chosen)

    def _per_layer(self, index: Tensor) -> list[int]:
        """How many of the rising channel numbers lie in each layer."""
        ends = torch.tensor(self.extractor.channels, device=index.device).cumsum(0)
        upto = torch.searchsorted(index, ends, right=False).tolist()
        return [int(one) - int(before) for one, before in zip(upto, [0, *upto], strict=False)]

    def score(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Mahalanobis distance of every patch; the image score is the maximum of the smoothed map."""
        maps = self.map_maker(self.gaussians.distance(self.map_maker.patches(features)))
        return self.map_maker.peak(maps), maps
