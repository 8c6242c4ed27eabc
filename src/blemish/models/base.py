"""What all detectors share: the path of an image, and how Lightning drives it.

A detector has three verbs. `observe` takes the features of good images, one batch after the other; `finish` turns what
was observed into a model; `score` gives raw scores and maps. This class joins them to the pre-processor, the backbone
and the post-processor:

    forward(images uint8)  =  post_processor(inspect(pre_processor(images)))

and every use of a detector - calibration, test, prediction, export, serving - runs these same modules. Nothing here
asks whether the module is training; fitting needs one pass and no optimizer.
"""

from __future__ import annotations

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from blemish.data.batch import DataRecord, ImageBatch, InferenceBatch, PerImage
from blemish.data.gather import own_share
from blemish.data.roi import Roi, run_lengths
from blemish.errors import NonFiniteError, NotFittedError, UsageError
from blemish.features.backbones import default_layers
from blemish.features.extractor import FeatureExtractor
from blemish.metrics.evaluation import Evaluator
from blemish.models.components.map_maker import MapMaker
from blemish.models.components.tiler import Tiler
from blemish.post_processing import BasePostProcessor, PostProcessor
from blemish.pre_processing import PreProcessor

if TYPE_CHECKING:
    from blemish.export.exporting import Exported
    from blemish.export.samples import Images

