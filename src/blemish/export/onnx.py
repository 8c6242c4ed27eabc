"""A detector as an ONNX model.

The graph is torch's export as it is, with constants folded and nothing else optimized: the exporter's algebraic rules
take an addend of 1e-8 for zero, which moved scores of the filter bank by half a percent. Runtimes optimize on their
own. Thresholds and sensitivities are inputs that are initializers as well: ONNX's optional inputs, with these defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from blemish.errors import ExportError, MissingExtraError
from blemish.export.graph import OUTPUTS, Graph
from blemish.models.base import AnomalyModule
from blemish.runtime.session import SETTINGS

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
"""The lowest that holds all operators, so that older runtimes and compilers take the file."""

MAX_BYTES = 2**31 - 2**24
"""An ONNX file is one protobuf message, which ends at 2 GB; the graph itself needs a little."""

METADATA = "blemish"

BACKBONE = "backbone/"
"""What the names of the backbone's nodes start with: `int8` quantizes these, and readers of a graph find their way."""

FULL_PRECISION = "'model.extractor.network.filters'", "'model.extractor.network.projections."
"""Modules of the bundled backbone that `int8` leaves alone: little time goes there, and 8 bits would round their
differences away."""


def to_onnx(model: AnomalyModule, defaults: Mapping[str, float], static: tuple[int, int, int] | None) -> ModelProto:
    """The graph of a calibrated detector.

    Args:
        model: fitted, calibrated.
        defaults: a value for each of `SETTINGS`.
        static: (N, H, W) for compilers that need fixed shapes. None leaves all three free.

    Raises:
        ExportError: if the model is too large for ONNX, or can't be traced.
        MissingExtraError: if onnx or onnxscript isn't installed.
    """
    try:
        from onnx import TensorProto, helper
        from onnxscript import optimizer

        from blemish.export._operators import TRANSLATIONS
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "onnx", "export") from error
    size = sum(tensor.nbytes for tensor in model.buffers()) + sum(tensor.nbytes for tensor in model.parameters())
    if size > MAX_BYTES:
        raise ExportError(
            f"The model's tensors take {size / 2**30:.1f} GB; an ONNX file ends at 2. Store them as float16 "
            f"(bank_dtype, factor_dtype), or take a smaller bank_size or n_features."
        )
    # Free axes must not be 1 here: torch takes a size of 1 for a constant.
    shape = static or (2, 97, 130)
    example = torch.zeros(*shape, 3, dtype=torch.uint8, device=model.device)
    values = [torch.tensor(defaults[name], dtype=torch.float32, device=model.device) for name in SETTINGS]
    free = {axis: torch.export.Dim(name) for axis, name in enumerate("NHW")} if static is None else None
    try:
        with torch.no_grad():
            program: Any = torch.onnx.export(
                Graph(model).eval(),
                (example, *values),
                dynamo=True,
                input_names=["image", *SETTINGS],
                output_names=list(OUTPUTS),
                opset_version=OPSET,
                custom_translation_table=TRANSLATIONS,
                dynamic_shapes=None if free is None else (free, *[None] * len(SETTINGS)),
                optimize=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ExportError(
            f"torch can't trace backbone {model.extractor.backbone!r}: {reason} Choose another backbone."
        ) from error
    optimizer.inline(program.model)
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    proto: ModelProto = program.model_proto
    for name in SETTINGS:
        proto.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, (), [defaults[name]]))
    for node in proto.graph.node:
        modules = " ".join(one.value for one in node.metadata_props)  # that the node comes from
        if "'model.extractor'" in modules and not any(one in modules for one in FULL_PRECISION):
            node.name = BACKBONE + node.name
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.value_info, proto.graph):
        part.ClearField("metadata_props")  # stack traces of the machine that exported
        part.ClearField("doc_string")
    return proto


def describe(proto: ModelProto, content: Mapping[str, Any]) -> None:
    """Puts `content` into the model's metadata as JSON, in place of what was there."""
    from onnx import helper

    helper.set_model_props(proto, {METADATA: json.dumps(content, sort_keys=True, allow_nan=False)})
