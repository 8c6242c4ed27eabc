"""Claim: a first fit, with good images alone and nothing said, decides well and not only ranks well.

python benchmarks/decisions.py [--presets default fast ...] [--sets cookies aliens ...]

For each preset and set: AUROC, and at the model's own threshold the share of good images that are called anomalous, of
defects that are missed, and the balanced accuracy (mean of both recalls). Photographs are those in the folder named by
BLEMISH_DATA (absent ones are left out); drawn products are drawn. Test labels measure; nothing is chosen by them.
Beside it the share of planted defects that each fit says its threshold finds, and how far that goes with the share of
real ones: Spearman's rank correlation over all rows, and over the presets of each set (mean of the sets). Fits are
timed in seconds of the processor, all its cores together, planted defects and calibration included. A run that was cut
off goes on with the cells that are missing.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, claim, report

REAL = {"cookies": 0.93, "aliens": 0.90, "magnetic_tile": 0.75}
"""Photographs, and the balanced accuracy that was to be reached."""
DRAWN = ("tile", "fabric", "plate", "board", "knob")


def processor_seconds() -> float:
    """Of this process and of those that it has ended, which read images."""
    return sum(os.times()[:4])


def measure(preset: str, root: Path) -> dict[str, Any]:
    """One fit and one test, as `blemish fit` and `blemish test` do it."""
    from blemish.engine import Engine
    from blemish.engine.testing import measure as test
    from blemish.models import DETECTORS
    from blemish.presets import with_preset
    from blemish.settings import fit_settings
    from blemish.trials.work import build_data, build_model, suited

    values, chosen = with_preset({"planted": 100}, preset)
    values, _ = suited(values, chosen, build_data(fit_settings(values, DETECTORS), root))
    settings = fit_settings(values, DETECTORS)
    model, data = build_model(settings), build_data(settings, root)
    started = processor_seconds()
    Engine("cpu", progress=False).fit(model, data)
    seconds = processor_seconds() - started
    figures = test(model, root, settings.loading, "cpu")
    alarms, misses = figures["false_alarm_rate"], figures["miss_rate"]
    return {
        "set": root.name,
        "preset": preset,
        "image AUROC": figures["image_auroc"],
        "pixel AUROC": figures["pixel_auroc"],
        "false alarms": alarms,
        "expected": figures["calibration"]["expected_false_alarm_rate"],
        "misses": misses,
        "planted found": model.decider.record.found(model.decider.raw_image_threshold) / 100,
        "parts": model.decider.record.parts,
        "balanced accuracy": 1 - (alarms + misses) / 2,
        "fit CPU seconds": seconds,
    }


def main() -> None:
    parser = arguments(__doc__, device=False, peer=False)
    parser.add_argument("--presets", nargs="+", default=["default", "fast", "accurate", "plain"])
    parser.add_argument("--sets", nargs="+", default=[*REAL, *DRAWN])
    options = parser.parse_args()
    data = Path(os.environ.get("BLEMISH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    options.output.mkdir(parents=True, exist_ok=True)
    unfinished = options.output / "decisions.unfinished"
    known = json.loads(unfinished.read_text()) if unfinished.is_file() else []
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        from blemish.synthetic.products import write_dataset

        for name in options.sets:
            drawn = {"good_train": 60, "good_test": 40, "per_defect": 8}
            root = write_dataset(folder, product=name, **drawn) if name in DRAWN else data / name
            for preset in options.presets if root.is_dir() else ():
                done = [row for row in known if (row["set"], row["preset"]) == (name, preset)]
                rows += done or [measure(preset, root)]
                unfinished.write_text(json.dumps([*rows, *(row for row in known if row not in rows)]))
    report("decisions", options, rows, claims(rows))
    unfinished.unlink(missing_ok=True)


def correlation(rows: list[dict[str, Any]]) -> float | None:
    """Spearman's between planted defects found and real ones found; None where one of them never changes."""
    ranks = [rank([row["planted found"] for row in rows]), rank([-row["misses"] for row in rows])]
    if len(rows) < 3 or any(np.ptp(one) == 0 for one in ranks):
        return None
    return float(np.corrcoef(ranks)[0, 1])


def rank(values: list[float]) -> np.ndarray:
    """Ranks from 0; equal values share their mean rank."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right") - 1) / 2


def claims(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One for each set of photographs that was measured."""
    found = []
    for row in rows:
        goal = REAL.get(row["set"])
        if row["preset"] == "default" and goal is not None:
            value = row["balanced accuracy"]
            text = f"balanced accuracy of a first fit, {row['set']}"
            found.append(claim(text, f"at least {goal}", f"{value:.3f}", value >= goal))
    overall = correlation(rows)
    if overall is not None:
        each = [correlation([row for row in rows if row["set"] == name]) for name in {row["set"] for row in rows}]
        known = [one for one in each if one is not None]
        inside = f", within a set {np.mean(known):.2f} ({len(known)} sets)" if known else ""
        text = "planted and real defects found, rank correlation over all fits"
        found.append(claim(text, "above 0", f"{overall:.2f}{inside}", overall > 0))
    return found


if __name__ == "__main__":
    main()
