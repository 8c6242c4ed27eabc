"""A detector as one file: tensors and JSON, nothing that could run.

A `.safetensors` file whose metadata key "blemish" holds a manifest: which detector with which arguments, what the
thresholds rest on, and where everything came from. All weights are inside, so loading needs no network. Loading checks
everything before it builds anything: the digest over the whole file (`blemish.seal`), the header's bounds (by
safetensors itself), the schema, every key, every argument, every tensor's name and shape. The same model gives the same
bytes.

Schema 1, of versions before the digest, is still read; what it lets through unchecked is the bits of the bank and of
the layers behind the backbone.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from blemish._version import __version__
from blemish.data.good_images import GoodImages
from blemish.errors import ArtifactError, BlemishError, NotFittedError, UsageError
from blemish.features.undrawn import undrawn
from blemish.features.weights import digest
from blemish.files import replacing
from blemish.manifest import KEY, SCHEMA, Manifest, Weights, checked_seal, read_manifest
from blemish.models import DETECTORS, detectors
from blemish.models.base import Detector
from blemish.models.parts import build_parts
from blemish.post_processing.post_processor import DecisionModule
from blemish.seal import BLANK, write_seal

PICTURES = "good_images.pictures"
"""(bytes,) uint8, see `blemish.data.good_images.GoodImages`; absent without."""


def manifest_of(model: Detector) -> Manifest:
    """The manifest that `save` would write for `model`.

    Raises:
        UsageError: if the model, or its post-processor, is of a class of the user's own, which a file without code
            can't carry.
    """
    processor = model.post_processor
    if processor is not None and not (isinstance(processor, DecisionModule) and _is_ours(processor)):
        raise UsageError(
            f"A file without code can't hold a post-processor of class {type(processor).__name__}. Save the model with "
            f"blemish.PostProcessor or post_processor=False, and attach your own after loading."
        )
    if not _is_ours(model):
        raise UsageError(
            f"A file without code can't hold a detector of class {type(model).__name__}: it would come back as "
            f"{model.Settings.title}, and judge as that. Save its state_dict() instead."
        )
    return Manifest(
        schema_number=SCHEMA,
        detector=model.name,
        arguments=model.arguments(),
        post_processing=None
        if processor is None
        else {"max_false_alarm_rate": processor.max_false_alarm_rate, "miss_cost": processor.miss_cost},
        calibration=None if processor is None else processor.record,
        weights=Weights(
            source=model.extractor.source, sha256=model.extractor.checksum(), license=model.extractor.license
        ),
        data=model.data_record,
        good_images=model.good_images.images,
        versions={"blemish": __version__, "python": platform.python_version(), "torch": str(torch.__version__)},
    )


def _backbone(tensors: Mapping[str, Tensor]) -> str:
    """`FeatureExtractor.checksum` of the one that was saved, which may have had tensors that are of no use."""
    prefix = "extractor."
    return digest({name.removeprefix(prefix): one for name, one in tensors.items() if name.startswith(prefix)})


def _is_ours(module: torch.nn.Module) -> bool:
    return type(module).__module__.partition(".")[0] == "blemish"


def save(model: Detector, path: str | os.PathLike[str]) -> None:
    """Writes a fitted detector to `path`; parents are created, an existing file is replaced in one step.

    Raises:
        NotFittedError: if there is nothing to save. UsageError: see `manifest_of`. OutputError: if the file can't be
            written.
    """
    if not model.is_fitted:
        raise NotFittedError(
            f"This {model.Settings.title} is not fitted, so there is nothing to save. Run Engine.fit first."
        )
    content = {**manifest_of(model).model_dump(mode="json"), "seal": BLANK}
    text = json.dumps(content, sort_keys=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if model.good_images.pictures:
        tensors[PICTURES] = torch.frombuffer(bytearray(model.good_images.pictures), dtype=torch.uint8)
    with replacing(Path(path)) as temporary:
        try:
            save_file(tensors, temporary, metadata={KEY: text})  # one key: the order of several is random
        except SafetensorError as error:  # its name for what the system has against it
            raise OSError(str(error)) from error
        write_seal(temporary)


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> Detector:
    """Rebuilds a detector from its file; never touches the network, never runs code from the file.

    Args:
        path: a file written by `save`.
        device: where the detector shall live.

    Returns:
        The detector, in evaluation mode, with its thresholds.

    Raises:
        ArtifactError: if the file is missing, damaged, foreign, of a newer schema, or asks for absurd sizes.
        UsageError: if there is no such device.
    """
    manifest = read_manifest(path)
    if manifest.detector not in DETECTORS:
        raise ArtifactError(f"{path} holds a detector called {manifest.detector!r}. Known: {', '.join(DETECTORS)}.")
    fingerprint = checked_seal(Path(path), manifest)
    try:
        _ = manifest.data and manifest.data.seen()
    except ValueError as error:
        raise ArtifactError(f"The digests of images in {path} are damaged: {error}. Fit again.") from error
    try:
        processor = None if manifest.post_processing is None else DecisionModule(**manifest.post_processing)
        settings = DETECTORS[manifest.detector].from_arguments(manifest.arguments)
        with undrawn():
            parts = build_parts(settings)
        model = detectors()[manifest.detector](settings, parts, processor)
    except (BlemishError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"The manifest of {path} does not describe a model: {error}") from error
    try:
        with safe_open(Path(path), framework="pt", device="cpu") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        pictures = tensors.pop(PICTURES, torch.empty(0, dtype=torch.uint8))
        for name, own in model.state_dict().items():
            if own.ndim == 0 and name in tensors and tensors[name].numel() != 1:  # torch 2.7 takes the first number
                raise ValueError(f"size mismatch for {name}: one number, got {tuple(tensors[name].shape)}.")
        model.load_state_dict(tensors)
        model.check_state()
        model.good_images = GoodImages(manifest.good_images, pictures.numpy().tobytes())
        intact = fingerprint is not None or _backbone(tensors) == manifest.weights.sha256
    except (SafetensorError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(f"The tensors of {path} do not fit its manifest: {error}") from error
    if not model.is_fitted:
        raise ArtifactError(f"{path} holds a detector without fitted state. Fit again.")
    if not intact:
        raise ArtifactError(f"The backbone's weights in {path} are damaged: their SHA-256 isn't the one recorded.")
    model.extractor.source, model.extractor.license = manifest.weights.source, manifest.weights.license
    model.data_record = manifest.data
    if processor is not None and processor.is_calibrated:
        processor.record = manifest.calibration
        try:
            _ = processor.decision
        except UsageError as error:
            raise ArtifactError(f"The numbers that decide in {path} make no sense: {error} Fit again.") from error
    try:
        return model.eval().to(device)
    except (RuntimeError, AssertionError) as error:  # AssertionError: torch was built without that kind of device
        raise UsageError(f"device {str(device)!r} can't be used: {error}") from error
