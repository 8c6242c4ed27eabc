"""What sessions over exported graphs have in common: the metadata, the settings, and what a graph takes.

A graph decides about images by itself. Of pixels a session asks for the raw map alone: normalizing millions of them and
marking those beyond the threshold takes a graph longer than the rule of `functional.verdict`, which is the graph's own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, Field, ValidationError

from blemish import signing
from blemish.data.explanation import Explanation
from blemish.data.good_images import GoodImages
from blemish.data.record import ColorRecord
from blemish.data.roi import read_roi
from blemish.errors import ArtifactError, DataError, NonFiniteError, UsageError
from blemish.functional.pixels import to_uint8
from blemish.post_processing.decision import CalibrationRecord, Decision
from blemish.runtime.backend import RAW, VERDICT, Outputs
from blemish.seal import read_seal

_NO_PATCHES = (
    "An exported graph names no good images, so it can't explain its verdicts. Explain with the .safetensors file that "
    "it was exported from."
)


class _Data(BaseModel):
    bit_depth: int | None = None
    color: ColorRecord | None = None


class _Manifest(BaseModel):
    arguments: dict[str, Any] = {}
    calibration: CalibrationRecord | None = None
    data: _Data | None = None


_Count = Annotated[int, Field(ge=1)]


class _Metadata(BaseModel):
    """What a session needs of an exporter's metadata. `static` is (N, H, W)."""

    manifest: _Manifest = _Manifest()
    decision: dict[str, Any]
    static: tuple[_Count, _Count, _Count] | None
    precision: str = "float32"


