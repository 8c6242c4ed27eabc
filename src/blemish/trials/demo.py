"""The whole story on parts that are drawn on the spot: fit on good ones, calibrate, test, and leave pictures."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from blemish.artifact import save
from blemish.engine import Engine
from blemish.engine.testing import measure
from blemish.predictions.pictures import PictureFolder
from blemish.runtime import load
from blemish.runtime.session import Session
from blemish.synthetic.products import PRODUCTS, write_dataset
from blemish.trials.work import build_model, planned

GOOD = 26
"""Good parts of each kind."""


def demonstrate(
    folder: Path,
    values: Mapping[str, Any],
    from_preset: Collection[str] = (),
    *,
    seed: int = 0,
    products: Iterable[str] = tuple(PRODUCTS),
    good: int = GOOD,
    good_test: int = 10,
    per_defect: int = 3,
    size: tuple[int, int] = (192, 192),
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Draws, fits, tests and draws again, one product after the other, and yields its name and its figures.

    Args:
        folder: where data/, pictures/ and a model file of each product are left.
        values: keys of a configuration, see `blemish.settings.fit_settings`.
        from_preset: those of them that nobody gave.
        seed: draws other parts.
        products: out of `PRODUCTS`.
        good: parts to fit and calibrate on.
        good_test: good parts to test on.
        per_defect: parts with each defect.
        size: (H, W) of the pictures.

    Yields:
        Name, and what `engine.testing.measure` gives, with "seconds".
    """
    for product in products:
        started = time.perf_counter()
        root = write_dataset(
            folder / "data",
            product=product,
            good_train=good,
            good_test=good_test,
            per_defect=per_defect,
            size=size,
            seed=seed,
        )
        settings, data, _ = planned({**values, "seed": seed}, from_preset, root)
        model = build_model(settings)
        Engine(settings.run.accelerator).fit(model, data)
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
