"""Claim: approximate neighbors cost little accuracy; this measures how much, and the time they save.

python benchmarks/approximate.py [--images 80] [--rows 1000 5000 20000]

The bank is selected from ResNet-18 features of drawn good parts, 1,024 for each image; the queries are the features of
other parts, good and with defects, one image at a time. A recall of 0.99 means that one patch in a hundred was given a
row that isn't its nearest; its score is then too high, by the last column at most, as a share of the highest exact one.
About two minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import Half, Meter, arguments, claim, draw_parts, draw_weights, files, report


def compare(patches: Any, images: list[Any], rows: int) -> dict[str, Any]:
    """One line of the table, for a bank of so many of the patches (n, D); images are (P, D) each."""
    import torch

    from blemish.models.patchcore.bank import MemoryBank

    exact = MemoryBank(ratio=1.0, size=rows)
    exact.observe(patches[None])
    exact.finish()
    approximate = MemoryBank(neighbor_search="faiss")
    approximate.load_state_dict(exact.state_dict())
    found: dict[str, list[Any]] = {}
    times: dict[str, list[float]] = {}
    for bank in (exact, approximate):
        bank.nearest(images[0])  # makes the index
    for image in images:  # they take turns: what else the machine does meanwhile hits both
        for name, bank in (("exact", exact), ("faiss", approximate)):
            with Meter() as meter:
                found.setdefault(name, []).append(bank.nearest(image))
            times.setdefault(name, []).append(meter.seconds)
    truth, near = (torch.cat([one.distance for one in found[name]]) for name in ("exact", "faiss"))
    return {
        "rows": len(exact.rows),
        "exact ms": 1000 * median(times["exact"]),
        "faiss ms": 1000 * median(times["faiss"]),
        "times faster": median(times["exact"]) / median(times["faiss"]),
        "recall": float((near <= truth * (1 + 1e-6)).float().mean()),
        "lowest difference": float((near - truth).min() / truth.max()),
        "largest difference": float((near - truth).max() / truth.max()),
    }


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--images", type=int, default=80)
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 5000, 20000])
    options = parser.parse_args()
    import torch

    with tempfile.TemporaryDirectory() as name, Half("ours") as ours:
        folder = Path(name)
        parts = draw_parts(folder, options.images, test=8)
        ours("prepare", detector="patchcore", folder=parts / "train" / "good", weights=draw_weights(folder))
        ours("save_features", folder=parts / "train" / "good", path=folder / "patches.npy")
        tests = []
        for kind in sorted((parts / "test").iterdir()):
            ours("save_features", folder=kind, path=folder / "queries.npy")
            tests += torch.from_numpy(np.load(folder / "queries.npy")).chunk(len(files(kind)))
        patches = torch.from_numpy(np.load(folder / "patches.npy"))
        lines = [compare(patches, tests, rows) for rows in options.rows]
        last = lines[-1]
        text = f"approximate search in a bank of {last['rows']} rows"
        claims = [
            claim(text, "recall of 0.99", f"{last['recall']:.4f}", last["recall"] >= 0.99),
            claim(text, "no score too low", f"{last['lowest difference']:.1g}", last["lowest difference"] > -1e-6),
            claim(text, "2 x faster", f"{last['times faster']:.1f} x faster", last["times faster"] >= 2),
        ]
        report("approximate", options, lines, claims, ours)


if __name__ == "__main__":
    main()
