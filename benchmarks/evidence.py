"""Claim: the default is what ranks best over several sets at once, among the candidates that were measured.

python benchmarks/evidence.py [--sets cookies ...] [--backbones bundled ...] [--sizes 256 384] [--seeds 0 1 2]

A cell is one detector on one backbone, size, set and seed: fitted on good images, asked about the test images, for
every way to make an image score of the patches' scores. Each cell becomes a line of <output>/evidence.jsonl as soon as
it is done; whatever is stopped goes on where it was, and `--minutes` stops by itself. `--table` measures nothing and
reads what is there.

The seed draws which good images fit (at most `--most`), PaDiM's channels and the bank's first row. Candidates are held
against the default in pairs: the same images, drawn again with replacement within each set and class, 1,000 times; the
interval is that of the mean difference of image AUROC over all cells that both have. Mean ranks are over the same
cells. Photographs are those in the folder named by BLEMISH_DATA (absent ones are left out); products are drawn. Test
labels measure here; a candidate that wins has been chosen by these sets, so others have to judge it.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from common import arguments, claim, report

REAL = ("cookies", "aliens", "magnetic_tile")
DRAWN = ("tile", "fabric", "plate", "board", "knob")
BACKBONES = ("bundled", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
GOOD = {"grid_stride": 8, "shrinkage": 0.1}
BANK = {"coreset_sampling_ratio": 0.02, "bank_size": 2000}
DETECTORS: dict[str, dict[str, Any]] = {
    "padim": {"detector": "padim", **GOOD},
    "padim-50": {"detector": "padim", **GOOD, "n_features": 50},
    "subspace": {"detector": "subspace"},
    "patchcore": {"detector": "patchcore", **BANK},
    "patchcore-cosine": {"detector": "patchcore", **BANK, "distance": "cosine"},
    **{
        f"patchcore-placed-{weight:g}": {
            "detector": "patchcore",
            **BANK,
            "distance": "cosine",
            "position_weight": weight,
        }
        for weight in (0.5, 1.0, 2.0)
    },
    "fused": {"detector": "fused", "members": ("padim", "subspace"), "shrinkage": 0.1},
    "fused-bank": {"detector": "fused", "shrinkage": 0.1, **BANK},
    "fused-cosine": {"detector": "fused", "shrinkage": 0.1, **BANK, "distance": "cosine"},
    **{
        f"fused-cosine-{rows}": {
            "detector": "fused",
            "shrinkage": 0.1,
            **BANK,
            "bank_size": rows,
            "distance": "cosine",
        }
        for rows in (250, 500, 1000)
    },
    **{
        f"fused-placed-{weight:g}": {
            "detector": "fused",
            "shrinkage": 0.1,
            **BANK,
            "distance": "cosine",
            "position_weight": weight,
        }
        for weight in (0.5, 1.0, 2.0)
    },
}
SCORES: dict[str, float | None] = {"own": None, "worst 0.5 %": 0.005, "worst 1 %": 0.01}
"""Image scores: the paper's, or the mean of the worst share of patches."""
DEFAULT = ("efficientnet_lite0", 256, "padim", "worst 0.5 %")
"""What `blemish fit` takes."""
DRAWS = 1000

Scores = npt.NDArray[np.float64]


# ----------------------------------------------------------------------------------------------------------- measuring


class Pictures:
    """What the backbone says of some good and some test images of a set: computed once, for all detectors."""

    def __init__(self, root: Path, backbone: str, size: int, seed: int, most: int) -> None:
        from blemish.data.datamodule import ImageDataModule
        from blemish.data.dataset import ImageDataset, make_loader

        model = build("padim", backbone, size, seed)  # whose layers are those of all others, and more
        data = ImageDataModule(root, calibrate_on="test", num_workers=0)
        rng = np.random.default_rng(seed)

        def some(samples: list[Any]) -> list[Any]:
            return [samples[i] for i in sorted(rng.permutation(len(samples))[:most])]

        self.test = [*some([s for s in data.split.test if not s.label]), *some([s for s in data.split.test if s.label])]
        self.names = model.extractor.layers
        self.parts: dict[str, list[Any]] = {}  # "fit", "test" -> (batch, its layers)
        for part, samples in (("fit", some(list(data.split.fit))), ("test", self.test)):
            dataset = ImageDataset(samples, model.pre_processor, reading=data.reading, with_masks=True, lenient=True)
            self.parts[part] = []
            for batch in make_loader(dataset, batch_size=8, num_workers=0):
                with torch.no_grad():
                    layers = model.extractor(batch.image)
                self.parts[part].append((batch, layers))

    def features(self, model: Any, part: str) -> Iterator[tuple[Any, torch.Tensor]]:
        """Batches, and what a detector makes of their layers."""
        for batch, layers in self.parts[part]:
            known = dict(zip(self.names, layers, strict=True))
            yield batch, model.embed([known[name] for name in model.extractor.layers])


