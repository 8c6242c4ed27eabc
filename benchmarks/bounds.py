"""Claim: what hostile files ask for is refused before it is spent, and the digest of a model costs little of a load.

python benchmarks/bounds.py [--rounds 5]

A PNG of one pixel's width, one of a billion pixels, a region of a million points, models whose numbers were raised and
whose digest was written anew: each is read once. `bank_size` is an upper bound that reserves nothing, so it may be
read. Then a model of the default settings is loaded, and its digest alone is compared. Seconds of the processor, so
that what else the machine does counts little. Half a minute.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from common import Meter, arguments, claim, report
from PIL import Image
from runtimes import Installed
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import blemish
from blemish.artifact import load
from blemish.data.image_io import read_image
from blemish.data.roi import read_roi
from blemish.errors import BlemishError
from blemish.manifest import KEY
from blemish.seal import BLANK, read_seal, write_seal

SECONDS, MEGABYTES, SHARE = 1.0, 100, 0.25


def fitted(folder: Path) -> Path:
    """A model of the default settings, of eight images of noise."""
    (folder / "parts").mkdir()
    for number in range(8):
        noise = np.random.default_rng(number).integers(0, 256, (256, 256, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / "parts" / f"{number}.png")
    model = blemish.Patchcore()
    data = blemish.ImageDataModule(folder / "parts", num_workers=0)
    blemish.Engine("cpu", progress=False).fit(model, data)
    model.save(folder / "model.safetensors")
    return folder / "model.safetensors"


def hollow_png(path: Path, width: int, height: int) -> Path:
    """A PNG that says its size and has no pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")))
    return path


def raised(model: Path, path: Path, **changed: Any) -> Path:
    """The model with other arguments in its header, and a digest that fits."""
    with safe_open(model, framework="np") as file:
        content = json.loads(file.metadata()[KEY])
    content["arguments"].update(changed)
    save_file(load_file(model), path, metadata={KEY: json.dumps({**content, "seal": BLANK})})
    write_seal(path)
    return path


def hostile(model: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """What is read, by name."""
    tall = hollow_png(folder / "tall.png", 1, 199_999_999)
    large = hollow_png(folder / "large.png", 32_000, 32_000)
    points = folder / "roi.json"
    points.write_text(json.dumps({"size": [100, 100], "polygons": [[[i % 100, i % 97] for i in range(1_000_000)]]}))
    found: dict[str, Callable[[], Any]] = {
        "PNG of 1 x 199,999,999": lambda: read_image(tall),
        "PNG of 32,000 x 32,000": lambda: read_image(large),
        "region of 1,000,000 points": lambda: read_roi(str(points)),
    }
    for name, value in {"image_size": 1_000_000, "bank_size": 10**12, "max_features": 10**12}.items():
        forged = raised(model, folder / f"{name}.safetensors", **{name: value})
        found[f"model whose {name} is {value:,}"] = lambda forged=forged: load(forged)
    return found


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        model = fitted(Path(name))
        load(model)  # imports what is needed
        for what, read in hostile(model, Path(name)).items():
            started = time.process_time()
            with Meter() as meter:
                try:
                    read()
                    outcome = "read"
                except BlemishError:
                    outcome = "refused"
            seconds = time.process_time() - started
            rows.append({"what": what, "outcome": outcome, "seconds": round(seconds, 3), "peak MB": meter.peak_mb})
        times: dict[str, list[float]] = {"load": [], "digest alone": []}
        for _ in range(options.rounds):
            for what, function in (("load", lambda: load(model)), ("digest alone", lambda: read_seal(model))):
                started = time.process_time()
                function()
                times[what].append(time.process_time() - started)
        size = model.stat().st_size / 2**20
    whole, digest = median(times["load"]), median(times["digest alone"])
    slowest, most = max(row["seconds"] for row in rows), max(row["peak MB"] or 0.0 for row in rows)
    for what, seconds in (("load", whole), ("digest alone", digest)):
        rows.append({"what": f"model of {size:.1f} MB", "outcome": what, "seconds": round(seconds, 4), "peak MB": None})
    claims = [
        claim(
            "a hostile file, slowest",
            f"at most {SECONDS:g} s",
            f"{slowest:.2f} s",
            slowest <= SECONDS,
        ),
        claim(
            "a hostile file, most memory",
            f"at most {MEGABYTES} MB",
            f"{most:.0f} MB",
            most <= MEGABYTES,
        ),
        claim("the digest's share of a load", f"at most {SHARE}", f"{digest / whole:.2f}", digest / whole <= SHARE),
    ]
    report("bounds", options, rows, claims, Installed())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
