"""Claim: a session needs no more memory after 1,000 sizes of image than after 256.

python benchmarks/many_sizes.py [--counts 64 256 1000]

Every runtime inspects images of so many different sizes, each size once and in mixed order, in a process of its own.
Takes four minutes on two cores that have other work.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import numpy as np
from common import Half, arguments, claim, report, status_mb, write_images

FILES = {"torch": "model.safetensors", "ONNX Runtime": "model.onnx", "OpenVINO": "model.xml"}


def inspect(path: str, counts: list[int]) -> list[float | None]:
    """Peak resident memory of this process in MB after each of `counts` sizes."""
    from blemish.runtime import load

    session, rng = load(path, threads=1), np.random.default_rng(0)
    sizes = rng.permutation(list(product(range(64, 464), (60, 61, 150))))  # the large ones don't come last
    peaks = []
    for number, (height, width) in enumerate(sizes[: max(counts)], start=1):
        session(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
        if number in counts:
            peaks.append(status_mb("VmHWM"))
    return peaks


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--counts", type=int, nargs="+", default=[64, 256, 1000], help="rising, at most 1200")
    parser.add_argument("--run", metavar="FILE", help="one session, as the fresh process runs it")
    options = parser.parse_args()
    if options.run:
        print(json.dumps(inspect(options.run, options.counts)))
        return
    import blemish

    rows, claims = [], []
    few, many = options.counts[-2:]
    counts = ["--counts", *map(str, options.counts)]
    with tempfile.TemporaryDirectory() as folder:
        model = blemish.Patchcore(image_size=128, bank_size=200)
        blemish.Engine("cpu", progress=False).fit(model, blemish.ImageDataModule(write_images(Path(folder) / "x", 12)))
        model.save(Path(folder) / FILES["torch"])
        model.export(Path(folder) / FILES["ONNX Runtime"])
        model.export(Path(folder) / FILES["OpenVINO"], "openvino")
        for name, file in FILES.items():
            command = [sys.executable, __file__, "--run", str(Path(folder) / file), *counts]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            peaks = json.loads(done.stdout)
            rows.append(
                {"runtime": name}
                | {f"MB at {n:,} sizes": round(peak) for n, peak in zip(options.counts, peaks, strict=True)}
            )
            growth = peaks[-1] / peaks[-2]
            text = f"{name}, peak memory from {few:,} to {many:,} sizes of image"
            claims.append(claim(text, "flat within 25 %", f"{growth:.2f} x", growth <= 1.25))
    del options.run
    with Half("ours") as ours:
        report("many_sizes", options, rows, claims, ours)


if __name__ == "__main__":
    main()
