"""Trains the bundled backbone: a ResNet-18 cut after layer3, on pictures that nobody has to license.

Three questions about each batch of episodes, one network:

- which product is this? (cross-entropy over the products of the pool, for layer2 and layer3, from every cell alone and
  from all together: the same material must look alike wherever a cell lies on it)
- is this cell damaged? (each layer's own 1 x 1 head, against the mask at that layer's resolution)
- does the library find the damage? (layer2 and the filter bank, as PatchCore sees patches of them, distance to
  the nearest patch of the good pictures of the episode, against the mask per cell and per picture. Only a generator of
  pictures knows this truth.)

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

from blemish.features.bundled_network import FILTER_SCALE, LAYERS, LEARNED_CHANNELS, MEAN, STD, compress
from blemish.features.filter_bank import FilterBank
from blemish.functional.patches import average_neighborhood

CHANNELS = (64, 128, 256)
DEVIATION = 2.0
"""Root mean variance of a layer's channels on drawn pictures, before `compress`: about that of the filter bank."""


@dataclass(frozen=True)
class Recipe:
    """What a run is defined by; written next to its weights."""

    seed: int = 0
    products: int = 2048
    pictures: int = 8
    picture_side: int = 176
    side: int = 112
    episodes: int = 10
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
        self.product = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(channels, affine=False), nn.Conv2d(channels, recipe.products, 1))
            for channels in CHANNELS[1:]
        )
        self.cells = nn.ModuleList(nn.Conv2d(channels, 1, 1) for channels in CHANNELS)
        self.filters = FilterBank()
        self.steepness = nn.Parameter(torch.tensor(8.0))
        self.offset = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1))

    def forward(self, batch: Episodes) -> dict[str, Tensor]:
        """The weighted losses by name, and "total"."""
        episodes, count = batch.images.shape[:2]
        flat = batch.images.flatten(0, 1)
        images = ((flat - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16):
            maps = self.backbone(images)
        maps = [one.float() for one in maps]
        none = torch.zeros_like(batch.masks[:, :1]).expand(-1, NORMALS, -1, -1)
        masks = torch.cat([none, batch.masks], 1).flatten(0, 1)[:, None].float()

        patches = [average_neighborhood(compress(one * (DEVIATION / _deviation(one.detach())))) for one in maps[1:]]
        good = torch.arange(count, device=images.device).repeat(episodes) < NORMALS
        target = batch.products.repeat_interleave(NORMALS)
        losses = {"product": self.recipe.product_weight * self._product_loss([one[good] for one in patches], target)}
        cells = [
            _balanced(head(one), F.adaptive_avg_pool2d(masks, one.shape[-2:]))
            for head, one in zip(self.cells, maps, strict=True)
        ]
        losses["cell"] = self.recipe.cell_weight * torch.stack(cells).mean()
        with torch.no_grad():
            filters = average_neighborhood(FILTER_SCALE * torch.cat(list(self.filters(flat).values()), 1))
        losses["episode"] = self.recipe.episode_weight * self._episode_loss(
            torch.cat([patches[0], filters], 1), masks, episodes
        )
        losses["total"] = torch.stack(list(losses.values())).sum()
        return losses

    def _product_loss(self, patches: list[Tensor], target: Tensor) -> Tensor:
        losses = []
        for head, one in zip(self.product, patches, strict=True):
            one = one[..., :: max(1, one.shape[-2] // 7), :: max(1, one.shape[-1] // 7)]  # neighbors say the same
            with torch.autocast(one.device.type, torch.bfloat16):
                logits = head(one)
            truth = target[:, None].expand(-1, logits[0, 0].numel())
            losses.append(F.cross_entropy(logits.float().flatten(2), truth, label_smoothing=0.1))
            losses.append(F.cross_entropy(logits.float().mean((2, 3)), target, label_smoothing=0.1))
        return torch.stack(losses).mean()

    def _episode_loss(self, embedding: Tensor, masks: Tensor, episodes: int) -> Tensor:
        rows = embedding.flatten(2).transpose(1, 2).unflatten(0, (episodes, -1))  # (E, count, cells, channels)
        count, cells = rows.shape[1:3]
        nearest = (rows - _nearest(rows)).square().sum(3)
        score = 0.5 * torch.log(nearest + 1e-6)
        score = score - score[:, :NORMALS].mean((1, 2), keepdim=True)
        truth = F.adaptive_avg_pool2d(masks, embedding.shape[-2:]).view(episodes, count, cells)
        per_cell = _balanced(self.steepness * score - self.offset[0], truth)
        damaged = (truth.amax(2) > 0.05).float()
        per_picture = _balanced(self.steepness * score.amax(2) - self.offset[1], damaged)
        return per_cell + 0.5 * per_picture


def _deviation(maps: Tensor) -> Tensor:
    return maps.var((0, 2, 3)).mean().sqrt()


def _nearest(rows: Tensor) -> Tensor:
    """For each of the (E, pictures, cells, channels) rows, the nearest row of another good picture of its episode.

    The search needs no gradient and no precision; distances are computed to what it finds.
    """
    episodes, count, cells, channels = rows.shape
    bank = rows[:, :NORMALS].flatten(1, 2)
    with torch.no_grad():
        center = bank.mean(1, keepdim=True)
        left, right = (rows.flatten(1, 2) - center), (bank - center)
        products = torch.bmm(left.bfloat16(), right.bfloat16().transpose(1, 2)).float()
        squared = (right.square().sum(2)[:, None] - 2 * products).view(episodes, count, cells, NORMALS, cells)
        own = torch.eye(count, NORMALS, dtype=torch.bool, device=rows.device).view(1, count, 1, NORMALS, 1)
        index = squared.masked_fill(own, math.inf).flatten(3).argmin(3)  # a good picture does not find itself
    return bank.gather(1, index.flatten(1)[..., None].expand(-1, -1, channels)).view_as(rows)


@torch.no_grad()
def to_save(learner: Learner, pool: npt.NDArray[np.uint8]) -> dict[str, Tensor]:
    """The backbone's state in float16, each layer brought to `DEVIATION` on one picture of every 16th product, and the
    leading principal components there of the patches of `LEARNED_CHANNELS`.

    A block's output is ReLU(batch norm + shortcut): a positive factor on both goes through, and the convolutions that
    read the output take it back. What the network computes doesn't change, except for the factor.
    """
    learner.eval()
    images = torch.from_numpy(pool[::16, 0]).to(learner.mean.device).permute(0, 3, 1, 2) / 255
    maps = learner.backbone((images - learner.mean) / learner.std)
    learner.train()
    state = {name: value.detach().clone() for name, value in learner.backbone.state_dict().items()}
    factors = [float(DEVIATION / _deviation(one)) for one in maps]

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
    named = {f"layer{number}": factor * one for number, (factor, one) in enumerate(zip(factors, maps, strict=True), 1)}
    for name in LEARNED_CHANNELS:
        rows = average_neighborhood(compress(named[name])).movedim(1, -1).flatten(0, -2)
        _, directions = torch.linalg.eigh(torch.cov(rows.T.double()))  # ascending
        state[f"projections.{name}.weight"] = directions[:, -LAYERS[name][0] :].T[:, :, None, None]
    return {name: (value.half() if value.is_floating_point() else value).contiguous() for name, value in state.items()}


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
