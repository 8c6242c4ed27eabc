"""An ONNX model as OpenVINO's: `.xml` with the graph, `.bin` with the numbers.

OpenVINO has no optional inputs. Thresholds and sensitivities are constants here, named as the inputs are in ONNX, so
that `compiled([image])` gives the verdict that was trained; `runtime.openvino_session` turns them into inputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blemish.errors import MissingExtraError

if TYPE_CHECKING:
    from onnx import ModelProto


def write_openvino(proto: ModelProto, path: Path, content: Mapping[str, Any]) -> None:
    """Writes `path` (.xml) and the .bin beside it, in full precision, with `content` as JSON in the rt_info.

    Raises:
        MissingExtraError: if openvino isn't installed.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "openvino", "openvino") from error
    model = openvino.Core().read_model(proto.SerializeToString())
    model.set_rt_info(json.dumps(content, sort_keys=True, allow_nan=False), ["blemish"])
    openvino.save_model(model, path, compress_to_fp16=False)
