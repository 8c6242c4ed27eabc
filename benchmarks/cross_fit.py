"""Claim: thresholds from every good image (cross calibration) cost at most 2.5 times a fit with images held out.

python benchmarks/cross_fit.py [--images 40] [--rounds 1] [--detectors padim patchcore]

The detectors of the presets "default" and "plain", fitted on drawn parts from files, planted defects (`--planted` of
`fit`) counted apart. Times are those of the processor, with one thread, so that other work on the machine matters
little; medians, the ways to fit in turn. A round takes three minutes of the processor.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from common import arguments, claim, draw_parts, ratio, report

GOAL = 2.5
WAYS: dict[str, dict[str, Any]] = {
    "held out": {"calibrate_on": "held_out", "max_false_alarm_rate": None, "planted": 0},
    "cross": {"calibrate_on": "cross", "planted": 0},
    "cross, 100 planted": {"calibrate_on": "cross", "planted": 100},
}
DETECTORS = {"padim": {}, "patchcore": {"detector": "patchcore"}}


def seconds(root: Path, values: dict[str, Any]) -> float:
    """Of the processor, for one fit."""
    from blemish.engine import Engine
    from blemish.models import DETECTORS as KNOWN
    from blemish.presets import with_preset
    from blemish.settings import fit_settings
    from blemish.trials.work import build_data, build_model

    settings = fit_settings({**with_preset(values, None)[0], "num_workers": 0}, KNOWN)
    model, data = build_model(settings), build_data(settings, root)
    started = time.process_time()
    Engine("cpu", progress=False).fit(model, data)
    return time.process_time() - started


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    rows, claims = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = draw_parts(Path(folder), options.images)
        for detector in options.detectors:
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(options.rounds):
                for way, values in WAYS.items():
                    times[way].append(seconds(root, DETECTORS[detector] | values))
            base = median(times["held out"])
            for way, measured in times.items():
                times_base = ratio(median(measured), base)
                rows.append(
                    {"detector": detector, "thresholds from": way, "CPU s": median(measured), "ratio": times_base}
                )
                if way != "held out":
                    text = f"{detector} fit, {options.images} images, {way}"
                    met = times_base is not None and times_base <= GOAL
                    claims.append(claim(text, f"at most {GOAL} x held out", f"{times_base:.2f} x", met))
    report("cross_fit", options, rows, claims)


if __name__ == "__main__":
    main()
