"""Detectors under a trainer: what Lightning calls, and nothing else.

A detector is a plain `torch.nn.Module` with verbs; `lightning.Trainer` wants a `LightningModule` with hooks.
`AnomalyModule` has the hooks and drives the detector that it is (`blemish.Patchcore`) or that it holds (`Driver`, which
`Engine` puts around a detector that was loaded from a file). Steps that are measured return decided predictions; the
validation step returns raw ones, which the post-processor, a callback, calibrates on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn

from blemish.data.batch import ImageBatch, InferenceBatch, RawPrediction
from blemish.data.datamodule import ImageDataModule
from blemish.data.gather import own_share
from blemish.data.splits import Split
from blemish.engine.post_processor import Calibration, PostProcessor
from blemish.engine.probe import Probe, draws_of
from blemish.errors import UsageError
from blemish.functional.exact_products import exact_products
from blemish.metrics.evaluation import Evaluator
from blemish.models.base import Detector
from blemish.models.cross_fit import CrossFit, features_by_image, images_at_once
from blemish.models.fused.detector import FusedDetector
from blemish.models.fused.settings import FusedSettings
from blemish.models.padim.detector import PadimDetector
from blemish.models.padim.settings import PadimSettings
from blemish.models.parts import build_parts
from blemish.models.patchcore.detector import PatchcoreDetector
from blemish.models.patchcore.settings import PatchcoreSettings
from blemish.models.subspace.detector import SubspaceDetector
from blemish.models.subspace.settings import SubspaceSettings
from blemish.post_processing.post_processor import DecisionModule

KEPT_BYTES = 256 * 2**20
"""Of features that a cross calibration remembers: those of 640 images as the default has them."""


class AnomalyModule(LightningModule):
    """The hooks of a detector. Fitting observes every training batch once, on one device, without an optimizer.

    Attributes:
        evaluator: what the last test measured.
        watch: called with the raw predictions of every batch of calibration images, for whoever wants to see single
            ones.
    """

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.evaluator = Evaluator()
        self.watch: Callable[[InferenceBatch], None] | None = None
        self._cross: CrossFit | None = None
        self._probe: Probe | None = None
        self._observed = self._scored = 0

    @property
    def detector(self) -> Detector:
        """What is driven: itself, unless a subclass holds another."""
        if not isinstance(self, Detector):
            raise NotImplementedError(f"{type(self).__name__} must be a Detector, or hold one.")
        return self

    @staticmethod
    def configure_post_processor() -> PostProcessor:
        """The post-processor a detector gets when none is given."""
        return PostProcessor()

    def configure_optimizers(self) -> Any:
        """None: there is nothing to optimize."""
        return None

    def configure_callbacks(self) -> list[Callback]:
        """The post-processor calibrates itself through its hooks."""
        processor = self.detector.post_processor
        if isinstance(processor, Callback):
            return [processor]
        return [Calibration(processor)] if isinstance(processor, DecisionModule) else []

    def configure_model(self) -> None:
        """Refuses what the detector can't do, before the trainer's strategy says it in its own words.

        Raises:
            UsageError: for a fit over several devices, or over several epochs.
        """
        trainer = self.trainer
        if trainer.state.fn is not TrainerFn.FITTING:
            return
        if trainer.world_size > 1:
            raise UsageError(
                f"A {self.detector.name} is fitted by one process: Trainer(devices=1). Got {trainer.world_size} "
                f"processes. To share the work, let each observe a part of the images and merge the detectors: "
                f"detector.merge(other), then detector.finish()."
            )
        epochs = self.detector.trainer_arguments["max_epochs"]
        if trainer.max_epochs != epochs:
            raise UsageError(
                f"A {self.detector.name} sees every image once: Trainer(max_epochs={epochs}). Got {trainer.max_epochs}."
            )

    def on_train_start(self) -> None:
        """Starts observing: afresh, unless `resume` was called just before."""
        self.detector.begin()
        folds = self._split().folds
        self._cross = CrossFit(self.detector, folds, room=KEPT_BYTES) if folds else None
        self._observed = 0

    @torch.no_grad()
    def training_step(self, batch: ImageBatch, batch_idx: int) -> None:
        """Observes a batch of good images; those that calibrate as well, for their folds, too."""
        features = self.detector.features(batch.image)
        first, self._observed = self._observed, self._observed + len(features)
        with exact_products(features.device):
            self.detector.observe(features)
            if self._cross is not None:
                self._cross.observe(features, first)
        self._spare(batch.size, first)

    def on_validation_start(self) -> None:
        """Finishes fitting before calibration."""
        self._finish_once()
        self._scored = 0
        data = self._data()
        planting = data is not None and data.planted and self.trainer.world_size == 1
        self._probe = Probe(data, draws_of(data)) if data is not None and planting else None

    def on_validation_end(self) -> None:
        """Adds what was planted to the record, and lets go of the detectors of folds."""
        if self.trainer.sanity_checking:
            return
        learned: dict[str, Any] = {} if self._probe is None else {"planted": tuple(self._probe.found)}
        if self._cross is not None:
            learned["parts"] = self._split().parts
        if learned and isinstance(self.detector.post_processor, DecisionModule):
            self.detector.post_processor.note(**learned)
        self._cross = self._probe = None

    def on_train_end(self) -> None:
        """Finishes fitting where there is no calibration."""
        self._finish_once()

    def validation_step(self, batch: ImageBatch, batch_idx: int) -> Any:
        """Raw predictions with labels, for calibration; nothing while Lightning only checks its own plumbing."""
        if self.trainer.sanity_checking:
            return None
        first, self._scored = self._scored, self._scored + len(batch)
        if self._cross is None:
            self._plant(first, len(batch))
            raw = self.raw_step(batch)
        else:
            raw = self._cross_step(batch, first)
        if self.watch is not None:
            self.watch(raw)
        return raw

    def test_step(self, batch: ImageBatch, batch_idx: int) -> Any:
        """Predictions with labels."""
        return self._decided(batch)

    def on_test_start(self) -> None:
        """Starts measuring afresh."""
        self.evaluator.reset()

    def on_test_batch_end(self, outputs: Any, *args: Any, **kwargs: Any) -> None:
        """Measures a batch."""
        left = own_share(self.trainer, self.evaluator.images, "test")
        self.evaluator.update(outputs if left is None else outputs.first(left))

    def on_test_epoch_end(self) -> None:
        """Every process knows the figures of the whole set."""
        self.evaluator.gather(self.device)

    def predict_step(self, batch: ImageBatch, batch_idx: int = 0) -> Any:
        """Predictions."""
        return self._decided(batch)

    def transfer_batch_to_device(self, batch: ImageBatch, device: torch.device, dataloader_idx: int) -> ImageBatch:
        """Moves the tensors the detector computes on; masks follow, paths stay."""
        masks = batch.gt_mask
        moved = (
            masks.to(device) if isinstance(masks, Tensor) else None if masks is None else [m.to(device) for m in masks]
        )
        label = None if batch.gt_label is None else batch.gt_label.to(device)
        return replace(batch, image=batch.image.to(device), gt_label=label, gt_mask=moved)

    def raw_step(self, batch: ImageBatch) -> InferenceBatch:
        """What the detector says about a batch, with what is known of it; undecided."""
        return self.detector.inspect(batch.image, batch.size).batch(batch)

    def _decided(self, batch: ImageBatch) -> InferenceBatch:
        raw = self.raw_step(batch)
        decided: InferenceBatch = raw if self.detector.post_processor is None else self.detector.post_processor(raw)
        return decided

    def _cross_step(self, batch: ImageBatch, first: int) -> InferenceBatch:
        """`raw_step` by detectors that haven't seen the images; the first of them is number `first` of all. What is
        planted into an image comes at once after it: a fold's detector is made only once.
        """
        at_once, parts = images_at_once(self.detector.device, len(batch)), []
        read = features_by_image(self.detector, batch.image, at_once)
        for _, run in groupby(range(len(batch)), lambda i: (self._fold(first + i), i // at_once)):
            inside = list(run)
            known = [self._known_features(first + i) for i in inside]
            features = torch.cat([next(read) if own is None else own for own in known])
            sizes = [batch.size[i] for i in inside]
            parts.append(self._scorer(first + inside[0]).inspect_features(features, sizes))
            self._plant(first + inside[0], len(inside))
        return RawPrediction.joined(parts).batch(batch)

    def _spare(self, sizes: Sequence[tuple[int, int]], first: int) -> None:
        """Tells the data module which images needn't be read again, of those from number `first` on."""
        data = self._data()
        if data is None or self._cross is None:
            return
        for number, size in enumerate(sizes, first):
            if self._cross.features_of(number) is not None:
                data.spared[data.split.fit[number]] = size

    def _plant(self, first: int, count: int) -> None:
        """Scores what is planted into the calibration images from number `first` on."""
        data = self._data()
        if self._probe is not None and data is not None:
            self._probe(data.calibration[first : first + count], lambda i: self._scorer(first + i))

    def _scorer(self, place: int) -> Detector:
        """The detector that scores the calibration image at a place in their order: one that hasn't seen it."""
        number = self._number(place)
        if self._cross is None or number is None:
            return self.detector
        with exact_products(self.detector.device):
            return self._cross.without(number)

    def _known_features(self, place: int) -> Tensor | None:
        """What the fit kept of the calibration image at a place in their order, if that isn't read again."""
        data, number = self._data(), self._number(place)
        if data is None or self._cross is None or number is None or data.split.fit[number] not in data.spared:
            return None
        return self._cross.features_of(number)

    def _number(self, place: int) -> int | None:
        """What the calibration image at a place in their order is called among those that fit; None if it isn't one."""
        order = self._split().by_fold
        return order[place] if place < len(order) else None

    def _fold(self, place: int) -> int | None:
        number = self._number(place)
        return None if number is None else self._split().folds[number]

    def _data(self) -> ImageDataModule | None:
        """The trainer's data module, where it is ours."""
        data = getattr(self.trainer, "datamodule", None)
        return data if isinstance(data, ImageDataModule) else None

    def _split(self) -> Split:
        """How the data module divides its images; nothing where it isn't ours, or there is none."""
        data = self._data()
        return Split((), (), (), ()) if data is None else data.split

    def _finish_once(self) -> None:
        if self.detector.is_observing and not self.trainer.sanity_checking:
            with exact_products(self.detector.device):
                self.detector.finish()


