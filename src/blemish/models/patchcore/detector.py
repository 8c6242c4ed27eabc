"""PatchCore: how far is each patch from the nearest good patch? (Roth et al., arXiv 2106.08265.)"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blemish.data.explanation import GoodPatch
from blemish.functional.patches import average_neighborhood, join_layers
from blemish.models.base import Detector
from blemish.models.parts import Parts
from blemish.models.patchcore.bank import MemoryBank
from blemish.models.patchcore.settings import PatchcoreSettings


class PatchcoreDetector(Detector):
    """Memory bank of good patches, reduced by greedy k-center; scores are distances to it in feature units.

    Args:
        settings: see `PatchcoreSettings`.
        parts: extractor, pre-processor and tiler.
        post_processor: see `Detector`.

    Raises:
        MissingExtraError: for `neighbor_search="faiss"` where it isn't installed.
    """

    Settings = PatchcoreSettings
    settings: PatchcoreSettings
    place: Tensor
    basis = "nearest patches"
    statement = (
        "PatchCore scores a patch by its distance to the nearest good one it remembers. Shown are the nearest, one of "
        "each good image, with the distances of their features."
    )

    def __init__(self, settings: PatchcoreSettings, parts: Parts, post_processor: nn.Module | None = None) -> None:
        super().__init__(settings, parts, post_processor)
        self.bank = MemoryBank(
            settings.coreset_sampling_ratio,
            settings.bank_size,
            settings.selection_channels,
            settings.bank_dtype,
            settings.seed,
            settings.neighbor_search,
        )
        self.register_buffer("place", settings.position_weight * _places(self.grid), persistent=False)

    @property
    def width(self) -> int:
        """See `Detector.width`: those of the backbone, and row and column where these count."""
        return self.channels + (2 if self.settings.position_weight else 0)

    @property
    def steady(self) -> bool:
        """See `Detector.steady`."""
        return self.bank.steady

    def _has_state(self) -> bool:
        return len(self.bank.rows) > 0

    def check_state(self) -> None:
        """See `Detector.check_state`."""
        rows = len(self.bank.rows)
        expected = {
            "center": (self.width,),
            "rows": (rows, self.width),
            "norms": (rows,),
            "radius": (),
            "origin": (rows, 3),
        }
        for name, shape in expected.items():
            if tuple(getattr(self.bank, name).shape) != shape:
                raise ValueError(f"bank.{name} must be {shape}. Got {tuple(getattr(self.bank, name).shape)}.")

    def start(self) -> None:
        """See `Detector.start`."""
        super().start()
        self.bank.start()

    def resume(self) -> None:
        """See `Detector.resume`: rows that the bank doesn't cover yet will be added."""
        super().resume()
        self.bank.resume()

    def observe(self, features: Tensor, images: Sequence[int] | None = None) -> None:
        """See `Detector.observe`."""
        self.bank.observe(self.map_maker.patches(features), self.progress, images=images)

    def observed_state(self) -> dict[str, Tensor]:
        """See `Detector.observed_state`."""
        return self.bank.observed_state()

    def merge_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Detector.merge_state`."""
        self.bank.merge(state, self.progress)

    @property
    def scattered(self) -> int:
        """See `Detector.scattered`: what fits two buffers."""
        return max(1, 2 * self.bank.capacity(self.width) // self.map_maker.count)

    def finish(self) -> None:
        """Selects the coreset."""
        self.bank.finish(self.progress, cells=self.map_maker.cells, first=self.next_number)
        super().finish()

    def remembered_images(self) -> dict[int, int]:
        """See `Detector.remembered_images`."""
        numbers, rows = self.bank.origin[:, 0].unique(return_counts=True)
        return {number: count for number, count in zip(numbers.tolist(), rows.tolist(), strict=True) if number >= 0}

    def good_patches(self, patch: Tensor, cell: tuple[int, int], count: int) -> tuple[GoodPatch, ...]:
        """The rows of the bank nearest to the patch, one of each image."""
        images = {image.number: image for image in self.good_images.images}
        found = []
        for distance, (number, *place) in self.bank.similar(patch, count):
            image = images.get(number)
            box = None if image is None else self.pre_processor.cell_box((place[0], place[1]), self.grid, image.size)
            found.append(GoodPatch(image, box, distance))
        return tuple(found)

    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Averages 3 x 3 neighborhoods, then joins the layers at the resolution of the finest. For cosine distances all
        are brought to length 1: between such, squared Euclidean ones are 2 - 2 cos. With a position weight w, row and
        column of the patch become two more features, which add w^2 times its squared displacement in sides of the grid.
        """
        joined = join_layers([average_neighborhood(layer) for layer in layers], self.grid)
        if self.settings.distance == "cosine":
            joined = F.normalize(joined, dim=1)
        if self.settings.position_weight:
            joined = torch.cat([joined, self.place.expand(joined.shape[0], -1, -1, -1)], dim=1)
        return joined

    def patch_scores(self, features: Tensor) -> Tensor:
        """Distances to the bank."""
        patches = self.map_maker.patches(features)  # (N, P, D)
        return self.bank.nearest(patches.flatten(0, 1)).distance.view(patches.shape[:2])

    def score(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Distance of every patch to the bank; the image score is that of the worst patch, re-weighted."""
        images = features.shape[0]
        patches = self.map_maker.patches(features).flatten(0, 1)  # (N * P, D)
        found = self.bank.nearest(patches)
        distances = found.distance.view(images, self.map_maker.count)  # (N, P)
        usual = self.bank.image_scores(patches, found, images, self.settings.num_neighbors)
        return self.image_scores(distances, usual), self.map_maker(distances)

    def score_alone(self, features: Tensor) -> Tensor:
        """See `Detector.score_alone`: of patches that can't be the worst no neighbor is looked for."""
        if self.settings.worst_share is not None:
            return super().score_alone(features)
        images, patches = features.shape[0], self.map_maker.patches(features).flatten(0, 1)  # (N * P, D)
        found = self.bank.farthest(patches, images)
        return self.bank.image_scores(patches, found, images, self.settings.num_neighbors)


def _places(grid: tuple[int, int]) -> Tensor:
    """(1, 2, gh, gw): row and column of each patch, in units of the grid's longer side."""
    rows, columns = (torch.arange(side) / max(grid) for side in grid)
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
