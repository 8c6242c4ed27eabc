"""`blemish serve --demo`: a line of drawn parts, so that everything on the pages moves."""

from __future__ import annotations

import threading
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from blemish.artifact import save
from blemish.data.image_io import write_png
from blemish.engine import Engine
from blemish.models import DETECTORS
from blemish.settings import fit_settings
from blemish.synthetic.products import PRODUCTS, render, write_dataset
from blemish.trials.work import build_data, build_model

PRODUCT = "tile"
SIZE = (192, 192)
GOOD = 40
"""Good parts to fit and calibrate on."""
EVERY = 1.5
"""Seconds between parts; one in `BAD` is defective."""
BAD = 5


class Demo:
    """A line that makes parts while the context lasts.

    Args:
        folder: of the station; model and pictures are left there, and taken up again by the next start.
    """

    def __init__(self, folder: Path) -> None:
        self.inbox = folder / "demo" / "inbox"
        self.model = folder / "demo" / f"{PRODUCT}.safetensors"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._make_parts, name="demo", daemon=True)

    def configuration(self) -> dict[str, Any]:
        """Keys of a station's configuration."""
        return {
            "products": [{"code": PRODUCT, "model": self.model.absolute()}],
            "sources": [{"folder": self.inbox.absolute(), "name": "demo line", "take": True}],
        }

    def __enter__(self) -> Demo:
        self.inbox.mkdir(parents=True, exist_ok=True)
        if not self.model.is_file():
            self._fit()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _fit(self) -> None:
        data = self.model.parent / "data"
        if not (data / PRODUCT).is_dir():
            write_dataset(data, product=PRODUCT, good_train=GOOD, good_test=0, per_defect=0, size=SIZE)
        settings = fit_settings({"image_size": 128, "calibrate_on": "cross"}, DETECTORS)
        model = build_model(settings)
        Engine(settings.run.accelerator, progress=False).fit(model, build_data(settings, data / PRODUCT))
        save(model, self.model)

    def _make_parts(self) -> None:
        rng = np.random.default_rng()
        number = 0
        while not self._stop.wait(EVERY):
            number += 1
            defects = PRODUCTS[PRODUCT].defects
            defect = defects[rng.integers(len(defects))] if rng.random() < 1 / BAD else None
            picture, _ = render(PRODUCT, size=SIZE, rng=rng, defect=defect)
            write_png(self.inbox / f"{rng.integers(2**40):010x}-{defect or 'good'}.png", picture)
