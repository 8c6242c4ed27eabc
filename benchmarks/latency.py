"""Claim: one image costs PatchCore hardly more than the backbone alone, and a third of what it costs elsewhere.

python benchmarks/latency.py [--repetitions 30]

From images that are ready for the backbone to raw scores and maps. The two libraries take turns in blocks of ten; the
backbone alone is timed beside each block, in the same process. PatchCore has the same bank of 5,120 rows in both, PaDiM
the same channels. About two minutes.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from common import Half, arguments, claim, draw_parts, draw_weights, halves, medians, ratio, report

BLOCK = 10


def measure(batch: int, repetitions: int, *libraries: Half | None) -> list[dict[str, float]]:
    """Median seconds of backbone and detector, for each library."""
    times: list[list[dict[str, Any]]] = [[] for half in libraries if half]
    for _ in range(max(1, repetitions // BLOCK)):
        for half, answers in zip(filter(None, libraries), times, strict=True):
            answers.append(half("latency", batch=batch, repetitions=min(BLOCK, repetitions)))
    return [medians(answers) for answers in times]


def row(library: str, detector: str, batch: int, found: dict[str, float]) -> dict[str, Any]:
    return {
        "library": library,
        "detector": detector,
        "batch": batch,
        "backbone ms": 1000 * found["backbone"],
        "detector ms": 1000 * found["detector"],
        "times the backbone": ratio(found["detector"], found["backbone"]),
        "images/s": batch / found["detector"],
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--repetitions", type=int, default=30)
    parser.add_argument("--images", type=int, default=50, help="to fit on; a tenth of their patches make the bank")
    options = parser.parse_args()
    rows, claims = [], []
    with tempfile.TemporaryDirectory() as name, halves(options) as (ours, peer):
        folder = Path(name)
        parts = draw_parts(folder, options.images) / "train" / "good"
        request = {"folder": parts, "weights": draw_weights(folder), "on": options.device}
        for detector in ("patchcore", "padim"):
            answer = ours("prepare", detector=detector, **request)
            ours("fit")
            bank = None
            if detector == "patchcore":
                bank = folder / "bank.npy"
                size = ours("save_bank", path=bank)["rows"]
            if peer:
                peer("prepare", detector=detector, bank=bank, **answer, **request)
                if not bank:
                    peer("fit")
            for batch in (1, 8):
                own, *others = measure(batch, options.repetitions, ours, peer)
                rows.append(row("blemish", detector, batch, own))
                if "product" in own:
                    rows.append(row("the index product alone", detector, batch, own | {"detector": own["product"]}))
                rows += [row("anomalib", detector, batch, other) for other in others]
                over = own["detector"] / own["backbone"]
                if (detector, batch) in {("patchcore", 1), ("padim", 8)}:
                    text = f"PatchCore, one image, bank {size:,}" if bank else "PaDiM, batch of 8"
                    goal = "at most 1.3 x backbone"
                    claims.append(claim(text, goal, f"{over:.2f} x backbone", over <= 1.3))
                if (detector, batch) == ("patchcore", 1) and others:
                    faster = others[0]["detector"] / own["detector"]
                    claims.append(claim(text, "3 x faster", f"{faster:.1f} x faster", faster >= 3))
        report("latency", options, rows, claims, ours, peer)


if __name__ == "__main__":
    main()
