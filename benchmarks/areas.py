"""Claim: cut at three quarters of their own peaks, regions lie closer to defects than marks do.

python benchmarks/areas.py [--sets tile plate fabric cookies magnetic_tile]

Each set is fitted as `blemish fit` does with nothing said. Of every defect that is called anomalous and marked at all,
the marked area is divided by the true one, and the intersection over union is taken: at the pixel threshold, as marks
are; and of the cores of marks at several shares of their own peaks, of which 75 % are what regions are. Means over the
defects. Photographs are those in the folder named by BLEMISH_DATA, at most `MOST` of a folder (absent ones are left
out); products are drawn. The share was chosen on the drawn products. Two minutes on two cores.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from statistics import mean
from typing import Any

from common import arguments, claim, report

DRAWN = ("tile", "plate", "fabric")
REAL = ("cookies", "magnetic_tile")
SHARES = (None, 0.6, 0.75, 0.9)
"""Of its own peak at which a mark is cut; None for the pixel threshold alone."""
MOST = 32


def thinned(root: Path, target: Path) -> Path:
    """A data set of links to at most `MOST` images of each folder of `root`, evenly picked, and to their masks."""
    for folder in [*root.glob("train/*"), *root.glob("test/*")]:
        files = sorted(folder.iterdir())
        for i in range(min(MOST, len(files))):
            path = files[i * len(files) // min(MOST, len(files))]
            mask = root / "ground_truth" / folder.name / f"{path.stem}_mask.png"
            for file in (path, mask):
                if file.is_file():
                    link = target / root.name / file.relative_to(root)
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(file.resolve())
    return target / root.name


def measure(root: Path) -> list[dict[str, Any]]:
    """A row for each share."""
    from blemish.engine import Engine
    from blemish.functional.regions import CORE, cores
    from blemish.models import DETECTORS
    from blemish.presets import with_preset
    from blemish.settings import fit_settings
    from blemish.trials.work import build_data, build_model, suited

    assert CORE in SHARES
    values, chosen = with_preset({"planted": 0}, None)
    values, _ = suited(values, chosen, build_data(fit_settings(values, DETECTORS), root))
    settings = fit_settings(values, DETECTORS)
    model, data, engine = build_model(settings), build_data(settings, root), Engine("cpu", progress=False)
    engine.fit(model, data)
    found: dict[float | None, list[tuple[float, float]]] = {share: [] for share in SHARES}

    def watch(batch: Any) -> None:
        for i, truth in enumerate(batch.gt_mask):
            true, mask = truth.numpy() != 0, batch.pred_mask[i].numpy()
            if not (true.any() and bool(batch.pred_label[i]) and mask.any()):
                continue
            for share in SHARES:
                marked = mask if share is None else cores(mask, batch.raw_map[i].numpy(), share)
                overlap = (marked & true).sum() / (marked | true).sum()
                found[share].append((marked.sum() / true.sum(), float(overlap)))

    engine.test(model, data, watch=watch)
    return [
        {
            "set": root.name,
            "cut at": "pixel threshold" if share is None else f"{share:.0%} of the peak",
            "defects": len(pairs),
            "area / true area": float(mean(area for area, _ in pairs)) if pairs else None,
            "IoU": float(mean(overlap for _, overlap in pairs)) if pairs else None,
        }
        for share, pairs in found.items()
    ]


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of drawn products the overlap grows; of no set does it shrink by more than a hundredth."""
    at = {(row["set"], row["cut at"]): row["IoU"] for row in rows if row["defects"]}
    gains = {name: at[name, "75% of the peak"] - at[name, "pixel threshold"] for name, _ in at}
    found = []
    for kind, names, goal in (("drawn parts", DRAWN, 0.1), ("photographs", REAL, -0.01)):
        known = [gains[name] for name in names if name in gains]
        if known:
            text = f"{kind}, worst set: IoU of regions less that of marks"
            found.append(claim(text, f"at least {goal}", f"{min(known):.3f}", min(known) >= goal))
    return found


def main() -> None:
    from blemish.synthetic.products import write_dataset

    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--sets", nargs="+", default=[*DRAWN, *REAL])
    options = parser.parse_args()
    photographs = Path(os.environ.get("BLEMISH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            if name in DRAWN:
                rows += measure(write_dataset(folder, product=name, good_train=12, good_test=1, per_defect=3))
            elif (photographs / name).is_dir():
                rows += measure(thinned(photographs / name, Path(folder)))
    report("areas", options, rows, claims(rows))


if __name__ == "__main__":
    main()
