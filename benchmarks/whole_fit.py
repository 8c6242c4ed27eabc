"""Claim: a whole fit takes hardly longer than showing every image to the backbone.

python benchmarks/whole_fit.py [--presets default fast] [--drawn 200]

As `blemish fit` does it: reading, features, model, thresholds by cross calibration, planted defects. Beside it reading
the same images and the backbone alone, once. Good photographs of magnetic_tile, where the folder named by BLEMISH_DATA
has them, else drawn tiles. Seconds of the processor, all cores together.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import arguments, claim, draw_parts, ratio, report
from decisions import processor_seconds
from runtimes import Installed

from blemish import Engine
from blemish.data.dataset import ImageDataset, make_loader
from blemish.models import DETECTORS
from blemish.presets import with_preset
from blemish.settings import fit_settings
from blemish.trials.work import build_data, build_model


def measure(preset: str, root: Path) -> dict[str, Any]:
    """One fit, and one pass of its backbone over what it is fitted on."""
    settings = fit_settings(with_preset({"num_workers": 0}, preset)[0], DETECTORS)
    model, data = build_model(settings), build_data(settings, root)
    started = processor_seconds()
    Engine("cpu", progress=False).fit(model, data)
    fit = processor_seconds() - started
    dataset = ImageDataset(list(data.split.fit), model.pre_processor, reading=data.reading)
    started = processor_seconds()
    with torch.inference_mode():
        for batch in make_loader(dataset, batch_size=8, num_workers=0):
            model.extractor(batch.image)
    alone = processor_seconds() - started
    images = len(dataset)
    return {"preset": preset, "images": images, "backbone CPU s": alone, "fit CPU s": fit, "ratio": ratio(fit, alone)}


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--presets", nargs="+", default=["default", "fast"])
    parser.add_argument("--drawn", type=int, default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photographs = Path(os.environ.get("BLEMISH_DATA", "../shared/data")) / "magnetic_tile"
        root = photographs if photographs.is_dir() else draw_parts(Path(folder), options.drawn)
        rows = [{"set": root.name, **measure(preset, root)} for preset in options.presets]
    claims = [
        claim(
            f"whole fit of {row['images']} images, `{row['preset']}`",
            "at most 1.6 x backbone pass",
            f"{row['ratio']:.2f} x",
            row["ratio"] <= 1.6,
        )
        for row in rows
    ]
    report("whole_fit", options, rows, claims, Installed("torch"))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
