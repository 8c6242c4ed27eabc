"""What sessions over exported graphs have in common: the metadata, the settings, and what a graph takes.

A graph decides by itself. What is computed here from its thresholds is only shown beside its verdicts.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from blemish.data.roi import read_roi
from blemish.errors import ArtifactError, NonFiniteError, UsageError
from blemish.functional.pixels import to_uint8
from blemish.runtime.session import SETTINGS, Outputs


class GraphBackend:
    """A graph as a `Backend`; a runtime adds `infer`.

    Args:
        content: the metadata that the exporter wrote.

    Attributes:
        content: the same. settings: the current value of each of `SETTINGS`.
    """

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content
        self.settings = {name: float(content["decision"][name]) for name in SETTINGS}

    def infer(self, feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Runs the graph on "image" and `SETTINGS`; the arrays of `Outputs`, in its order."""
        raise NotImplementedError

    def signature(self) -> dict[str, dict[str, str]]:
        """Under "inputs" and "outputs": name -> type and shape, in the runtime's words."""
        raise NotImplementedError

    @property
    def threshold(self) -> float:
        """See `Backend`: `functional.thresholds.raw_threshold` in NumPy, without torch."""
        values = {**self.content["decision"], **self.settings}
        names = ("threshold", "min", "max", "sensitivity")
        theta, low, high, alpha = (np.float32(values[f"image_{name}"]) for name in names)
        if alpha >= 1:
            return -math.inf
        if high <= low and alpha < 0.5:
            return float(np.nextafter(theta, np.float32(np.inf)))
        return float(
            theta if alpha == 0.5 else theta + (1 - 2 * alpha) * (high * np.float32(0.5) - low * np.float32(0.5))
        )

    @property
    def pixel_cut(self) -> float:
        """See `Backend`."""
        return 1.0 - self.settings["pixel_sensitivity"]

    @property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """See `Backend`."""
        roi = self.content.get("manifest", {}).get("arguments", {}).get("roi")
        return None if roi is None else read_roi(roi)

    def set(self, **settings: float) -> None:
        """See `Backend`."""
        self.settings = {**self.settings, **settings}  # one assignment: another thread sees all of it, or nothing

    def run(self, images: npt.NDArray[Any]) -> Outputs:
        """See `Backend.run`. Graphs take uint8: floats, as 16-bit files give them, are rounded to it."""
        if images.dtype != np.uint8:
            if not np.isfinite(images).all():
                raise NonFiniteError(
                    "The image holds NaN or infinity, so there is no verdict. Check where it comes from."
                )
            images = to_uint8(images)
        feed = {name: np.array(value, dtype=np.float32) for name, value in self.settings.items()}
        static = self.content["static"]
        if static is None:
            parts = [self.infer({"image": images, **feed})]
        else:
            count, *size = static
            if list(images.shape[1:3]) != size:
                raise UsageError(
                    f"This file was exported for images of {size[0]} x {size[1]} pixels (H x W). Got "
                    f"{images.shape[1]} x {images.shape[2]}. Resize them, or export without --static."
                )
            parts = []
            for start in range(0, len(images), count):
                stack = images[start : start + count]
                short = count - len(stack)  # a fixed batch is filled up with copies, whose results are dropped
                full = np.concatenate([stack, np.repeat(stack[-1:], short, axis=0)]) if short else stack
                parts.append([array[: len(stack)] for array in self.infer({"image": full, **feed})])
        outputs = Outputs(
            *(np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for arrays in zip(*parts, strict=True))
        )
        if not np.isfinite(outputs.raw_score).all():
            raise NonFiniteError("The score is NaN or infinite, so there is no verdict. Check the image and the file.")
        return outputs


def parse_metadata(text: str | None, path: str) -> dict[str, Any]:
    """The exporter's metadata.

    Raises:
        ArtifactError: if there is none, or it isn't what an exporter wrote.
    """
    if text is None:
        raise ArtifactError(f"{path} has no metadata of blemish. Export it with `blemish export`.")
    try:
        content: dict[str, Any] = json.loads(text)
        for name in SETTINGS:
            float(content["decision"][name])
        for name in ("image_min", "image_max"):
            float(content["decision"][name])
        if content["static"] is not None:
            _n, _h, _w = map(int, content["static"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArtifactError(f"The metadata of {path} is damaged: {error!r}. Export again.") from error
    return content


def require_file(path: Path) -> None:
    """Fails where a runtime's own message would be obscure.

    Raises:
        ArtifactError: if there is no such file.
    """
    if not path.is_file():
        raise ArtifactError(f"There is no model file at {path}.")
