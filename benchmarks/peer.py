"""The half of a benchmark that runs anomalib 2.7.0, in .venv-peer; `ours.py` answers the same requests.

Only its public classes are called, as its own engine calls them. Arguments and answers are those of `ours.py`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from anomalib.deploy import OpenVINOInferencer
from anomalib.metrics import AUPRO, AUROC, F1AdaptiveThreshold
from anomalib.models import EfficientAd, Padim, Patchcore
from anomalib.models.components import KCenterGreedy
from common import BATCH, SIDE, Meter, files, map_and_mask, read, seconds, serve
from PIL import Image
from safetensors.torch import load_file

PARTS = {"pre_processor": True, "post_processor": False, "evaluator": False, "visualizer": False}

model: Any
device: str
inputs: torch.Tensor
lines: dict[str, Any] = {}


def versions() -> dict[str, Any]:
    return {"anomalib": version("anomalib"), "torch": torch.__version__, "threads": torch.get_num_threads()}


def prepare(
    detector: str,
    folder: str,
    weights: str,
    on: str = "cpu",
    ratio: float = 0.1,
    channel_index: list[int] | None = None,
    bank: str | None = None,
) -> dict[str, Any]:
    """As in `ours.py`; PaDiM keeps the given channels, PatchCore may be given a memory bank."""
    global model, device, inputs
    device = on
    if detector == "patchcore":
        layers = ["layer2", "layer3"]
        model = Patchcore("resnet18", layers, pre_trained=False, coreset_sampling_ratio=ratio, **PARTS)
        if bank:
            model.model.memory_bank = torch.from_numpy(np.load(bank))
    else:
        model = Padim("resnet18", pre_trained=False, **PARTS)
        model.model.idx = torch.tensor(channel_index)
    found = model.model.feature_extractor.feature_extractor.load_state_dict(load_file(weights), strict=False)
    if found.missing_keys:
        raise ValueError(f"{weights} lacks {found.missing_keys}")
    model.to(device).eval()
    inputs = _preprocess(files(folder))
    return {}


def backbone() -> dict[str, Any]:
    with Meter(device) as meter:
        for batch in _batches():
            model.model.feature_extractor(batch)
    return {"seconds": meter.seconds}


def fit() -> dict[str, Any]:
    model.train()
    with Meter(device) as meter:
        for batch in _batches():
            model.model(batch)
        model.fit()
    model.eval()
    return {"seconds": meter.seconds, "peak_mb": meter.peak_mb, "process_mb": meter.process_mb}


def latency(batch: int, repetitions: int) -> dict[str, Any]:
    images = inputs[:batch].to(device)
    return {
        "backbone": seconds(lambda: model.model.feature_extractor(images), repetitions, device),
        "detector": seconds(lambda: model.model(images), repetitions, device),
    }


def coreset(points: str, k: int, indices: str, on: str = "cpu") -> dict[str, Any]:
    """Selects k of (n, D) points, starting with a random one; projects them first, as it always does."""
    features = torch.from_numpy(np.load(points)).to(on)
    with Meter(on) as meter:
        chosen = KCenterGreedy(features, (k + 0.5) / len(features)).select_coreset_idxs()
    np.save(indices, np.asarray(chosen))
    return {"seconds": meter.seconds, "peak_mb": meter.peak_mb}


def predict(paths: list[str], output: str) -> dict[str, Any]:
    found = [model.model(_preprocess([path])) for path in paths]
    scores, maps = zip(*((batch.pred_score, batch.anomaly_map) for batch in found), strict=True)
    np.savez(output, scores=torch.cat(scores).flatten().cpu(), maps=torch.cat(maps).cpu().reshape(-1, SIDE, SIDE))
    return {}


def save_features(folder: str, path: str) -> dict[str, Any]:
    images = _preprocess(files(folder)).split(BATCH)
    np.save(path, torch.cat([_embed(batch).cpu() for batch in images]).numpy())
    return {}


def patch_scores(features: str, output: str) -> dict[str, Any]:
    np.save(output, model.model.nearest_neighbors(torch.from_numpy(np.load(features)).to(device), 1)[0].cpu())
    return {}


def make_line(name: str, root: str, folder: str, weights: str | None = None) -> dict[str, Any]:
    """One of its models, fitted to the good images of a set and exported to OpenVINO as its guide says.

    Without weights a model has random ones, and EfficientAd isn't trained: times are the same, scores say nothing.
    """
    lite = {"backbone": "tf_efficientnet_lite0", "pre_trained": False, **PARTS}
    paths = files(Path(root) / "train" / "good")
    made: Any
    if name == "EfficientAd-S":
        made = EfficientAd(model_size="small", **PARTS)
    else:
        if name == "PatchCore, EfficientNet-Lite0":
            patches = len(paths) * (SIDE // 8) ** 2
            ratio = min(0.1, 5000 / patches)
            made = Patchcore(layers=["blocks.2", "blocks.4"], coreset_sampling_ratio=ratio, **lite)
        elif name == "PaDiM, EfficientNet-Lite0":
            made = Padim(layers=["blocks.1", "blocks.2", "blocks.4"], n_features=100, **lite)
        else:
            made = Padim("resnet18", pre_trained=False, **PARTS)
        if weights:
            made.model.feature_extractor.feature_extractor.load_state_dict(load_file(weights), strict=False)
        made.train()
        for start in range(0, len(paths), BATCH):
            images = [_image(path, made) for path in paths[start : start + BATCH]]
            made.model(torch.cat(images))
        made.fit()
    # For images of one size, one at a time: for any, its PatchCore would take two at a time and no other number.
    sizes = {read(path).shape[:2] for path in paths}
    size = sizes.pop() if len(sizes) == 1 else None
    fixed = {"input_size": size or (SIDE, SIDE), "onnx_kwargs": {"dynamic_axes": None}}
    os.chdir(folder)  # the inferencer keeps a cache where it stands
    inferencer = OpenVINOInferencer(made.eval().to_openvino(Path(folder) / name, **fixed))
    lines[name] = inferencer.predict if size else lambda path: inferencer.predict(_small(path))
    return {}


def judge(name: str, paths: list[str]) -> dict[str, Any]:
    """As in `ours.py`."""
    line = lines[name]
    line(paths[0])
    scores, times = [], []
    for path in paths:
        started = time.perf_counter()
        found = line(path)
        times.append(time.perf_counter() - started)
        scores.append(float(np.ravel(found.pred_score)[0]))
    return {"scores": scores, "seconds": times}


def threshold_and_auroc(maps: int, side: int) -> dict[str, Any]:
    batches = _maps(maps, side)
    with Meter() as meter:
        fields = ["anomaly_map", "gt_mask"]
        threshold, area = F1AdaptiveThreshold(fields=fields), AUROC(fields=fields)
        for batch in batches:
            threshold.update(batch)
            area.update(batch)
        values = float(threshold.compute()), float(area.compute())
    return {"seconds": meter.seconds, "peak_mb": meter.peak_mb, "threshold": values[0], "value": values[1]}


def aupro(maps: int, side: int) -> dict[str, Any]:
    batches = _maps(maps, side)
    with Meter() as meter:
        metric = AUPRO(fields=["anomaly_map", "gt_mask"])
        for batch in batches:
            metric.update(batch)
        area = float(metric.compute())
    return {"seconds": meter.seconds, "peak_mb": meter.peak_mb, "value": area}


def _batches() -> Iterator[torch.Tensor]:
    return (batch.to(device) for batch in inputs.split(BATCH))


def _embed(images: torch.Tensor) -> torch.Tensor:
    inner = model.model
    pooled = {name: inner.feature_pooler(layer) for name, layer in inner.feature_extractor(images).items()}
    return inner.reshape_embedding(inner.generate_embedding(pooled))


def _preprocess(paths: list[Path] | list[str]) -> torch.Tensor:
    return torch.cat([_image(path, model).to(device) for path in paths])


def _small(path: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def _image(path: Path | str, made: Any) -> torch.Tensor:
    image = torch.from_numpy(read(path).copy()).permute(2, 0, 1)[None] / 255
    transformed: torch.Tensor = made.pre_processor.transform(image)  # `forward` is that of exports
    return transformed


def _maps(count: int, side: int) -> list[SimpleNamespace]:
    pairs = (map_and_mask(index, side) for index in range(count))
    return [
        SimpleNamespace(anomaly_map=torch.from_numpy(scores)[None], gt_mask=torch.from_numpy(mask)[None])
        for scores, mask in pairs
    ]


TASKS = [
    versions,
    prepare,
    backbone,
    fit,
    save_features,
    latency,
    coreset,
    predict,
    patch_scores,
    threshold_and_auroc,
    aupro,
    make_line,
    judge,
]

if __name__ == "__main__":
    with torch.no_grad():
        serve({task.__name__: task for task in TASKS})
