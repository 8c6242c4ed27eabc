"""A folder of products, each fitted into a model file of its own, as every night perhaps."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blemish.artifact import save
from blemish.engine import Engine
from blemish.files import digest
from blemish.trials.jobs import Job
from blemish.trials.work import build_model, planned


@dataclass(frozen=True)
class FitProduct:
    """A `Work` that fits the folder of a job and saves the model under its name.

    Attributes:
        folder: of model files, absolute.
        from_preset: keys of the jobs' settings that nobody gave, see `blemish.trials.work.suited`.
    """

    folder: Path
    from_preset: Collection[str]

    def file(self, job: Job) -> Path:
        """Where the model of a job goes."""
        return self.folder / f"{job.name}.safetensors"

    def __call__(self, job: Job) -> dict[str, Any]:
        """Fits and saves; what there is to know about it, as plain values."""
        started = time.perf_counter()
        settings, data, remarks = planned(job.settings, self.from_preset, job.root)
        model = build_model(settings)
        Engine(settings.run.accelerator, progress=False).fit(model, data)
        path = self.file(job)
        save(model, path)
        record = model.decider.record
        return {
            "model": path.name,
            "sha256": digest(path),
            "detector": model.name,
            "fitted_on": len(data.split.fit),
            "threshold": model.decider.raw_image_threshold,
            "expected_false_alarm_rate": None if record is None else record.expected_false_alarm_rate,
            "remarks": remarks,
            "seconds": round(time.perf_counter() - started, 3),
        }
