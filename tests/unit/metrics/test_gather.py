"""Figures of a test set that two processes share, against those of one process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from blemish import Engine, ImageDataModule, Padim
from blemish.data.batch import InferenceBatch
from blemish.data.gather import decode_names, encode_names
from blemish.metrics import Evaluator
from blemish.synthetic.products import write_dataset
from processes import two

SCRIPT = """
import copy
import json
import sys
import warnings

from lightning.pytorch import Trainer

import blemish
from blemish import ImageDataModule
from blemish.engine import Driver

if __name__ == "__main__":
    warnings.simplefilter("ignore")
    folder = sys.argv[1]
    trainer = Trainer(
        accelerator="cpu", strategy="ddp", devices=2, logger=False, enable_progress_bar=False,
        enable_model_summary=False,
    )
    results = []
    for name in ("calibrated", "raw"):
        model = blemish.load_detector(f"{folder}/model.safetensors")
        if name == "raw":
            model.post_processor.forget()
        data = ImageDataModule(f"{folder}/knob", batch_size=2, num_workers=0)
        data.transform = copy.deepcopy(model.pre_processor)
        driven = Driver(model)
        trainer.test(driven, datamodule=data, verbose=False)
        results.append(driven.evaluator.compute().to_dict())
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

    ended = two(SCRIPT, tmp_path)
    assert [code for code, _ in ended] == [0, 0], ended

    alone = []
    for _ in ("calibrated", "raw"):
        alone.append(engine.test(model, ImageDataModule(root, batch_size=2, num_workers=0)).to_dict())
        model.post_processor.forget()  # type: ignore[operator,union-attr]
    assert alone[0]["counts"]["images"] % 2 == 1
    assert alone[0]["image_f1"] is not None
    assert alone[1]["reasons"]["image_f1"] == "no verdicts: the model is not calibrated"
    for rank in (0, 1):
        assert_same(json.loads((tmp_path / f"rank{rank}.json").read_text()), alone)


STATES = """
import os
from datetime import timedelta

import torch
import torch.distributed as dist

from blemish.data.gather import decode_names, encode_names, gather, gather_states
from blemish.metrics import AUPIMO, AUROC, PerDefect


def state(rank):
    return {
        "table": torch.full((2 + rank, 3 - rank), rank + 0.1, dtype=torch.float64),
        "flags": torch.tensor([True, False, True][: 3 * rank], dtype=torch.bool),
        "half": torch.tensor(rank + 0.5, dtype=torch.float16),
        "names": encode_names(["", "löchrig", "x"][rank:]),
    }


def fed(metric, rank):
    generator = torch.Generator().manual_seed(rank)
    if isinstance(metric, AUPIMO):
        masks = torch.zeros(2 + rank, 8, 8, dtype=torch.bool)
        masks[1:, 2:4, 3:5] = True
        metric.update(torch.rand(2 + rank, 8, 8, generator=generator), masks)
        return metric
    scores = torch.rand(5 + rank, generator=generator)
    labels = torch.arange(5 + rank) % 2 == 0
    names = [["dent", "kratzer", "größer"][i % (2 + rank)] for i in range(5 + rank)]
    metric.update(scores, labels, *([names] if isinstance(metric, PerDefect) else []))
    return metric


rank = int(os.environ["LOCAL_RANK"])
dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=60))
for other, got in enumerate(gather_states(state(rank), torch.device("cpu"))):
    expected = state(other)
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype, name
        assert torch.equal(got[name], tensor), name
    assert decode_names(got["names"]) == ["", "löchrig", "x"][other:]
for make in (AUROC, lambda: AUROC("pixel"), PerDefect, AUPIMO, lambda: AUPIMO(exact=True)):
    together, both = fed(make(), rank), fed(make(), 0)
    both.merge(fed(make(), 1))
    gather(together, torch.device("cpu"))
    assert together.compute() == both.compute(), (together.compute(), both.compute())
dist.destroy_process_group()
"""


def test_states_of_two_processes() -> None:
    """Any type and shape, also of different shapes, without a value, and with none at all."""
    ended = two(STATES)
    assert [code for code, _ in ended] == [0, 0], ended


def test_names_as_rows() -> None:
    for names in ([], [""], ["löchrig", "", "a b"], ["\u4e2d" * 40, "x"]):
        rows = encode_names(names)
        assert rows.dtype == torch.uint8
        assert rows.shape == (len(names), max((len(name.encode()) for name in names), default=0))
        assert decode_names(rows) == names


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
