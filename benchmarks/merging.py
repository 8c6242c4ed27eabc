"""Claim: the states of a thousand workers merge in the memory of a few.

python benchmarks/merging.py [--states 1000]

Merging: states of so many shards, one after the other, and the most memory that one merge held, after a tenth of them
and at the end. Queue: a cluster simulated, one worker of twenty three times slower; the ratio is what is left of the
ideal, the rest is the wait for the last pieces. Takes minutes.
"""

from __future__ import annotations

import heapq
import os
import time
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from common import Half, Meter, arguments, claim, report
from scaling import Row, row

from blemish.models.components.moments import MomentStream
from blemish.models.patchcore.bank import MemoryBank
from blemish.scale.scoring import PIECE

# ------------------------------------------------------------------------------------------------------------ merging


def merging(states: int) -> list[Row]:
    rows = []
    generator = torch.Generator().manual_seed(0)
    positions, channels = 1024, 100
    for case in ("PaDiM, 32 x 32 positions, 100 channels", "bank of 1,000 rows, 112 channels"):
        moments = case.startswith("PaDiM")
        if moments:
            features = torch.randn(256, positions, channels, generator=generator)
            stream: Any = MomentStream()
        else:
            bank = MemoryBank(size=1000, buffer_bytes=256 * 1024 * 4)
            stream = bank
            bank.start()
            features = torch.randn(4, 256, 112, generator=generator)
        peaks = []
        began = time.perf_counter()
        for number in range(states):
            state = shard(features, number, moments)
            with Meter() as meter:
                stream.merge(state)
            if number + 1 in (states // 10, states):
                peaks.append(meter.process_mb or 0.0)
        spent = time.perf_counter() - began
        images = states * (256 if moments else 4)
        rows.append(row("merge", f"{states} states: {case}", images, spent, peaks[-1], peaks[-1] / peaks[0]))
    return rows


_BLOCK: dict[bool, dict[str, torch.Tensor]] = {}


def shard(features: torch.Tensor, number: int, moments: bool) -> dict[str, torch.Tensor]:
    """The state of shard `number`: that of the first one, with other numbers."""
    if moments not in _BLOCK:
        if moments:
            stream = MomentStream()
            for start in range(0, len(features), 32):
                stream.observe(features[start : start + 32])
            _BLOCK[moments] = stream.state()
        else:
            bank = MemoryBank(size=1000, buffer_bytes=256 * 1024 * 4)
            bank.start()
            bank.observe(features)
            _BLOCK[moments] = bank.observed_state()
    state = {name: tensor.clone() for name, tensor in _BLOCK[moments].items()}
    count = len(features)
    state["extent"][3] += number * count
    if moments:
        state["parts"][:, :2] += number * count
    else:
        state["patch_number"] += number * count * features.shape[1]
        state["patches"] += 0.01 * number
    return state


# -------------------------------------------------------------------------------------------------------------- queue


def queue(workers: int, images: int, per_image: float = 0.05, piece: int = PIECE) -> float:
    """Seconds to score images with so many workers, the fastest going on first; every twentieth is 3 x slower."""
    rng = np.random.default_rng(0)
    speed = np.where(np.arange(workers) % 20 == 19, 3.0, 1.0)
    free = [(0.0, worker) for worker in range(workers)]
    end = 0.0
    for _ in range(-(-images // piece)):
        at, worker = heapq.heappop(free)
        at += piece * per_image * speed[worker] * rng.lognormal(0, 0.3)
        end = max(end, at)
        heapq.heappush(free, (at, worker))
    return end


def queues() -> list[Row]:
    rows = []
    for workers in (2, 20, 200, 1000):
        images = 5000 * workers
        spent = queue(workers, images)
        power = sum(1 / 3 if worker % 20 == 19 else 1.0 for worker in range(workers))
        ideal = images * 0.05 * np.exp(0.3**2 / 2) / power
        rows.append(row("queue", f"{workers} workers, simulated", images, spent, ratio=float(ideal / spent)))
    return rows


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--states", type=int, default=1000)
    options = parser.parse_args()
    merged, waited = merging(options.states), queues()
    claims = [
        claim(f"memory of merging {row['case']}", "flat within 10 %", f"{row['ratio']:.2f} x", row["ratio"] <= 1.1)
        for row in merged
    ]
    with Half("ours") as ours:
        report("merging", options, [*merged, *waited], claims, ours)


if __name__ == "__main__":
    main()