ExportMode: TypeAlias = Literal["onnx", "openvino", "torch"]

Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total) during long work."""


def silent(phase: str, done: int, total: int) -> None:
    """The `Progress` that shows nothing."""


class AnomalyModule(LightningModule, ABC):
    """Base class of detectors.

    Args:
        backbone: "bundled", "filter_bank" or a timm name, see `FeatureExtractor`.
        layers: layers of the backbone; None takes those at `layer_strides`, see `features.backbones.default_layers`.
        image_size: (h, w) at which images are inspected, or one number for a square.
        fit_mode, crop_from: "stretch" or "letterbox", and a center crop, see `PreProcessor`.
        roi: the region of interest, see `blemish.data.roi.read_roi`. What lies outside is never fitted, scored, marked
            or measured, and has no influence on what is inside. None inspects everything.
        pretrained, weights: see `FeatureExtractor`.
        tile_size, tile_stride: inspect the image in overlapping tiles of this size, see `Tiler`. None inspects it
            whole.
        sigma: standard deviation of the blur of maps, in pixels of `image_size`.
        seed: for everything that is drawn at random.
        post_processor: a `BasePostProcessor`; True or None for the detector's default; False for none.

    Attributes:
        pre_processor, extractor, post_processor: the parts of the path; `post_processor` may be None.
        grid: (rows, columns) of patches per image. channels: features per patch, before any selection.
        progress: called with (phase, done, total) by long work; replaced by the engine.
        evaluator: what the last test measured.
        data_record: which images the last fit used; None when it isn't known.
    """

    layer_strides: ClassVar[tuple[int, int]]
    name: ClassVar[str]

    def __init__(
        self,
        *,
        backbone: str = "bundled",
        layers: Sequence[str] | None = None,
        image_size: int | Sequence[int] = 256,
        fit_mode: Literal["stretch", "letterbox"] = "stretch",
        crop_from: int | Sequence[int] | None = None,
        roi: Roi | None = None,
        pretrained: bool = True,
        weights: str | os.PathLike[str] | None = None,
        tile_size: int | Sequence[int] | None = None,
        tile_stride: int | Sequence[int] | None = None,
        sigma: float = 4.0,
        seed: int = 0,
        post_processor: BasePostProcessor | bool | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(seed, int) or not 0 <= seed < 2**63:
            raise UsageError(f"seed must be a whole number from 0 to 2**63 - 1. Got {seed!r}.")
        layers = default_layers(backbone, self.layer_strides) if layers is None else layers
        self.extractor = FeatureExtractor(backbone, layers, pretrained=pretrained, weights=weights, seed=seed)
        self.pre_processor = PreProcessor(image_size, self.extractor.mean, self.extractor.std, fit_mode, crop_from, roi)
        self.tiler = None if tile_size is None else Tiler(tile_size, tile_stride, self.pre_processor.image_size)
        if tile_size is None and tile_stride is not None:
            raise UsageError("tile_stride was given without tile_size. Give both, or neither.")
        longer = max(self.pre_processor.image_size)
        if not 0.0 < sigma <= longer:
            raise UsageError(
                f"sigma must be above 0 and at most {longer} pixels, the longer side of image_size. Got {sigma}."
            )
        self.sigma = sigma
        self.seed = seed
        self.automatic_optimization = False
        self.progress: Progress = silent
        self.evaluator = Evaluator()
        self.data_record: DataRecord | None = None
        if isinstance(post_processor, BasePostProcessor):
            self.post_processor: BasePostProcessor | None = post_processor
        else:
            self.post_processor = None if post_processor is False else self.configure_post_processor()
        self.grid = self._grid()
        cells, pixels = (self.pre_processor.cells(grid) for grid in (self.grid, self.pre_processor.image_size))
        self.map_maker = MapMaker(self.grid, self.pre_processor.image_size, sigma, cells, pixels)
        self.channels = sum(self.extractor.channels)
        self._observing = self._resumed = False

    @staticmethod
    def configure_post_processor() -> BasePostProcessor:
        """The post-processor a detector gets when none is given."""
        return PostProcessor()

    @property
    def is_fitted(self) -> bool:
        """Whether `finish` has run, or fitted state was loaded."""
        return not self._observing and self._has_state()

    @abstractmethod
    def _has_state(self) -> bool:
        """Whether there is fitted state; decided on shapes, so that a graph can be exported."""

    @abstractmethod
    def check_state(self) -> None:
        """Checks that loaded state fits this detector.

        Raises:
            ValueError: naming the tensor whose shape doesn't fit.
        """

    def arguments(self) -> dict[str, Any]:
        """The constructor arguments that, with the state dict, rebuild this detector without network: JSON values
        only.
        """
        return {
            "backbone": self.extractor.backbone,
            "layers": self.extractor.layers,
            "image_size": list(self.pre_processor.image_size),
            "fit_mode": self.pre_processor.fit,
            "crop_from": None if self.pre_processor.crop_from is None else list(self.pre_processor.crop_from),
            "roi": None if self.pre_processor.roi is None else run_lengths(self.pre_processor.roi.cpu().numpy()),
            "tile_size": None if self.tiler is None else list(self.tiler.tile_size),
            "tile_stride": None if self.tiler is None else list(self.tiler.tile_stride),
            "sigma": self.sigma,
            "seed": self.seed,
        }

    def start(self) -> None:
        """Forgets everything observed: a second fit starts afresh."""
        self._observing, self._resumed = True, False
        self._forget_thresholds()

    def resume(self) -> None:
        """Prepares a fitted detector to observe more good images, which `finish` adds to what it knows.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        self._observing = self._resumed = True
        self._forget_thresholds()

    @abstractmethod
    def observe(self, features: Tensor) -> None:
        """Takes patch features (N, D, gh, gw) float32 of good images."""

    def finish(self) -> None:
        """Turns what was observed into the fitted model."""
        self._observing = False

    @abstractmethod
    def score(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Patch features (N, D, gh, gw) -> raw scores (N,) and raw maps (N, 1, h, w), both float32; higher is more
        abnormal.
        """

    @abstractmethod
    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Feature maps of the backbone, finest first -> patch features (N, D, gh, gw)."""

    def features(self, images: Tensor) -> Tensor:
        """Pre-processed images (N, 3, h, w) -> patch features (N, D, gh, gw); tiles, where asked for, are blended here.

        Raises:
            NonFiniteError: in eager mode, if a feature is NaN or infinite.
        """
        layers = self.extractor(images) if self.tiler is None else self.tiler(self.extractor, images)
        embedding = self.embed(layers)
        if not torch.compiler.is_exporting() and not bool(embedding.isfinite().all()):
            raise NonFiniteError(
                f"Backbone {self.extractor.backbone!r} returned features that are NaN or infinite. Check its weights "
                f"and the images."
            )
        return embedding

    def inspect(self, images: Tensor, size: tuple[int, int] | Sequence[tuple[int, int]]) -> InferenceBatch:
        """Raw predictions for pre-processed images.

        Args:
            images: (N, 3, h, w) float32 from `pre_processor`.
            size: original (H, W) of all images, or N of them.

        Returns:
            `pred_score` (N,) and `anomaly_map` in original pixels, both raw.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        score, maps = self.score(self.features(images))
        restored = self.pre_processor.restore(maps, size)
        return InferenceBatch(pred_score=score, anomaly_map=restored, roi=self._roi_of(restored))

    def forward(self, images: Tensor) -> InferenceBatch:
        """The whole path: (N, H, W, 3) RGB, uint8 or float32 in [0, 1] -> verdicts, maps and masks at (H, W).

        Raises:
            NotFittedError: before `fit`. NonFiniteError: in eager mode, for scores without a meaning.
        """
        raw = self.inspect(self.pre_processor(images), (images.shape[1], images.shape[2]))
        return raw if self.post_processor is None else self.post_processor(raw)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the detector to one .safetensors file, see `blemish.artifact.save`."""
        # This and `export` call upwards: methods are the spelling users expect, and what they call has to know the
        # detectors.
        importlib.import_module("blemish.artifact").save(self, path)

    def export(
        self,
        root: str | os.PathLike[str],
        export_mode: ExportMode = "onnx",
        *,
        images: Images | None = None,
        static: Sequence[int] | None = None,
        int8: bool = False,
        calibration_images: Images | None = None,
        max_flips: int = 0,
    ) -> Exported:
        """Writes the detector for a runtime, after comparing verdicts, see `blemish.export.exporting.export`."""
        exporting = importlib.import_module("blemish.export.exporting")
        done: Exported = exporting.export(
            self,
            root,
            export_mode,
            images=images,
            static=static,
            int8=int8,
            calibration_images=calibration_images,
            max_flips=max_flips,
        )
        return done

    # What Lightning calls. Steps return raw predictions; the post-processor, a callback, completes them.

    def configure_optimizers(self) -> Any:
        """None: there is nothing to optimize."""
        return None

    def configure_callbacks(self) -> list[Callback]:
        """The post-processor calibrates itself and completes predictions through its hooks."""
        return [] if self.post_processor is None else [self.post_processor]

    def on_train_start(self) -> None:
        """Starts observing: afresh, unless `resume` was called just before."""
        if not self._resumed:  # an interrupted fit leaves `_observing` behind, and nothing to go on from
            self.start()
        self._resumed = False

    @torch.no_grad()
    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Observes a batch of good images."""
        self.observe(self.features(batch.image))

    def on_validation_start(self) -> None:
        """Finishes fitting before calibration."""
        self._finish_once()

    def on_train_end(self) -> None:
        """Finishes fitting where there is no calibration."""
        self._finish_once()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:
        """Raw predictions with labels, for calibration; nothing while Lightning only checks its own plumbing."""
        return None if self.trainer.sanity_checking else self._step(batch)

    def test_step(self, batch: ImageBatch, batch_idx: int) -> Any:
        """Raw predictions with labels."""
        return self._step(batch)

    def on_test_start(self) -> None:
        """Starts measuring afresh."""
        self.evaluator.reset()

    def on_test_batch_end(self, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Measures a batch, after the post-processor's hook has completed it."""
        left = own_share(self.trainer, self.evaluator.images, "test")
        self.evaluator.update(outputs if left is None else outputs.first(left))

    def on_test_epoch_end(self) -> None:
        """Every process knows the figures of the whole set."""
        self.evaluator.gather(self.device)

    def predict_step(self, batch: ImageBatch, batch_idx: int = 0) -> InferenceBatch:
        """Raw predictions."""
        return self._step(batch)

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        """Moves the tensors the detector computes on; masks follow, paths stay."""
        masks = batch.gt_mask
        moved = (
            masks.to(device) if isinstance(masks, Tensor) else None if masks is None else [m.to(device) for m in masks]
        )
        label = None if batch.gt_label is None else batch.gt_label.to(device)
        return replace(batch, image=batch.image.to(device), gt_label=label, gt_mask=moved)

    def _step(self, batch: ImageBatch) -> InferenceBatch:
        raw = self.inspect(batch.image, batch.size)
        return replace(raw, path=batch.path, gt_label=batch.gt_label, gt_mask=batch.gt_mask, defect=batch.defect)

    def _roi_of(self, maps: PerImage) -> PerImage | None:
        """The region of interest in the pixels of each map."""
        if isinstance(maps, Tensor):
            inside = self.pre_processor.inside((maps.shape[1], maps.shape[2]))
            return None if inside is None else inside.expand(maps.shape[0], -1, -1)
        each = (self.pre_processor.inside((one.shape[0], one.shape[1])) for one in maps)
        return [inside for inside in each if inside is not None] or None

    def _forget_thresholds(self) -> None:
        """Thresholds of other features mean nothing: if the new calibration fails, there must be none."""
        if isinstance(self.post_processor, PostProcessor):
            self.post_processor.forget()

    def _require_fitted(self) -> None:
        if not self.is_fitted:
            raise NotFittedError(
                f"This {type(self).__name__} has not seen any good images yet. Run Engine.fit(model, datamodule) first."
            )

    def _finish_once(self) -> None:
        if self._observing and not self.trainer.sanity_checking:
            self.finish()

    def _grid(self) -> tuple[int, int]:
        if self.tiler is None:
            return self.extractor.grid(self.pre_processor.image_size)
        tile = self.extractor.grid(self.tiler.tile_size)
        return self.tiler.grid(tile, self.extractor.strides)
