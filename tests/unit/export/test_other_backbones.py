"""Models on backbones of timm's from folder to verdict: fitted, saved, loaded, exported, and the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.engine import Engine
from blemish.models import Patchcore
from blemish.models.base import Detector
from blemish.synthetic.products import render

BACKBONES: dict[str, dict[str, Any]] = {
    "vit": {"backbone": "test_vit", "layers": ["blocks.1", "blocks.3+norm"]},
    "dinov3": {"backbone": "vit_small_patch16_dinov3", "layers": ["blocks.1"]},
    "same padding": {"backbone": "tf_efficientnet_lite0", "layers": ["blocks.1", "blocks.2"]},
    "channels last": {"backbone": "test_mambaout", "layers": ["stages.0", "stages.1"]},
}


@pytest.fixture(scope="module", params=BACKBONES)
def fitted(request: pytest.FixtureRequest, tiles: Path) -> Detector:
    model = Patchcore(**BACKBONES[request.param], image_size=(64, 96), bank_size=100, pretrained=False)
    # Position embeddings are drawn small: larger ones show whether they are resized alike everywhere.
    for name, value in model.extractor.named_parameters():
        if name.endswith("pos_embed"):
            value.data.mul_(20)
    Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
    return model


def test_loaded_again_it_gives_the_same_scores(fitted: Detector, tmp_path: Path) -> None:
    fitted.save(tmp_path / "model.safetensors")
    images = torch.randint(0, 256, (2, 80, 110, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    again = load(tmp_path / "model.safetensors")
    assert torch.equal(again(images).anomaly_map, fitted(images).anomaly_map)


def test_exported_graphs_give_its_verdicts(fitted: Detector, tmp_path: Path) -> None:
    sizes = ((96, 128), (97, 131), (64, 200))
    images = [render("tile", size=size, rng=np.random.default_rng(0), defect="hole")[0] for size in sizes]
    done = fitted.export(tmp_path / "model.onnx", "onnx", images=images)
    assert done.parity.passed
    assert {row.runtime for row in done.parity.rows} == {"onnxruntime", "openvino"}
