"""PaDiM's map as a module of its own, from explicit means and covariances: kept for code written for an older library.

`Padim` itself works with whitening factors (see `functional.gaussian`), which can't turn negative under the root. This
module takes the statistics from outside, in the older layout, and calls the same functions. Axes: N images, D features,
(gh, gw) patches, (h, w) pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from blemish.errors import UsageError
from blemish.functional.gaussian import mahalanobis_from_inverse
from blemish.functional.maps import smooth
from blemish.functional.resize import resize


class AnomalyMapGenerator(nn.Module):
    """Mahalanobis distances to a smooth map of the image (arXiv 2011.08785, section III-C).

    Args:
        image_size: (h, w) of the map: a tuple, list or OmegaConf list.
        sigma: standard deviation of the blur in pixels, greater than 0.

    Raises:
        UsageError: for sizes below 1 or a sigma that isn't positive.
    """

    def __init__(self, image_size: Sequence[int], sigma: float = 4) -> None:
        super().__init__()
        if len(image_size) != 2 or min(image_size) < 1:
            raise UsageError(f"image_size must be (height, width), each at least 1. Got {image_size}.")
        if not sigma > 0:
            raise UsageError(f"sigma must be above 0 pixels. Got {sigma}.")
        self.image_size = (int(image_size[0]), int(image_size[1]))
        self.sigma = sigma

    @staticmethod
    def compute_distance(embedding: Tensor, stats: Sequence[Tensor]) -> Tensor:
        """Mahalanobis distance of every patch (equation 2).

        Args:
            embedding: (N, D, gh, gw) float32.
            stats: mean (D, gh * gw) and inverse covariance (gh * gw, D, D).

        Returns:
            (N, gh, gw), in standard deviations.
        """
        mean, inverse = stats
        distance = mahalanobis_from_inverse(embedding.flatten(2).mT, mean.mT, inverse)  # (N, gh * gw)
        return distance.reshape(len(embedding), *embedding.shape[2:])

    def up_sample(self, distance: Tensor) -> Tensor:
        """(N, gh, gw) -> (N, 1, h, w), bilinear."""
        return resize(distance[:, None], self.image_size)

    def smooth_anomaly_map(self, anomaly_map: Tensor) -> Tensor:
        """Gaussian blur of (N, 1, h, w) maps of any size, also one smaller than the kernel."""
        return smooth(anomaly_map, self.sigma)

    def compute_anomaly_map(self, embedding: Tensor, mean: Tensor, inv_covariance: Tensor) -> Tensor:
        """The three steps above, one after the other: shapes as in `compute_distance` -> (N, 1, h, w)."""
        distance = self.compute_distance(embedding, [mean, inv_covariance])
        return self.smooth_anomaly_map(self.up_sample(distance))

    def forward(self, **kwargs: Tensor) -> Tensor:
        """The map from keywords `embedding`, `mean` and one of `covariance` and `inv_covariance`.

        Args:
            **kwargs: shapes as in `compute_distance`. `covariance` is inverted here; `inv_covariance` is used as it is.

        Returns:
            (N, 1, h, w) float32.

        Raises:
            ValueError: if a keyword is missing (the message names it), unknown, or a covariance has no inverse.
        """
        covariances = kwargs.keys() & {"covariance", "inv_covariance"}
        missing = [key for key in ("embedding", "mean") if key not in kwargs]
        if not covariances:
            missing.append("covariance (or inv_covariance)")
        if missing:
            raise UsageError(f"Missing keywords: {', '.join(missing)}. Got {', '.join(kwargs) or 'none'}.")
        if len(covariances) == 2 or len(kwargs) > 3:
            raise UsageError(f"Give embedding, mean and one of covariance and inv_covariance. Got {', '.join(kwargs)}.")
        if "covariance" in kwargs:
            return self.compute_anomaly_map(kwargs["embedding"], kwargs["mean"], _inverse(kwargs["covariance"]))
        return self.compute_anomaly_map(**kwargs)


def _inverse(covariance: Tensor) -> Tensor:
    inverse: Tensor
    inverse, info = torch.linalg.inv_ex(covariance)
    if bool(info.any()):
        position = int(info.nonzero()[0])
        raise UsageError(f"The covariance of patch {position} has no inverse. Add a small number to its diagonal.")
    return inverse
