"""The few verbs of a user, over `lightning.Trainer`: fit, update, validate, test, predict, export.

The trainer brings devices, data loading and callbacks; the engine sets what fitting a detector needs (one pass, no
optimizer, no checkpoints of a half-fitted model, no logger) and hands the model's own pre-processor to the data loader,
so that there is one resize.
"""

from __future__ import annotations

import copy
import importlib
import logging
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from blemish.data.batch import InferenceBatch
from blemish.data.datamodule import ImageDataModule
from blemish.data.record import DataRecord
from blemish.engine.bars import callbacks_for, shown_bars
from blemish.engine.module import AnomalyModule, Driver
from blemish.engine.remembering import good_images_of
from blemish.errors import UsageError
from blemish.metrics.evaluation import EvaluationResult
from blemish.models.base import Detector, ExportMode
from blemish.progress import Progress, silent
from blemish.terminating import ended_by_sigterm

# Lightning's remarks on things that are meant to be so here.
_EXPECTED = (
    ".*configure_optimizers.*returned.*None.*",  # nothing is optimized
    ".*does not have many workers.*",  # the data module chooses the number of workers
    ".*have no `val_dataloader`.*",  # fitting without calibration is allowed
    ".*GPU available but not used.*",  # the user chose the CPU
    ".*in eval mode at the start of training.*",  # the backbone stays in evaluation mode
    ".*overridden `transfer_batch_to_device`.*",  # the detector moves its own batches
    ".*smaller than the logging interval.*",  # there is no logger
    ".*LeafSpec.*is deprecated.*",  # Lightning's own use of an old torch name
)


Data: TypeAlias = ImageDataModule | str | os.PathLike[str]
"""A data module, or a folder or manifest that becomes one with its defaults."""


