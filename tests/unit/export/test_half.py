"""Weights in half precision: half the size, the same verdicts, and the same gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import pytest
from onnx import TensorProto, helper

from blemish.errors import ExportError, UsageError
from blemish.export import exporting
from blemish.export.half import halved
from blemish.export.onnx import BACKBONE
from blemish.export.report import HALF, Limits
from blemish.models.base import Detector
from blemish.runtime import load
from exported import export_untried, traced


@pytest.fixture
def traced_before(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: traced(model_file))


@pytest.mark.usefixtures("traced_before")
@pytest.mark.parametrize(("mode", "suffix"), [("onnx", ".onnx"), ("openvino", ".bin")])
def test_half_the_size_and_the_same_verdicts(
    mode: Any, suffix: str, model: Detector, model_file: Path, tiles: Path, tmp_path: Path
) -> None:
    images = sorted(tiles.glob("test/*/*.png"))
    whole = export_untried(model_file, exporting.target(tmp_path / "whole", mode))
    half = exporting.export(model, tmp_path / "half", mode, half=True, images=images)
    sizes = [path.with_suffix(suffix).stat().st_size for path in (whole, half.path)]
    weights = sum(tensor.nbytes for tensor in model.extractor.parameters())
    assert sizes[0] - sizes[1] == pytest.approx(weights / 2, rel=0.1)
    assert half.parity.limits == HALF
    session = load(half.path)
    assert session.backend.content["precision"] == "float16"  # type: ignore[attr-defined]
    for got, want in zip(session(images), load(model_file)(images), strict=True):
        assert got.label == want.label
        assert got.raw_score == pytest.approx(want.raw_score, rel=0.02)


@pytest.mark.usefixtures("traced_before")
def test_the_gate_is_shut_to_other_scores(
    model: Detector, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "HALF", Limits(1e-7, 1e-7, 0))
    with pytest.raises(ExportError, match="would not give the verdicts"):
        exporting.export(model, tmp_path / "m", "onnx", half=True, images=tiles / "test" / "hole")
    assert not list(tmp_path.iterdir())


def test_only_what_half_precision_can_hold() -> None:
    """Weights of the backbone alone, and none above 65,504."""
    values = {"a": [1.0, 2.0], "b": [1e5, 2.0], "c": [0.1, 0.2]}
    nodes = [
        helper.make_node("Add", ["x", "a"], ["y"], f"{BACKBONE}1"),
        helper.make_node("Add", ["y", "b"], ["z"], f"{BACKBONE}2"),
        helper.make_node("Add", ["z", "c"], ["w"], "other"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "w")]
    weights = [helper.make_tensor(name, TensorProto.FLOAT, [2], one) for name, one in values.items()]
    proto = helper.make_model(helper.make_graph(nodes, "g", ends[:1], ends[1:], weights))
    done = halved(proto)
    onnx.checker.check_model(done)
    assert {one.name: one.data_type for one in done.graph.initializer} == {
        "a/half": TensorProto.FLOAT16,
        "b": TensorProto.FLOAT,
        "c": TensorProto.FLOAT,
    }
    evaluated = onnx.reference.ReferenceEvaluator(done).run(None, {"x": np.zeros(2, np.float32)})[0]
    np.testing.assert_allclose(evaluated, [1e5 + 1.1, 4.2], rtol=1e-3)


def test_arguments(model: Detector, tmp_path: Path) -> None:
    for options in ({"export_mode": "torch"}, {"int8": True}):
        with pytest.raises(UsageError, match="half is for export_mode 'onnx' and 'openvino'"):
            exporting.export(model, tmp_path / "m", half=True, **options)  # type: ignore[arg-type]
