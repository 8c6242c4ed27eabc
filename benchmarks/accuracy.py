"""Claim: what is faster is not worse: both libraries tell good from bad alike, and score the same patch the same.

python benchmarks/accuracy.py [--data FOLDER]

Both fit to the same images with the same weights, each with its own resizing, and are measured at 256 x 256 by the same
code. The data is cookies/ in the folder named by BLEMISH_DATA, else a drawn product. Weights are random unless given
with `--weights`. About one minute.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from common import CORESET_ENVIRONMENT, SIDE, Half, arguments, claim, draw_parts, draw_weights, files, halves, report
from PIL import Image

RING = 4
"""Patches this near to the border are averaged with its padding, which counts in one library and not in the other."""


def truth(root: Path) -> tuple[list[Path], np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """Test files of a folder in the layout of MVTec AD, their labels (N,) and, if complete, masks (N, SIDE, SIDE)."""
    paths, labels, masks = [], [], []
    complete = True
    for kind in sorted((root / "test").iterdir()):
        for path in files(kind):
            mask = root / "ground_truth" / kind.name / f"{path.stem}_mask.png"
            paths.append(path)
            labels.append(kind.name != "good")
            complete &= kind.name == "good" or mask.exists()
            picture = Image.open(mask).convert("L") if mask.exists() else Image.new("L", (SIDE, SIDE))
            masks.append(np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)) > 127)
    return paths, np.array(labels), np.stack(masks) if complete else None


def auroc(scores: np.ndarray[Any, Any], positive: np.ndarray[Any, Any]) -> float:
    import torch

    from blemish.metrics import AUROC

    metric = AUROC(exact=True)
    metric.update(torch.from_numpy(np.ascontiguousarray(scores)), torch.from_numpy(positive))
    value = metric.compute().value
    assert value is not None
    return value


def compare_patches(ours: Half, peer: Half, folder: Path, images: Path) -> list[dict[str, Any]]:
    """How far scores of the patches of some images differ, both libraries having the same bank."""
    rows = []
    for half in (ours, peer):
        half("save_features", folder=images, path=folder / f"{half.name}_features.npy")
    for source, ring in (("features of blemish", 0), ("own features, inner patches", RING), ("own features, all", 0)):
        scores = []
        for half in (ours, peer):
            name = "ours" if source == "features of blemish" else half.name
            half("patch_scores", features=folder / f"{name}_features.npy", output=folder / "scores.npy")
            inner = slice(ring, SIDE // 8 - ring)
            scores.append(np.load(folder / "scores.npy").reshape(-1, SIDE // 8, SIDE // 8)[:, inner, inner])
        one, other = scores
        rows.append(
            {
                "patches": source,
                "compared": one.size,
                "mean score": float(one.mean()),
                "largest difference": float(np.abs(one - other).max()),
                "relative to the mean": float(np.abs(one - other).max() / one.mean()),
            }
        )
    return rows


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--data", type=Path, help="a folder in the layout of MVTec AD")
    parser.add_argument("--weights", type=Path, help="a timm state dict of resnet18, .safetensors")
    parser.add_argument("--good", type=int, default=40, help="parts to fit on, if the product is drawn")
    options = parser.parse_args()
    known = Path(os.environ.get("BLEMISH_DATA", "")) / "cookies"
    rows: list[dict[str, Any]] = []
    claims = []
    with tempfile.TemporaryDirectory() as name, halves(options, CORESET_ENVIRONMENT) as (ours, peer):
        folder = Path(name)
        root = options.data or (known if known.is_dir() else draw_parts(folder, options.good, test=20))
        paths, labels, masks = truth(root)
        weights = options.weights or draw_weights(folder)
        request = {"folder": root / "train" / "good", "weights": weights, "on": options.device}
        for detector in ("patchcore", "padim"):
            answer = ours("prepare", detector=detector, **request)
            if peer:
                peer("prepare", detector=detector, **answer, **request)
            image: dict[str, float] = {}
            for half in filter(None, (ours, peer)):
                half("fit")
                output = folder / f"{half.name}.npz"
                half("predict", paths=paths, output=output)
                found = np.load(output)
                image[half.name] = auroc(found["scores"], labels)
                rows.append(
                    {
                        "data": root.name,
                        "detector": detector,
                        "library": {"ours": "blemish", "peer": "anomalib"}[half.name],
                        "image AUROC": round(image[half.name], 4),
                        "pixel AUROC": None if masks is None else round(auroc(found["maps"], masks), 4),
                    }
                )
            if peer:
                gain = image["ours"] - image["peer"]
                text = f"{detector} on {root.name}: image AUROC beside the reference library's"
                claims.append(claim(text, "at most 0.01 lower", f"{gain:+.4f}", gain >= -0.01))
            if peer and detector == "patchcore":
                ours("save_bank", path=folder / "bank.npy")
                peer("prepare", detector=detector, bank=folder / "bank.npy", **request)
                patches = compare_patches(ours, peer, folder, paths[0].parent)
                worst = patches[0]["relative to the mean"]
                text = "patch scores, equal bank and features: largest difference"
                claims.append(claim(text, "at most 0.1 % of the mean", f"{worst:.1e} of the mean", worst <= 1e-3))
                report("patch_scores", options, patches, (), ours, peer)
        report("accuracy", options, rows, claims, ours, peer)


if __name__ == "__main__":
    main()
