"""A graph that is cut in memory: what is left is what was asked for, byte for byte as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from blemish.runtime.pruning import output_names, pruned


def graph(side: int) -> Any:
    """z = (x w) + 1 and, from the same product, y; a node of two results of which z needs one."""
    weights = np.random.default_rng(0).standard_normal((side, side)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
        helper.make_node("Split", ["p"], ["left", "right"], name="split", axis=1, num_outputs=2),
        helper.make_node("Exp", ["right"], ["e"], name="only for y"),
        helper.make_node("Add", ["left", "one"], ["z"], name="sum"),
        helper.make_node("Neg", ["e"], ["y"], name="only for y as well"),
    ]
    tensors = [numpy_helper.from_array(weights, "w"), numpy_helper.from_array(np.float32(1), "one")]
    one, *two = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, None]) for name in "xyz")
    made = helper.make_graph(nodes, "g", [one], two, tensors)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9, producer_name="test")


@pytest.mark.parametrize("side", [2, 6, 64, 300])  # lengths of one byte, two, three and four
def test_only_what_an_output_needs_is_left(side: int) -> None:
    model = graph(side)
    expected = onnx.ModelProto.FromString(model.SerializeToString())
    for part in [node for node in expected.graph.node if node.name.startswith("only")]:
        expected.graph.node.remove(part)
    expected.graph.output.remove(next(one for one in expected.graph.output if one.name == "y"))
    cut = pruned(model.SerializeToString(), ["z"])
    assert cut == expected.SerializeToString()
    feed = {"x": np.linspace(0, 1, side, dtype=np.float32)[None]}
    whole, part = (onnxruntime.InferenceSession(one) for one in (model.SerializeToString(), cut))
    np.testing.assert_array_equal(part.run(None, feed)[0], whole.run(["z"], feed)[0])


def test_all_outputs_leave_all() -> None:
    content = graph(64).SerializeToString()
    assert output_names(content) == ["y", "z"]
    assert pruned(content, "yz") == content


def test_a_file_that_breaks_off() -> None:
    with pytest.raises(IndexError):
        pruned(b"\x08", ["z"])


def test_a_number_without_end_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="more than 64 bits"):
        pruned(b"\x08" + b"\x80" * 1_000_000, ["z"])
    assert pruned(b"\x08" + b"\xff" * 9 + b"\x01", ["z"])  # the largest that there is
