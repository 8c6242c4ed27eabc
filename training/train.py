"""Trains the bundled backbone: a ResNet-18 cut after layer3, on pictures that nobody has to license.

Three questions about each batch of episodes, one network:

- which product is this? (cross-entropy over the products of the pool, from the pooled maps of layer2 and layer3)
- is this cell damaged? (each layer's own 1 x 1 head, against the mask at that layer's resolution)
- does the library find the damage? (the patch embedding that PatchCore uses, distance to the nearest patch of the good
  pictures of the episode, against the mask per cell and per picture. Only a generator of pictures knows this truth.)

Constant learning rate after a warm-up, then a linear anneal over the last steps: `--anneal` may be started from any
checkpoint. A run that was stopped goes on where its last checkpoint is; equal seeds and steps draw equal batches.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch
import torch.nn.functional as F
from episodes import NORMALS, QUERIES, Episodes, EpisodeStream
from pool import open_pool
from safetensors.torch import save_file
from torch import Tensor, nn

from blemish.features.bundled_network import MEAN, STD

CHANNELS = (64, 128, 256)
DEVIATION = 0.5
"""Root mean variance of a saved layer's channels on drawn pictures, in the range of a ResNet trained on photographs:
PaDiM adds a fixed number to all variances."""


@dataclass(frozen=True)
class Recipe:
    """What a run is defined by; written next to its weights."""

    seed: int = 0
    products: int = 2048
    pictures: int = 8
    picture_side: int = 176
    side: int = 112
    episodes: int = 8
    learning_rate: float = 1e-3
    weight_decay: float = 0.05
    warmup: int = 500
    product_weight: float = 1.0
    cell_weight: float = 0.5
    episode_weight: float = 1.0


class Learner(nn.Module):
    """The backbone with the heads that training needs and nobody keeps."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.backbone = timm.create_model("resnet18", features_only=True, out_indices=(1, 2, 3))
        self.product = nn.Linear(CHANNELS[1] + CHANNELS[2], recipe.products)
        self.cells = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in CHANNELS)
        self.steepness = nn.Parameter(torch.tensor(4.0))
        self.offset = nn.Parameter(torch.tensor([2.0, 2.0]))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, batch: Episodes) -> dict[str, Tensor]:
        """The weighted losses by name, and "total"."""
        episodes, count = batch.images.shape[:2]
        images = ((batch.images - self.mean) / self.std).flatten(0, 1)
        with torch.autocast(images.device.type, torch.bfloat16):
            maps = self.backbone(images.contiguous(memory_format=torch.channels_last))
        maps = [one.float() for one in maps]
        none = torch.zeros_like(batch.masks[:, :1]).expand(-1, NORMALS, -1, -1)
        masks = torch.cat([none, batch.masks], 1).flatten(0, 1)[:, None].float()

        losses = {}
        good = torch.arange(count, device=images.device).repeat(episodes) < NORMALS
        pooled = torch.cat([one.mean((2, 3)) for one in maps[1:]], 1)[good]
        target = batch.products.repeat_interleave(NORMALS)
        product = F.cross_entropy(self.product(pooled), target, label_smoothing=0.1)
        losses["product"] = self.recipe.product_weight * product
        cells = [
            _balanced(head(one), F.adaptive_avg_pool2d(masks, one.shape[-2:]))
            for head, one in zip(self.cells, maps, strict=True)
        ]
        losses["cell"] = self.recipe.cell_weight * torch.stack(cells).mean()
        losses["episode"] = self.recipe.episode_weight * self._episode_loss(maps[1], maps[2], masks, episodes)
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def _episode_loss(self, fine: Tensor, coarse: Tensor, masks: Tensor, episodes: int) -> Tensor:
        embedding = embed(fine, coarse)
        rows = embedding.flatten(2).transpose(1, 2).unflatten(0, (episodes, -1))  # (E, count, cells, channels)
        count, cells = rows.shape[1:3]
        bank = rows[:, :NORMALS].flatten(1, 2)
        squared = _squared_distances(rows.flatten(1, 2), bank).view(episodes, count, cells, NORMALS, cells)
        own = torch.eye(count, NORMALS, dtype=torch.bool, device=rows.device).view(1, count, 1, NORMALS, 1)
        nearest = squared.masked_fill(own, math.inf).amin((3, 4))  # a good picture does not find itself
        score = 0.5 * torch.log(nearest + 1e-6)
        score = score - score[:, :NORMALS].mean((1, 2), keepdim=True)
        truth = F.adaptive_avg_pool2d(masks, embedding.shape[-2:]).view(episodes, count, cells)
        per_cell = _balanced(self.steepness * score - self.offset[0], truth)
        damaged = (truth.amax(2) > 0.05).float()
        per_picture = _balanced(self.steepness * score.amax(2) - self.offset[1], damaged)
        return per_cell + 0.5 * per_picture


