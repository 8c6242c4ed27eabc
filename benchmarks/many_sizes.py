"""Claim: a session needs no more memory after 1,000 sizes of image than after 250.

python benchmarks/many_sizes.py [--counts 250 1000]

Every runtime inspects images of so many different sizes, each once, in a process of its own. Takes three minutes.
"""

from __future__ import annotations

import tempfile
from itertools import islice, product
from pathlib import Path

import numpy as np
from common import Half, arguments, claim, peak_megabytes, report, write_images

FILES = {"torch": "model.safetensors", "ONNX Runtime": "model.onnx", "OpenVINO": "model.xml"}


def inspect(path: str, count: int) -> None:
    from blemish.runtime import load

    session, rng = load(path), np.random.default_rng(0)
    for height, width in islice(product(range(64, 464), (60, 61, 150)), count):
        session(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--counts", type=int, nargs=2, default=[250, 1000])
    parser.add_argument("--run", nargs=2, metavar=("FILE", "COUNT"), help="one session, as the fresh process runs it")
    options = parser.parse_args()
    if options.run:
        inspect(options.run[0], int(options.run[1]))
        return
    import blemish

    rows, claims = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = blemish.Patchcore(image_size=128, bank_size=200)
        blemish.Engine("cpu", progress=False).fit(model, blemish.ImageDataModule(write_images(Path(folder) / "x", 12)))
        model.save(Path(folder) / FILES["torch"])
        model.export(Path(folder) / FILES["ONNX Runtime"])
        model.export(Path(folder) / FILES["OpenVINO"], "openvino")
        for name, file in FILES.items():
            peaks = [peak_megabytes(__file__, "--run", str(Path(folder) / file), str(n)) for n in options.counts]
            growth = peaks[1] / peaks[0]
            for count, peak in zip(options.counts, peaks, strict=True):
                rows.append({"runtime": name, "sizes": count, "peak MB": round(peak)})
            few, many = options.counts
            text = f"{name}, peak memory from {few:,} to {many:,} sizes of image"
            claims.append(claim(text, "flat within 25 %", f"{growth:.2f} x", growth <= 1.25))
    del options.run
    with Half("ours") as ours:
        report("many_sizes", options, rows, claims, ours)


if __name__ == "__main__":
    main()
