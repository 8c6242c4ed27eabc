"""Scores candidate backbones on drawn and on real images; the table by which the bundled one was chosen.

Each candidate is a name, a backbone, its layers and, for trained ones, a weight file. Every set is fitted and tested as
a user would (defaults, held-out calibration): the figures need no threshold. `--every n` takes each n-th image of the
large sets: a quick look while training, not a result.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from blemish import Engine, ImageDataModule, Padim, Patchcore
from blemish.synthetic.products import PRODUCTS, write_dataset

REAL = ("magnetic_tile", "cookies", "aliens")
FIGURES = ("image_auroc", "pixel_auroc", "aupro")


def thinned(root: Path, folder: Path, every: int) -> Path:
    """`root` as links to each n-th image of a set of more than 200; masks stay whole."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    images = [path for path in files if "ground_truth" not in path.parts and path.suffix.lower() in (".png", ".jpg")]
    if every == 1 or len(images) <= 200:
        return root
    taken = images[::every]
    stems = {path.stem for path in taken}
    masks = [path for path in files if "ground_truth" in path.parts and path.stem.removesuffix("_mask") in stems]
    for path in taken + masks:
        link = folder / root.name / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(path.resolve(), link)
    return folder / root.name


def measure(kind: type[Patchcore] | type[Padim], arguments: dict[str, Any], data: Path) -> dict[str, float | None]:
    """Figures of one detector on one set, and milliseconds per image at batch 1, pre-processing included."""
    model, engine = kind(**arguments), Engine("auto", progress=False)
    engine.fit(model, ImageDataModule(data, num_workers=0))
    result = engine.test(model, ImageDataModule(data, num_workers=0)).to_dict()
    image = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    with torch.inference_mode():
        times = []
        for _ in range(12):
            began = time.perf_counter()
            model(image)
            times.append(time.perf_counter() - began)
    return {name: result[name] for name in FIGURES} | {"ms": 1000 * statistics.median(times[2:])}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("candidates", nargs="+", help="NAME=BACKBONE:LAYER+LAYER[:WEIGHTS or seedN]")
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("BLEMISH_DATA", "../shared/data")))
    parser.add_argument("--sets", nargs="+", default=["drawn", *REAL])
    parser.add_argument("--detectors", nargs="+", choices=["patchcore", "padim"], default=["patchcore", "padim"])
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--bank-size", type=int, default=10_000)
    parser.add_argument("--output", type=Path, help="JSON; rows that are in it already are not measured again.")
    given = parser.parse_args()
    rows: dict[str, Any] = json.loads(given.output.read_text()) if given.output and given.output.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        sets = {}
        for name in given.sets:
            if name == "drawn":
                for product in PRODUCTS:
                    sets[f"drawn/{product}"] = write_dataset(
                        Path(scratch) / "drawn", product=product, good_train=40, good_test=20, per_defect=8, seed=77
                    )
            else:
                sets[name] = thinned(given.data / name, Path(scratch), given.every)
        for candidate in given.candidates:
            name, _, recipe = candidate.partition("=")
            backbone, layers, *source = recipe.split(":")
            arguments: dict[str, Any] = {"backbone": backbone}
            if layers:
                arguments["layers"] = layers.split("+")
            if source and source[0].startswith("seed"):
                arguments |= {"pretrained": False, "seed": int(source[0][4:])}
            elif source:
                arguments["weights"] = source[0]
            for detector in given.detectors:
                kind = {"patchcore": Patchcore, "padim": Padim}[detector]
                extra = {"bank_size": given.bank_size} if detector == "patchcore" else {}
                for data_name, data in sets.items():
                    key = f"{name} | {detector} | {data_name}"
                    if key in rows:
                        continue
                    rows[key] = measure(kind, arguments | extra, data)
                    shown = "  ".join(f"{k} {v:.3f}" if v is not None else f"{k} -" for k, v in rows[key].items())
                    print(f"{key:48} {shown}", flush=True)
                    if given.output:
                        given.output.parent.mkdir(parents=True, exist_ok=True)
                        given.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
