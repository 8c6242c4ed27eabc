"""Figures of a test set that two processes share, against those of one process."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from blemish import Engine, ImageDataModule, Padim
from blemish.data.batch import InferenceBatch
from blemish.metrics import Evaluator
from blemish.synthetic.products import write_dataset

SCRIPT = """
import copy
import json
import sys
import warnings

from lightning.pytorch import Trainer

import blemish
from blemish import ImageDataModule

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = sys.argv[1]
    trainer = Trainer(
        accelerator="cpu", strategy="ddp", devices=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )
    results = []
    for name in ("calibrated", "raw"):
        model = blemish.load(f"{folder}/model.safetensors")
        if name == "raw":
            model.post_processor.forget()
        data = ImageDataModule(f"{folder}/knob", batch_size=2, num_workers=0)
        data.transform = copy.deepcopy(model.pre_processor)
        trainer.test(model, datamodule=data, verbose=False)
        results.append(model.evaluator.compute().to_dict())
    with open(f"{folder}/rank{trainer.global_rank}.json", "w") as file:
        json.dump(results, file)
"""


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key, value in expected.items():
            assert_same(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for index, value in enumerate(expected):
            assert_same(found[index], value, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert math.isclose(found, expected, rel_tol=1e-4, abs_tol=1e-9), (where, found, expected)
    else:
        assert found == expected, where


def test_two_processes_measure_like_one(tmp_path: Path) -> None:
    """Nine images: the distributed sampler repeats one to fill up, which must not count twice."""
    root = write_dataset(tmp_path, product="knob", good_train=12, good_test=4, per_defect=1, size=(64, 80))
    model, engine = Padim(image_size=64, n_features=10), Engine("cpu", progress=False)
    engine.fit(model, ImageDataModule(root, num_workers=0))
    model.save(tmp_path / "model.safetensors")

    script = tmp_path / "measure_together.py"
    script.write_text(SCRIPT, encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stderr[-3000:]

    alone = []
    for _ in ("calibrated", "raw"):
        alone.append(engine.test(model, ImageDataModule(root, batch_size=2, num_workers=0)).to_dict())
        model.post_processor.forget()  # type: ignore[operator,union-attr]
    assert alone[0]["counts"]["images"] % 2 == 1
    assert alone[0]["image_f1"] is not None
    assert alone[1]["reasons"]["image_f1"] == "no verdicts: the model is not calibrated"
    for rank in (0, 1):
        assert_same(json.loads((tmp_path / f"rank{rank}.json").read_text()), alone)


def test_first_images_of_a_batch() -> None:
    batch = InferenceBatch(
        pred_score=torch.arange(3.0), anomaly_map=[torch.zeros(2, 2 + i) for i in range(3)], path=["a", "b", "c"]
    )
    first = batch.first(2)
    assert torch.equal(first.pred_score, torch.arange(2.0))  # type: ignore[arg-type]
    assert first.path == ["a", "b"]
    assert len(first.anomaly_map) == 2  # type: ignore[arg-type]
    assert first.gt_label is None
    assert batch.first(0).path == []


def test_nothing_to_gather_alone() -> None:
    evaluator = Evaluator()
    evaluator.update(InferenceBatch(torch.rand(4), gt_label=torch.tensor([True, False, True, False])))
    before = evaluator.compute()
    evaluator.gather(torch.device("cpu"))
    assert evaluator.compute() == before
    assert evaluator.images == 4
