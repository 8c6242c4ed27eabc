"""The backbone of an exported model in 8-bit integers: a quarter of the size, and faster where processors have the
instructions.

Only the backbone is quantized, where the time goes. Resizing, distances, thresholds and maps stay in float32, and
thresholds stay those that were calibrated; whether verdicts survive is for `parity` to find out.

The ranges of activations are those seen on good images, and on the same at twice their contrast: what a defect excites
beyond the range would be cut off, and a score is made of just that. Weights take seven of the eight bits: processors
without VNNI add products in 16 bits, which overflow with all eight, and would give other verdicts than the machine that
exported. Batch normalization goes into the convolutions first, so that no rounding comes between the two.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from blemish.errors import ExportError, MissingExtraError
from blemish.export.onnx import BACKBONE
from blemish.export.openvino import read_openvino, write_openvino
from blemish.extras import EXTRAS, needing_extras
from blemish.post_processing.decision import SETTINGS

if TYPE_CHECKING:
    from onnx import ModelProto

MAX_IMAGES = 64
"""More good images hardly widen the ranges."""

Stacks = Sequence[npt.NDArray[np.uint8]]
"""(N, H, W, 3) each, as the graph takes them."""


def with_headroom(images: Iterable[npt.NDArray[np.uint8]]) -> Iterator[npt.NDArray[np.uint8]]:
    """Each (H, W, 3) uint8 image, and the same at twice its contrast."""
    for image in images:
        mean = image.mean(axis=(0, 1))
        yield image
        yield np.clip(2 * (image - mean) + mean, 0, 255).astype(np.uint8)


def quantize_onnx(proto: ModelProto, stacks: Stacks, folder: Path) -> ModelProto:
    """An ONNX model in ONNX's own notation for 8 bits (QuantizeLinear, DequantizeLinear).

    Args:
        proto: from `to_onnx`; it isn't changed.
        stacks: good images, to take the ranges from.
        folder: for intermediate files.

    Raises:
        MissingExtraError: if onnxruntime isn't installed.
    """
    with needing_extras():
        from onnxruntime import quantization
    import onnx

    plain = fold_batch_norms(proto)
    # As plain constants meanwhile: the calibrator's sessions would warn of every initializer that is an input as well.
    inputs = [one for one in plain.graph.input if one.name in SETTINGS]
    for one in inputs:
        plain.graph.input.remove(one)
    onnx.helper.set_model_props(plain, {"onnx.quant.pre_process": "onnxruntime.quant"})  # it asks for this, or warns
    onnx.save(plain, folder / "plain.onnx")
    with np.errstate(invalid="ignore"):  # it looks at ranges of the whole graph, in which there are constants of -inf
        quantization.quantize_static(
            folder / "plain.onnx",
            folder / "int8.onnx",
            _Reader(stacks),
            per_channel=True,
            reduce_range=True,
            nodes_to_quantize=[node.name for node in plain.graph.node if node.name.startswith(BACKBONE)],
        )
    quantized = onnx.load(folder / "int8.onnx")
    quantized.graph.input.extend(inputs)
    return quantized


def quantize_openvino(proto: ModelProto, stacks: Stacks, folder: Path) -> Any:
    """The same by NNCF, as an `openvino.Model`. See `export._nncf` for why it's another process.

    Raises:
        ExportError: if NNCF fails; the message holds its last line. MissingExtraError: if it isn't installed.
    """
    if importlib.util.find_spec("nncf") is None:
        raise MissingExtraError("nncf", EXTRAS["nncf"])
    source, target, samples = folder / "plain.xml", folder / "int8.xml", folder / "stacks.npz"
    write_openvino(fold_batch_norms(proto), source, {})
    np.savez(samples, *stacks)
    ran = subprocess.run(
        [sys.executable, "-m", "blemish.export._nncf", source, samples, target, BACKBONE],
        env={**os.environ, "NNCF_CI": "1"},  # its name for: report nothing to anyone
        capture_output=True,
        text=True,
    )
    if ran.returncode:
        reason = (ran.stderr.strip().splitlines() or ["it ended without a message."])[-1]
        raise ExportError(f"NNCF can't quantize this model: {reason} Export it as ONNX, or without int8.")
    return read_openvino(target)


def fold_batch_norms(proto: ModelProto) -> ModelProto:
    """A copy in which convolutions followed by nothing but a batch normalization do its work themselves:

    w' = w * k, b' = (b - mean) * k + shift, with k = scale / sqrt(variance + epsilon), per output channel
    """
    import onnx
    from onnx import numpy_helper

    folded = onnx.ModelProto()
    folded.CopyFrom(proto)
    graph = folded.graph
    numbers = {one.name: one for one in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    makers = {name: node for node in graph.node for name in node.output}
    for norm in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        convolution = makers.get(norm.input[0])
        if convolution is None or convolution.op_type != "Conv" or uses[norm.input[0]] > 1:
            continue
        scale, shift, mean, variance = (numpy_helper.to_array(numbers[name]) for name in norm.input[1:])
        weight, *bias = (numpy_helper.to_array(numbers[name]) for name in convolution.input[1:])
        epsilon = next((one.f for one in norm.attribute if one.name == "epsilon"), 1e-5)
        k = scale / np.sqrt(variance + np.float32(epsilon))
        weight = weight * k.reshape(-1, *[1] * (weight.ndim - 1))
        parts = {"weight": weight, "bias": ((bias[0] if bias else 0) - mean) * k + shift}
        names = [f"{convolution.name}/{name}" for name in parts]  # new ones: others may use the old
        graph.initializer.extend(map(numpy_helper.from_array, parts.values(), names))
        convolution.input[1:] = names
        convolution.output[:] = norm.output[:1]
        graph.node.remove(norm)
    used = {name for node in graph.node for name in node.input}
    kept = [one for one in graph.initializer if one.name in used or one.name in SETTINGS]
    graph.ClearField("initializer")
    graph.initializer.extend(kept)
    return folded


class _Reader:
    """Stacks one by one, as ONNX Runtime's calibrator asks for them."""

    def __init__(self, stacks: Stacks) -> None:
        self._stacks: Iterator[npt.NDArray[np.uint8]] = iter(stacks)

    def get_next(self) -> dict[str, npt.NDArray[np.uint8]] | None:
        stack = next(self._stacks, None)
        return None if stack is None else {"image": stack}
