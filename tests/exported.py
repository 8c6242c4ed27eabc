"""Exported graphs for tests. Tracing takes seconds, so each model is traced once per session and then copied."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from blemish.artifact import load
from blemish.export import exporting
from blemish.export.onnx import to_onnx
from blemish.models.base import Detector
from blemish.post_processing import DecisionModule


def content_of(model: Detector, static: tuple[int, int, int] | None = None) -> dict[str, Any]:
    assert isinstance(model.post_processor, DecisionModule)
    return {"manifest": {}, "decision": model.decider.decision.to_dict(), "static": static}


@cache
def traced(path: Path) -> Any:
    """The graph of a model file, as it was before metadata."""
    model = load(path)
    return to_onnx(model, content_of(model)["decision"], None)


def export_untried(path: Path, target: Path) -> Path:
    """What `export` writes, without comparing."""
    exporting.write(traced(path), target, content_of(load(path)))
    return target
