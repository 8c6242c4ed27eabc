"""Claim: an exported file gives its first verdict within a second of starting a process, without torch.

python benchmarks/runtimes.py [--rounds 30] [--backbone resnet18]

One PatchCore in torch, ONNX Runtime and OpenVINO, exported in float32 and with 8-bit integers. A verdict starts with an
image file and ends with score, map, mask and regions in its own pixels; the backbone alone is cut out of the same file
and timed in the same runtime. The runtimes take turns in blocks of ten images; the first two of a block don't count,
because the threads of the runtime before still wait for work then. A first verdict is a whole process, from its start
to its end. Each runtime uses as many threads as it takes by itself.
"""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import SIDE, arguments, claim, draw_parts, ratio, report

BLOCK = 10
FIRST = "import sys; from blemish.runtime import load; print(load(sys.argv[1])(sys.argv[2])[0].label)"
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@contextmanager
def default_models(kept: Path | None) -> Iterator[tuple[dict[str, Path], Path]]:
    """The default preset's model in every runtime, and the drawn parts; `kept` has them for the next benchmark."""
    from blemish import Engine, ImageDataModule, Padim, load_detector
    from blemish.presets import PRESETS

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if kept is None else kept
        files = {"torch": folder / "m.safetensors", "ONNX Runtime": folder / "m.onnx", "OpenVINO": folder / "m.xml"}
        parts = folder / "parts" / "tile"
        if not files["torch"].exists():
            draw_parts(folder / "parts", 30, test=8)
            keys = ("backbone", "grid_stride", "shrinkage", "worst_share")
            model = Padim(**{key: PRESETS["default"][key] for key in keys})
            Engine("cpu", progress=False).fit(model, ImageDataModule(parts, num_workers=0))
            model.save(files["torch"])
        for runtime, file in files.items():
            if not file.exists():
                load_detector(files["torch"]).export(file, runtime.removesuffix(" Runtime").lower(), images=parts)
        yield files, parts


def torch_backbone(model: Any) -> Callable[[Any], Any]:
    import torch

    def run(images: Any) -> Any:
        with torch.inference_mode():
            return model.extractor(torch.from_numpy(images))

    return run


def onnx_backbone(path: Path) -> Callable[[Any], Any]:
    """The nodes of the backbone, and those that quantize, as a graph of their own."""
    import onnx
    import onnxruntime
    from onnx import helper

    from blemish.export.onnx import BACKBONE

    model = onnx.load(path)
    graph = model.graph
    inside, outside = [], []
    for node in graph.node:
        (inside if node.name.startswith(BACKBONE) or node.op_type in QUANTIZERS else outside).append(node)
    constants = [node for node in outside if node.op_type == "Constant"]
    known = {one.name for one in graph.initializer} | {name for node in (*inside, *constants) for name in node.output}
    made = {name for node in inside for name in node.output}
    taken = sorted({name for node in inside for name in node.input if name} - known)
    given = sorted({name for node in outside for name in node.input} & made)
    sides = [
        [helper.make_tensor_value_info(one, onnx.TensorProto.FLOAT, None) for one in side] for side in (taken, given)
    ]
    part = helper.make_graph([*constants, *inside], "backbone", *sides, initializer=graph.initializer)
    whole = helper.make_model(part, opset_imports=model.opset_import, ir_version=model.ir_version)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3  # errors: it warns of numbers that the part doesn't use
    session = onnxruntime.InferenceSession(whole.SerializeToString(), quiet)
    (name,) = taken
    return lambda images: session.run(None, {name: images})


