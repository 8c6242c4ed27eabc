"""Work on a cluster of several machines, all of them here; prints what happened as JSON.

python machines.py fit|score|full|start ARGUMENTS
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}

import numpy as np
import pyarrow.parquet as pq

from blemish.artifact import save
from blemish.data.datamodule import ImageDataModule
from blemish.engine import Engine
from blemish.errors import UsageError
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.scale.cluster import cluster
from blemish.scale.images import Images
from blemish.scale.parts import Results
from blemish.scale.predictor import make_predictor
from blemish.scale.scoring import score


class Machines:
    """A head that does no work, and two machines of one CPU each, of which one can be lost."""

    def __init__(self, **options: Any) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **options})
        self.nodes = [self.cluster.add_node(num_cpus=1, **options) for _ in range(2)]
        self.cluster.wait_for_nodes()
        self.lost = 0

    def losing_one(self, work: Callable[[], None]) -> None:
        """Does the work, in the midst of which the second machine goes away."""
        over = threading.Event()
        thread = threading.Thread(target=self._lose, args=(over,))
        thread.start()
        try:
            work()
        finally:
            over.set()
            thread.join()

    def _lose(self, over: threading.Event) -> None:
        (raylet,) = self.nodes[1].all_processes["raylet"]
        while not over.is_set():
            if any(self._at_work(raylet.process.pid)):
                self.cluster.remove_node(self.nodes[1], allow_graceful=False)
                self.lost += 1
                return
            time.sleep(0.01)

    @staticmethod
    def _at_work(raylet: int) -> list[bool]:
        found = []
        for process in Path("/proc").iterdir():
            try:
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                title = (process / "cmdline").read_bytes().decode()
            except (OSError, ValueError, IndexError):
                continue
            found.append(parent == raylet and title.startswith(("ray::_checked", "ray::_score")))
        return found


def padim(**settings: Any) -> Detector:
    return detectors()["padim"].build(backbone="filter_bank", **{"image_size": 64, "n_features": 8} | settings)


def fit(data: str, folder: str) -> dict[str, Any]:
    machines = Machines()
    with cluster(machines.cluster.address):
        machines.losing_one(lambda: fit_both(Path(folder), lambda: ImageDataModule(data, num_workers=0), padim))
    return {"lost": machines.lost}


def fit_both(folder: Path, data: Callable[[], ImageDataModule], build: Callable[[], Detector]) -> None:
    for name, strategy in (("one", "auto"), ("many", "ray")):
        model = build()
        Engine("cpu", strategy=strategy, progress=False).fit(model, data())
        save(model, folder / f"{name}.safetensors")


def scored(model: str, listed: str, folder: str) -> dict[str, Any]:
    machines, results = Machines(), Results(Path(folder) / "rows", {})
    with cluster(machines.cluster.address) as ray:
        machines.losing_one(lambda: score(ray, make_predictor(model), Images([listed]), results))
    rows = [row for part in sorted(results.folder.glob("part-*")) for row in pq.read_table(part).to_pylist()]
    return {"lost": machines.lost, "rows": [[row["path"], row["label"]] for row in rows]}


def full(folder: str) -> dict[str, Any]:
    """80 MB are all that a machine holds, and most of it is somebody else's."""
    disk = Path(folder) / "spilled"
    machines = Machines(object_store_memory=80 * 2**20, object_spilling_directory=str(disk))
    images = list(np.random.default_rng(0).integers(0, 256, (96, 128, 128, 3), dtype=np.uint8))

    def data() -> ImageDataModule:
        return ImageDataModule.from_arrays(images, num_workers=0, batch_size=4, calibrate_on="cross")

    with cluster(machines.cluster.address) as ray:
        spilled = threading.Event()
        watching = threading.Thread(target=watch, args=(disk, spilled), daemon=True)
        watching.start()
        others = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(lambda: np.ones(35 * 2**20, np.uint8))
        held = [others.remote() for _ in range(4)]
        ray.wait(held, num_returns=4)
        fit_both(Path(folder), data, lambda: padim(image_size=128, n_features=64))
        kept = [int(ray.get(one).sum()) for one in held]
    return {"spilled": spilled.is_set(), "kept": kept}


def watch(disk: Path, spilled: threading.Event) -> None:
    while not any(file.is_file() for file in disk.rglob("*")):
        time.sleep(0.05)
    spilled.set()


def start() -> dict[str, Any]:
    os.environ["RAY_TMPDIR"] = "/proc/nowhere"
    try:
        with cluster(cpus=1):
            return {"error": None}
    except UsageError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    kind, *given = sys.argv[1:]
    token = Path(given[-1]) / "token"  # else Ray leaves one in the home folder
    token.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    done = start() if kind == "start" else {"fit": fit, "score": scored, "full": full}[kind](*given)
    print(json.dumps(done))
