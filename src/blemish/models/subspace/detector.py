"""Subspace: how far is each patch from the directions in which good ones vary? (SubspaceAD, arXiv 2602.23013.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from blemish.errors import DataError
from blemish.functional.gaussian import Moments, pack, unpack
from blemish.functional.patches import join_layers
from blemish.functional.subspace import principal_components, residual_norm
from blemish.models.base import Detector
from blemish.models.components.dynamic_buffer import DynamicBufferModule
from blemish.models.components.moments import MomentStream
from blemish.models.parts import Parts
from blemish.models.subspace.settings import SubspaceSettings


class SubspaceDetector(Detector):
    """Mean and principal components of all good patches; scores are norms of what lies outside, in feature units.

    One pass, no bank, two matrix products per image: the smallest and fastest of the detectors. It knows neither
    positions nor how often something is seen, and needs learned features: in the filter bank's energies a hole has less
    of everything, which is no new direction.

    Args:
        settings: see `SubspaceSettings`.
        parts: extractor, pre-processor and tiler.
        post_processor: see `Detector`.
    """

    Settings = SubspaceSettings
    settings: SubspaceSettings
    statement = (
        "Subspace remembers neither images nor places, but the directions in which good patches vary: values are "
        "lengths outside of them. Shown is the same place in good images that scored low."
    )

    def __init__(self, settings: SubspaceSettings, parts: Parts, post_processor: nn.Module | None = None) -> None:
        super().__init__(settings, parts, post_processor)
        self.subspace = PatchSubspace(settings.variance)

    def _has_state(self) -> bool:
        return len(self.subspace.components) > 0

    @property
    def steady(self) -> bool:
        """See `Detector.steady`."""
        return True

    def check_state(self) -> None:
        """See `Detector.check_state`."""
        channels, kept = self.channels, self.subspace.components.shape[-1]
        expected = {
            "mean": (channels,),
            "components": (channels, kept),
            "scatter": (channels * (channels + 1) // 2,),
            "count": (),
        }
        for name, shape in expected.items():
            if tuple(getattr(self.subspace, name).shape) != shape:
                raise ValueError(f"subspace.{name} must be {shape}. Got {tuple(getattr(self.subspace, name).shape)}.")
        if not 1 <= kept <= channels:
            raise ValueError(f"subspace.components must be 1 to {channels} columns. Got {kept}.")

    def start(self) -> None:
        """See `Detector.start`."""
        super().start()
        self.subspace.start()

    def resume(self) -> None:
        """See `Detector.resume`: more images refine mean and components, exactly."""
        super().resume()
        self.subspace.resume()

    def observe(self, features: Tensor, images: Sequence[int] | None = None) -> None:
        """See `Detector.observe`."""
        self.subspace.observe(self.map_maker.patches(features), images)

    def observed_state(self) -> dict[str, Tensor]:
        """See `Detector.observed_state`."""
        return self.subspace.observed_state()

    def merge_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Detector.merge_state`."""
        self.subspace.merge(state)

    def finish(self) -> None:
        """Finds the components."""
        self.subspace.finish()
        super().finish()

    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Joins the layers."""
        return join_layers(layers, self.grid)

    def patch_scores(self, features: Tensor) -> Tensor:
        """Norms of what lies outside of the subspace."""
        return self.subspace.distance(self.map_maker.patches(features))


class PatchSubspace(DynamicBufferModule):
    """One mean and one set of principal components for all positions; see `functional.subspace`.

    Args:
        variance: share of the variance that the components hold, in (0, 1).

    Attributes:
        mean: (D,) float32. components: (D, K) float32, orthonormal columns; empty before fitting.
        scatter: (D (D + 1) / 2) float64, the lower triangle of the centered outer products' sum: what more images are
            added to. count: () int64, patches seen.
    """

    mean: Tensor
    components: Tensor
    scatter: Tensor
    count: Tensor

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.variance = variance
        self.register_buffer("mean", torch.empty(0))
        self.register_buffer("components", torch.empty(0, 0))
        self.register_buffer("scatter", torch.empty(0, dtype=torch.float64))
        self.register_buffer("count", torch.tensor(0))
        self._stream = MomentStream(pooled=True)

    def start(self) -> None:
        """Forgets everything."""
        self._stream = MomentStream(pooled=True)
        self.components = self.components.new_empty(0, 0)

    def resume(self) -> None:
        """Goes back to moments, so that more images can be added. Their numbers begin at 0."""
        known = Moments(int(self.count), self.mean.double()[None], self.scatter[None])
        self._stream = MomentStream(pooled=True, base=known)
        self.components = self.components.new_empty(0, 0)

    def observe(self, embedding: Tensor, images: Sequence[int] | None = None) -> None:
        """Takes (N, P, D) float32, and the numbers of the images within the whole set, see `MomentStream.observe`."""
        self._stream.observe(embedding, images)

    def observed_state(self) -> dict[str, Tensor]:
        """What was observed since `start` or `resume`, as tensors to send, see `MomentStream.state`."""
        return self._stream.state()

    def merge(self, state: Mapping[str, Tensor]) -> None:
        """Adds the `observed_state` of another instance on the same set.

        Raises:
            UsageError: if both have seen the same images, or features of different shapes.
        """
        self._stream.merge(state)

    def finish(self) -> None:
        """Finds the components.

        Raises:
            DataError: if no image was seen.
        """
        moments = self._stream.finish()
        self._stream = MomentStream(pooled=True)
        if moments is None:
            raise DataError(
                "No good image was seen, so there is nothing to compare with. Give at least one good image."
            )
        scatter = unpack(moments.scatter)[0]  # (D, D)
        self.mean = moments.mean[0].float()
        self.components = principal_components(scatter, self.variance).float()
        self.scatter = pack(scatter[None])[0]
        self.count.fill_(moments.count)

    def distance(self, embedding: Tensor) -> Tensor:
        """(N, P, D) -> norms of the parts outside, (N, P)."""
        return residual_norm(embedding, self.mean, self.components)
