"""What travels between the data loader, the detector and the post-processor.

Two plain dataclasses, so that a reader sees every field and its shape in one place. N is the batch size, (H, W) the
size of an image as it lies on disk (after EXIF rotation), (h, w) the size the model works at. Images of one batch may
have different (H, W): whatever lives in original pixels is then a list of N tensors instead of one stacked tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

PerImage: TypeAlias = Tensor | list[Tensor]
"""One (N, H, W) tensor when all images have one size, else a list of N tensors (H, W)."""


@dataclass
class ImageBatch:
    """Pre-processed images with what is known about them.

    Attributes:
        image: (N, 3, h, w) float32, RGB, resized and normalized by the model's `PreProcessor`; without those that a
            fit spared, see `blemish.data.datamodule.ImageDataModule.spared`.
        size: N pairs (H, W): the size of each image on disk, to which maps and masks return.
        path: N file paths; empty strings for images that never were files.
        gt_label: (N,) bool, True for anomalous; None when nothing is known.
        gt_mask: (N, H, W) bool (or a list, see `PerImage`), True on defect pixels; None when the batch has no masks. An
            image known to be good has an all-False mask, and so has an anomalous one whose mask is missing or can't be
            used: its pixels aren't measured.
        defect: N names of the defect kind ("good" for good images); None when nothing is known.
    """

    image: Tensor
    size: Sequence[tuple[int, int]]
    path: Sequence[str] = field(default_factory=list)
    gt_label: Tensor | None = None
    gt_mask: PerImage | None = None
    defect: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.size)


@dataclass(frozen=True)
class RawPrediction:
    """What a detector says about N images, before anybody decides. Higher is more abnormal.

    Attributes:
        score: (N,) float32, unbounded.
        maps: (N, H, W) float32 or list, raw, in the pixels of the images.
        roi: (N, H, W) bool or list, True in the region of interest; None where the model has none.
    """

    score: Tensor
    maps: PerImage
    roi: PerImage | None = None

    @classmethod
    def joined(cls, parts: Sequence[RawPrediction]) -> RawPrediction:
        """Predictions of several batches as those of one."""
        rois = [roi for part in parts if part.roi is not None for roi in part.roi]
        return cls(
            torch.cat([part.score for part in parts]), [each for part in parts for each in part.maps], rois or None
        )

    def batch(self, images: ImageBatch | None = None) -> InferenceBatch:
        """As an undecided batch, with what is known about the images."""
        raw = InferenceBatch(pred_score=self.score, anomaly_map=self.maps, roi=self.roi)
        if images is None:
            return raw
        known: dict[str, Any] = {name: getattr(images, name) for name in ("path", "gt_label", "gt_mask", "defect")}
        return replace(raw, **known)


@dataclass
class InferenceBatch:
    """What a post-processor says about N images. Higher scores are more abnormal.

    An undecided batch holds raw values in `pred_score` and `anomaly_map`; post-processing makes a decided one of it,
    with the raw values in `raw_score` and `raw_map`, normalized ones in their place, and the verdicts.

    Attributes:
        pred_score: (N,) float32. Raw (a distance, unbounded) before post-processing, in [0, 1] after.
        anomaly_map: (N, H, W) float32 or list; raw before post-processing, in [0, 1] after.
        pred_label: (N,) bool, True for anomalous; None before calibration.
        pred_mask: (N, H, W) bool or list, True on anomalous pixels; None before calibration.
        raw_score: (N,) float32, the score the verdict was taken on; None before post-processing.
        raw_map: (N, H, W) float32 or list, the map the mask was taken on; None before post-processing.
        roi: (N, H, W) bool or list, True in the model's region of interest; None where the model has none. Outside,
            maps are 0 and masks False, and nothing is measured.
        path, gt_label, gt_mask, defect: copied from the `ImageBatch`, where there was one.
    """

    pred_score: Tensor | None = None
    anomaly_map: PerImage | None = None
    pred_label: Tensor | None = None
    pred_mask: PerImage | None = None
    raw_score: Tensor | None = None
    raw_map: PerImage | None = None
    roi: PerImage | None = None
    path: Sequence[str] = field(default_factory=list)
    gt_label: Tensor | None = None
    gt_mask: PerImage | None = None
    defect: Sequence[str] | None = None

    def first(self, count: int) -> InferenceBatch:
        """The first `count` of its images."""
        part: dict[str, Any] = {name: None if value is None else value[:count] for name, value in vars(self).items()}
        return replace(self, **part)
