"""Claim: on a GPU, too, what lies around the backbone costs little.

python benchmarks/gpu.py [--device cuda] [--batch 32] [--images 2000]

Each preset, and PatchCore with a tenth of the patches, on one image and on one batch of 256 x 256 pixels that lie on
the device: the backbone alone, as torch runs it, and what a session runs up to scores and maps in original pixels,
before it recorded it as a CUDA graph and after, which must give the same. The search for neighbors of that batch with a
ranking in float32 and in halves, whose rows must lie no farther, at its own width and turned into as many columns as
the paper's backbone gives. Then fits, from files: beside them one pass of the backbone over the same files, read by as
many processes. Everything takes turns where it can; times are medians.
"""

from __future__ import annotations

import copy
import itertools
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from common import Meter, arguments, claim, draw_parts, ratio, read, report, write_images
from runtimes import Installed

from blemish import Engine, ImageDataModule
from blemish.data.dataset import ImageDataset, make_loader
from blemish.functional.distances import nearest, square_norms
from blemish.functional.patches import to_rows
from blemish.functional.search_index import half_index, make_index, nearest_indexed
from blemish.models import DETECTORS
from blemish.presets import with_preset
from blemish.runtime.torch_session import TorchBackend
from blemish.settings import fit_settings
from blemish.trials.work import build_data, build_model

PLANS: dict[str, tuple[dict[str, Any], str]] = {
    "default": ({}, "default"),
    "fast": ({}, "fast"),
    "accurate": ({}, "accurate"),
    "patchcore": ({"detector": "patchcore", "backbone": "efficientnet_lite0", "bank_size": 8192}, "plain"),
}

WIDE = 1536
"""Columns of PatchCore on the backbone of its paper, wide_resnet50_2."""

Rows = list[dict[str, Any]]


def fitted(plan: str, folder: Path, device: str, **more: Any) -> tuple[Any, float, float | None]:
    """The detector, and seconds and peak memory in MB of its fit."""
    given, preset = PLANS[plan]
    settings = fit_settings(with_preset({**given, **more}, preset)[0], DETECTORS)
    model, data = build_model(settings), build_data(settings, folder)
    with Meter(device) as meter:
        Engine(device, progress=False).fit(model, data)
    return model.to(device).eval(), meter.seconds, meter.peak_mb


