"""Claim: `fast` judges twice as fast as the reference library's fastest model, and ranks no worse.

python benchmarks/peers.py [--sets cookies aliens magnetic_tile] [--good 200]

What a user would pick, from an image file to its verdict in OpenVINO: our presets by a session, the reference library's
models by its own inferencer. Photographs are those in the folder named by BLEMISH_DATA. Sessions take turns in blocks
of ten files; times are medians. Sets that aren't asked for keep the rows that they have. Both libraries have the same
trained weights of EfficientNet-Lite0; a PatchCore of the other library keeps a tenth of the patches, at most 5,000: its
way of choosing them takes an hour for 664 photographs, so that of more than `--good` every second or third is taken,
for all. A set whose pictures differ in size is one that its graphs can't take, see `peer.py`: they get pictures of 256
x 256 pixels, resized by Pillow. Its PaDiM on ResNet-18, its own default, and EfficientAd-S can't be had here with
trained weights: they are timed, and no figure says how they rank. Maps of the other library stay at 256 x 256 pixels,
ours have those of the picture, and come with masks and regions; they are normalized when somebody looks at them, which
isn't timed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
from accuracy import auroc, truth
from common import CORESET_ENVIRONMENT, Half, arguments, claim, draw_weights, halves, report

OURS = ("default", "fast")
PEERS = {
    "PaDiM, ResNet-18": False,
    "PaDiM, EfficientNet-Lite0": True,
    "PatchCore, EfficientNet-Lite0": True,
    "EfficientAd-S": False,
}
"""Models of the other library, and whether they have trained weights."""
BLOCK = 10


def some(root: Path, folder: Path, most: int) -> Path:
    """A set with as many good photographs to fit on at most, evenly chosen."""
    good = root / "train" / "good"
    names = sorted(os.listdir(good))
    kept = set(names[:: -(-len(names) // most)])

    def others(where: str, found: list[str]) -> list[str]:
        return [name for name in found if name not in kept] if Path(where) == good else []

    return Path(shutil.copytree(root, folder / root.name, ignore=others))


def measure(root: Path, folder: Path, rounds: int, ours: Half, peer: Half | None) -> list[dict[str, Any]]:
    paths, labels, _ = truth(root)
    trained = ours("lite0_weights")["path"]
    lines: list[tuple[Half, str, bool]] = [(ours, name, True) for name in OURS]
    if peer:
        lines += [(peer, name, known) for name, known in PEERS.items()]
    for half, name, known in lines:
        request = {"weights": trained if known else draw_weights(folder)} if half is peer else {}
        half("make_line", name=name, root=root, folder=folder, **request)
    times: dict[str, list[float]] = {name: [] for _, name, _ in lines}
    for number in range(rounds):
        block = [paths[(BLOCK * number + step) % len(paths)] for step in range(BLOCK)]
        for half, name, _ in lines:
            times[name] += half("judge", name=name, paths=block)["seconds"]
    usual = median(times["default"])
    return [
        {
            "set": root.name,
            "library": "blemish" if half is ours else "anomalib",
            "model": name,
            "image AUROC": auroc(np.array(half("judge", name=name, paths=paths)["scores"]), labels) if known else None,
            "file to verdict ms": 1000 * median(times[name]),
            "times the default": median(times[name]) / usual,
        }
        for half, name, known in lines
    ]


def main() -> None:
    parser = arguments(__doc__ or "", device=False)
    parser.add_argument("--sets", nargs="+", default=["cookies", "aliens", "magnetic_tile"])
    parser.add_argument("--good", type=int, default=200, help="photographs to fit on, at most")
    parser.add_argument("--rounds", type=int, default=5, help=f"blocks of {BLOCK} files for each model")
    options = parser.parse_args()
    data = Path(os.environ.get("BLEMISH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    known = options.output / "peers.json"
    rows = json.loads(known.read_text(encoding="utf-8"))["rows"] if known.is_file() else []
    rows = [row for row in rows if row["set"] not in options.sets]
    with halves(options, CORESET_ENVIRONMENT) as (ours, peer):
        for name in options.sets:
            if (data / name).is_dir():
                with tempfile.TemporaryDirectory() as folder:
                    root = some(data / name, Path(folder), options.good)
                    rows += measure(root, Path(folder), options.rounds, ours, peer)
        report("peers", options, rows, claims(rows), ours, peer)


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Speed beside the fastest of the others in each set, ranking beside the best of them that could be trained."""
    found = []
    for name in dict.fromkeys(row["set"] for row in rows):
        here = [row for row in rows if row["set"] == name]
        fast = next(row for row in here if row["model"] == "fast")
        others = [row for row in here if row["library"] != "blemish"]
        if others:
            quickest = min(others, key=lambda row: row["file to verdict ms"])
            faster = quickest["file to verdict ms"] / fast["file to verdict ms"]
            text = f"`fast` on {name} beside {quickest['model']} of the reference library"
            found.append(claim(text, "2 x faster", f"{faster:.2f} x faster", faster >= 2))
    for model in [name for name, known in PEERS.items() if known and any(row["model"] == name for row in rows)]:
        own, other = (mean(r["image AUROC"] for r in rows if r["model"] == one) for one in ("fast", model))
        found.append(
            claim(f"`fast` beside {model}: mean image AUROC", "no lower", f"{own:.3f}, {other:.3f}", own >= other)
        )
    return found


if __name__ == "__main__":
    main()
