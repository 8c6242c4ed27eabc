"""Claim: peak memory of a fit does not grow with the number of images.

python benchmarks/fit_memory.py [--counts 100 600] [--detectors padim patchcore]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from common import peak_megabytes, report, write_images


def fit(detector: str, folder: str) -> None:
    import blemish

    models = {
        "padim": lambda: blemish.Padim(backbone="resnet18", pretrained=False),
        "patchcore": lambda: blemish.Patchcore(backbone="resnet18", pretrained=False, bank_size=1000),
    }
    blemish.Engine("cpu", progress=False).fit(models[detector](), blemish.ImageDataModule(folder))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--counts", type=int, nargs="+", default=[100, 600])
    parser.add_argument("--detectors", nargs="+", default=["padim", "patchcore"])
    parser.add_argument("--fit", nargs=2)
    options = parser.parse_args()
    if options.fit:
        fit(*options.fit)
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in options.counts:
            images = write_images(Path(folder) / str(count), count)
            for detector in options.detectors:
                peak = peak_megabytes(__file__, "--fit", detector, str(images))
                rows.append({"detector": detector, "images": count, "peak_mb": round(peak)})
    first = {row["detector"]: row["peak_mb"] for row in reversed(rows)}
    for row in rows:
        row["ratio"] = round(row["peak_mb"] / first[row["detector"]], 3)
    report("fit_memory", sorted(rows, key=lambda row: (row["detector"], row["images"])))


if __name__ == "__main__":
    main()