def build(detector: str, backbone: str, size: int, seed: int) -> Any:
    from blemish.models import detectors

    settings = {**DETECTORS[detector], "backbone": backbone, "image_size": size, "seed": seed}
    return detectors()[settings.pop("detector")].build(post_processor=False, **settings)


@torch.no_grad()
def measure(pictures: Pictures, detector: str, backbone: str, size: int, seed: int) -> dict[str, Any]:
    """One cell."""
    from blemish.data.batch import RawPrediction
    from blemish.functional.patches import worst_mean
    from blemish.metrics.evaluation import Evaluator

    model = build(detector, backbone, size, seed)
    started = time.perf_counter()
    model.start()
    for _, features in pictures.features(model, "fit"):
        model.observe(features)
    model.finish()
    seconds = time.perf_counter() - started
    found: dict[str, list[Scores]] = {way: [] for way in SCORES}
    pixels = Evaluator()
    for batch, features in pictures.features(model, "test"):
        usual, maps = model.score(features)
        each = model.patch_scores(features)  # (N, P)
        for way, share in SCORES.items():
            found[way].append((usual if share is None else worst_mean(each, share)).double().numpy())
        pixels.update(RawPrediction(usual, model.pre_processor.restore(maps, batch.size), None).batch(batch))
    return {
        "pixel AUROC": pixels.compute().pixel_auroc.value,
        "fit seconds": seconds,
        "labels": [bool(sample.label) for sample in pictures.test],
        "scores": {way: np.concatenate(scores).round(5).tolist() for way, scores in found.items()},
    }


def fill(options: argparse.Namespace, file: Path, folder: Path) -> None:
    """Measures the cells that are asked for and aren't in the file, set by set, while there is time."""
    from blemish.synthetic.products import write_dataset

    data = Path(os.environ.get("BLEMISH_DATA") or Path(__file__).parents[2] / "shared" / "data")
    done = {tuple(row["cell"]) for row in read(file, options.most)}
    end = time.monotonic() + 60 * options.minutes
    for seed, size, backbone, name in itertools.product(options.seeds, options.sizes, options.backbones, options.sets):
        cells = [(name, backbone, size, detector, seed) for detector in options.detectors]
        left = [cell for cell in cells if cell not in done]
        if not left:
            continue
        root = data / name
        if name in DRAWN:
            root = folder / name
            if not root.is_dir():
                write_dataset(folder, product=name, good_train=60, good_test=40, per_defect=8)
        if not root.is_dir():
            continue
        pictures = None
        for cell in left:
            if time.monotonic() > end:
                return
            pictures = pictures or Pictures(root, backbone, size, seed, options.most)
            row = {"cell": cell, "most": options.most, **measure(pictures, cell[3], backbone, size, seed)}
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(row) + "\n")
            print(*cell, f"{row['fit seconds']:.0f} s", flush=True)


# ------------------------------------------------------------------------------------------------------------ the table


def read(file: Path, most: int) -> list[dict[str, Any]]:
    """The cells that were measured with `--most` so many images: others had other images, and can't be paired."""
    if not file.is_file():
        return []
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["most"] == most]


