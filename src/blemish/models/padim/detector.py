"""PaDiM: how many standard deviations is each patch from the good ones at its position? (Defard et al., arXiv
2011.08785.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from blemish.functional.patches import join_layers
from blemish.models.base import Detector
from blemish.models.padim.gaussians import PatchGaussians
from blemish.models.padim.settings import PadimSettings
from blemish.models.parts import Parts

FEW_IMAGES = 16
"""Up to so many images cost less by solving than inverses of all factors do."""


class PadimDetector(Detector):
    """Gaussians of good features per position; scores are Mahalanobis distances, in standard deviations.

    For parts that always lie in the same place: every position has its own idea of what is normal.

    Args:
        settings: see `PadimSettings`.
        parts: extractor, pre-processor and tiler.
        post_processor: see `Detector`.

    Raises:
        UsageError: for more features than the layers have channels.
    """

    Settings = PadimSettings
    settings: PadimSettings
    statement = (
        "PaDiM remembers no images, but how good patches vary at each place of the picture: values are standard "
        "deviations from their mean there. Shown is the same place in good images that scored low."
    )
    channel_index: Tensor

    def __init__(self, settings: PadimSettings, parts: Parts, post_processor: nn.Module | None = None) -> None:
        super().__init__(settings, parts, post_processor)
        wanted = settings.features_of(self.channels)
        self.settings = self.settings.resolved(n_features=wanted)
        generator = torch.Generator().manual_seed(settings.seed)
        index = torch.randperm(self.channels, generator=generator)[:wanted].sort()[0]
        self.register_buffer("channel_index", index)
        self._shares = self._per_layer(index)
        self.gaussians = PatchGaussians(settings.epsilon, settings.factor_dtype, settings.shrinkage)

    @property
    def width(self) -> int:
        """See `Detector.width`: the channels that were drawn."""
        return len(self.channel_index)

    def _has_state(self) -> bool:
        return len(self.gaussians.mean) > 0

    @property
    def steady(self) -> bool:
        """See `Detector.steady`."""
        return True

    def check_state(self) -> None:
        """See `Detector.check_state`."""
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

    def start(self) -> None:
        """See `Detector.start`."""
        super().start()
        self.gaussians.start()

    def resume(self) -> None:
        """See `Detector.resume`: more images refine means and covariances."""
        super().resume()
        self.gaussians.resume()

    def observe(self, features: Tensor, images: Sequence[int] | None = None) -> None:
        """See `Detector.observe`."""
        self.gaussians.observe(self.map_maker.patches(features), images)

    def observed_state(self) -> dict[str, Tensor]:
        """See `Detector.observed_state`."""
        return self.gaussians.observed_state()

    def merge_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Detector.merge_state`."""
        self.gaussians.merge(state)

    def finish(self) -> None:
        """Factors the covariances."""
        self.gaussians.finish()
        super().finish()

    def finish_for(self, images: int) -> None:
        """See `Detector.finish_for`."""
        if images > FEW_IMAGES:
            self.finish()
        else:
            self.gaussians.finish_briefly()
            super().finish()

    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Keeps the drawn channels of each layer, then joins the layers at the resolution of the finest."""
        first, start, chosen = 0, 0, []
        for layer, share in zip(layers, self._shares, strict=True):
            chosen.append(layer.index_select(1, self.channel_index[start : start + share] - first))
            first, start = first + layer.shape[1], start + share
        return join_layers(chosen, self.grid)

    def _per_layer(self, index: Tensor) -> list[int]:
        """How many of the rising channel numbers lie in each layer."""
        ends = torch.tensor(self.extractor.channels, device=index.device).cumsum(0)
        upto = torch.searchsorted(index, ends, right=False).tolist()
        return [int(one) - int(before) for one, before in zip(upto, [0, *upto], strict=False)]

    def patch_scores(self, features: Tensor) -> Tensor:
        """Mahalanobis distances, in standard deviations."""
        return self.gaussians.distance(self.map_maker.patches(features))
