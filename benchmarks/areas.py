"""Claim: areas of regions are those of marks, which reach beyond small defects; what other cuts would give.

python benchmarks/areas.py [--sets tile plate fabric]

Each drawn product is fitted as `blemish fit` does with nothing said. Of every defect that is called anomalous and
marked at all, the marked area is divided by the drawn one, and the intersection over union is taken: at the pixel
threshold, as marks are; and with every connected mark cut at a share of its own peak on the raw map. Medians over the
defects. Exported graphs give maps that end at 1, so no session can cut that way yet. A minute and a half on two cores.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import arguments, report

SETS = ("tile", "plate", "fabric")
SHARES = (None, 0.5, 0.7, 0.9)
"""Of its own peak at which a mark is cut; None for the pixel threshold alone."""


def cut(raw: np.ndarray, mask: np.ndarray, share: float | None) -> np.ndarray:
    """Marks (H, W) whose pixels reach a share of the peak of their component, on the raw map (H, W)."""
    from blemish.functional.regions import label_components

    if share is None:
        return mask
    labels, count = label_components(mask)
    peaks = np.array([0.0, *(raw[labels == number].max() for number in range(1, count + 1))])
    return mask & (raw >= share * peaks[labels])


def measure(root: Path) -> list[dict[str, Any]]:
    """A row for each share."""
    from blemish.engine import Engine
    from blemish.models import DETECTORS
    from blemish.presets import with_preset
    from blemish.settings import fit_settings
    from blemish.trials.work import build_data, build_model, suited

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
                marked = cut(batch.raw_map[i].numpy(), mask, share)
                overlap = (marked & true).sum() / (marked | true).sum()
                found[share].append((marked.sum() / true.sum(), float(overlap)))

    engine.test(model, data, watch=watch)
    return [
        {
            "set": root.name,
            "cut at": "pixel threshold" if share is None else f"{share:.0%} of the peak",
            "defects": len(pairs),
            "area / true area": float(median(area for area, _ in pairs)) if pairs else None,
            "IoU": float(median(overlap for _, overlap in pairs)) if pairs else None,
        }
        for share, pairs in found.items()
    ]


def main() -> None:
    from blemish.synthetic.products import write_dataset

    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--sets", nargs="+", default=list(SETS))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            rows += measure(write_dataset(folder, product=name, good_train=12, good_test=1, per_defect=2))
    report("areas", options, rows)


if __name__ == "__main__":
    main()
