"""Claim: what lies around the backbone takes no longer than the backbone, from file to verdict in OpenVINO.

python benchmarks/anatomy.py [--rounds 30]

Where the milliseconds go, part by part, and what the machine would allow. The default model (PaDiM on
EfficientNet-Lite0), the `fast` preset and PatchCore on the same backbone with a tenth of the patches, one image at a
time. In torch every part of the path is timed by itself; a part can't take less than its products (counted by torch) at
the speed of a large matrix product here, nor less than its tensors at the speed of copying here: the larger of the two
is its bound. Exported graphs are profiled by their runtimes, which makes them slower; nodes are put together as what
comes before the first convolution, up to the last one, and behind. Sessions are timed without, also for an image of
1024 x 1024: from file to verdict with mask and regions, with the normalized map, which is made when somebody looks at
it, and with `verdict_only`. Numbers are medians of the rounds, which take turns.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import torch
from common import SIDE, arguments, claim, draw_parts, report
from PIL import Image
from runtimes import BLOCK, Installed, block
from torch.utils.flop_counter import FlopCounterMode

from blemish import Engine, ImageDataModule, Padim, Patchcore
from blemish.data.image_io import read_image
from blemish.functional.regions import find_regions
from blemish.presets import PRESETS
from blemish.runtime import load
from blemish.runtime.time_sheet import PARTS, OnnxProfile, OpenVinoProfile

Row = dict[str, Any]
Times = dict[str, list[float]]
LARGE = 1024
IMAGE = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)


def multiplying() -> float:
    """Multiplications and additions per second of a large product."""
    side = 1024
    left, right = torch.randn(side, side), torch.randn(side, side)
    return 2 * side**3 / min(once(lambda: left @ right)[1] for _ in range(20))


def moving(size: int) -> float:
    """Seconds to read and write this many bytes, half of them each, again and again: small ones stay in caches."""
    given, taken = torch.ones(size // 2, dtype=torch.uint8), torch.zeros(size // 2, dtype=torch.uint8)
    return min(once(lambda: taken.copy_(given))[1] for _ in range(20))


def once(function: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    value = function()
    return value, time.perf_counter() - started


def stages(model: Any, file: Path) -> list[tuple[str, Callable[[Any], Any], tuple[Any, ...]]]:
    """Name, function of what the stage before made, modules whose tensors it reads."""
    knowledge = model.gaussians if hasattr(model, "gaussians") else model.bank
    return [
        ("read and decode", lambda _: torch.from_numpy(read_image(file))[None], ()),
        ("resize, normalize", model.pre_processor, (model.pre_processor,)),
        ("backbone", model.extractor, (model.extractor,)),
        ("embed", model.embed, ()),
        ("score and map", model.score, (knowledge, model.map_maker)),
        (
            "restore to original pixels",
            lambda scored: (scored[0], model.pre_processor.restore(scored[1], (SIDE, SIDE))),
            (),
        ),
        ("decide", lambda raw: decide(model, *raw), ()),
        ("regions", lambda batch: find_regions(batch.pred_mask[0].numpy(), batch.anomaly_map[0].numpy()), ()),
    ]


def decide(model: Any, scores: torch.Tensor, maps: torch.Tensor) -> Any:
    from blemish.data.batch import InferenceBatch

    return model.post_processor(InferenceBatch(pred_score=scores, anomaly_map=maps))


def nbytes(value: Any) -> int:
    """Bytes of the tensors in a value."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    return sum(map(nbytes, value)) if isinstance(value, (list, tuple)) else 0


@torch.inference_mode()
def bounds(model: Any, file: Path) -> dict[str, float | None]:
    """Seconds that each stage needs at least."""
    speed = multiplying()
    value: Any = None
    found: dict[str, float | None] = {}
    for name, function, modules in stages(model, file):
        counter = FlopCounterMode(display=False)
        with counter:
            after = function(value)
        held = sum(one.nbytes for module in modules for one in (*module.parameters(), *module.buffers()))
        moved = nbytes(value) + nbytes(after) + held
        found[name] = max(counter.get_total_flops() / speed, moving(moved))
        value = after
    return found | {"read and decode": None, "decide": None, "regions": None}  # no products, hardly any bytes


class Stages:
    """A detector in torch, stage by stage."""

    def __init__(self, model: Any, file: Path) -> None:
        self.model, self.file = model.eval(), file
        self.found: Times = {}

    @torch.inference_mode()
    def __call__(self) -> None:
        value: Any = None
        for name, function, _ in stages(self.model, self.file):
            started = time.perf_counter()
            value = function(value)
            self.found.setdefault(name, []).append(time.perf_counter() - started)

    def times(self) -> Times:
        return {name: spent[1:] for name, spent in self.found.items()}


