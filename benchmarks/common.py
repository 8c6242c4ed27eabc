"""What every benchmark needs: images, peak memory of a fresh process, and a JSON file that says where it was measured."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    import torch

    import blemish

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "blemish": blemish.__version__,
    }


def report(name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints the rows as a table and writes them to results/<name>.json."""
    columns = list(rows[0])
    cells = [[f"{row[c]:.4g}" if isinstance(row[c], float) else str(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    for line in [columns, ["-" * w for w in widths], *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": machine(), "rows": list(rows)}, indent=2) + "\n")


def write_images(folder: Path, count: int, side: int = 256) -> Path:
    """`count` textured pictures; drawn fast, not to be looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    base = rng.integers(90, 160, (side, side, 3), dtype=np.uint8)
    for i in range(count):
        shifted = np.roll(base, rng.integers(0, side, 2), axis=(0, 1)) + rng.integers(0, 30, dtype=np.uint8)
        Image.fromarray(shifted).save(folder / f"{i:05d}.jpg", quality=90)
    return folder


def peak_megabytes(script: str, *arguments: str) -> float:
    """Runs `python script arguments` in a fresh process and returns its peak resident memory in MB."""
    process = subprocess.Popen([sys.executable, script, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{script} {' '.join(arguments)} failed with exit code {process.returncode}")
    return usage.ru_maxrss / 1024
