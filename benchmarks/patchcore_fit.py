"""Claim: PatchCore is fitted to 200 images, with a bank of a tenth of their patches, 50 times faster.

python benchmarks/patchcore_fit.py [--images 200] [--peer-images 50]

Both start from images that are ready for the backbone, 8 at a time. The other library fits to the first 50 images; its
time for 200 is extrapolated, linearly for the backbone pass and with the square for the rest. About four minutes.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from common import CORESET_ENVIRONMENT, Half, arguments, claim, draw_parts, draw_weights, files, halves, ratio, report


def fit(half: Half, folder: Path, weights: Path, device: str, **options: Any) -> dict[str, Any]:
    half("prepare", detector="patchcore", folder=folder, weights=weights, on=device, **options)
    half("backbone")  # not counted: the first pass is slower
    return {"backbone": half("backbone")["seconds"], **half("fit")}


def row(library: str, images: int, found: dict[str, Any], extrapolated: bool = False) -> dict[str, Any]:
    return {
        "library": library,
        "images": images,
        "backbone s": found["backbone"],
        "fit s": found["seconds"],
        "times the backbone": ratio(found["seconds"], found["backbone"]),
        "peak MB": found["peak_mb"],
        "extrapolated": extrapolated,
    }


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--peer-images", type=int, default=50)
    options = parser.parse_args()
    few, many = options.peer_images, options.images
    with tempfile.TemporaryDirectory() as name, halves(options, CORESET_ENVIRONMENT) as (ours, peer):
        folder, weights = Path(name), draw_weights(Path(name))
        everything = draw_parts(folder, many) / "train" / "good"
        first = folder / "first"
        first.mkdir()
        for path in files(everything)[:few]:
            shutil.copy(path, first)
        own = {"coreset_sampling_ratio": 0.1, "bank_size": None}
        rows = [row("blemish", few, fit(ours, first, weights, options.device, **own))]
        other = fit(peer, first, weights, options.device) if peer else None
        rows.append(row("blemish", many, fit(ours, everything, weights, options.device, **own)))
        claims = []
        if other:
            rows.insert(1, row("anomalib", few, other))
            growth = many / few
            rest = other["seconds"] - other["backbone"]
            backbone = growth * other["backbone"]
            expected = {"backbone": backbone, "seconds": backbone + growth**2 * rest, "peak_mb": None}
            rows.append(row("anomalib", many, expected, extrapolated=few != many))
            faster = expected["seconds"] / rows[2]["fit s"]
            text = f"PatchCore fit, {many} images, 10 % bank"
            note = f", extrapolated from {few} images" if few != many else ""
            claims.append(claim(text, "50 x faster", f"{faster:.0f} x faster{note}", faster >= 50))
        report("patchcore_fit", options, rows, claims, ours, peer)


if __name__ == "__main__":
    main()