def times_of(profile: Any) -> Times:
    """Seconds of each part in every round but the first."""
    if isinstance(profile, Stages):
        return profile.times()
    return {part: list(spent) for part, spent in zip(PARTS, zip(*profile.seconds(), strict=True), strict=True)}


def ways(path: Path) -> dict[str, Callable[[Any], Any]]:
    """How a model is asked about a file."""
    session, alone = load(path), load(path, verdict_only=True)
    return {
        "file to verdict": session,
        "file to normalized map": lambda file: session(file)[0].anomaly_map,
        "verdict only": alone,
    }


def rows_of(detector: str, runtime: str, times: Times, least: dict[str, float | None]) -> list[Row]:
    spent = {name: 1000 * median(values) for name, values in times.items()}
    total = sum(spent.values())
    rows: list[Row] = []
    for name, ms in [*spent.items(), ("sum", total)]:
        bound = least.get(name)
        rows.append(
            {
                "detector": detector,
                "runtime": runtime,
                "part": name,
                "ms": ms,
                "share": f"{ms / total:.0%}",
                "bound ms": None if bound is None else 1000 * bound,
                "times the backbone": ms / spent["backbone"],
            }
        )
    return rows


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", type=int, default=50, help="to fit on")
    options = parser.parse_args()
    settings = PRESETS["default"]
    padim = {key: settings[key] for key in ("backbone", "grid_stride", "shrinkage", "worst_share")}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = draw_parts(folder / "parts", options.images, test=4)
        file, large = min((parts / "test").rglob("*.png")), folder / "large.png"
        Image.fromarray(read_image(file)).resize((LARGE, LARGE)).save(large)
        for detector, model in (
            ("padim, default", Padim(**padim)),
            ("padim, fast", Padim(**padim, image_size=PRESETS["fast"]["image_size"])),
            ("patchcore", Patchcore(backbone=settings["backbone"])),
        ):
            Engine("cpu", progress=False).fit(model, ImageDataModule(parts, num_workers=0))
            onnx = model.export(folder / f"{detector}-onnx", "onnx", images=parts).path
            openvino = model.export(folder / f"{detector}-openvino", "openvino", images=parts).path
            model.save(folder / "model.safetensors")
            profiles: dict[str, Any] = {
                "torch": Stages(model, file),
                "ONNX Runtime": OnnxProfile(onnx, IMAGE, folder),
                "OpenVINO": OpenVinoProfile(openvino, IMAGE),
            }
            paths = (folder / "model.safetensors", onnx, openvino)
            sessions = {runtime: ways(path) for runtime, path in zip(profiles, paths, strict=True)}
            whole: dict[str, Times] = {runtime: {} for runtime in profiles}
            for _ in range(max(1, options.rounds // BLOCK)):
                for runtime, profile in profiles.items():
                    for _ in range(BLOCK):
                        profile()
                    for image, size in ((file, ""), (large, f", {LARGE} x {LARGE}")):
                        for kind, judge in sessions[runtime].items():
                            whole[runtime].setdefault(f"{kind}, by a session{size}", []).extend(block(judge, [image]))
            least = bounds(model.eval(), file)
            for runtime, profile in profiles.items():
                ours = rows_of(detector, runtime, times_of(profile), least if runtime == "torch" else {})
                backbone = next(row["ms"] for row in ours if row["part"] == "backbone")
                rows += ours
                for part, spent in whole[runtime].items():
                    ms = 1000 * median(spent)
                    last = {"part": part, "ms": ms, "share": None, "bound ms": None}
                    rows.append({**ours[-1], **last, "times the backbone": ms / backbone})
        usual, fast = (
            next(
                row
                for row in rows
                if (row["detector"], row["runtime"], row["part"])
                == (f"padim, {name}", "OpenVINO", "file to verdict, by a session")
            )
            for name in ("default", "fast")
        )
        over, half = usual["times the backbone"], fast["ms"] / usual["ms"]
        claims = [
            claim("file to verdict, the default in OpenVINO", "at most 2 x backbone", f"{over:.2f} x", over <= 2),
            claim("file to verdict, `fast` in OpenVINO", "at most 0.5 x the default", f"{half:.2f} x", half <= 0.5),
        ]
        report("anatomy", options, rows, claims, Installed())  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