def openvino_backbone(path: Path) -> Callable[[Any], Any]:
    import openvino
    from openvino import opset13

    from blemish.export.onnx import BACKBONE

    model = openvino.Core().read_model(path)
    parameter = opset13.parameter([-1, 3, -1, -1], np.float32)
    # What lies between two nodes of the backbone is of the backbone, too: biases have names of OpenVINO's own.
    order = model.get_ordered_ops()
    sources = {op.get_friendly_name(): [port.get_source_output() for port in op.inputs()] for op in order}
    within = [op.get_friendly_name() for op in order if op.get_friendly_name().startswith(BACKBONE)]
    after, before = set(within), set(within)
    for name, feeding in sources.items():
        if any(one.get_node().get_friendly_name() in after for one in feeding):
            after.add(name)
    for name, feeding in reversed(sources.items()):
        if name in before:
            before.update(one.get_node().get_friendly_name() for one in feeding)
    inside = {*within, *(after & before)}
    given = []
    for op in order:
        own = op.get_friendly_name() in inside
        for port in op.inputs():
            source = port.get_source_output()
            other = source.get_node().get_friendly_name() in inside
            if own and not other and source.get_partial_shape().is_dynamic:  # constants have a fixed shape
                port.replace_source_output(parameter.output(0))
            elif other and not own:
                given.append(source)
    cut = openvino.Model([opset13.result(one) for one in dict.fromkeys(given)], [parameter])
    compiled = openvino.Core().compile_model(cut, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: compiled([images])


def first_verdict(model: Path, image: Path) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", FIRST, model, image], check=True, capture_output=True)
    return time.perf_counter() - started


def block(function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[float]:
    """Seconds of `BLOCK` calls."""
    found = []
    for number in range(BLOCK + 2):
        started = time.perf_counter()
        function(arguments[number % len(arguments)])
        found.append(time.perf_counter() - started)
    return found[2:]


class Installed:
    """Answers as `common.Half` does, with the versions of these libraries; everything runs here."""

    name = "ours"

    def __init__(self, *libraries: str) -> None:
        self.libraries = ("blemish", *(libraries or ("torch", "onnxruntime", "openvino")))

    def __call__(self, task: str) -> dict[str, Any]:
        return {name: importlib.import_module(name).__version__ for name in self.libraries}


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--starts", type=int, default=5, help="processes for a first verdict")
    parser.add_argument("--images", type=int, default=50, help="to fit on; a tenth of their patches make the bank")
    parser.add_argument("--backbone", default="resnet18", help="a timm name; its weights are random: only times count")
    options = parser.parse_args()
    from blemish import Engine, ImageDataModule, Patchcore
    from blemish.export import exporting
    from blemish.export.report import Limits
    from blemish.runtime import load

    # For times alone: distances between drawn parts are as small as the steps of 8 bits, and would be refused.
    exporting.int8_limits = lambda max_flips: Limits(1e9, 1e9, max_flips)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = draw_parts(folder / "parts", options.images, test=8)
        model = Patchcore(backbone=options.backbone, pretrained=False, image_size=SIDE)
        Engine("cpu").fit(model, ImageDataModule(parts, num_workers=0))
        model.save(folder / "model.safetensors")
        files = {("torch", "float32"): folder / "model.safetensors"}
        backbones = {("torch", "float32"): torch_backbone(model)}
        for mode, runtime, cut in (
            ("onnx", "ONNX Runtime", onnx_backbone),
            ("openvino", "OpenVINO", openvino_backbone),
        ):
            for precision in ("float32", "int8"):
                request = {"int8": True, "max_flips": 10**6} if precision == "int8" else {}
                done = model.export(folder / f"{precision}", mode, images=parts, **request)
                files[runtime, precision], backbones[runtime, precision] = done.path, cut(done.path)
        sessions = {key: load(path) for key, path in files.items()}
        images = sorted((parts / "test").rglob("*.png"))
        ready = np.random.default_rng(0).standard_normal((1, 3, SIDE, SIDE), dtype=np.float32)
        verdicts: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
        alone: dict[tuple[str, str], list[float]] = {key: [] for key in sessions}
        for _ in range(max(1, options.rounds // BLOCK)):
            for key, session in sessions.items():
                verdicts[key] += block(session, images)
                alone[key] += block(backbones[key], [ready])
        rows, firsts = [], {}
        for (runtime, precision), path in files.items():
            verdict, backbone = (1000 * median(one[runtime, precision]) for one in (verdicts, alone))
            firsts[runtime, precision] = median(first_verdict(path, images[0]) for _ in range(options.starts))
            weights = [one for one in (path, path.with_suffix(".bin")) if one.exists()]
            rows.append(
                {
                    "runtime": runtime,
                    "backbone in": precision,
                    "file MB": sum(one.stat().st_size for one in weights) / 2**20,
                    "file to verdict ms": verdict,
                    "backbone alone ms": backbone,
                    "times the backbone": ratio(verdict, backbone),
                    "images/s": 1000 / verdict,
                    "first verdict s": firsts[runtime, precision],
                }
            )
        first = firsts["ONNX Runtime", "float32"]
        text = "first verdict of a new process, ONNX Runtime, no torch"
        claims = [claim(text, "under 1 s", f"{first:.2f} s", first < 1)]
        report("runtimes", options, rows, claims, Installed())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