def embed(fine: Tensor, coarse: Tensor) -> Tensor:
    """PatchCore's patch features: neighbourhood means of 3 x 3, the coarser map brought to the finer one's size."""
    fine, coarse = (F.avg_pool2d(one, 3, 1, 1, count_include_pad=False) for one in (fine, coarse))
    return torch.cat([fine, F.interpolate(coarse, fine.shape[-2:], mode="bilinear")], 1)


@torch.no_grad()
def to_save(learner: Learner, pool: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
    """The backbone's state in float16, each layer brought to `DEVIATION` on one picture of every 16th product.

    A block's output is ReLU(batch norm + shortcut): a positive factor on both goes through, and the convolutions that
    read the output take it back. What the network computes doesn't change, except for the factor.
    """
    learner.eval()
    images = torch.from_numpy(pool[::16, 0]).to(learner.mean.device).permute(0, 3, 1, 2) / 255
    maps = learner.backbone((images - learner.mean) / learner.std)
    learner.train()
    state = {name: value.detach().clone() for name, value in learner.backbone.state_dict().items()}
    factors = [float(DEVIATION / one.var((0, 2, 3)).mean().sqrt()) for one in maps]

    def scale(factor: float, *names: str) -> None:
        for name in names:
            state[name] *= factor

    # The first block's shortcut in layer1 is the stem itself.
    scale(factors[0], "bn1.weight", "bn1.bias")
    scale(1 / factors[0], "layer1.0.conv1.weight")
    for number, factor in enumerate(factors, 1):
        layer, following = f"layer{number}", f"layer{number + 1}"
        scale(factor, *(f"{layer}.{block}.bn2.{name}" for block in (0, 1) for name in ("weight", "bias")))
        scale(1 / factor, f"{layer}.1.conv1.weight")
        if number > 1:
            scale(factor, f"{layer}.0.downsample.1.weight", f"{layer}.0.downsample.1.bias")
        if number < len(factors):
            scale(1 / factor, f"{following}.0.conv1.weight", f"{following}.0.downsample.0.weight")
    return {name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in state.items()}


def _squared_distances(rows: Tensor, bank: Tensor) -> Tensor:
    products = torch.bmm(rows, bank.transpose(1, 2))
    return (rows.square().sum(2)[:, :, None] + bank.square().sum(2)[:, None] - 2 * products).clamp_min(0)


def _balanced(logit: Tensor, share: Tensor) -> Tensor:
    """Binary cross-entropy, both classes with equal weight; cells with a share between 0 and 0.1 are left out."""
    yes, no = share > 0.1, share == 0
    losses = [F.softplus(-logit[yes]), F.softplus(logit[no])]
    return torch.stack([one.mean() for one in losses if one.numel()]).mean()


def learning_rate(step: int, recipe: Recipe, steps: int, anneal: int) -> float:
    """Warm-up, plateau, linear anneal to 0 at `steps`."""
    return recipe.learning_rate * min(1.0, (step + 1) / recipe.warmup, (steps - step) / anneal)


def optimizer_of(learner: Learner) -> torch.optim.Optimizer:
    """AdamW; what has one dimension (batch norm, offsets) doesn't decay."""
    decayed = [p for p in learner.parameters() if p.ndim > 1]
    others = [p for p in learner.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": learner.recipe.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learner.recipe.learning_rate)


def update(learner: Learner, optimizer: torch.optim.Optimizer, batch: Episodes) -> dict[str, float]:
    """One step; the losses before it."""
    losses = learner(batch)
    optimizer.zero_grad(set_to_none=True)
    losses["total"].backward()
    nn.utils.clip_grad_norm_(learner.parameters(), 5.0)
    optimizer.step()
    return {name: value.item() for name, value in losses.items()}


def train(
    recipe: Recipe, folder: Path, pool: Path, steps: int, anneal: int, start: Path | None, every: int
) -> list[float]:
    """Trains to `steps`; writes `checkpoint.pt` (to go on), `backbone.safetensors` and `recipe.json` into `folder`.

    Returns:
        The total loss of each step of this call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    learner = Learner(recipe).to(device, memory_format=torch.channels_last)
    optimizer = optimizer_of(learner)
    first, seconds, checkpoint = 0, 0.0, folder / "checkpoint.pt"
    source = checkpoint if checkpoint.is_file() else start
    if source:
        saved = torch.load(source, map_location=device, weights_only=True)
        learner.load_state_dict(saved["learner"])
        optimizer.load_state_dict(saved["optimizer"])
        first, seconds = saved["step"], saved["seconds"]

    drawn = open_pool(pool, recipe.products, recipe.pictures, recipe.picture_side)
    stream = EpisodeStream(drawn, recipe.episodes, recipe.side, recipe.seed, first)
    batches = iter(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=4))
    learner.train()
    began, running, history = time.monotonic(), {}, []

    def save(step: int) -> None:
        state = {
            "learner": learner.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "seconds": seconds + time.monotonic() - began,
        }
        torch.save(state, checkpoint.with_suffix(".tmp"))
        checkpoint.with_suffix(".tmp").replace(checkpoint)
        save_file(to_save(learner, drawn), folder / "backbone.safetensors")
        about = {
            "recipe": vars(recipe),
            "steps": step,
            "anneal": anneal,
            "seconds": round(state["seconds"]),
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "timm": timm.__version__},
            "device": device.type,
        }
        (folder / "recipe.json").write_text(json.dumps(about, indent=2) + "\n")

    for step in range(first, steps):
        batch = next(batches)
        batch = Episodes(batch.images.to(device), batch.masks.to(device), batch.products.to(device))
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, recipe, steps, anneal)
        losses = update(learner, optimizer, batch)
        history.append(losses["total"])
        for name, value in losses.items():
            running[name] = 0.98 * running.get(name, value) + 0.02 * value
        if (step + 1) % 50 == 0:
            rate = (step + 1 - first) * recipe.episodes * (NORMALS + QUERIES) / (time.monotonic() - began)
            shown = "  ".join(f"{name} {value:.3f}" for name, value in running.items())
            print(f"step {step + 1}/{steps}  {shown}  {rate:.0f} images/s", flush=True)
        if (step + 1) % every == 0 or step + 1 == steps:
            save(step + 1)
    return history


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--pool", type=Path, default=Path("training/pool.npy"))
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--anneal", type=int, default=2000, help="Steps over which the rate falls to 0 at the end.")
    parser.add_argument("--start", type=Path, help="Checkpoint of another run to start from.")
    parser.add_argument("--every", type=int, default=500, help="Steps between checkpoints.")
    for name, value in vars(Recipe()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    given = parser.parse_args()
    recipe = Recipe(**{name: getattr(given, name) for name in vars(Recipe())})
    train(recipe, given.folder, given.pool, given.steps, given.anneal, given.start, given.every)


if __name__ == "__main__":
    main()
