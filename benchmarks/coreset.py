"""Claim: the coreset is selected 50 times faster than by the reference library, and is the one of the textbook loop.

python benchmarks/coreset.py [--verify] [--images 50] [--peer-images 50]

The points are ResNet-18 features of drawn parts, 1,024 for each image, of which a tenth is selected. The other library
selects among random projections of the points, hence the larger coverage radius. Takes about three minutes, nearly all
of them the other library's; `--peer-images 25` takes a quarter of that and extrapolates with the square, `--verify`
runs the textbook loop over everything instead of a tenth (some minutes more).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import CORESET_ENVIRONMENT, Half, arguments, claim, draw_parts, draw_weights, halves, medians, ratio, report


def textbook_loop(points: Any, k: int) -> Any:
    """Indices (k,): the first point, then k - 1 times the one farthest from all chosen, in float64."""
    import torch

    points = points.double()
    points = points - points.mean(dim=0)
    norms = points.square().sum(dim=1)
    distance = torch.full_like(norms, torch.inf)
    chosen = [0]
    while len(chosen) < k:
        last = points[chosen[-1]]
        torch.minimum(distance, norms - 2 * (points @ last) + last.square().sum(), out=distance)
        distance[chosen[-1]] = -torch.inf
        chosen.append(int(distance.argmax()))
    return torch.tensor(chosen)


def same_as_textbook(ours: Half, folder: Path, points: np.ndarray[Any, Any]) -> bool:
    """Whether blemish selects a tenth of the points just as the textbook loop does."""
    import torch

    np.save(folder / "subset.npy", points)
    k = len(points) // 10
    ours("coreset", points=folder / "subset.npy", k=k, indices=folder / "chosen.npy")
    expected = textbook_loop(torch.from_numpy(points), k)
    return bool(np.array_equal(np.load(folder / "chosen.npy"), expected.numpy()))


def radius(points: np.ndarray[Any, Any], chosen: Path) -> float:
    """Largest distance of a point to its nearest chosen one."""
    import torch

    from blemish.functional.distances import nearest, square_norms

    centerd = torch.from_numpy(points - points.mean(axis=0))
    bank = centerd[torch.from_numpy(np.load(chosen))]
    return float(nearest(centerd, bank, square_norms(bank)).distance.max())


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--peer-images", type=int, default=50, help="fewer than --images: its time is extrapolated")
    parser.add_argument("--repetitions", type=int, default=3, help="of blemish; the other library runs once")
    parser.add_argument("--verify", action="store_true", help="compare with the textbook loop on all points")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, halves(options, CORESET_ENVIRONMENT) as (ours, peer):
        folder = Path(name)
        parts = draw_parts(folder, options.images) / "train" / "good"
        ours("prepare", detector="patchcore", folder=parts, weights=draw_weights(folder))
        floor = ours("backbone")["seconds"]
        ours("save_features", folder=parts, path=folder / "points.npy")
        points = np.load(folder / "points.npy")

        def select(half: Half, share: float = 1.0) -> dict[str, Any]:
            count = int(share * len(points))
            np.save(folder / "share.npy", points[:count])
            request = {"points": folder / "share.npy", "indices": folder / f"{half.name}.npy", "on": options.device}
            return half("coreset", k=count // 10, **request)

        found = [select(ours)]
        share = min(1.0, options.peer_images / options.images)
        other = select(peer, share) if peer else None
        found += [select(ours) for _ in range(options.repetitions - 1)]
        own = medians(found)
        rows = [
            {
                "library": "blemish",
                "points": len(points),
                "chosen": len(points) // 10,
                "seconds": own["seconds"],
                "times the backbone": ratio(own["seconds"], floor),
                "peak MB": own["peak_mb"],
                "coverage radius": radius(points, folder / "ours.npy"),
                "extrapolated": False,
            }
        ]
        rows.append(
            {
                **dict.fromkeys(rows[0]),
                "library": "the products alone",
                "points": len(points),
                "chosen": len(points) // 10,
                "seconds": own["product_seconds"],
                "times the backbone": ratio(own["product_seconds"], floor),
                "extrapolated": False,
            }
        )
        claims = []
        if other:
            taken = other["seconds"] / share**2
            rows.append(
                {
                    **rows[0],
                    "library": "anomalib",
                    "seconds": taken,
                    "times the backbone": ratio(taken, floor),
                    "peak MB": other["peak_mb"],
                    "coverage radius": radius(points, folder / "peer.npy") if share == 1.0 else None,
                    "extrapolated": share < 1.0,
                }
            )
            faster = taken / own["seconds"]
            title = f"coreset {len(points):,} x {points.shape[1]} -> {len(points) // 10:,}"
            claims.append(claim(title, "50 x faster", f"{faster:.0f} x faster", faster >= 50))
        checked = points if options.verify else points[: len(points) // 10]
        same = same_as_textbook(ours, folder, checked)
        text = f"selection among {len(checked):,} points"
        claims.append(claim(text, "identical to the textbook loop", "identical" if same else "different", same))
        report("coreset", options, rows, claims, ours, peer)


if __name__ == "__main__":
    main()