class GraphBackend:
    """A graph as a `Backend`; a runtime adds `infer`.

    Args:
        content: the metadata that the exporter wrote, checked by `parse_metadata`.
        fingerprint: of the file.
        outputs: those of the graph that it is asked for, see `wanted`.

    Attributes:
        content, outputs: the same. decision: the one it was exported with. verdict_only: see `blemish.runtime.load`.
    """

    def __init__(self, content: Mapping[str, Any], fingerprint: str | None, outputs: tuple[str, ...]) -> None:
        self.content, self.outputs, self.verdict_only = content, outputs, outputs == VERDICT
        self.decision = Decision.from_dict(content["decision"], record_of(content))
        self.fingerprint = fingerprint

    def infer(self, feed: dict[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Runs the graph on "image" and `SETTINGS`; the arrays of `outputs`, in their order."""
        raise NotImplementedError

    def signature(self) -> dict[str, dict[str, str]]:
        """Under "inputs" and "outputs": name -> type and shape, in the runtime's words."""
        raise NotImplementedError

    @cached_property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """See `Backend`."""
        roi = self.content.get("manifest", {}).get("arguments", {}).get("roi")
        return None if roi is None else read_roi(roi)

    @property
    def bit_depth(self) -> int | None:
        """See `Backend`."""
        bits: int | None = (self.content.get("manifest", {}).get("data") or {}).get("bit_depth")
        return bits

    @property
    def color(self) -> ColorRecord | None:
        """See `Backend`."""
        color = (self.content.get("manifest", {}).get("data") or {}).get("color")
        return None if color is None else ColorRecord(**color)

    @property
    def good_images(self) -> GoodImages:
        """Raises `UsageError`: nothing of them is in a graph."""
        raise UsageError(_NO_PATCHES)

    def explain(self, *_: Any, **__: Any) -> Explanation:
        """Raises `UsageError`, as `good_images` does."""
        raise UsageError(_NO_PATCHES)

    def run(self, images: npt.NDArray[Any], decision: Decision) -> Outputs:
        """See `Backend.run`. Graphs take uint8: floats, as 16-bit files give them, are rounded to it.

        Raises:
            UsageError: for a decision of another model: the range of scores is a constant of the graph.
            DataError: for images of another size than the one that the graph was fixed to.
        """
        for name in ("image", "pixel"):
            own, asked = getattr(self.decision, name), getattr(decision, name)
            if (own.low, own.high) != (asked.low, asked.high):
                raise UsageError(
                    f"This file shows {name} scores on the scale from {own.low:.6g} to {own.high:.6g}; the decision is "
                    f"of another calibration. Change this one: session.decision.replace(...)."
                )
        if images.dtype != np.uint8:
            if not np.isfinite(images).all():
                raise NonFiniteError(
                    "The image holds NaN or infinity, so there is no verdict. Check where it comes from."
                )
            images = to_uint8(images)
        feed = {name: np.array(value, dtype=np.float32) for name, value in decision.settings().items()}
        static = self.content["static"]
        if static is None:
            parts = [self.infer({"image": images, **feed})]
        else:
            count, *size = static
            if list(images.shape[1:3]) != size:
                raise DataError(
                    f"This file was exported for images of {size[0]} x {size[1]} pixels (H x W). Got "
                    f"{images.shape[1]} x {images.shape[2]}. Resize them, or export without --static."
                )
            parts = []
            for start in range(0, len(images), count):
                stack = images[start : start + count]
                short = count - len(stack)  # a fixed batch is filled up with copies, whose results are dropped
                full = np.concatenate([stack, np.repeat(stack[-1:], short, axis=0)]) if short else stack
                parts.append([array[: len(stack)] for array in self.infer({"image": full, **feed})])
        joined = (np.concatenate(arrays) if len(arrays) > 1 else arrays[0] for arrays in zip(*parts, strict=True))
        outputs = Outputs(**dict(zip(self.outputs, joined, strict=True)))
        if not np.isfinite(outputs.raw_score).all():
            raise NonFiniteError("The score is NaN or infinite, so there is no verdict. Check the image and the file.")
        return outputs


def wanted(names: Collection[str], *, verdict_only: bool, whole: bool) -> tuple[str, ...]:
    """What to ask a graph for.

    Args:
        names: of its outputs; graphs of earlier versions give no raw map.
        verdict_only: see `blemish.runtime.load`.
        whole: everything that it decides about pixels, as the comparison after an export needs it.
    """
    if verdict_only:
        return VERDICT
    return tuple(name for name in Outputs._fields if name in names) if whole or "raw_map" not in names else RAW


def parse_metadata(text: str | None, path: str, fingerprint: str | None) -> dict[str, Any]:
    """The exporter's metadata.

    Args:
        text: JSON.
        path: for messages.
        fingerprint: of the file; None only for files of versions that wrote no digest.

    Raises:
        ArtifactError: if there is none, or it isn't what an exporter wrote.
    """
    if text is None:
        raise ArtifactError(f"{path} has no metadata of blemish. Export it with `blemish export`.")
    try:
        content: dict[str, Any] = json.loads(text)
        _Metadata.model_validate_json(text, strict=True)
        Decision.from_dict(content["decision"], record_of(content))
        if fingerprint is None and "seal" in content:
            raise ValueError("its digest is missing")
    except (ValueError, KeyError, TypeError, RecursionError) as error:  # UsageError is a ValueError
        reason = repr(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            reason = f"{'.'.join(map(str, first['loc'])) or 'all of it'}: {first['msg']}"
        raise ArtifactError(f"The metadata of {path} is damaged: {reason}. Export again.") from error
    return content


def record_of(content: Mapping[str, Any]) -> CalibrationRecord | None:
    """What the thresholds rest on, where the metadata says so. Raises TypeError for what isn't a record."""
    record = content.get("manifest", {}).get("calibration")
    return None if record is None else CalibrationRecord(**record)


def checked_seal(path: Path, companions: Sequence[Path] = ()) -> str | None:
    """The digest of an exported file, before a runtime looks into it; None for a file of an earlier version.

    Raises:
        ArtifactError: if a file is missing, or isn't what was written.
    """
    for one in (path, *companions):
        if not one.is_file():
            raise ArtifactError(f"There is no model file at {one}.")
    try:
        digest = read_seal(path, companions)
    except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"{path} can't be read: {error}. Export again, or copy it again.") from error
    signing.check(path, digest)
    return digest
