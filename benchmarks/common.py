"""What every benchmark needs: images, weights, a clock, peak memory, the two processes that are compared, a report.

Each library runs in a process of its own, `ours.py` in this environment and `peer.py` in `.venv-peer`. Both answer the
same requests, one JSON line each, so that a benchmark can let them take turns: what else the machine does meanwhile
hits both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

HERE = Path(__file__).parent
PYTHON = {"ours": Path(sys.executable), "peer": HERE.parent / ".venv-peer" / "bin" / "python"}
SIDE = 256
"""Images are inspected at 256 x 256."""
BATCH = 8
"""Images per batch wherever a whole set is passed through."""
CORESET_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(8 * 2**20)}
"""For the other library's coreset below 35 images: it makes a temporary of all points for each one that it selects, and
until version 2.38 glibc puts each of them behind the last, which takes more than 20 GB. From 35 images on they exceed
32 MB and are given back in any case."""


# ------------------------------------------------------------------------------------------------------- a benchmark


def arguments(description: str, *, device: bool = True, peer: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that benchmarks share: where to compute, and whether to leave the other library out."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if device:
        parser.add_argument("--device", default="cpu", help="cpu or cuda")
    if peer:
        parser.add_argument("--no-peer", action="store_true", help="leave the other library out")
    parser.add_argument("--output", type=Path, default=HERE / "results", help="folder of the JSON file")
    return parser


def claim(text: str, goal: str, measured: str, met: bool) -> dict[str, Any]:
    """One line of the summary: what is claimed, what was to be reached, what was measured just now."""
    return {"claim": text, "goal": goal, "measured": measured, "met": met}


def report(
    name: str,
    options: argparse.Namespace,
    rows: Sequence[dict[str, Any]],
    claims: Sequence[dict[str, Any]] = (),
    *halves: Half | None,
) -> None:
    """Prints the rows as a table and writes rows, claims, machine and versions to <output>/<name>.json."""
    columns = list(rows[0])
    cells = [[show(row[c]) for c in columns] for row in rows]
    widths = [max(len(c), *(len(row[i]) for row in cells)) for i, c in enumerate(columns)]
    for line in [columns, ["-" * w for w in widths], *cells]:
        print("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    for line in claims:
        print(f"{'reached' if line['met'] else 'MISSED '}  {line['claim']}: {line['measured']} (goal: {line['goal']})")
    record = {
        "machine": machine(),
        "versions": {half.name: half("versions") for half in halves if half is not None},
        "arguments": {
            key: value.name
            if isinstance(value, Path)
            else value  # where files lie on this machine is nobody's business
            for key, value in vars(options).items()
            if key != "output"
        },
        "rows": list(rows),
        "claims": list(claims),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}.json").write_text(json.dumps(record, indent=2) + "\n")


def show(value: Any) -> str:
    """A cell of a table: three digits are enough for a measurement."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)


def machine() -> dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        cpu = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), cpu)
    return {"cpu": cpu, "cores": os.cpu_count(), "python": platform.python_version()}


# ----------------------------------------------------------------------------------------------------- two processes


