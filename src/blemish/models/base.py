"""What all detectors share: the path of an image. No trainer is known here.

A detector observes good images, see `blemish.models.observer`, and gives raw scores and maps. This class joins it to
the pre-processor, the backbone and the post-processor, all of which it takes ready-made:

    forward(images uint8)  =  post_processor(inspect(pre_processor(images)))

and every use of a detector - calibration, test, prediction, export, serving - runs these same modules. Nothing here
asks whether the module is training.
"""

from __future__ import annotations

import copy
import importlib
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy.typing as npt
import torch
from torch import Tensor, nn

from blemish.data.batch import InferenceBatch, PerImage, RawPrediction
from blemish.data.explanation import Basis, Explanation, Finding, GoodPatch
from blemish.data.record import DataRecord
from blemish.data.roi import run_lengths
from blemish.errors import NonFiniteError, UsageError
from blemish.functional.exact_products import exact_products
from blemish.functional.patches import worst_mean
from blemish.functional.regions import Region, cores, find_regions, highest
from blemish.models.components.map_maker import MapMaker
from blemish.models.observer import Observer
from blemish.models.parts import SHARED, Parts, build_parts
from blemish.post_processing.calibration import Evidence
from blemish.post_processing.decision import Decision
from blemish.post_processing.post_processor import DecisionModule
from blemish.progress import Progress, silent
from blemish.settings import DetectorSettings

if TYPE_CHECKING:
    from typing_extensions import Self

    from blemish.export.exporting import Exported

ExportMode: TypeAlias = Literal["onnx", "openvino", "torch"]


