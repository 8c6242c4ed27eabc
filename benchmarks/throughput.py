"""Claim: with a worker for each core a session inspects 1.5 times the images of a plain loop, with the same answers.

python benchmarks/throughput.py [--images 96] [--rounds 3]

The default model (PaDiM on EfficientNet-Lite0) over picture files: a loop that calls a session with one file after the
other, as many threads as the runtime takes by itself; the same in stacks of eight, as `batches` makes them; and with
`workers`, each of which inspects a stack with its share of the cores while others read and mark regions. Ways take
turns; numbers are medians of the rounds. What `workers` gives is compared byte by byte with what the same session gives
without.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))

import torch
from common import arguments, claim, report
from runtimes import Installed, default_models

from blemish.runtime import load
from blemish.runtime.session import Session
from blemish.runtime.threads import shared_out, usable_cores


def loop(session: Session, files: list[Path]) -> list[Any]:
    return [result for file in files for result in session(file)]


def stacked(session: Session, files: list[Path]) -> list[Any]:
    return [result for batch in session.batches(files) for result in batch]


def alike(some: list[Any], others: list[Any]) -> bool:
    """Whether all that results say is the same, to the byte."""
    return all(
        (one.path, one.raw_score, one.label, one.regions) == (other.path, other.raw_score, other.label, other.regions)
        and one.anomaly_map.tobytes() == other.anomaly_map.tobytes()
        and one.mask.tobytes() == other.mask.tobytes()
        for one, other in zip(some, others, strict=True)
    )


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=96)
    parser.add_argument("--models", type=Path, help="folder that keeps the models for the next benchmark")
    options = parser.parse_args()
    workers, threads = shared_out(usable_cores())
    rows: list[dict[str, Any]] = []
    same = True
    with default_models(options.models) as (paths, parts):
        drawn = sorted((parts / "test").rglob("*.png"))
        files = [drawn[number % len(drawn)] for number in range(options.images)]
        for runtime, path in paths.items():
            plain = load(path)
            ways: dict[str, tuple[Callable[[Session, list[Path]], list[Any]], Session]] = {
                "one after the other": (loop, plain),
                "in stacks": (stacked, plain),
                f"{workers} workers": (stacked, load(path, threads=threads, workers=workers)),
            }
            walls: dict[str, list[float]] = {way: [] for way in ways}
            busy: dict[str, list[float]] = {way: [] for way in ways}
            results: list[Any] = []
            for number in range(options.rounds + 1):
                for way, (inspect, session) in ways.items():
                    torch.set_num_threads(threads if session.workers > 1 else usable_cores())  # the process's, not ours
                    wall, processor = time.perf_counter(), time.process_time()
                    results = inspect(session, files[: 16 if number == 0 else None])  # the first round warms up
                    if number:
                        walls[way].append(time.perf_counter() - wall)
                        busy[way].append(time.process_time() - processor)
            same = same and alike(results, stacked(Session(session.backend), files))
            rows += [
                {
                    "runtime": runtime,
                    "way": way,
                    "images/s": len(files) / median(walls[way]),
                    "CPU ms": 1000 * median(busy[way]) / len(files),
                    "times the loop": median(walls["one after the other"]) / median(walls[way]),
                }
                for way in ways
            ]
    last = {row["runtime"]: row["times the loop"] for row in rows}
    claims = [
        claim(f"workers beside a plain loop, {runtime}", "at least 1.5 x the images", f"{gain:.2f} x", gain >= 1.5)
        for runtime, gain in last.items()
    ]
    claims.append(claim("workers give the bytes of a loop in stacks", "yes", "yes" if same else "no", same))
    report("throughput", options, rows, claims, Installed())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
