"""What a model file says about itself, read without torch: the typed JSON in its header, the numbers that decide."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from blemish import signing
from blemish._version import __version__
from blemish.data.explanation import GoodImage
from blemish.data.good_images import MOST_IMAGES
from blemish.data.record import DataRecord
from blemish.errors import ArtifactError, UsageError
from blemish.post_processing.decision import CalibrationRecord, Decision
from blemish.seal import read_seal

SCHEMA = 2
SEALED = 2
"""The schema from which files carry their digest."""
KEY = "blemish"


class Weights(BaseModel):
    """Where the backbone's weights came from. `sha256` is over their names, shapes and bytes; `license` is None where
    it isn't known.
    """

    model_config = ConfigDict(extra="forbid")
    source: str
    sha256: str
    license: str | None = None


class Manifest(BaseModel):
    """What the file says about itself.

    `calibration` is None before calibration; `data` is the fingerprint of the images of the last fit; `versions` names
    the libraries that wrote the file; `good_images` those that explanations refer to, their small pictures being the
    tensor `blemish.artifact.PICTURES`; `seal` holds its digest, see `blemish.seal`.
    """

    model_config = ConfigDict(extra="forbid")
    schema_number: int = Field(ge=1, le=SCHEMA, strict=True)
    detector: str
    arguments: dict[str, Any]
    post_processing: dict[str, float | None] | None
    calibration: CalibrationRecord | None
    weights: Weights
    data: DataRecord | None
    good_images: tuple[GoodImage, ...] = Field(default=(), max_length=MOST_IMAGES)
    versions: dict[str, str]
    seal: str | None = None


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """The manifest of a model file, without reading its tensors.

    Raises:
        ArtifactError: if the file is missing, damaged, of another program, or of a newer schema.
    """
    path = Path(path)
    if not path.is_file():
        raise ArtifactError(f"There is no model file at {path}.")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{path} is not a model file, or it is damaged: {error}. Fit again, or copy it again."
        ) from error
    if KEY not in metadata:
        raise ArtifactError(f"{path} is a safetensors file, but not one that blemish wrote.")
    try:
        content = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:  # ValueError: also a number of more digits than Python converts
        raise ArtifactError(f"The manifest of {path} is not JSON: {error}.") from error
    try:
        schema = content.get("schema_number") if isinstance(content, dict) else None
        if isinstance(schema, int) and schema > SCHEMA:
            wrote = (
                content.get("versions", {}).get("blemish", "a newer version")
                if isinstance(content.get("versions"), dict)
                else "?"
            )
            raise ArtifactError(
                f"{path} has schema {schema}; this blemish ({__version__}) reads up to {SCHEMA}. blemish "
                f"{wrote} "
                f"wrote it: upgrade with pip install --upgrade blemish."
            )
        return Manifest.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "manifest"
        raise ArtifactError(f"The manifest of {path} is not valid: {where}: {first['msg']}.") from error


def checked_seal(path: Path, manifest: Manifest) -> str | None:
    """The digest of a model file that holds, and that is signed where a signature is required; None before schema 2.

    Raises:
        ArtifactError: if the file was changed, has lost its digest, or isn't signed as it has to be.
    """
    try:
        digest = read_seal(path)
    except OSError as error:
        raise ArtifactError(f"{path} can't be read: {error}. Check the path.") from error
    signing.check(path, digest)
    if digest is None and manifest.schema_number >= SEALED:
        raise ArtifactError(f"{path} has lost its digest, so something changed it. Copy it again, or fit again.")
    return digest


def read_decision(path: str | os.PathLike[str], manifest: Manifest) -> Decision | None:
    """The decision of a model file, from the few tensors that hold it; None for one that isn't calibrated.

    Raises:
        ArtifactError: if the file was changed or damaged, or its numbers make no sense.
    """
    path = Path(path)
    checked_seal(path, manifest)
    with safe_open(path, framework="np") as file:
        names = {name.removeprefix(_DECIDES): name for name in file.keys() if name.startswith(_DECIDES)}  # noqa: SIM118
        numbers = {
            name: float(file.get_tensor(key)) for name, key in names.items() if not file.get_slice(key).get_shape()
        }
    if not numbers or any(math.isnan(value) for value in numbers.values()):
        return None
    try:
        return Decision.from_dict(numbers, manifest.calibration)
    except (KeyError, UsageError) as error:
        raise ArtifactError(f"The numbers that decide in {path} make no sense: {error} Fit again.") from error


def tensor_shapes(path: str | os.PathLike[str]) -> dict[str, list[int]]:
    """Name -> shape of every tensor in a model file, from its header."""
    with safe_open(Path(path), framework="np") as file:
        return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


_DECIDES = "post_processor._"
