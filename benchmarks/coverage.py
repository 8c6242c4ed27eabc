"""Claim: of new good parts no more are called anomalous than cross calibration says, on average over many splits.

python benchmarks/coverage.py [--splits 200] [--sets tile knob cookies aliens]

Good images alone. Each set's images are divided at random, `--splits` times: some fit and cross-calibrate a PaDiM, as
`blemish fit` does (each its own fold below 25 images, else ten folds), the rest are new good parts. The model that is
delivered, fitted on all of its images, judges those at the threshold for a wanted rate of 10 %. The mean share called
anomalous is held against what the record says (`expected_false_alarm_rate`): an estimate, for which no theorem vouches,
as the delivered model is none of those that scored (Barber et al. 2021, section 1). `held_out` does the same with a
fifth of the images held out, whose certificate is exact.

Features of all images are computed once: small ones (128 x 128 pixels, 16 x 16 patches, 30 channels), so that hundreds
of fits take minutes.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import arguments, claim, report

RATE = 0.1
FIT = 30
"""Images that fit and calibrate in each split."""
DRAWN = {"tile": 120, "knob": 120}


def features(files: list[Path]) -> tuple[Any, torch.Tensor]:
    """An unfitted detector and the patch features (N, D, gh, gw) of images."""
    from blemish.data.image_io import read_image
    from blemish.models import detectors

    model = detectors()["padim"].build(
        backbone="efficientnet_lite0", image_size=128, grid_stride=8, n_features=30, shrinkage=0.1, worst_share=0.005
    )
    with torch.no_grad():
        each = [model.features(model.pre_processor(torch.from_numpy(read_image(file))[None])) for file in files]
    return model, torch.cat(each)


def one_split(model: Any, found: torch.Tensor, order: np.ndarray, cross: bool) -> tuple[float, float]:
    """Expected and measured false-alarm rate of one division."""
    from blemish.data.splits import fold_count
    from blemish.functional.conformal import certified_rate, normal_rank
    from blemish.models.cross_fit import CrossFit

    fit, new = found[order[:FIT]], found[order[FIT:]]
    delivered = model.twin()
    delivered.start()
    if cross:
        folds = [i % fold_count(FIT) for i in range(FIT)]
        judge = CrossFit(delivered, folds)
        judge.observe(fit, 0)
        delivered.observe(fit)
        by_fold = sorted(range(FIT), key=folds.__getitem__)
        scores = torch.cat([judge.without(i).score(fit[i : i + 1])[0] for i in by_fold])
    else:
        kept = round(0.8 * FIT)
        delivered.observe(fit[:kept])
    delivered.finish()
    if not cross:
        scores = delivered.score(fit[kept:])[0]
    rate = RATE if cross else 0.2  # so few can't certify less
    rank = normal_rank(len(scores), rate)
    threshold = scores.sort().values[rank - 1]
    alarms = (delivered.score(new)[0] >= threshold).float().mean()
    return certified_rate(len(scores), rank), float(alarms)


def main() -> None:
    parser = arguments(__doc__, device=False, peer=False)
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--sets", nargs="+", default=["tile", "knob", "cookies", "aliens"])
    options = parser.parse_args()
    data = Path(os.environ.get("BLEMISH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        from blemish.synthetic.products import write_dataset

        for name in options.sets:
            root = data / name
            if name in DRAWN:
                root = write_dataset(folder, product=name, good_train=DRAWN[name], good_test=1, per_defect=1)
            files = sorted(path for part in ("train", "test") for path in (root / part / "good").glob("*.*"))
            if len(files) < FIT + 10:
                continue
            model, found = features(files)
            for cross in (True, False):
                rng = np.random.default_rng(0)
                results = [one_split(model, found, rng.permutation(len(files)), cross) for _ in range(options.splits)]
                expected, measured = np.array(results).T
                error = float(measured.std() / np.sqrt(len(measured)))
                policy = "cross" if cross else "held_out"
                rows.append(
                    {
                        "set": name,
                        "policy": policy,
                        "images": len(files),
                        "splits": options.splits,
                        "expected": float(expected.mean()),
                        "measured": float(measured.mean()),
                        "standard error": error,
                        "95 % of splits below": float(np.quantile(measured, 0.95)),
                    }
                )
    report("coverage", options, rows, claims(rows))


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each row: the mean over the splits is what was expected, or less."""
    found = []
    for row in rows:
        text = f"mean false-alarm rate over {row['splits']} splits, {row['set']}, {row['policy']}"
        goal = f"at most {row['expected']:.3f}, within two standard errors"
        met = row["measured"] <= row["expected"] + 2 * row["standard error"]
        found.append(claim(text, goal, f"{row['measured']:.3f} (error {row['standard error']:.3f})", met))
    return found


if __name__ == "__main__":
    main()