def turns(functions: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each; the first two rounds don't count."""
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(rounds + 2):
        for name, function in functions.items():
            with Meter(device) as meter:
                function()
            if number > 1:
                spent[name].append(meter.seconds)
    return {name: median(values) for name, values in spent.items()}


def pass_over(model: Any, folder: Path, workers: int) -> int:
    """The backbone over all good images of a folder."""
    data = ImageDataModule(folder, num_workers=workers)
    ours = copy.deepcopy(model.pre_processor).cpu()  # other processes have no device
    dataset = ImageDataset(list(data.split.fit), ours, reading=data.reading)
    images = 0
    for batch in make_loader(dataset, batch_size=32, num_workers=workers):
        model.extractor(batch.image.to(model.device, non_blocking=True))
        images += len(batch.image)
    return images


@torch.inference_mode()
def judging(plans: list[str], parts: Path, options: Any) -> tuple[Rows, Rows]:
    rows, claims = [], []
    shown = itertools.islice(itertools.cycle(sorted((parts / "test").rglob("*.png"))), options.batch)
    stack = torch.stack([torch.from_numpy(read(file).copy()) for file in shown]).to(options.device)  # (N, h, w, 3)
    for plan in plans:
        model, _, _ = fitted(plan, parts, options.device)
        for images in (stack[:1], stack):
            more = looking(plan, model, images, options)
            rows, claims = rows + more[0], claims + more[1]
        if plan == "patchcore":
            more = searching(model, model.pre_processor(stack), rows[-4]["s"], options)
            rows, claims = rows + more[0], claims + more[1]
    return rows, claims


def looking(plan: str, model: Any, images: torch.Tensor, options: Any) -> tuple[Rows, Rows]:
    ready = model.pre_processor(images)
    session, alone = TorchBackend(model), TorchBackend(model, verdict_only=True)
    eager = session.look(images)
    found = turns(
        {
            "backbone alone": lambda: model.extractor(ready),
            "scores and maps, not recorded": lambda: model.inspect(model.pre_processor(images), images.shape[1:3]),
            "scores and maps": lambda: session.look(images),
            "scores alone": lambda: alone.look(images),
        },
        options.rounds,
        options.device,
    )
    backbone = found["backbone alone"]
    rows = [row(plan, what, seconds, backbone, len(images)) for what, seconds in found.items()]
    share = backbone / found["scores and maps"]
    text = f"{plan}, batches of {len(images)}: images per second"
    same = all(torch.equal(one, other) for one, other in zip(session.look(images), eager, strict=True))
    return rows, [
        claim(text, "at least .85 of the backbone's", f"{share:.2f}", share >= 0.85),
        claim(f"{plan}, batches of {len(images)}: recorded and not", "same bits", "same" if same else "OTHER", same),
    ]


def searching(model: Any, images: torch.Tensor, backbone: float, options: Any) -> tuple[Rows, Rows]:
    rows, claims = [], []
    own = to_rows(model.features(images)) - model.bank.center
    for columns in (own.shape[1], WIDE):
        turn = torch.nn.init.orthogonal_(torch.empty(columns, own.shape[1], device=own.device))  # keeps distances
        patches, bank = own @ turn.mT, model.bank.rows @ turn.mT
        norms = square_norms(bank)
        index = half_index(bank, norms)
        ways = {
            f"search, {columns} columns, ranked in float32": partial(nearest, patches, bank, norms),
            f"search, {columns} columns, ranked in halves": partial(nearest_indexed, patches, bank, norms, index),
        }
        plain, half = (way() for way in ways.values())
        no_farther = bool((half.distance <= plain.distance).all())
        times = turns(ways, options.rounds, options.device)
        rows += [row("patchcore", what, seconds, backbone, options.batch) for what, seconds in times.items()]
        first, last = times.values()
        note = f"{first / last:.1f} x faster, {'none' if no_farther else 'SOME'} farther"
        pays = make_index(bank, norms) is not None  # else a session ranks in float32
        text = f"ranking {len(patches):,} patches of {columns} columns among {len(bank):,} rows in halves"
        goal = "faster, no neighbor farther" if pays else "no faster, as it isn't done; no neighbor farther"
        claims.append(claim(text, goal, note, no_farther and (last < first) == pays))
    return rows, claims


def fitting(options: Any) -> tuple[Rows, Rows]:
    rows, claims = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "train" / "good", options.images)
        for plan in ("default", "patchcore"):
            more = {"planted": 0} if plan == "default" else {}
            model, seconds, peak = fitted(plan, folder, options.device, num_workers=options.workers, **more)
            with torch.inference_mode(), Meter(options.device) as meter:
                images = pass_over(model, folder, options.workers)
            rows.append(row(plan, f"fit of {options.images:,} images", seconds, meter.seconds, options.images, peak))
            rows.append(
                row(plan, f"backbone over {images:,} of them, from files", meter.seconds, meter.seconds, images)
            )
    return rows, claims


def row(
    plan: str, what: str, seconds: float, backbone: float, images: int, peak: float | None = None
) -> dict[str, Any]:
    return {
        "detector": plan,
        "what": what,
        "images": images,
        "s": seconds,
        "images/s": round(images / seconds, 1),
        "times the backbone": ratio(seconds, backbone),
        "peak MB": peak,
    }


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--plans", nargs="+", default=list(PLANS), choices=list(PLANS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, claims = judging(options.plans, draw_parts(Path(folder), 40, test=16), options)
    if options.images:
        more = fitting(options)
        rows, claims = rows + more[0], claims + more[1]
    options.card = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    report("gpu", options, rows, claims, Installed("torch"))  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
