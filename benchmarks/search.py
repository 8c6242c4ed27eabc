"""Claim: finding nearest neighbors exactly costs PatchCore hardly more than the products it can't do without.

python benchmarks/search.py [--rounds 5]

The patches of an image among the rows of a bank, as PatchCore on EfficientNet-Lite0 has them: 64 x 64 patches of 176
channels. "products" is the matrix product of all patches with all rows alone, in the same runtime; times don't depend
on what the numbers are. Products in other precisions are for a part of the patches and are scaled up: what a ranking in
fewer bits could save on this processor. One thread; seconds of the processor; everything takes turns, medians.
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

import onnxruntime
import openvino
import torch
from common import arguments, claim, ratio, report
from runtimes import Installed
from torch import Tensor, nn

from blemish.functional.distances import nearest, square_norms

PATCHES, CHANNELS, PART = 64 * 64, 176, 64


class Search(nn.Module):
    """(Q, D) -> distances (Q, 1)."""

    def __init__(self, bank: Tensor) -> None:
        super().__init__()
        self.register_buffer("bank", bank)
        self.register_buffer("norms", square_norms(bank))

    def forward(self, patches: Tensor) -> Tensor:
        return nearest(patches, self.bank, self.norms).distance


class Products(Search):
    """(Q, D) -> (Q, M)."""

    def forward(self, patches: Tensor) -> Tensor:
        return patches @ self.bank.mT


def runtimes(module: nn.Module, path: Path) -> dict[str, Callable[[Tensor], Any]]:
    example, free = torch.zeros(PART, CHANNELS), ({0: torch.export.Dim("Q")},)
    program: Any = torch.onnx.export(
        module, (example,), dynamo=True, input_names=["patches"], dynamic_shapes=free, verbose=False
    )
    program.save(path)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level, quiet.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(path, quiet)
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()
    return {
        "torch": lambda patches: [module(part) for part in patches.split(1024)],
        "ONNX Runtime": lambda patches: session.run(None, {"patches": patches.numpy()}),
        "OpenVINO": lambda patches: request.infer({"patches": patches.numpy()}),
    }


def whole(part: Tensor) -> Tensor:
    """Numbers as 8-bit integers."""
    return (part * 40).clamp(-127, 127).to(torch.int8)


@torch.inference_mode()
def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8000)
    options = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    bank, patches = (torch.randn(count, CHANNELS, generator=generator) for count in (options.rows, PATCHES))
    few = patches[:PART]
    runs: dict[tuple[str, str], tuple[Callable[[], Any], float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, module in (("search", Search(bank)), ("products", Products(bank))):
            for runtime, function in runtimes(module.eval(), Path(folder) / f"{name}.onnx").items():
                runs[runtime, name] = (lambda function=function: function(patches), 1.0)
        scale = PATCHES / PART
        for name, left, right, product in (
            ("bfloat16", few.bfloat16(), bank.bfloat16().mT, torch.mm),
            ("int8", whole(few), whole(bank).mT, torch._int_mm),
        ):
            runs["torch", f"products in {name}"] = (lambda p=product, x=left, y=right: p(x, y), scale)
        spent: dict[tuple[str, str], list[float]] = {key: [] for key in runs}
        for number in range(options.rounds + 1):  # the first doesn't count
            for key, (function, times) in runs.items():
                started = time.process_time()
                function()
                if number:
                    spent[key].append(times * (time.process_time() - started))
    found = {key: median(values) for key, values in spent.items()}
    rows = [
        {"runtime": runtime, "what": what, "ms": 1000 * seconds}
        | {"times the products": ratio(seconds, found[runtime, "products"])}
        for (runtime, what), seconds in sorted(found.items())
    ]
    over = found["torch", "search"] / found["torch", "products"]
    text = f"exact search of {PATCHES:,} patches in {options.rows:,} rows, torch"
    claims = [claim(text, "at most 1.3 x its products", f"{over:.2f} x", over <= 1.3)]
    report("search", options, rows, claims, Installed())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