class Driver(AnomalyModule):
    """Drives a detector that is no Lightning module itself.

    Args:
        detector: a plain one, such as `blemish.load` returns.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.model = detector

    @property
    def detector(self) -> Detector:
        """What is driven."""
        return self.model


class Patchcore(PatchcoreDetector, AnomalyModule):
    """PatchCore (arXiv 2106.08265) for `Engine` or a `lightning.Trainer`; see `PatchcoreDetector`.

    Args:
        settings: fields of `PatchcoreSettings`, by name.
        post_processor: a `BasePostProcessor`; True or None for the default; False for none.
    """

    def __init__(self, *, post_processor: nn.Module | bool | None = None, **settings: Any) -> None:
        checked = PatchcoreSettings(**settings)
        super().__init__(checked, build_parts(checked), _chosen(post_processor))


class Padim(PadimDetector, AnomalyModule):
    """PaDiM (arXiv 2011.08785) for `Engine` or a `lightning.Trainer`; see `PadimDetector`.

    Args:
        settings: fields of `PadimSettings`, by name.
        post_processor: a `BasePostProcessor`; True or None for the default; False for none.
    """

    def __init__(self, *, post_processor: nn.Module | bool | None = None, **settings: Any) -> None:
        checked = PadimSettings(**settings)
        super().__init__(checked, build_parts(checked), _chosen(post_processor))


class Subspace(SubspaceDetector, AnomalyModule):
    """Subspace (arXiv 2602.23013) for `Engine` or a `lightning.Trainer`; see `SubspaceDetector`.

    Args:
        settings: fields of `SubspaceSettings`, by name.
        post_processor: a `BasePostProcessor`; True or None for the default; False for none.
    """

    def __init__(self, *, post_processor: nn.Module | bool | None = None, **settings: Any) -> None:
        checked = SubspaceSettings(**settings)
        super().__init__(checked, build_parts(checked), _chosen(post_processor))


class Fused(FusedDetector, AnomalyModule):
    """Several detectors over one pass of the backbone, for `Engine` or a `lightning.Trainer`; see `FusedDetector`.

    Args:
        settings: fields of `FusedSettings`, by name.
        post_processor: a `BasePostProcessor`; True or None for the default; False for none.
    """

    def __init__(self, *, post_processor: nn.Module | bool | None = None, **settings: Any) -> None:
        checked = FusedSettings(**settings)
        super().__init__(checked, build_parts(checked), _chosen(post_processor))


def _chosen(post_processor: nn.Module | bool | None) -> nn.Module | None:
    if isinstance(post_processor, nn.Module):
        return post_processor
    return None if post_processor is False else PostProcessor()