class Engine:
    """Runs detectors over data: an `ImageDataModule`, or a folder, which becomes one.

    Args:
        accelerator: "auto", "cpu", "cuda" or "mps", as `lightning.Trainer` takes it; a `UsageError` on first use if
            this machine has no such thing.
        strategy: "auto" fits in this process, or in `devices` processes of this machine; "ray" on a Ray cluster. The
            fitted detector is the same, to the last bit on the same kind of machine, but for numbers of threads and
            devices in which torch itself rounds differently.
        devices: how many processes share the images of a fit, one for each GPU where there are that many. None is one,
            with "ray" all that the cluster has.
        address: HOST:PORT of the Ray cluster, or "auto" for the one this machine belongs to; None starts one on this
            machine.
        progress: show a progress bar with rate and remaining time for every long phase. Bars appear on terminals only.
            A function is called instead, see `blemish.progress.Progress`.

    Raises:
        UsageError: for an unknown strategy, or arguments that don't go together.
    """

    def __init__(
        self,
        accelerator: str = "auto",
        *,
        strategy: Literal["auto", "ray"] = "auto",
        devices: int | None = None,
        address: str | None = None,
        progress: bool | Progress = True,
    ) -> None:
        if strategy not in ("auto", "ray"):
            raise UsageError(f"strategy must be 'auto' or 'ray'. Got {strategy!r}.")
        if devices is not None and devices < 1:
            raise UsageError(f"devices must be at least 1. Got {devices}.")
        if address is not None and strategy != "ray":
            raise UsageError(f"address is that of a Ray cluster. Got {address!r} with strategy {strategy!r}.")
        self.accelerator = accelerator
        self.strategy, self.devices, self.address = strategy, devices, address
        self.progress = progress

    def fit(
        self,
        model: Detector,
        datamodule: Data,
        *,
        watch: Callable[[InferenceBatch], None] | None = None,
        thumbnails: bool = False,
    ) -> None:
        """Fits on the good training images and calibrates on the images the data module sets aside. Starts afresh each
        time.

        Args:
            model: to be fitted.
            datamodule: its images.
            watch: called with the raw predictions of every batch of calibration images, which no detector that had
                seen them made, for whoever wants to see single images.
            thumbnails: keep small pictures of good images in the model, for its explanations.

        Raises:
            DataError, CalibrationError, NonFiniteError: if the images can't support a detector; the message says which
                and why.
        """
        self._fit(model, as_data(datamodule), model.start, watch=watch, thumbnails=thumbnails)

    def update(self, model: Detector, datamodule: Data, *, thumbnails: bool = False) -> None:
        """Adds more good images to a fitted detector and calibrates again on the data module's calibration images.

        Args:
            model: fitted.
            datamodule: the new images.
            thumbnails: see `fit`; pictures of earlier images stay.

        Raises:
            NotFittedError: before `fit`. Others as in `fit`.
        """
        datamodule = as_data(datamodule)
        self._read_alike(model, datamodule)
        self._fit(model, datamodule, model.resume, earlier=model.data_record, thumbnails=thumbnails)

    def validate(self, model: Detector, datamodule: Data) -> None:
        """Calibrates a fitted detector again on images that it hasn't seen: new thresholds, same features. The images
        count as seen from then on, unless they are test images.

        Raises:
            UsageError: if `calibrate_on` is "cross" and the detector was fitted on some of the images.
        """
        datamodule = as_data(datamodule)
        self._prepare(model, datamodule)
        self._read_alike(model, datamodule)
        dealt = datamodule.split
        if dealt.policy == "cross" and model.data_record is not None:
            known = len(model.data_record.seen() & datamodule.record().seen())
            if known:
                raise UsageError(
                    f"The detector was made from {known} of these images, so they can't calibrate it again: it knows "
                    f"them. Give it new ones, or fit again."
                )
        datamodule.split = replace(dealt.of_new_images(), fit=())
        try:
            with self._trainer() as trainer:
                trainer.validate(_driven(model), datamodule=datamodule, verbose=False)
            if model.data_record is not None:
                model.data_record = model.data_record.after(datamodule.record())
        finally:
            datamodule.split = dealt

    def test(
        self,
        model: Detector,
        datamodule: Data,
        *,
        watch: Callable[[InferenceBatch], None] | None = None,
    ) -> EvaluationResult:
        """Measures a detector on the test images, on raw scores and in original pixels. Images that it was fitted on or
        calibrated with are left out, with a warning.

        Args:
            model: fitted.
            datamodule: its test images are measured.
            watch: called with every decided batch, for whoever wants to see single images.
        """
        datamodule = as_data(datamodule)
        self._prepare(model, datamodule)
        self._read_alike(model, datamodule)
        datamodule.leave_out_seen(model.data_record)
        driven = _driven(model)
        driven.evaluator.watch = watch
        with self._trainer() as trainer:
            trainer.test(driven, datamodule=datamodule, verbose=False)
        return driven.evaluator.compute()

    def predict(self, model: Detector, datamodule: Data) -> list[InferenceBatch]:
        """Verdicts, maps and masks for the data module's prediction images.

        The result holds all maps in memory; for streams of any length use `blemish.runtime`.
        """
        datamodule = as_data(datamodule)
        self._prepare(model, datamodule)
        self._read_alike(model, datamodule)
        with self._trainer() as trainer:
            batches: list[Any] = trainer.predict(_driven(model), datamodule=datamodule) or []
        return batches

    @staticmethod
    def export(model: Detector, root: str | os.PathLike[str], export_mode: ExportMode = "onnx", **options: Any) -> Any:
        """Writes a calibrated detector for a runtime: `model.export`, whose `Exported` is returned."""
        return model.export(root, export_mode, **options)

    def _fit(
        self,
        model: Detector,
        datamodule: ImageDataModule,
        begin: Callable[[], None],
        earlier: DataRecord | None = None,
        watch: Callable[[InferenceBatch], None] | None = None,
        thumbnails: bool = False,
    ) -> None:
        self._prepare(model, datamodule)
        if self.strategy == "ray" or (self.devices or 1) > 1:
            if watch is not None:
                raise UsageError("watch sees the batches of one process. Fit without devices and strategy.")
            first = self._fit_together(model, datamodule, begin)
        else:
            first = self._fit_here(model, datamodule, begin, watch)
        model.data_record = datamodule.record().after(earlier)
        model.good_images = good_images_of(model, datamodule, first, thumbnails=thumbnails)
        model.eval()

    def _fit_here(
        self,
        model: Detector,
        datamodule: ImageDataModule,
        begin: Callable[[], None],
        watch: Callable[[InferenceBatch], None] | None,
    ) -> int:
        """Fits, and returns what the first image is called."""
        driven = _driven(model)
        with self._trainer() as trainer:
            _ = datamodule.calibration  # a folder or a device that can't be used leaves the detector as it was
            begin()
            first = model.next_number
            driven.watch = watch
            try:
                trainer.fit(driven, datamodule=datamodule)
            finally:
                driven.watch = None
        return first

    def _fit_together(self, model: Detector, datamodule: ImageDataModule, begin: Callable[[], None]) -> int:
        """As `_fit_here`, by several processes."""
        # An upward call: one verb fits, wherever the work is done, and what does it elsewhere knows the engine's parts.
        pools = importlib.import_module("blemish.scale.pools")
        fitting = importlib.import_module("blemish.scale.fitting")
        workers = (
            pools.ray_pool(self.accelerator, self.devices, self.address)
            if self.strategy == "ray"
            else pools.process_pool(self.accelerator, self.devices)
        )
        rng = torch.random.fork_rng(devices=[])
        with ended_by_sigterm(), rng, workers as pool, shown_bars(self.progress) as show:
            _ = datamodule.calibration  # as in `_fit_here`
            begin()
            first = model.next_number
            model.progress = show
            try:
                fitting.fit(model.cpu(), datamodule, pool, show)
            finally:
                model.progress = silent
        return first

    def _prepare(self, model: Detector, datamodule: ImageDataModule) -> None:
        # A copy: loader workers resize on the CPU while the model may live on a GPU.
        datamodule.transform = copy.deepcopy(model.pre_processor).cpu()

    @staticmethod
    def _read_alike(model: Detector, datamodule: ImageDataModule) -> None:
        if model.data_record is not None:
            datamodule.read_as(model.data_record.bit_depth)

    @contextmanager
    def _trainer(self) -> Iterator[Trainer]:
        """A trainer for one pass; Lightning's banner and expected remarks are kept off the terminal meanwhile."""
        log = logging.getLogger("lightning.pytorch")
        level = log.level
        on_ctrl_c = signal.getsignal(signal.SIGINT)
        # Data loaders draw a seed for their workers from the global generator: it is put back.
        with ended_by_sigterm(), warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            for message in _EXPECTED:
                warnings.filterwarnings("ignore", message)
            log.setLevel(logging.WARNING)
            try:
                yield self._new_trainer()
            except SystemExit as error:
                if not isinstance(error.__context__, KeyboardInterrupt):
                    raise
                # Lightning exits with 1 and leaves Ctrl-C switched off: a program that goes on must get both back.
                signal.signal(signal.SIGINT, on_ctrl_c)
                raise KeyboardInterrupt from error
            finally:
                log.setLevel(level)

    def _new_trainer(self) -> Trainer:
        try:
            return Trainer(
                accelerator=self.accelerator,
                devices=1,
                max_epochs=1,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                callbacks=callbacks_for(self.progress),
            )
        except (ValueError, RuntimeError, MisconfigurationException) as error:
            raise UsageError(f"accelerator {self.accelerator!r} can't be used: {error}") from error


def as_data(data: Data) -> ImageDataModule:
    """A folder or manifest as a data module with defaults; a data module as it is.

    Raises:
        UsageError: for anything else.
    """
    if isinstance(data, (str, os.PathLike)):
        return ImageDataModule(data)
    if not isinstance(data, ImageDataModule):
        raise UsageError(f"Data must be an ImageDataModule or a folder. Got {type(data).__name__}.")
    return data


def _driven(model: Detector) -> AnomalyModule:
    """The detector as a trainer takes it: itself, if it is a Lightning module."""
    return model if isinstance(model, AnomalyModule) else Driver(model)
