"""The whole story on parts that are drawn on the spot: fit on good ones, calibrate, test, and leave pictures."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from blemish.artifact import save
from blemish.engine import Engine
from blemish.engine.testing import measure
from blemish.models import DETECTORS
from blemish.predictions.pictures import PictureFolder
from blemish.runtime import load
from blemish.runtime.session import Session
from blemish.settings import fit_settings
from blemish.synthetic.products import PRODUCTS, write_dataset
from blemish.trials.work import build_data, build_model

GOOD = 30
HELD_OUT = 20
"""Good parts to calibrate on; of fewer, one calibration in 20 calls over 14 % of the good parts anomalous."""


def demonstrate(
    folder: Path,
    detector: str,
    *,
    seed: int = 0,
    products: Iterable[str] = tuple(PRODUCTS),
    good: int = GOOD,
    held_out: int = HELD_OUT,
    good_test: int = 10,
    per_defect: int = 5,
    size: tuple[int, int] = (256, 256),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Draws, fits, tests and draws again, one product after the other, and yields its name and its figures.

    Args:
        folder: where data/, pictures/ and a model file of each product are left.
        detector: name of the detector.
        seed: draws other parts.
        products: out of `PRODUCTS`.
        good: parts to fit on.
        held_out: good parts to calibrate on.
        good_test: good parts to test on.
        per_defect: parts with each defect.
        size: (H, W) of the pictures.

    Yields:
        Name, and what `engine.testing.measure` gives, with "seconds".
    """
    share = held_out / (good + held_out)
    settings = fit_settings({"detector": detector, "seed": seed, "calibration_fraction": share}, DETECTORS)
    for product in products:
        started = time.perf_counter()
        root = write_dataset(
            folder / "data",
            product=product,
            good_train=good + held_out,
            good_test=good_test,
            per_defect=per_defect,
            size=size,
            seed=seed,
        )
        model = build_model(settings)
        Engine(settings.run.accelerator).fit(model, build_data(settings, root))
        path = folder / f"{product}.safetensors"
        save(model, path)
        figures = measure(model, root, settings.loading, settings.run.accelerator)
        _leave_pictures(load(path), root, folder / "pictures" / product)
        yield product, {**figures, "seconds": round(time.perf_counter() - started, 2)}


def _leave_pictures(session: Session, root: Path, folder: Path) -> None:
    """An overlay of the first test image of every kind."""
    pictures = PictureFolder(folder, ["overlay", "heatmap"])
    first = [sorted(kind.iterdir())[0] for kind in sorted((root / "test").iterdir())]
    for path, result in zip(first, session(first), strict=True):
        pictures.write(result, Path(path.parent.name))
