"""Claim: the base weighs less than 200 MB, and runs exported files with one runtime below 400 MB.

python benchmarks/install.py [--extras - onnx train all]

Packages, megabytes on disk, and seconds, for each extra, installed from this checkout into an environment of its own;
"-" is the base. Bytes are those of files in site-packages, without pip. Seconds depend on the network and on what pip
kept. `--index URL` takes packages from another index first, such as PyTorch's of builds for the CPU alone.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import HERE, Half, arguments, claim, report

LIMITS = {"-": 200, "onnx": 400}
"""Megabytes."""


def install(extra: str, index: str | None) -> dict[str, Any]:
    """The row of one extra."""
    with tempfile.TemporaryDirectory() as name:
        subprocess.run([sys.executable, "-m", "venv", name], check=True)
        wanted = str(HERE.parent) + ("" if extra == "-" else f"[{extra}]")
        more = [] if index is None else ["--extra-index-url", index]
        started = time.perf_counter()
        subprocess.run([f"{name}/bin/python", "-m", "pip", "install", "--quiet", wanted, *more], check=True)
        seconds = time.perf_counter() - started
        (packages,) = Path(name).glob("lib/python*/site-packages")
        own = [one for one in packages.iterdir() if not one.name.startswith("pip")]
        files = [file for one in own for file in ([one] if one.is_file() else one.rglob("*")) if file.is_file()]
        return {
            "extra": extra,
            "packages": sum(one.suffix == ".dist-info" for one in own),
            "MB": sum(file.stat().st_size for file in files) / 1e6,
            "seconds": seconds,
        }


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--extras", nargs="+", default=["-", "onnx", "openvino", "train", "serve", "all"])
    parser.add_argument("--index", help="another index, whose builds win where their version is higher")
    options = parser.parse_args()
    rows = [install(extra, options.index) for extra in options.extras]
    options.index = None if options.index is None else "given"
    with Half("ours") as ours:
        claims = [
            claim(
                f"an installation with extra {row['extra']}",
                f"at most {LIMITS[row['extra']]} MB",
                f"{row['MB']:.0f} MB",
                row["MB"] <= LIMITS[row["extra"]],
            )
            for row in rows
            if row["extra"] in LIMITS
        ]
        report("install", options, rows, claims, ours)


if __name__ == "__main__":
    main()