class Detector(Observer):
    """Base class of detectors.

    Args:
        settings: of the detector's own class.
        parts: what `build_parts` makes of them.
        post_processor: turns raw predictions into verdicts, a `DecisionModule` or a module of one's own; None for none.

    Attributes:
        pre_processor, extractor, tiler, post_processor: the parts of the path; the last two may be None.
        settings: what the detector was built from, with everything filled in.
        grid: (rows, columns) of patches per image. channels: features per patch, before any selection.
        progress: called by long work, see `blemish.progress`; replaced by the engine.
        data_record: which images the last fit used; None when it isn't known.
    """

    trainer_arguments: ClassVar[Mapping[str, Any]] = {"max_epochs": 1, "num_sanity_val_steps": 0}
    """What fitting needs of a trainer: one look at each image, and no validation before it."""
    basis: ClassVar[Basis] = "same place"
    statement: ClassVar[str] = (
        "This detector remembers no images. Shown is the same place in good images that it scored low."
    )
    """What explanations show, see `blemish.data.explanation.Explanation`."""

    def __init__(self, settings: DetectorSettings, parts: Parts, post_processor: nn.Module | None = None) -> None:
        super().__init__()
        self.extractor, self.pre_processor, self.tiler = parts
        self.post_processor = post_processor
        self.grid = self._grid(settings.grid_stride)
        cells, pixels = (self.pre_processor.cells(grid) for grid in (self.grid, self.pre_processor.image_size))
        self.map_maker = MapMaker(self.grid, self.pre_processor.image_size, settings.sigma, cells, pixels)
        self.channels = sum(self.extractor.channels)
        roi, tiler = self.pre_processor.roi, self.tiler
        self.settings = settings.resolved(
            backbone=self.extractor.backbone,
            layers=self.extractor.layers,
            roi=None if roi is None else run_lengths(roi.cpu().numpy()),
            tile_stride=None if tiler is None else tiler.tile_stride,
        )
        self.progress: Progress = silent
        self.data_record: DataRecord | None = None

    @classmethod
    def build(cls, *, post_processor: nn.Module | bool | None = None, **settings: Any) -> Self:
        """A detector from the fields of its settings.

        Args:
            post_processor: a `DecisionModule` or a module of one's own; True or None for the default; False for none.
            settings: fields of `Settings`, by name; what isn't given has its default.

        Raises:
            UsageError: for settings that are unknown, outside their range, or don't fit together.
        """
        if not isinstance(post_processor, nn.Module):
            post_processor = None if post_processor is False else DecisionModule()
        checked = cls.Settings(**settings)
        return cls(checked, build_parts(checked), post_processor)

    @property
    def width(self) -> int:
        """D, features of a patch as `embed` gives them."""
        return self.channels

    @property
    def steady(self) -> bool:
        """Whether scores take the same steps whatever the features are, and look at none: a GPU can repeat them."""
        return False

    @property
    def decider(self) -> DecisionModule:
        """The post-processor, where it is one whose decision can be told, saved and exported.

        Raises:
            UsageError: if there is none, or it is a class of the user's own.
        """
        if not isinstance(self.post_processor, DecisionModule):
            kind = "none" if self.post_processor is None else f"one of class {type(self.post_processor).__name__}"
            raise UsageError(
                f"This needs a detector with blemish.PostProcessor; this {self.name} has {kind}. Build it with the "
                f"default post-processor, and attach your own afterwards."
            )
        return self.post_processor

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        return self.map_maker.vertical.device

    @abstractmethod
    def check_state(self) -> None:
        """Checks that loaded state fits this detector.

        Raises:
            ValueError: naming the tensor whose shape doesn't fit.
        """

    def twin(self) -> Self:
        """A detector of the same state and settings over the same backbone, without a post-processor: what either
        observes from now on changes the other no more.
        """
        twin = copy.copy(self)
        twin._modules = {
            name: part if name in SHARED else part.twin() if isinstance(part, Detector) else copy.deepcopy(part)
            for name, part in self._modules.items()
        }
        twin._buffers = {name: None if part is None else part.clone() for name, part in self._buffers.items()}
        twin.post_processor, twin.progress = None, silent
        return twin

    def share_parts_of(self, other: Detector) -> None:
        """Sees with another detector's parts from now on, of the same settings; they stay that one's, which alone saves
        them and moves them to devices.
        """
        for name in SHARED:
            self._modules.pop(name, None)
            self.__dict__[name] = getattr(other, name)

    @abstractmethod
    def patch_scores(self, features: Tensor) -> Tensor:
        """Patch features (N, D, gh, gw) -> scores (N, P) float32 of the patches inside, at least 0; higher is more
        abnormal.
        """

    def score(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Patch features (N, D, gh, gw) -> raw scores (N,), the highest of the smoothed map or as wanted, and raw maps
        (N, 1, h, w), both float32.
        """
        scores = self.patch_scores(features)  # (N, P)
        maps = self.map_maker(scores)
        return self.image_scores(scores, self.map_maker.peak(maps)), maps

    def score_alone(self, features: Tensor) -> Tensor:
        """Features as for `score` -> its raw scores (N,) float32, without maps."""
        return self.score(features)[0]

    def image_scores(self, scores: Tensor, usual: Tensor) -> Tensor:
        """Patch scores (N, P) -> image scores (N,): the mean of the `worst_share`, where one is set, else `usual`."""
        share = self.settings.worst_share
        return usual if share is None else worst_mean(scores, share)

    @abstractmethod
    def embed(self, layers: Sequence[Tensor]) -> Tensor:
        """Feature maps of the backbone, finest first -> patch features (N, D, gh, gw)."""

    def features(self, images: Tensor) -> Tensor:
        """Pre-processed images (N, 3, h, w) -> patch features (N, D, gh, gw); tiles, where asked for, are blended here.

        Raises:
            NonFiniteError: in eager mode, if a feature is NaN or infinite.
        """
        with exact_products(images.device):
            layers = self.extractor(images) if self.tiler is None else self.tiler(self.extractor, images)
            embedding = self.embed(layers)
        return embedding if _is_recorded(images.device) else self.checked(embedding)

    def checked(self, features: Tensor) -> Tensor:
        """Patch features (N, D, gh, gw), as they are given. Raises `NonFiniteError` if one is NaN or infinite."""
        if not bool(features.isfinite().all()):
            raise NonFiniteError(
                f"Backbone {self.extractor.backbone!r} returned features that are NaN or infinite. Check its weights "
                f"and the images."
            )
        return features

    def inspect(self, images: Tensor, size: tuple[int, int] | Sequence[tuple[int, int]]) -> RawPrediction:
        """Raw predictions for pre-processed images.

        Args:
            images: (N, 3, h, w) float32 from `pre_processor`.
            size: original (H, W) of all images, or N of them.

        Returns:
            Scores (N,) and maps in original pixels.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        return self.inspect_features(self.features(images), size)

    def inspect_features(self, features: Tensor, size: tuple[int, int] | Sequence[tuple[int, int]]) -> RawPrediction:
        """`inspect` of images whose `features` (N, D, gh, gw) are known."""
        with exact_products(features.device):
            score, maps = self.score(features)  # (N,), (N, 1, h, w)
            restored = self.pre_processor.restore(maps, size)  # (N, H, W)
        return RawPrediction(score, restored, self._roi_of(restored))

    def forward(self, images: Tensor, decision: Decision | None = None) -> InferenceBatch:
        """The whole path: (N, H, W, 3) RGB, uint8 or float32 in [0, 1] -> verdicts, maps and masks at (H, W).

        Args:
            images: of one size.
            decision: to be used this once, by a `DecisionModule`; None decides by the model's own.

        Raises:
            NotFittedError: before `fit`. NonFiniteError: in eager mode, for scores without a meaning.
        """
        with exact_products(images.device):
            raw = self.inspect(self.pre_processor(images), (images.shape[1], images.shape[2]))
        return self._decide(raw.batch(), decision)

    def judge(self, images: Tensor, decision: Decision | None = None) -> InferenceBatch:
        """`forward` without maps and masks and what they take: the same scores and labels.

        Args:
            images: (N, H, W, 3) as `forward` takes them.
            decision: likewise.

        Returns:
            `pred_score`, `pred_label` and `raw_score`, each (N,).

        Raises:
            NotFittedError, NonFiniteError: as `forward`.
        """
        self._require_fitted()
        with exact_products(images.device):
            score = self.score_alone(self.features(self.pre_processor(images)))
        return self._decide(InferenceBatch(pred_score=score), decision)

    @torch.inference_mode()
    def explain(
        self,
        image: npt.ArrayLike | Tensor,
        regions: Sequence[Region] | None = None,
        decision: Decision | None = None,
        *,
        count: int = 3,
    ) -> Explanation:
        """What deviates in an image, and which good patches there are to compare it with.

        Args:
            image: (H, W, 3) RGB, uint8 or float32 in [0, 1].
            regions: of the image, from a result; None finds them.
            decision: to be used this once; None decides by the model's own.
            count: how many good patches beside each region, at most.

        Raises:
            NotFittedError: before `fit`. NotCalibratedError: without thresholds. UsageError: for a `count` below 1.
        """
        if count < 1:
            raise UsageError(f"count must be at least 1. Got {count}.")
        self._require_fitted()
        decision = self.decider.decision if decision is None else decision
        pixels = torch.as_tensor(image, device=self.device)[None]
        size = (pixels.shape[1], pixels.shape[2])
        features = self.features(self.pre_processor(pixels))
        raw = self.inspect_features(features, size)
        patches, heights = self.map_maker.patches(features)[0], raw.maps[0].cpu().numpy()  # (P, D), (H, W)
        threshold = decision.pixel.effective_threshold
        if regions is None:
            batch: InferenceBatch = self.decider.with_decision(decision)(raw.batch())
            assert batch.pred_mask is not None
            assert batch.anomaly_map is not None
            regions = find_regions(cores(batch.pred_mask[0].cpu(), heights), batch.anomaly_map[0].cpu())
        found = []
        for region in regions or (None,):
            x, y = highest(heights, region, threshold)
            patch, cell = self.map_maker.nearest(*self.pre_processor.place_in_grid(x, y, self.grid, size))
            box = self.pre_processor.cell_box(cell, self.grid, size)
            good = self.good_patches(patches[patch], cell, count)
            found.append(Finding(region, box, float(heights[y, x]), good))
        return Explanation(self.basis, self.statement, threshold, tuple(found))

    def remembered_images(self) -> dict[int, int]:
        """How many patches it remembers of each good image, by the image's number; empty for a detector that remembers
        statistics alone, and where numbers aren't known.
        """
        return {}

    @property
    def next_number(self) -> int:
        """What the first image that is observed now will be called among those it remembers."""
        return max(self.remembered_images(), default=-1) + 1

    def good_patches(self, patch: Tensor, cell: tuple[int, int], count: int) -> tuple[GoodPatch, ...]:
        """Good patches to compare one with.

        Args:
            patch: (D,) features.
            cell: its row and column in the grid.
            count: how many, at most.
        """
        images = self.good_images.images[:count]
        return tuple(GoodPatch(i, self.pre_processor.cell_box(cell, self.grid, i.size), None) for i in images)

    def calibrate(self, evidence: Evidence, source: str = "held_out") -> Decision:
        """Decides from now on as the evidence supports; see `DecisionModule.calibrate`."""
        return self.decider.calibrate(evidence, source)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the detector to one .safetensors file, see `blemish.artifact.save`."""
        # This and `export` call upwards: methods are the spelling users expect, and what they call has to know the
        # detectors.
        importlib.import_module("blemish.artifact").save(self, path)

    def export(self, root: str | os.PathLike[str], export_mode: ExportMode = "onnx", **options: Any) -> Exported:
        """Writes the detector for a runtime, after comparing verdicts; see `blemish.export.exporting.export`."""
        exporting = importlib.import_module("blemish.export.exporting")
        done: Exported = exporting.export(self, root, export_mode, **options)
        return done

    def _decide(self, raw: InferenceBatch, decision: Decision | None) -> InferenceBatch:
        processor = self.post_processor if decision is None else self.decider.with_decision(decision)
        if processor is None:
            return raw
        decided: InferenceBatch = processor(raw)
        return decided

    def _roi_of(self, maps: PerImage) -> PerImage | None:
        """The region of interest in the pixels of each map."""
        if isinstance(maps, Tensor):
            inside = self.pre_processor.inside((maps.shape[1], maps.shape[2]))
            return None if inside is None else inside.expand(maps.shape[0], -1, -1)
        each = (self.pre_processor.inside((single.shape[0], single.shape[1])) for single in maps)
        return [inside for inside in each if inside is not None] or None

    def _forget_thresholds(self) -> None:
        if isinstance(self.post_processor, DecisionModule):
            self.post_processor.forget()

    def _grid(self, stride: int | None) -> tuple[int, int]:
        if self.tiler is None:
            rows, columns = self.extractor.grid(self.pre_processor.image_size)
        else:
            rows, columns = self.tiler.grid(self.extractor.grid(self.tiler.tile_size), self.extractor.strides)
        if stride is None:
            return rows, columns
        finest = min(self.extractor.strides)
        stride = max(stride, finest)
        if stride > min(rows, columns) * finest:
            raise UsageError(
                f"grid_stride must be at most {min(rows, columns) * finest}, one patch across the image. Got {stride}."
            )
        return -(-rows * finest // stride), -(-columns * finest // stride)


def _is_recorded(device: torch.device) -> bool:
    """Whether a graph is being made of the operations, so that no value may be looked at."""
    return torch.compiler.is_exporting() or (device.type == "cuda" and torch.cuda.is_current_stream_capturing())
