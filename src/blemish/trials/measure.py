"""What a fitted detector costs: milliseconds per image, megabytes on disk, memory while it was made.

Latency is that of one image through the whole path, from uint8 pixels at their own size to verdict, map and mask, on an
otherwise idle machine; reading the file is not in it. Memory is that of the whole process, libraries included.
"""

from __future__ import annotations

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from blemish.artifact import save
from blemish.data.image_io import Reading
from blemish.data.index import Sample
from blemish.memory import peak_memory as peak_bytes
from blemish.models.base import Detector
from blemish.runtime.torch_session import TorchBackend

WARM_UP, REPEATS, SECONDS = 3, 20, 3.0
"""Images that don't count, images that do, and the time after which no more than `WARM_UP` are taken."""


@dataclass(frozen=True)
class Cost:
    """What one image and the model file cost.

    Attributes:
        milliseconds: median over images, on `device`.
        slowest: 95th percentile of the same, in milliseconds.
        megabytes: size of the model file, in 2**20 bytes.
        device: where the image was inspected.
    """

    milliseconds: float
    slowest: float
    megabytes: float
    device: str


@dataclass
class Peak:
    """Highest memory in 2**20 bytes; None where the system doesn't say."""

    process: float | None = None
    gpu: float | None = None


def cost(model: Detector, samples: Sequence[Sample], reading: Reading, *, accelerator: str = "auto") -> Cost:
    """Measures a calibrated detector on up to eight of `samples`; leaves it on the device it was measured on."""
    device = device_for(accelerator)
    backend = TorchBackend(model.to(device))
    times = latency(backend, [reading(sample.path)[None] for sample in samples[:8]])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.safetensors"
        save(model, file)
        size = file.stat().st_size
    return Cost(float(np.median(times)), float(np.quantile(times, 0.95)), size / 2**20, device)


def latency(backend: TorchBackend, images: Sequence[npt.NDArray[Any]]) -> list[float]:
    """Milliseconds of single images (1, H, W, 3), taken in turn, after a warm-up."""
    times: list[float] = []
    started = time.perf_counter()
    for number in range(WARM_UP + REPEATS):
        before = time.perf_counter()
        backend.run(images[number % len(images)], backend.decision)
        times.append(1000 * (time.perf_counter() - before))
        if len(times) >= 2 * WARM_UP and time.perf_counter() - started > SECONDS:
            break
    return times[WARM_UP:]


def device_for(accelerator: str) -> str:
    """The torch device on which `accelerator` of `Engine` puts a detector."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Watches memory during the block; the figures are there when it ends."""
    peak = Peak()
    resettable = _reset_high_water_mark()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        yield peak
    finally:
        highest = peak_bytes() if resettable else None
        peak.process = None if highest is None else highest / 2**20
        if torch.cuda.is_available():
            peak.gpu = torch.cuda.max_memory_allocated() / 2**20


def machine() -> dict[str, Any]:
    """Where figures of time come from: plain values."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def _reset_high_water_mark() -> bool:
    """Linux keeps the highest memory of a process, and forgets it when 5 is written there."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