def auroc(scores: Scores, labels: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Of each row of (R, N) scores, whose labels are alike: Mann and Whitney's share of pairs in the right order."""
    good, bad = scores[:, None, ~labels], scores[:, labels, None]
    share: npt.NDArray[np.float64] = ((bad > good) + 0.5 * (bad == good)).mean(axis=(1, 2))
    return share


def interval(pairs: list[tuple[Scores, Scores, npt.NDArray[np.bool_]]]) -> tuple[float, float]:
    """95 % of the mean difference of AUROC between the first and the second scores of each cell."""
    rng = np.random.default_rng(0)
    totals = np.zeros(DRAWS)
    for one, other, labels in pairs:
        good, bad = np.flatnonzero(~labels), np.flatnonzero(labels)
        right = [(s[bad][:, None] > s[good]) + 0.5 * (s[bad][:, None] == s[good]) for s in (one, other)]
        difference = right[0] - right[1]  # (bad, good): the AUROC is linear in what was drawn
        for i in range(DRAWS):
            weights = [np.bincount(rng.integers(0, len(x), len(x)), minlength=len(x)) / len(x) for x in (bad, good)]
            totals[i] += weights[0] @ difference @ weights[1]
    low, high = np.quantile(totals / len(pairs), (0.025, 0.975))
    return float(low), float(high)


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each candidate that has all cells which the default has, best mean rank first."""
    cells: dict[tuple[Any, ...], dict[tuple[str, int], dict[str, Any]]] = {}
    for row in rows:
        name, backbone, size, detector, seed = row["cell"]
        for way, scores in row["scores"].items():
            labels = np.array(row["labels"])
            values = np.array(scores)
            known = {**row, "values": values, "labels": labels, "auroc": float(auroc(values[None], labels)[0])}
            cells.setdefault((backbone, size, detector, way), {})[name, seed] = known
    wanted = cells.get(DEFAULT, {})
    if not wanted:
        return []
    whole = {candidate: own for candidate, own in cells.items() if own.keys() >= wanted.keys()}
    figures = np.array([[own[cell]["auroc"] for cell in wanted] for own in whole.values()])  # (candidates, cells)
    above = (figures[None] > figures[:, None]).sum(axis=1)
    ranks = (above + ((figures[None] == figures[:, None]).sum(axis=1) + 1) / 2).mean(axis=1)  # ties share their mean
    found = []
    for (candidate, own), place in zip(whole.items(), ranks, strict=True):
        pairs = [(own[cell]["values"], wanted[cell]["values"], wanted[cell]["labels"]) for cell in wanted]
        low, high = interval(pairs) if candidate != DEFAULT else (0.0, 0.0)
        pixels = [own[cell]["pixel AUROC"] for cell in wanted if own[cell]["pixel AUROC"] is not None]
        found.append(
            {
                "backbone": candidate[0],
                "pixels": candidate[1],
                "detector": candidate[2],
                "image score": candidate[3],
                "mean rank": float(place),
                "image AUROC": float(np.mean([own[cell]["auroc"] for cell in wanted])),
                "beside the default": f"{low:+.3f} to {high:+.3f}" if candidate != DEFAULT else "-",
                "pixel AUROC": float(np.mean(pixels)) if pixels else None,
                "cells": len(wanted),
            }
        )
    return sorted(found, key=lambda row: row["mean rank"])


def main() -> None:
    parser = arguments(__doc__, device=False, peer=False)
    parser.add_argument("--sets", nargs="+", default=[*REAL, *DRAWN])
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES))
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 384])
    parser.add_argument("--detectors", nargs="+", default=list(DETECTORS), choices=list(DETECTORS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--most", type=int, default=100, help="images of each kind, at most")
    parser.add_argument("--minutes", type=float, default=600, help="start no cell after so many")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    options = parser.parse_args()
    file = options.output / "evidence.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    if not options.table:
        with tempfile.TemporaryDirectory() as folder:
            fill(options, file, Path(folder))
    known = read(file, options.most)
    rows = table([row for row in known if row["cell"][0] in options.sets and row["cell"][4] in options.seeds])
    if not rows:
        raise SystemExit(f"No cell of the default, {DEFAULT}, has been measured yet.")
    best = max(row["image AUROC"] for row in rows)
    default = next(row for row in rows if row["beside the default"] == "-")
    text = f"mean image AUROC of the default over {default['cells']} cells"
    goal = "at most 0.005 below the best candidate"
    measured = f"{default['image AUROC']:.3f}, best {best:.3f}"
    report("evidence", options, rows, [claim(text, goal, measured, default["image AUROC"] >= best - 0.005)])


if __name__ == "__main__":
    main()
