"""Does a first fit decide well? `python benchmarks/decisions.py [--presets default plain] [--sets cookies ...]`.

For each preset and set, with good images alone: AUROC, and at the model's own threshold the share of good images that
are called anomalous, of defects that are missed, and the balanced accuracy (mean of both recalls). Photographs are
those of `BLEMISH_DATA` (see tests); drawn products come with them. Test labels measure; nothing is chosen by them here.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from blemish.engine import Engine
from blemish.engine.testing import measure as measure_on
from blemish.models import DETECTORS
from blemish.presets import PRESETS, with_preset
from blemish.settings import fit_settings
from blemish.synthetic.products import PRODUCTS, write_dataset
from blemish.trials.work import build_data, build_model, suited

RESULTS = Path(__file__).parent / "results" / "decisions.json"
REAL = ("cookies", "aliens", "magnetic_tile")


def measure(preset: str, root: Path) -> dict[str, Any]:
    """One fit and one test, as `blemish fit` and `blemish test` do it."""
    values, chosen = with_preset({}, preset)
    values, _ = suited(values, chosen, build_data(fit_settings(values, DETECTORS), root))
    settings = fit_settings(values, DETECTORS)
    model, data, engine = build_model(settings), build_data(settings, root), Engine("cpu", progress=False)
    started = time.perf_counter()
    engine.fit(model, data)
    seconds = time.perf_counter() - started
    figures = measure_on(model, root, settings.loading, "cpu")
    alarms, misses = figures["false_alarm_rate"], figures["miss_rate"]
    record = model.decider.decision.record
    return {
        "image_auroc": figures["image_auroc"],
        "pixel_auroc": figures["pixel_auroc"],
        "false_alarms": alarms,
        "misses": misses,
        "balanced_accuracy": 1 - (alarms + misses) / 2,
        "expected_false_alarms": None if record is None else record.expected_false_alarm_rate,
        "fit_seconds": seconds,
        "odd": [] if record is None else [name for name, _ in record.odd],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=list(PRESETS))
    parser.add_argument("--sets", nargs="+", default=[*REAL, *PRODUCTS])
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    data = Path(os.environ.get("BLEMISH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    rows = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
    with tempfile.TemporaryDirectory() as folder:
        for name in given.sets:
            root = data / name
            if name in PRODUCTS:
                root = write_dataset(folder, product=name, good_train=60, good_test=40, per_defect=8)
            if not root.is_dir():
                print(f"{name}: absent")
                continue
            for preset in given.presets:
                rows.setdefault(name, {})[preset] = row = measure(preset, root)
                print(
                    name,
                    preset,
                    {
                        key: value if isinstance(value, list) else value and round(value, 3)
                        for key, value in row.items()
                    },
                    flush=True,
                )
                RESULTS.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
