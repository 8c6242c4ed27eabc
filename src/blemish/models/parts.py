"""What a detector sees with: made from its settings, and shared by its twins."""

from __future__ import annotations

from typing import NamedTuple

from blemish.features.backbones import default_layers
from blemish.features.extractor import FeatureExtractor
from blemish.models.components.tiler import Tiler
from blemish.pre_processing import PreProcessor
from blemish.settings import DetectorSettings

SHARED = ("extractor", "pre_processor", "tiler", "map_maker")
"""What twins of a detector, and members of a fused one, share."""


class Parts(NamedTuple):
    """What a detector is put together from."""

    extractor: FeatureExtractor
    pre_processor: PreProcessor
    tiler: Tiler | None


def build_parts(settings: DetectorSettings) -> Parts:
    """The parts that settings describe.

    Raises:
        UsageError: for settings that don't fit the backbone. WeightsError: where weights are missing or damaged.
    """
    layers = settings.layers
    extractor = FeatureExtractor(
        settings.backbone,
        default_layers(settings.backbone, settings.layer_strides) if layers is None else layers,
        pretrained=settings.pretrained,
        weights=settings.weights,
        seed=settings.seed,
    )
    pre_processor = PreProcessor(
        settings.image_size, extractor.mean, extractor.std, settings.fit_mode, settings.crop_from, settings.roi
    )
    tiler = None
    if settings.tile_size is not None:
        tiler = Tiler(settings.tile_size, settings.tile_stride, pre_processor.image_size)
    return Parts(extractor, pre_processor, tiler)
