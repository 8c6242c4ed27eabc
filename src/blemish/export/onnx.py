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
from torch import nn

from blemish.errors import ExportError
from blemish.export.graph import OUTPUTS, Graph
from blemish.extras import needing_extras
from blemish.models.base import Detector
from blemish.post_processing.decision import SETTINGS

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnx_ir import Node

OPSET = 18
"""The lowest that holds all operators, so that older runtimes and compilers take the file."""

MAX_BYTES = 2**31 - 2**24
"""An ONNX file is one protobuf message, which ends at 2 GB; the graph itself needs a little."""

METADATA = "blemish"

BACKBONE = "backbone/"
"""What the names of the backbone's nodes start with: `int8` quantizes these, and readers of a graph find their way."""


def to_onnx(
    model: Detector,
    defaults: Mapping[str, float],
    static: tuple[int, int, int] | None,
    *,
    max_bytes: int = MAX_BYTES,
) -> ModelProto:
    """The graph of a calibrated detector.

    Args:
        model: fitted, calibrated.
        defaults: a value for each of `SETTINGS`.
        static: (N, H, W) for compilers that need fixed shapes. None leaves all three free.
        max_bytes: most that the model's tensors may take.

    Raises:
        ExportError: if the model is too large for ONNX, or can't be traced.
        MissingExtraError: if onnx or onnxscript isn't installed.
    """
    with needing_extras():
        from onnx import TensorProto, helper
        from onnxscript import optimizer

        from blemish.export._operators import TRANSLATIONS
    size = sum(tensor.nbytes for tensor in model.buffers()) + sum(tensor.nbytes for tensor in model.parameters())
    if size > max_bytes:
        raise ExportError(
            f"The model's tensors take {size / 2**30:.1f} GB; an ONNX file ends at 2. Store them as float16 "
            f"(bank_dtype, factor_dtype), or take a smaller bank_size or n_features."
        )
    graph = Graph(model).eval()
    # Free axes must not be 1 here: torch takes a size of 1 for a constant.
    shape = static or (2, 97, 130)
    example = torch.zeros(*shape, 3, dtype=torch.uint8, device=model.device)
    values = [torch.tensor(defaults[name], dtype=torch.float32, device=model.device) for name in SETTINGS]
    free = {axis: torch.export.Dim(name) for axis, name in enumerate("NHW")} if static is None else None
    try:
        with torch.no_grad():
            program: Any = torch.onnx.export(
                graph,
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
    optimizer.fold_constants(program.model, should_fold=_rearranges, output_size_limit=max_bytes)
    optimizer.remove_unused_nodes(program.model)
    proto: ModelProto = program.model_proto
    for name in SETTINGS:
        proto.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, (), [defaults[name]]))
    backbone, full_precision = (
        _scopes(graph, model.extractor),
        _scopes(graph, *model.extractor.full_precision_modules()),
    )
    for node in proto.graph.node:
        modules = " ".join(prop.value for prop in node.metadata_props)  # that the node comes from, as torch names them
        if any(scope in modules for scope in backbone) and not any(scope in modules for scope in full_precision):
            node.name = BACKBONE + node.name
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.value_info, proto.graph):
        part.ClearField("metadata_props")  # stack traces of the machine that exported
        part.ClearField("doc_string")
    return proto


def _rearranges(node: Node) -> bool | None:
    """True for parts of a large tensor that the graph uses in parts alone; the usual rules, None, fold small ones."""
    parts, source = ("Slice", "Transpose"), node.inputs[0] if node.inputs else None
    if node.op_type not in parts or source is None:
        return None
    return True if all(use.node.op_type in parts for use in source.uses()) else None


def _scopes(graph: nn.Module, *modules: nn.Module) -> list[str]:
    """How the exporter quotes modules of a graph in the metadata of nodes that come from them."""
    return [f"'{name}'" for name, module in graph.named_modules() if any(module is one for one in modules)]


def describe(proto: ModelProto, content: Mapping[str, Any]) -> None:
    """Puts `content` into the model's metadata as JSON, in place of what was there."""
    from onnx import helper

    helper.set_model_props(proto, {METADATA: json.dumps(content, sort_keys=True, allow_nan=False)})
