"""Claim: pixel threshold, AUROC and AUPRO of 100 maps of a megapixel take a tenth of the memory and much less time.

python benchmarks/pixel_metrics.py [--maps 100] [--side 1024]

Each figure is computed in a process of its own, from maps that lie in memory already; memory counts from there on.
blemish counts in its bounded histograms, its default for pixels; the other library keeps every pixel. Its AUPRO adds up
a hundred million shares in float32. About two minutes; the other library needs 8 GB for the default size.
"""

from __future__ import annotations

from typing import Any

from common import Half, arguments, claim, ratio, report, with_peer

FIGURES = {"threshold_and_auroc": ("pixel threshold + AUROC", 3), "aupro": ("AUPRO", 5)}
"""Task -> its name and how many times faster it is to be."""


def main() -> None:
    parser = arguments(__doc__ or "", device=False)
    parser.add_argument("--maps", type=int, default=100)
    parser.add_argument("--side", type=int, default=1024)
    options = parser.parse_args()
    names = {"ours": "blemish", "peer": "anomalib"}
    libraries = list(names) if with_peer(options) else ["ours"]
    rows: list[dict[str, Any]] = []
    claims = []
    for task, (title, goal) in FIGURES.items():
        found = {}
        for name in libraries:
            with Half(name) as half:
                found[name] = half(task, maps=options.maps, side=options.side)
            answer = found[name]
            pixels = options.maps * options.side**2
            rows.append(
                {
                    "figure": title,
                    "library": names[name],
                    "seconds": answer["seconds"],
                    "peak MB": answer["peak_mb"],
                    "bytes/pixel": round(answer["peak_mb"] * 2**20 / pixels, 2),
                    "threshold": answer.get("threshold"),
                    "value": round(answer["value"], 6),
                }
            )
        if "peer" in found:
            text = f"{title} over {options.maps} maps {options.side} x {options.side}"
            faster = found["peer"]["seconds"] / found["ours"]["seconds"]
            less = ratio(found["peer"]["peak_mb"], max(found["ours"]["peak_mb"], 1.0)) or 0.0
            claims.append(claim(text, f"{goal} x faster", f"{faster:.1f} x faster", faster >= goal))
            claims.append(claim(text, "10 x less memory", f"{less:.0f} x less memory", less >= 10))
    with Half("ours") as ours:
        report("pixel_metrics", options, rows, claims, ours)


if __name__ == "__main__":
    main()
