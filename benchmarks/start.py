"""Claim: `blemish --help` answers within 0.35 s, a first verdict takes 0.4 s in ONNX Runtime and 2.5 s in torch.

python benchmarks/start.py [--rounds 7]

One process for each call, from its start to its end: the default model (PaDiM on EfficientNet-Lite0), one image.
Modules are compiled beforehand, as pip leaves them. "bare" is a process that imports what the call can't do without and
does nothing: no start is shorter. Processes take turns; numbers are medians. Claims are about seconds of the processor,
which are the same on a machine that does other work as well.
"""

from __future__ import annotations

import compileall
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from common import arguments, claim, report
from runtimes import Installed, default_models

import blemish

GOALS = {"--help": 0.35, "predict, ONNX Runtime": 0.4, "predict, torch": 2.5}
"""Seconds of the processor: what a start takes on a machine that does nothing else."""


def spent(*words: object) -> tuple[float, float]:
    """Seconds of the wall, and of the processor, of a Python process."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *map(str, words)], check=True, capture_output=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--models", type=Path, help="folder that keeps the models for the next benchmark")
    options = parser.parse_args()
    compileall.compile_dir(Path(blemish.__file__).parent, quiet=2)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    with default_models(options.models) as (files, parts):
        image = min((parts / "test").rglob("*.png"))
        calls: dict[str, tuple[object, ...]] = {
            "--help": ("-m", "blemish", "--help"),
            "bare --help": ("-c", "import typer.rich_utils"),
        }
        needed = {"torch": "torch", "ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
        for runtime, file in files.items():
            calls[f"predict, {runtime}"] = ("-m", "blemish", "predict", file, image)
            calls[f"bare predict, {runtime}"] = (
                "-c",
                f"import pydantic, PIL.Image, typer.rich_utils, {needed[runtime]}",
            )
        times: dict[str, list[tuple[float, float]]] = {call: [] for call in calls}
        for number in range(options.rounds + 1):
            for call, words in calls.items():
                once = spent(*words)
                if number:  # the first finds files that aren't in memory yet
                    times[call].append(once)
    rows = [
        {
            "call": call,
            "seconds": median(wall for wall, _ in each),
            "CPU s": median(processor for _, processor in each),
            "times the bare imports": median(processor for _, processor in each)
            / median(processor for _, processor in times[f"bare {call}"]),
        }
        for call, each in times.items()
        if not call.startswith("bare ")
    ]
    spent_by = {str(row["call"]): float(str(row["CPU s"])) for row in rows}
    claims = [
        claim(f"start to end: {call}", f"at most {goal} CPU s", f"{spent_by[call]:.2f} CPU s", spent_by[call] <= goal)
        for call, goal in GOALS.items()
    ]
    report("start", options, rows, claims, Installed())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
