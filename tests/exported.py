"""Exported graphs for tests. Tracing takes seconds, so each model is traced once per run and then copied."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import pytest

from blemish import runtime
from blemish.artifact import load
from blemish.errors import ArtifactError
from blemish.export import exporting
from blemish.export.onnx import to_onnx
from blemish.models.base import Detector
from blemish.post_processing import DecisionModule
from blemish.post_processing.post_processor import SETTING_BUFFERS
from once import common


def content_of(model: Detector, static: tuple[int, int, int] | None = None) -> dict[str, Any]:
    assert isinstance(model.post_processor, DecisionModule)
    return {"manifest": {}, "decision": model.decider.decision.to_dict(), "static": static}


def trace_once(model: Detector, defaults: Mapping[str, float], static: tuple[int, int, int] | None) -> Any:
    """What `to_onnx` gives; of models that differ in thresholds and sensitivities at most, it is asked once."""
    settings = [type(model).__name__, model.arguments(), static]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=float).encode())
    for name, tensor in model.state_dict().items():
        if name.rpartition(".")[2] not in SETTING_BUFFERS.values():  # inputs of the graph
            digest.update(name.encode() + tensor.contiguous().numpy().tobytes())

    def fill(folder: Path) -> None:
        onnx.save(to_onnx(model, defaults, static), folder / "graph.onnx")

    graph = onnx.load(common.once(f"graph-{digest.hexdigest()}", fill) / "graph.onnx")
    for tensor in graph.graph.initializer:
        if tensor.name in defaults:
            tensor.CopyFrom(onnx.helper.make_tensor(tensor.name, onnx.TensorProto.FLOAT, (), [defaults[tensor.name]]))
    return graph


@cache
def traced(path: Path) -> Any:
    """The graph of a model file, as it was before metadata."""
    model = load(path)
    return trace_once(model, content_of(model)["decision"], None)


def export_untried(path: Path, target: Path) -> Path:
    """What `export` writes, without comparing."""
    exporting.write(traced(path), target, content_of(load(path)))
    return target


def assert_sealed(path: Path) -> None:
    """A file and the `.bin` beside an `.xml`: one flipped bit, wherever it is, and nothing opens."""
    for changed in (path, path.with_suffix(".bin"))[: 1 + (path.suffix == ".xml")]:
        good = changed.read_bytes()
        for place in range(len(good) // 50, len(good), len(good) // 23):
            changed.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
            with pytest.raises(ArtifactError, match="digest"):
                runtime.load(path)
        changed.write_bytes(good)
        runtime.load(path)
