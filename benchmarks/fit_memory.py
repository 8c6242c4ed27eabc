"""Claim: peak memory of a fit does not grow with the number of images.

python benchmarks/fit_memory.py [--counts 200 600] [--detectors padim patchcore]

Each fit is a process of its own, through the engine and from files. The bank has a fixed size; 200 images fill the
buffer in front of it. Takes two minutes, `--counts 200 2000` six.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Half, arguments, claim, peak_megabytes, report, write_images


def fit(detector: str, folder: str) -> None:
    import blemish

    models = {
        "padim": lambda: blemish.Padim(backbone="resnet18", pretrained=False),
        "patchcore": lambda: blemish.Patchcore(backbone="resnet18", pretrained=False, bank_size=1000),
    }
    blemish.Engine("cpu", progress=False).fit(models[detector](), blemish.ImageDataModule(folder))


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--counts", type=int, nargs="+", default=[200, 600])
    parser.add_argument("--detectors", nargs="+", default=["padim", "patchcore"])
    parser.add_argument("--fit", nargs=2, metavar=("DETECTOR", "FOLDER"), help="one fit, as the fresh process runs it")
    options = parser.parse_args()
    if options.fit:
        fit(*options.fit)
        return
    rows, claims = [], []
    with tempfile.TemporaryDirectory() as folder:
        images = {count: write_images(Path(folder) / str(count), count) for count in options.counts}
        for detector in options.detectors:
            peaks = [peak_megabytes(__file__, "--fit", detector, str(images[count])) for count in options.counts]
            for count, peak in zip(options.counts, peaks, strict=True):
                growth = round(peak / peaks[0], 3)
                rows.append({"detector": detector, "images": count, "peak MB": round(peak), "ratio": growth})
            text = f"{detector} fit, peak memory from {options.counts[0]:,} to {options.counts[-1]:,} images"
            claims.append(claim(text, "flat within 10 %", f"{growth:.2f} x", growth <= 1.1))
    del options.fit
    with Half("ours") as ours:
        report("fit_memory", options, rows, claims, ours)


if __name__ == "__main__":
    main()
