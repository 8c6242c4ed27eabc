"""Claim: resizing an image and its map costs half of what whole weight matrices cost, in every runtime.

python benchmarks/resize.py [--rounds 10]

A photograph goes to 256 x 256 pixels and is normalized; a map of 256 x 256 goes back to its size. "whole" multiplies
with the complete matrices of `axis_weights`, "blocks" is the pre-processor, which multiplies blocks of rows with what
they need. Both are exported as graphs with free sizes. One thread; seconds of the processor, so that what else the
machine does counts little; both take turns, medians. A minute and a half.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import onnxruntime
import openvino
import torch
from common import SIDE, arguments, claim, report
from runtimes import Installed
from torch import Tensor, nn

from blemish.functional.resize import apply_weights, axis_weights
from blemish.pre_processing import PreProcessor


class Whole(PreProcessor):
    """The same with matrices of all weights."""

    def forward(self, images: Tensor) -> Tensor:
        values = images.permute(0, 3, 1, 2).to(torch.float32) / 255.0
        vertical, horizontal = (axis_weights(old, SIDE) for old in images.shape[1:3])
        return (apply_weights(values, vertical, horizontal) - self.mean) / self.std

    def restore(self, maps: Tensor, size: Any) -> Any:
        vertical, horizontal = (axis_weights(SIDE, new) for new in size)
        return apply_weights(maps, vertical, horizontal).squeeze(1)


class Both(nn.Module):
    """There and back again, with nothing in between: (N, H, W, 3) -> (N, H, W)."""

    def __init__(self, pre_processor: PreProcessor) -> None:
        super().__init__()
        self.pre_processor = pre_processor

    def forward(self, image: Tensor) -> Tensor:
        inside = self.pre_processor(image)
        restored: Tensor = self.pre_processor.restore(inside[:, :1], (image.shape[1], image.shape[2]))  # type: ignore[assignment]
        return restored


def runtimes(module: nn.Module, path: Path) -> dict[str, Callable[[Any], Any]]:
    free = {axis: torch.export.Dim(name) for axis, name in enumerate("NHW")}
    example = torch.zeros(2, 97, 130, 3, dtype=torch.uint8)
    program: Any = torch.onnx.export(
        module, (example,), dynamo=True, input_names=["image"], dynamic_shapes=(free,), verbose=False
    )
    program.save(path)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level, quiet.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(path, quiet)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return {
        "torch": lambda images: module(torch.from_numpy(images)),
        "ONNX Runtime": lambda images: session.run(None, {"image": images}),
        "OpenVINO": lambda images: request.infer({"image": images}),
    }


@torch.inference_mode()
def measure(
    ways: dict[str, dict[str, Callable[[Any], Any]]], side: int, rounds: int
) -> dict[tuple[str, str], list[float]]:
    image = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    found: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds + 2):  # the first two don't count
        for way, functions in ways.items():
            for runtime, function in functions.items():
                started = time.process_time()
                function(image)
                spent = time.process_time() - started
                if number > 1:
                    found.setdefault((runtime, way), []).append(spent)
    return found


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 700, 1024, 2048])
    options = parser.parse_args()
    rows, claims = [], []
    with tempfile.TemporaryDirectory() as folder:
        ways = {
            name: runtimes(Both(made).eval(), Path(folder) / f"{name}.onnx")
            for name, made in (("whole", Whole(SIDE)), ("blocks", PreProcessor(SIDE)))
        }
        for side in options.sides:
            found = measure(ways, side, options.rounds)
            for runtime in ways["whole"]:
                whole, blocks = (1000 * median(found[runtime, way]) for way in ("whole", "blocks"))
                share = blocks / whole
                rows.append(
                    {"image": f"{side} x {side}", "runtime": runtime, "whole ms": whole, "blocks ms": blocks}
                    | {"ratio": round(share, 3)}
                )
                if side == 1024:
                    text = f"resizing 1,024 x 1,024 pixels and the map back, {runtime}"
                    claims.append(claim(text, "at most 0.5 of whole matrices", f"{share:.2f}", share <= 0.5))
    report("resize", options, rows, claims, Installed())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
