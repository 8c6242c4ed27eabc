"""Puts a trained backbone into the package: its weights, and a card of the run's recipe and the candidates' table."""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from statistics import mean
from typing import Any

from evaluate import FIGURES

from blemish.features.bundled_network import FILE
from blemish.features.extractor import FeatureExtractor

CARD = """# The bundled backbone

`backbone="bundled"`: a ResNet-18 cut after layer3 (2.8 million parameters, {megabytes:.1f} MB in float16,
float32 in use; the file is a state dict of timm's and two projections, for inputs normalized with ImageNet's means),
square roots of its activations, 64 principal components of layer2 and 32 of layer3 on drawn pictures, and the filter
bank as one more layer. PatchCore takes layer2, layer3 and the filter bank, PaDiM layer1 as well, unless other `layers`
are asked for.

- **Trained on** pictures that `training/pictures.py` draws from formulas, with defects that `training/defects.py`
  plants into them. No photograph and nobody's data went in.
- **Trained to** tell from every single cell which product it lies on, to mark damaged cells, and to make the distance
  to the nearest patch of good pictures large where a defect is and small where none is (`training/train.py`): what
  PatchCore asks of it.
- **License**: Apache-2.0, as the package.
- **Checksum** (`FeatureExtractor("bundled").checksum()`): `{checksum}`
- **Recipe**: `{recipe}`
- **Run**: {steps} steps, the learning rate annealed over the last {anneal}; {minutes} minutes on {device}; {versions}.
- **Made again** by `make backbone`, in two parts, with the rate annealed at the end of each; other hardware
  rounds differently and gives other bytes.

## What it was chosen by

Every candidate was fitted and tested as `training/evaluate.py` does: the detectors' defaults, 256 x 256 pixels; test
images were used for these figures and the choice among candidates, nothing else. Image AUROC / pixel AUROC / AUPRO
(false-positive limit 0.3); "drawn" is the mean over the products of `blemish demo`, which share no code with the
training pictures. ms: one image, whole path, batch 1. Size: the networks have equally many parameters, the filter bank
none. What was tried: {tried}.

{table}
"""


def table(rows: dict[str, dict[str, Any]]) -> str:
    """Markdown: a line per candidate and detector, a column per set."""
    cells: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = {}
    for key, figures in rows.items():
        candidate, detector, data = key.split(" | ")
        cells.setdefault((candidate, detector), {}).setdefault(data.partition("/")[0], []).append(figures)
    sets = list(dict.fromkeys(name for columns in cells.values() for name in columns))
    lines = [f"| candidate | detector | {' | '.join(sets)} | ms |", f"|{'---|' * (len(sets) + 3)}"]
    for (candidate, detector), columns in cells.items():
        shown = [_figures(columns.get(name, [])) for name in sets]
        speed = mean(figures["ms"] for group in columns.values() for figures in group)
        lines.append(f"| {candidate} | {detector} | {' | '.join(shown)} | {speed:.0f} |")
    return "\n".join(lines)


def _figures(group: list[dict[str, Any]]) -> str:
    values = [[figures[name] for figures in group if figures[name] is not None] for name in FIGURES]
    return " / ".join(f"{mean(one):.3f}" if one else "-" for one in values)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="Folder of training/train.py.")
    parser.add_argument("figures", type=Path, help="JSON of training/evaluate.py.")
    parser.add_argument("--tried", required=True, help="What was tried, in words.")
    given = parser.parse_args()
    about = json.loads((given.run / "recipe.json").read_text())
    shutil.copyfile(given.run / "backbone.safetensors", FILE)
    card = CARD.format(
        megabytes=FILE.stat().st_size / 1e6,
        checksum=FeatureExtractor().checksum(),
        recipe=" ".join(f"{name}={value}" for name, value in about["recipe"].items()),
        steps=about["steps"],
        anneal=about["anneal"],
        minutes=round(about["seconds"] / 60),
        device=about["device"],
        versions=", ".join(f"{name} {value}" for name, value in about["versions"].items()),
        tried=given.tried,
        table=table(json.loads(given.figures.read_text())),
    )
    FILE.with_name("CARD.md").write_text(card, encoding="utf-8")


if __name__ == "__main__":
    main()
