"""Another decision in an exported file: the same graph, other thresholds, a digest of its own.

Thresholds and sensitivities stand in two places, as defaults of the graph's settings and in the metadata that a session
shows. Both are written, and the record of the calibration with them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from blemish.errors import ArtifactError, UsageError
from blemish.export.exporting import RUNTIMES, write
from blemish.export.openvino import read_openvino
from blemish.extras import needing_extras
from blemish.files import replacing_together
from blemish.post_processing.decision import SETTINGS, Decision
from blemish.runtime import load
from blemish.runtime.graph_session import GraphBackend


def read_exported(path: Path) -> tuple[Decision, dict[str, Any]]:
    """The decision of an exported file, with its record, and all its metadata.

    Raises:
        ArtifactError: if it isn't one, or was changed. MissingExtraError: without its runtime.
    """
    backend = load(path).backend
    assert isinstance(backend, GraphBackend)
    return backend.decision, dict(backend.content)


def write_exported(path: Path, output: Path, decision: Decision, content: dict[str, Any]) -> None:
    """Writes the graph of `path` to `output` with another decision.

    Args:
        path: .onnx, or .xml with .bin beside it.
        output: of the same suffix; replaced in one step.
        decision: on the scales of the file's own, of which only thresholds and sensitivities may differ.
        content: its metadata.

    Raises:
        UsageError: for another suffix. ArtifactError: if it is no graph of ours. MissingExtraError: without onnx.
    """
    suffix = path.suffix.lower()
    if output.suffix.lower() != suffix:
        raise UsageError(f"The output must end in {suffix}, as {path} does. Got {str(output)!r}.")
    record = None if decision.record is None else dataclasses.asdict(decision.record)
    content = {**content, "decision": decision.to_dict(), "manifest": {**content["manifest"], "calibration": record}}
    graph = (_onnx_with if RUNTIMES[suffix] == "onnxruntime" else _openvino_with)(path, decision.settings())
    others = [output.with_suffix(".bin")] if suffix == ".xml" else []
    with replacing_together(*others, output) as folder:
        write(graph, folder / output.name, content)


def _onnx_with(path: Path, settings: dict[str, float]) -> Any:
    with needing_extras():
        import onnx
    graph = onnx.load(path)
    found = {one.name: one for one in graph.graph.initializer if one.name in SETTINGS}
    _require_all(found, path)
    for name, tensor in found.items():
        tensor.CopyFrom(onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, (), [settings[name]]))
    return graph


def _openvino_with(path: Path, settings: dict[str, float]) -> Any:
    from blemish.runtime.openvino_session import constant

    graph: Any = read_openvino(path)
    found = {one.get_friendly_name(): one for one in graph.get_ops() if one.get_type_name() == "Constant"}
    _require_all(found, path)
    for name in SETTINGS:
        new = constant(np.float32(settings[name]), name)
        found[name].output(0).replace(new.output(0))
    graph.validate_nodes_and_infer_types()
    return graph


def _require_all(found: dict[str, Any], path: Path) -> None:
    if not found.keys() >= set(SETTINGS):
        raise ArtifactError(f"{path} is not a graph that blemish exported. Export again.")