class Half:
    """A process that runs one of the two libraries, "ours" or "peer"; call it with a task and its arguments."""

    def __init__(self, name: str, environment: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [PYTHON[name], HERE / f"{name}.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def __call__(self, task: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"task": task, **arguments}, default=str) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self._log.seek(0)
            raise SystemExit(f"{self._log.read()[-4000:]}\n{self.name}.py failed at {task!r}, see above.")
        result: dict[str, Any] = json.loads(answer)
        return result

    def __enter__(self) -> Half:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._process.communicate()  # ends its input, and waits
        self._log.close()


@contextmanager
def halves(
    options: argparse.Namespace, peer_environment: Mapping[str, str] | None = None
) -> Iterator[tuple[Half, Half | None]]:
    """Both libraries, each in a fresh process; the second is None where it isn't installed or wanted."""
    with Half("ours") as ours:
        if not with_peer(options):
            yield ours, None
            return
        with Half("peer", peer_environment) as peer:
            yield ours, peer


def with_peer(options: argparse.Namespace) -> bool:
    if options.no_peer:
        return False
    if not PYTHON["peer"].exists():
        print("Without the other library: `make bench-peer` installs it into .venv-peer.", file=sys.stderr)
        return False
    return True


def serve(tasks: dict[str, Callable[..., dict[str, Any]]]) -> None:
    """The other end of `Half`: answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    for line in sys.stdin:
        request = json.loads(line)
        print(json.dumps(tasks[request.pop("task")](**request)), file=answers, flush=True)


class Meter:
    """Seconds and peak memory of a `with` block.

    Attributes:
        seconds: wall time.
        peak_mb: most memory held above what was held before, of the process or, on CUDA, of the device. None where the
            system doesn't tell.
        process_mb: most memory held by the process, likewise.
    """

    def __init__(self, device: str = "cpu") -> None:
        self._cuda = device != "cpu"

    def __enter__(self) -> Meter:
        if self._cuda:
            import torch

            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before: float | None = torch.cuda.memory_allocated() / 2**20
        else:
            _reset_peak()
            self._before = status_mb("VmRSS")
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._cuda:
            import torch

            torch.cuda.synchronize()
        self.seconds = time.perf_counter() - self._start
        if self._cuda:
            self.process_mb: float | None = torch.cuda.max_memory_allocated() / 2**20
        else:
            self.process_mb = status_mb("VmHWM")
        known = self.process_mb is not None and self._before is not None
        self.peak_mb = self.process_mb - self._before if known else None


def status_mb(field: str) -> float | None:
    """VmRSS of this process, or VmHWM, its peak; unlike `ru_maxrss` it knows nothing of who started the process."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return next(int(line.split()[1]) / 1024 for line in status.read_text().splitlines() if line.startswith(field))


def _reset_peak() -> None:
    """Lets the kernel count the peak of resident memory from here on: exact, where sampling could miss it."""
    control = Path("/proc/self/clear_refs")
    if control.exists():
        control.write_text("5")


def seconds(function: Callable[[], Any], repetitions: int, device: str = "cpu") -> list[float]:
    """Wall times of single calls, after one that isn't counted."""
    function()
    times = []
    for _ in range(repetitions):
        with Meter(device) as meter:
            function()
        times.append(meter.seconds)
    return times


def ratio(whole: float | None, part: float | None) -> float | None:
    return None if whole is None or part is None else round(whole / part, 3)


def medians(times: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Medians of the numbers, or lists of numbers, that several answers give under one name."""
    values: dict[str, list[float]] = {}
    for answer in times:
        for key, value in answer.items():
            values.setdefault(key, []).extend(value if isinstance(value, list) else [value])
    return {key: median(numbers) for key, numbers in values.items()}


# ------------------------------------------------------------------------------------------------------------ inputs


def draw_parts(folder: Path, good: int, *, test: int = 0, product: str = "tile") -> Path:
    """A product in the layout of MVTec AD: `good` images to fit on, `test` other good ones, half as many per defect."""
    from blemish.synthetic.products import write_dataset

    return write_dataset(folder, product=product, good_train=good, good_test=test, per_defect=test // 2)


def draw_weights(folder: Path, backbone: str = "resnet18") -> Path:
    """Random weights of a timm model, the same ones on every machine, for both libraries to load."""
    import timm
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    # With timm's default every residual block starts as the identity, and features would be those of a shallow network.
    model = timm.create_model(backbone, pretrained=False, zero_init_last=False)
    save_file(model.state_dict(), folder / f"{backbone}.safetensors")
    return folder / f"{backbone}.safetensors"


def files(folder: str | Path) -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if path.suffix in (".png", ".jpg"))


def read(path: str | Path) -> np.ndarray[Any, Any]:
    """(H, W, 3) uint8."""
    return np.asarray(Image.open(path).convert("RGB"))


def map_and_mask(index: int, side: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """A made-up anomaly map (side, side), float32 in [0, 1), and its bool mask; every second one has three defects."""
    rng = np.random.default_rng(index)
    mask = np.zeros((side, side), dtype=bool)
    for _ in range(3 * (index % 2)):
        top, left = rng.integers(0, side - side // 8, 2)
        mask[top : top + side // rng.integers(10, 40), left : left + side // rng.integers(10, 40)] = True
    noise = rng.random((side, side), dtype=np.float32)
    return np.where(mask, 0.3 + 0.7 * noise, noise**2).astype(np.float32), mask


def write_images(folder: Path, count: int, side: int = SIDE) -> Path:
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
