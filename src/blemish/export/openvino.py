"""An ONNX model as OpenVINO's: `.xml` with the graph, `.bin` with the numbers.

OpenVINO has no optional inputs. Thresholds and sensitivities are constants here, named as the inputs are in ONNX, so
that `compiled([image])` gives the verdict that was trained; `runtime.openvino_session` turns them into inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blemish.extras import needing_extras

if TYPE_CHECKING:
    from onnx import ModelProto
    from openvino import Model


def write_openvino(graph: ModelProto | Model, path: Path, content: Mapping[str, Any]) -> None:
    """Writes `path` (.xml) and the .bin beside it, in the precision it has, with `content` as JSON in the rt_info.

    Args:
        graph: an ONNX model or OpenVINO's own.
        path: to be written.
        content: JSON values.

    Raises:
        MissingExtraError: if openvino isn't installed. OSError: if it can't write.
    """
    with needing_extras():
        import openvino
    if not isinstance(graph, openvino.Model):
        graph.ClearField("metadata_props")  # of an ONNX file, which OpenVINO would carry along
        graph = openvino.Core().read_model(graph.SerializeToString())
    model: Any = graph
    model.set_rt_info(json.dumps(content, sort_keys=True, allow_nan=False), ["blemish"])
    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # its class for what the system has against a file
        raise OSError(f"OpenVINO says: {str(error).strip()}") from error


def read_openvino(path: Path) -> Model:
    """A model into memory; opened by its path, its .bin would stay mapped and couldn't be deleted everywhere."""
    import openvino

    weights = np.fromfile(path.with_suffix(".bin"), dtype=np.uint8)
    return openvino.Core().read_model(path.read_bytes(), openvino.Tensor(weights))
