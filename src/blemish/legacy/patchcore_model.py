"""PatchCore as an older library split it, kept for code written for that library (arXiv 2106.08265).

`Patchcore` is the detector to use. `PatchcoreModel` keeps two of the older habits, in this module alone:

- it returns embeddings in training mode and results otherwise;
- it upsamples patch scores by repeating them, and scores an image by its worst patch with distances d_1 <= ... <= d_k:

      s = (1 - max_j exp(d_j) / sum_j exp(d_j)) d_1

  where the paper's equation 7 has exp(d_1) in the numerator and other neighbors (`functional.distances`).

Features, neighbors, coreset and blur are those of the whole library. Axes: N images, P = gh * gw patches of one image,
D features, k neighbors, M rows of the bank, (h, w) pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.errors import NonFiniteError, NotFittedError, UsageError
from blemish.features.extractor import FeatureExtractor
from blemish.functional.coreset import greedy_k_center
from blemish.functional.distances import nearest, square_norms
from blemish.functional.maps import smooth
from blemish.functional.patches import average_neighborhood, join_layers, to_rows
from blemish.legacy.patchcore_lightning import PatchcoreLightning
from blemish.models.components import DynamicBufferModule, Tiler

__all__ = ["AnomalyMapGenerator", "PatchcoreLightning", "PatchcoreModel"]


class AnomalyMapGenerator:
    """Distances of patches to maps and scores of images.

    Args:
        input_size: (h, w) of the map: a tuple, list or OmegaConf list.
        sigma: standard deviation of the blur in pixels, greater than 0.

    Raises:
        UsageError: for sizes below 1 or a sigma that isn't positive.
    """

    def __init__(self, input_size: Sequence[int], sigma: float = 4) -> None:
        if len(input_size) != 2 or min(input_size) < 1:
            raise UsageError(f"input_size must be (height, width), each at least 1. Got {input_size}.")
        if not sigma > 0:
            raise UsageError(f"sigma must be above 0 pixels. Got {sigma}.")
        self.input_size = (int(input_size[0]), int(input_size[1]))
        self.sigma = sigma

    def compute_anomaly_map(
        self, patch_scores: Tensor | npt.NDArray[Any], feature_map_shape: torch.Size | Sequence[int]
    ) -> Tensor:
        """Repeats the distance of every patch over its pixels, and blurs.

        Args:
            patch_scores: (N * P, k) distances, nearest first; the first column is used.
            feature_map_shape: (gh, gw): rows, then columns. The older documents call these width and height.

        Returns:
            (N, 1, h, w) float32.
        """
        nearest_distance = torch.as_tensor(patch_scores)[:, 0].reshape(-1, 1, *feature_map_shape)  # (N, 1, gh, gw)
        return smooth(F.interpolate(nearest_distance, size=self.input_size), self.sigma)

    @staticmethod
    def compute_anomaly_score(patch_scores: Tensor | npt.NDArray[Any]) -> Tensor:
        """Score of the worst patch, see the head of this module.

        Args:
            patch_scores: (P, k) distances of one image, nearest first, or (N, P, k).

        Returns:
            () or (N,). With k = 1 the distance itself: the weight would erase every score.
        """
        scores = torch.as_tensor(patch_scores)
        patch = scores[..., :1].argmax(dim=-2, keepdim=True)  # (..., 1, 1)
        worst = scores.take_along_dim(patch, dim=-2).squeeze(-2)  # (..., k)
        if worst.shape[-1] == 1:
            return worst[..., 0]
        return (1.0 - worst.softmax(dim=-1).amax(dim=-1)) * worst[..., 0]

    def __call__(self, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """The map and the score of every image, from keywords `patch_scores` and `feature_map_shape`.

        Args:
            **kwargs: both as in `compute_anomaly_map`.

        Returns:
            Maps (N, 1, h, w) and scores (N,).

        Raises:
            ValueError: if a keyword is missing (the message names it) or unknown.
        """
        missing = [key for key in ("patch_scores", "feature_map_shape") if key not in kwargs]
        if missing:
            raise UsageError(f"Missing keywords: {', '.join(missing)}. Got {', '.join(kwargs) or 'none'}.")
        if len(kwargs) > 2:
            raise UsageError(f"Give patch_scores and feature_map_shape, nothing else. Got {', '.join(kwargs)}.")
        scores = torch.as_tensor(kwargs["patch_scores"])
        rows, columns = kwargs["feature_map_shape"]
        maps = self.compute_anomaly_map(scores, (rows, columns))
        return maps, self.compute_anomaly_score(scores.view(len(maps), rows * columns, -1))


class PatchcoreModel(DynamicBufferModule):
    """Memory bank over a backbone, filled by hand: embed in training mode, subsample, then score in evaluation mode.

        model = PatchcoreModel(["layer2", "layer3"], (224, 224)).train()
        model.subsample_embedding(torch.cat([model(images) for images in good]), sampling_ratio=0.1)
        maps, scores = model.eval()(images)

    Args:
        layers: layers of the backbone, see `FeatureExtractor`.
        input_size: (h, w) of images and maps.
        backbone: "bundled", "filter_bank" or a timm name.
        apply_tiling: whether to inspect images in tiles; `tile_size` and `tile_stride` wait until it is True.
        tile_size, tile_stride: see `Tiler`.
        pretrained, weights: see `FeatureExtractor`; with `pretrained=False` nothing is looked for.

    Attributes:
        memory_bank: (M, D) float32, empty before `subsample_embedding`; part of the state dict, and loads into a fresh
            model.

    Raises:
        UsageError: for arguments outside their range. WeightsError: if pretrained weights can't be found.
    """

    memory_bank: Tensor

    def __init__(
        self,
        layers: Sequence[str],
        input_size: Sequence[int],
        backbone: str = "wide_resnet50_2",
        apply_tiling: bool = False,
        tile_size: Sequence[int] | int | None = None,
        tile_stride: Sequence[int] | int | None = None,
        *,
        pretrained: bool = True,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.anomaly_map_generator = AnomalyMapGenerator(input_size)
        self.input_size = self.anomaly_map_generator.input_size
        self.extractor = FeatureExtractor(backbone, layers, pretrained=pretrained, weights=weights)
        self.tiler: Tiler | None = None
        if apply_tiling:
            if tile_size is None:
                raise UsageError("apply_tiling needs a tile_size. Give one, or drop apply_tiling.")
            self.tiler = Tiler(tile_size, tile_stride, self.input_size)
            self.tiler.grid(self.extractor.grid(self.tiler.tile_size), self.extractor.strides)
        else:
            self.extractor.grid(self.input_size)  # is an error for images that are too small
        self.register_buffer("memory_bank", torch.empty(0, sum(self.extractor.channels)))

    def forward(self, input_tensor: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Embeddings in training mode, results in evaluation mode.

        Args:
            input_tensor: (N, 3, h, w) float32, normalized as the backbone was trained with.

        Returns:
            (N * P, D) in training mode; else maps (N, 1, h, w) and scores (N,), where every image of a batch gets
            the result it would get alone.

        Raises:
            UsageError: for another shape. NotFittedError: in evaluation mode, before there is a bank.
        """
        if input_tensor.ndim != 4 or tuple(input_tensor.shape[1:]) != (3, *self.input_size):
            raise UsageError(f"Images must be (N, 3, *{self.input_size}). Got {tuple(input_tensor.shape)}.")
        maps = self.extractor(input_tensor) if self.tiler is None else self.tiler(self.extractor, input_tensor)
        grid = self.generate_embedding(dict(zip(self.extractor.layers, maps, strict=True)))  # (N, D, gh, gw)
        embedding = self.reshape_embedding(grid)
        if self.training:
            return embedding
        return self.anomaly_map_generator(
            patch_scores=self.nearest_neighbors(embedding), feature_map_shape=grid.shape[-2:]
        )

    def generate_embedding(self, features: Mapping[str, Tensor]) -> Tensor:
        """Averages neighborhoods and joins the layers, as `Patchcore.embed`.

        Args:
            features: layer name -> (N, D_i, h_i, w_i); all layers of the model.

        Returns:
            (N, D, gh, gw) at the resolution of the finest layer.

        Raises:
            UsageError: if a layer is missing; the message names it.
        """
        missing = [name for name in self.extractor.layers if name not in features]
        if missing:
            raise UsageError(f"features lack {', '.join(missing)}. Got {', '.join(features)}.")
        return join_layers([average_neighborhood(features[name]) for name in self.extractor.layers])

    @staticmethod
    def reshape_embedding(embedding: Tensor) -> Tensor:
        """(N, D, gh, gw) -> (N * P, D), image by image, row by row."""
        return to_rows(embedding)

    def subsample_embedding(self, embedding: Tensor, sampling_ratio: float) -> None:
        """Puts a greedy k-center selection into the memory bank, in place of what was there. No chance is involved.

        Args:
            embedding: (n, D) float32.
            sampling_ratio: share of the rows to keep, above 0 and at most 1; at least one row is kept.

        Raises:
            UsageError: for an empty embedding or another ratio. NonFiniteError: for NaN or infinity in the embedding.
        """
        if not 0.0 < sampling_ratio <= 1.0:
            raise UsageError(f"sampling_ratio must be above 0 and at most 1. Got {sampling_ratio}.")
        if not len(embedding):
            raise UsageError("embedding must have at least one row. Got none.")
        if not bool(embedding.isfinite().all()):
            raise NonFiniteError("embedding holds NaN or infinity. Check the images and the backbone's weights.")
        self.memory_bank = embedding[greedy_k_center(embedding, max(1, int(sampling_ratio * len(embedding))))]

    def nearest_neighbors(self, embedding: Tensor, n_neighbors: int = 9) -> Tensor:
        """Exact Euclidean distances to the nearest rows of the memory bank, ascending.

        Args:
            embedding: (Q, D) float32.
            n_neighbors: columns wanted, at least 1; no more than there are rows.

        Returns:
            (Q, min(n_neighbors, M)) float32, in feature units.

        Raises:
            NotFittedError: before there is a bank. UsageError: for `n_neighbors` below 1.
        """
        if not len(self.memory_bank):
            raise NotFittedError("The memory bank is empty. Call subsample_embedding, or load a state dict, first.")
        if n_neighbors < 1:
            raise UsageError(f"n_neighbors must be at least 1. Got {n_neighbors}.")
        center = self.memory_bank.mean(dim=0)
        rows = self.memory_bank - center
        return nearest(embedding - center, rows, square_norms(rows), n_neighbors).distance
