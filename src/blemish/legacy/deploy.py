"""Inferencers of the older library: a model file, one image, an `ImageResult` that its `Visualizer` draws."""

from __future__ import annotations

import os
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from blemish.errors import UsageError
from blemish.functional.pixels import to_uint8
from blemish.legacy.visualizer import ImageResult
from blemish.runtime import load
from blemish.runtime.inputs import Source


class ExportType(str, Enum):
    """What a model is exported for."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH = "torch"


class Inferencer:
    """Judges single images; `blemish.load` does more.

    Args:
        path: of the model file.
        device: as `blemish.load`, in either case.

    Raises:
        UsageError: for a file of another kind. Others as `blemish.load`.
    """

    suffix: ClassVar[str]

    def __init__(self, path: str | os.PathLike[str], device: str = "auto") -> None:
        if Path(path).suffix.lower() != self.suffix:
            raise UsageError(
                f"{type(self).__name__} opens {self.suffix} files. Got {os.fspath(path)!r}; blemish.load opens all."
            )
        self.session = load(path, device=device.lower())

    def predict(self, image: Source) -> ImageResult:
        """The verdict on an image, as a path or (H, W, 3) RGB, uint8 or float32 in [0, 1].

        Returns:
            `pred_score` as a numpy number, `pred_label` as "normal" or "anomalous", map and mask in the image's pixels.
        """
        (found,) = self.session(image)
        assert found.image is not None  # sessions keep it
        score: Any = np.float32(found.score)
        return ImageResult(to_uint8(found.image), score, found.label, found.anomaly_map, pred_mask=found.mask)

    __call__ = predict


class OpenVINOInferencer(Inferencer):
    """An exported .xml file with its .bin."""

    suffix = ".xml"


class TorchInferencer(Inferencer):
    """A model file that `Engine.export` wrote for torch, or `save`."""

    suffix = ".safetensors"
