"""`blemish demo`: the whole story on parts that are drawn on the spot."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.console import out, print_json, remark, table

if TYPE_CHECKING:
    from blemish.runtime.session import Session

COLUMNS = {
    "image_auroc": "AUROC",
    "image_f1": "F1",
    "false_alarm_rate": "false alarms",
    "miss_rate": "misses",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO",
    "seconds": "s",
}
GOOD_TRAIN, GOOD_TEST, PER_DEFECT = 30, 10, 5
HELD_OUT = 20  # to calibrate on; of fewer, one calibration in 20 calls over 14 % of the good parts anomalous


def demo(
    output: Path = typer.Option(Path("demo-output"), "--output", "-o", help="Folder to leave images and models in."),
    detector: str = typer.Option("patchcore", help="patchcore or padim."),
    seed: int = typer.Option(0, help="Draws other parts."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Draw parts with planted defects, fit on good ones, calibrate on good ones, test, and leave pictures to look
    at.
    """
    from blemish.artifact import save
    from blemish.cli.config import make_config
    from blemish.cli.fit import build_data, build_model
    from blemish.cli.test import run_test
    from blemish.engine import Engine
    from blemish.runtime import load
    from blemish.synthetic.products import PRODUCTS, write_dataset

    good = GOOD_TRAIN + HELD_OUT
    settings = make_config({"detector": detector, "seed": seed, "calibration_fraction": HELD_OUT / good})
    remark("Pictures are drawn, not photographed, and easier than real ones. Nothing is downloaded.")
    results: dict[str, dict[str, Any]] = {}
    for product in PRODUCTS:
        started = time.perf_counter()
        root = write_dataset(
            output / "data",
            product=product,
            good_train=good,
            good_test=GOOD_TEST,
            per_defect=PER_DEFECT,
            seed=seed,
        )
        model = build_model(settings)
        Engine(settings.accelerator).fit(model, build_data(settings, root))
        path = output / f"{product}.safetensors"
        save(model, path)
        results[product] = run_test(model, root, settings.accelerator)
        _leave_pictures(load(path), root, output / "pictures" / product)
        results[product]["seconds"] = round(time.perf_counter() - started, 2)
    if as_json:
        print_json({"detector": detector, "products": results})
        return
    rows = [[product, *(_shown(figures[key]) for key in COLUMNS)] for product, figures in results.items()]
    title = f"{detector}, fitted on {GOOD_TRAIN} good parts of each kind and calibrated on {HELD_OUT} others"
    table(title, ("product", *COLUMNS.values()), rows)
    out().print(f"Pictures to look at: {output / 'pictures'}. Models: {output}/*.safetensors.")


def _shown(value: float | None) -> float | str:
    return "-" if value is None else round(value, 3)


def _leave_pictures(session: Session, root: Path, folder: Path) -> None:
    """An overlay of the first test image of every kind."""
    from blemish.predictions.pictures import PictureFolder

    pictures = PictureFolder(folder, ["overlay"], session.pixel_cut)
    first = [sorted(kind.iterdir())[0] for kind in sorted((root / "test").iterdir())]
    for path, result in zip(first, session(first), strict=True):
        pictures.write(result, Path(path.parent.name))
