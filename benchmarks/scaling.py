"""Claim: two workers do nearly twice as much as one process, and the process that leads them stays small.

python benchmarks/scaling.py [--images 512] [--names 1000000]

Scoring and observing: one process of one thread, then Ray with one and with two workers of one thread, in turns, the
median of the rounds. Memory: a run over made-up names whose rows cost nothing, in a fresh process. A quarter of an hour
on two free cores.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # as the process that is compared

import torch
from common import Half, Meter, arguments, claim, report, write_images

import blemish
from blemish.data.datamodule import ImageDataModule
from blemish.scale import fitting
from blemish.scale.cluster import cluster
from blemish.scale.images import Images
from blemish.scale.parts import Results
from blemish.scale.pools import ray_pool
from blemish.scale.predictor import Predictor, make_predictor
from blemish.scale.scoring import score

Row = dict[str, Any]
ROUNDS = 3


def row(part: str, case: str, count: int, seconds: float, mb: float | None = None, ratio: float | None = None) -> Row:
    return {
        "part": part,
        "case": case,
        "images": count,
        "seconds": round(seconds, 2),
        "per second": round(count / seconds, 1),
        "MB": None if mb is None else round(mb),
        "ratio": None if ratio is None else round(ratio, 3),
    }


# ------------------------------------------------------------------------------------------- scoring and observing


def scoring(folder: Path, count: int) -> tuple[list[Row], list[Row]]:
    model = blemish.Padim(image_size=256, n_features=50)
    images = write_images(folder / "images" / "good", count)
    blemish.Engine("cpu", progress=False).fit(model, ImageDataModule(write_images(folder / "few" / "good", 24)))
    model.save(folder / "model.safetensors")
    predictor = make_predictor(folder / "model.safetensors", threads=1)
    names = [str(path) for path in sorted(images.iterdir())]
    cases: dict[str, list[float]] = {"one process": [], "Ray, 1 worker": [], "Ray, 2 workers": []}
    observed: dict[str, list[float]] = {"one process": [], "Ray, 1 worker": [], "Ray, 2 workers": []}
    predictor.rows(names[:16], names[:16])
    started = time.perf_counter()
    with cluster(cpus=2) as ray:
        start_up = time.perf_counter() - started
        warm = ray.remote(num_cpus=1)(lambda: (predictor.rows(names[:16], names[:16]), time.sleep(1)))
        ray.get([warm.remote() for _ in range(2)])
        for number in range(ROUNDS):
            cases["one process"].append(seconds_of(lambda: predictor.rows(names, names)))
            for workers in (1, 2):
                out = Results(folder / f"out{workers}-{number}", {})

                def run(out: Results = out, workers: int = workers) -> None:
                    score(ray, predictor, Images([str(images)]), out, cpus=2 // workers)

                cases[f"Ray, {workers} worker{'s' * (workers > 1)}"].append(seconds_of(run))
            observed["one process"].append(seconds_of(lambda: observe_here(folder / "images")))
            for workers in (1, 2):
                key = f"Ray, {workers} worker{'s' * (workers > 1)}"
                observed[key].append(observe_on_ray(folder / "images", workers))
    tables = []
    for part, found in (("score", cases), ("observe", observed)):
        base = found["one process"]
        tables.append(
            [
                row(part, case, count, median(times), ratio=median(b / t for b, t in zip(base, times, strict=True)))
                for case, times in found.items()
            ]
        )
    tables[0].append(row("score", "start of a cluster", 1, start_up))
    return tables[0], tables[1]


def seconds_of(function: Any) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def fresh(folder: Path) -> tuple[Any, ImageDataModule]:
    model = blemish.Padim(image_size=256, n_features=50, post_processor=False)
    data = ImageDataModule(folder, num_workers=0)
    data.transform = model.pre_processor
    _ = data.split
    model.start()
    return model, data


def observe_here(folder: Path) -> None:
    model, data = fresh(folder)
    with torch.no_grad():
        for batch in data.train_dataloader():
            model.observe(model.features(batch.image))
    model.finish()


def observe_on_ray(folder: Path, workers: int) -> float:
    model, data = fresh(folder)
    with ray_pool("cpu", workers, None) as pool:
        return seconds_of(lambda: fitting.fit(model, data, pool))


# ----------------------------------------------------------------------------------------------- memory of the driver


class Free(Predictor):
    """Rows without looking."""

    def rows(self, sources: Any, paths: Any, watch: Any = None) -> list[dict[str, Any]]:
        numbers = {"raw_score": 0.5, "score": 0.5, "threshold": 1.0, "pixel_threshold": 0.5, "seconds": 0.01}
        rest = {"label": "normal", "height": 1024, "width": 1024, "model": "0" * 16, "regions": [], "error": None}
        return [{"path": path, **numbers, **rest} for path in paths]


def lead(model: str, names: str, out: str) -> None:
    """What the fresh process does: prints seconds and the most memory that it held."""
    with cluster(cpus=2) as ray, Meter() as meter:
        score(ray, Free(**vars(make_predictor(model))), Images([names]), Results(Path(out), {}))
    print(meter.seconds, meter.process_mb)


def memory(folder: Path, counts: list[int]) -> list[Row]:
    rows: list[Row] = []
    for count in counts:
        names = folder / f"{count}.txt"
        with names.open("w") as file:
            file.writelines(f"{folder}/archive/2026/line-4/camera-2/{i:09}.png\n" for i in range(count))
        (folder / "archive/2026/line-4/camera-2").mkdir(parents=True, exist_ok=True)
        (folder / "archive/2026/line-4/camera-2/000000000.png").touch()
        command = [sys.executable, __file__, "--lead", str(folder / "model.safetensors"), str(names), f"{names}.out"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, mb = map(float, done.stdout.split())
        rows.append(row("driver", "made-up rows", count, seconds, mb, mb / rows[0]["MB"] if rows else 1.0))
        parts = Path(f"{names}.out")
        rows[-1]["bytes a row"] = sum(part.stat().st_size for part in parts.glob("*.parquet")) / count
    return rows


# -------------------------------------------------------------------------------------------------------------- a plan


def plan(images: int, per_second: float, row_bytes: float, megabytes: float = 1.0) -> Row:
    """What so many images of a megabyte cost, by the rate of one core measured here."""
    hours = images / per_second / 3600
    return {
        "images": images,
        "TB read": images * megabytes / 1e6,
        "core hours": round(hours),
        "hours of 64 cores": round(hours / 64, 1),
        "GB of rows": round(images * row_bytes / 1e9, 2),
        "GB to resume": 16 * images / 1e9,
        "Gbit/s to feed 64 cores": round(64 * per_second * megabytes * 8 / 1000, 2),
    }


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--names", type=int, default=1_000_000)
    parser.add_argument("--lead", nargs=3, metavar=("MODEL", "NAMES", "OUT"), help="one run, for a fresh process")
    options = parser.parse_args()
    if options.lead:
        lead(*options.lead)
        return
    with tempfile.TemporaryDirectory() as folder:
        scored, observed = scoring(Path(folder), options.images)
        led = memory(Path(folder), [10_000, options.names])
    one, two = scored[1]["ratio"], scored[2]["ratio"]
    claims = [
        claim("scoring, two workers against one process", "at least 1.7 x", f"{two:.2f} x", two >= 1.7),
        claim("observing, two workers against one process", "at least 1.6 x", *_at_least(observed[2]["ratio"], 1.6)),
        claim("scoring, cost of Ray for an image", "below 10 %", f"{1 / one - 1:.0%}", 1 / one <= 1.1),
        claim(
            f"memory of the driver, 10,000 to {options.names:,} images", "flat within 10 %", *_flat(led[-1]["ratio"])
        ),
    ]
    del options.lead
    with Half("ours") as ours:
        row_bytes = [line.pop("bytes a row") for line in led][-1]
        plans = [plan(count, scored[0]["per second"], row_bytes) for count in (10**7, 10**9)]
        report("scaling", options, [*scored, *observed, *led], claims, ours)
        report("scaling_plan", options, plans, [], ours)


def _at_least(value: float, goal: float) -> tuple[str, bool]:
    return f"{value:.2f} x", value >= goal


def _flat(value: float) -> tuple[str, bool]:
    return f"{value:.2f} x", value <= 1.1


if __name__ == "__main__":
    main()
