"""`PatchcoreLightning`: the PatchCore detector under the name, arguments and batches of an older library.

It is `Patchcore` itself: the same features, bank, scores and artifact. What is added here is how it is configured (one
mapping) and what its steps take and give (classic batches: mappings with `image`, `label`, `mask`, `image_path`).
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor

from blemish.data.batch import ImageBatch, InferenceBatch
from blemish.engine.module import Patchcore
from blemish.engine.post_processor import CalibrationHooks
from blemish.errors import UsageError
from blemish.functional.patches import to_rows

SIZES = ("input_size", "apply_tiling", "tile_size", "tile_stride")
FEATURES = ("backbone", "layers", "pretrained", "weights")
BANK = ("coreset_sampling_ratio", "num_neighbors", "bank_size", "seed")
KEYS = SIZES + FEATURES + BANK


class PatchcoreLightning(Patchcore):
    """`Patchcore` made from one mapping, and trained by `lightning.Trainer(max_epochs=1)` on classic batches.

    Args:
        hparams: a mapping or OmegaConf object with these keys, or with a section `model` that has them; all optional:

            - `layers`, `backbone` ("resnet18" unless given), `coreset_sampling_ratio`, `num_neighbors`, `bank_size`,
              `pretrained`, `weights`, `seed`: as for `Patchcore`.
            - `input_size`: (h, w) of the images, `image_size` of `Patchcore`.
            - `apply_tiling`: False unless given; `tile_size` and `tile_stride` wait until it is True.

    Raises:
        UsageError: for an unknown key (the message names the nearest known one), or values outside their range.
    """

    def __init__(self, hparams: Mapping[str, Any]) -> None:
        super().__init__(**_arguments(hparams))

    @torch.no_grad()
    def training_step(self, batch: ImageBatch | Mapping[str, Any], _batch_idx: int) -> dict[str, Tensor]:  # type: ignore[override]
        """Observes a batch of good images; Lightning drops what is returned, so memory doesn't grow with it.

        Returns:
            "embedding": (N * P, D) float32.
        """
        features = self.features(self._images(batch).image)
        self.observe(features)
        return {"embedding": to_rows(features)}

    def validation_step(self, batch: ImageBatch | Mapping[str, Any], _: int) -> Any:
        """Raw predictions.

        Returns:
            For a classic batch, a copy of it with `anomaly_maps` (N, 1, h, w) and `pred_scores` (N,), raw; for an
            `ImageBatch` what `Patchcore` returns. None while Lightning only checks its own plumbing.
        """
        raw = super().validation_step(self._images(batch), _)
        if raw is None or isinstance(batch, ImageBatch):
            return raw
        return {**batch, "anomaly_maps": raw.anomaly_map[:, None], "pred_scores": raw.pred_score}

    def on_validation_batch_end(self, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Hands classic outputs to the post-processor, whose own hook leaves them alone, so that it calibrates."""
        if isinstance(outputs, Mapping) and isinstance(self.post_processor, CalibrationHooks):
            truth = self._images(outputs)
            raw: Any = InferenceBatch(
                pred_score=outputs["pred_scores"],
                anomaly_map=outputs["anomaly_maps"][:, 0],
                path=truth.path,
                gt_label=truth.gt_label,
                gt_mask=truth.gt_mask,
            )
            self.post_processor.on_validation_batch_end(self.trainer, self, raw, batch, batch_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Moves both kinds of batches."""
        if isinstance(batch, ImageBatch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        return LightningModule.transfer_batch_to_device(self, batch, device, dataloader_idx)

    def raw_step(self, batch: ImageBatch | Mapping[str, Any]) -> InferenceBatch:
        """See `AnomalyModule.raw_step`."""
        return super().raw_step(self._images(batch))

    def _images(self, batch: ImageBatch | Mapping[str, Any]) -> ImageBatch:
        """A classic batch as an `ImageBatch`; its maps come out at the size of the masks, or of the images."""
        if isinstance(batch, ImageBatch):
            return batch
        if "image" not in batch:
            raise UsageError(f"A batch needs the key image. Got {', '.join(batch)}.")
        images, label, mask = batch["image"], batch.get("label"), batch.get("mask")
        size = self.pre_processor.image_size
        if images.ndim != 4 or tuple(images.shape[1:]) != (3, *size):
            raise UsageError(f"Images must be (N, 3, *{size}), as input_size says. Got {tuple(images.shape)}.")
        mask = None if mask is None else mask.reshape(len(images), *mask.shape[-2:]) != 0
        return ImageBatch(
            image=images,
            size=[size if mask is None else (mask.shape[1], mask.shape[2])] * len(images),
            path=list(batch.get("image_path", [])),
            gt_label=None if label is None else label != 0,
            gt_mask=mask,
        )


def _arguments(hparams: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `Patchcore`."""
    if not isinstance(hparams, Mapping):
        raise UsageError(f"hparams must be a mapping, such as a dict or an OmegaConf object. Got {hparams!r}.")
    given = dict(hparams)
    if isinstance(given.get("model"), Mapping):
        section = given.pop("model")
        if twice := [key for key in section if key in given]:
            raise UsageError(f"hparams has {', '.join(twice)} twice, at the top and under model. Keep one of them.")
        given.update(section)
    for key in given:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(KEYS)}."
            raise UsageError(f"hparams has an unknown key {key!r}. {hint}")
    arguments = {"backbone": "resnet18", **{key: given[key] for key in FEATURES + BANK if key in given}}
    if "input_size" in given:
        arguments["image_size"] = given["input_size"]
    if given.get("apply_tiling", False):
        if given.get("tile_size") is None:
            raise UsageError("apply_tiling needs a tile_size. Give one, or drop apply_tiling.")
        arguments |= {"tile_size": given["tile_size"], "tile_stride": given.get("tile_stride")}
    return arguments
