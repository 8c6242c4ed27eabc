"""The model file: the same bytes for the same model, all or nothing on disk, and no harm from a hostile one."""

from __future__ import annotations

import ast
import json
import os
import pickle
import stat
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import blemish
from blemish import artifact, runtime
from blemish.artifact import KEY, SCHEMA, load, read_manifest
from blemish.data.batch import InferenceBatch
from blemish.data.datamodule import ImageDataModule
from blemish.data.good_images import GoodImages
from blemish.engine import Engine
from blemish.errors import ArtifactError, NotFittedError, OutputError, UsageError
from blemish.features.weights import digest
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.models.patchcore import Patchcore
from blemish.post_processing import BasePostProcessor, DecisionModule
from blemish.seal import BLANK, write_seal

Edit = Callable[[dict[str, Any], dict[str, torch.Tensor]], None]


def manifest_in(path: Path) -> dict[str, Any]:
    size = struct.unpack("<Q", path.read_bytes()[:8])[0]
    header = json.loads(path.read_bytes()[8 : 8 + size])
    content: dict[str, Any] = json.loads(header["__metadata__"][KEY])
    return content


def forged(source: Path, target: Path, edit: Edit) -> Path:
    """A copy of a model file with its manifest and tensors edited in place by `edit`, and sealed again."""
    manifest, tensors = {**manifest_in(source), "seal": BLANK}, load_file(source)
    edit(manifest, tensors)
    save_file(tensors, target, metadata={KEY: json.dumps(manifest)})
    write_seal(target)
    return target


# --------------------------------------------------------------------------------------------------------------- honest


@pytest.mark.parametrize("name", detectors())
def test_same_seed_same_bytes(name: str, model_files: dict[str, Path], tiles: Path, tmp_path: Path) -> None:
    model = detectors()[name].build(image_size=(64, 96))
    Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
    model.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == model_files[name].read_bytes()


@pytest.mark.parametrize("name", detectors())
def test_saving_what_was_loaded_gives_the_same_bytes(name: str, model_files: dict[str, Path], tmp_path: Path) -> None:
    load(model_files[name]).save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == model_files[name].read_bytes()


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", detectors())
def test_loading_needs_no_network(name: str, model_files: dict[str, Path]) -> None:
    assert load(model_files[name]).is_fitted


@pytest.mark.usefixtures("no_network")
def test_timm_backbone_travels_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path / "empty"))
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = Patchcore(backbone="resnet18", layers=["layer1"], pretrained=False, image_size=64, seed=7)
    model.start()
    model.observe(model.features(model.pre_processor(images)))
    model.finish()
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.extractor.checksum() == model.extractor.checksum()
    assert torch.equal(again(images).pred_score, model(images).pred_score)


def test_manifest_says_where_everything_came_from(model_file: Path, tiles: Path) -> None:
    manifest = read_manifest(model_file)
    assert manifest.schema_number == SCHEMA
    assert manifest.detector == "patchcore"
    assert manifest.arguments["seed"] == 0
    assert manifest.arguments["image_size"] == [64, 96]
    assert manifest.versions["blemish"] == blemish.__version__
    assert manifest.weights.source == "bundled"
    assert len(manifest.weights.sha256) == 64
    assert manifest.data is not None
    assert manifest.data.fingerprint == ImageDataModule(tiles).fingerprint()
    assert manifest.calibration is not None
    assert (manifest.calibration.source, manifest.calibration.normal) == ("held_out", 3)
    assert manifest.calibration.certified_false_alarm_rate == 0.25


def test_everything_a_loaded_model_knows(model_file: Path) -> None:
    model = load(model_file)
    manifest = read_manifest(model_file)
    assert isinstance(model.post_processor, DecisionModule)
    assert model.post_processor.record == manifest.calibration
    assert model.data_record == manifest.data
    assert model.extractor.source == "bundled"
    assert not model.training


def test_sensitivity_and_rate_travel(model: Detector, tmp_path: Path) -> None:
    assert isinstance(model.post_processor, DecisionModule)
    model.post_processor.image_sensitivity = 0.75
    model.post_processor.pixel_sensitivity = 0.25
    model.post_processor.max_false_alarm_rate = 0.5
    model.save(tmp_path / "model.safetensors")
    processor = load(tmp_path / "model.safetensors").post_processor
    assert isinstance(processor, DecisionModule)
    assert (processor.image_sensitivity, processor.pixel_sensitivity) == (0.75, 0.25)
    assert processor.max_false_alarm_rate == 0.5


def test_without_post_processor(tmp_path: Path) -> None:
    model = Patchcore(image_size=64, post_processor=False)
    model.start()
    model.observe(torch.rand(2, 171, 8, 8, generator=torch.Generator().manual_seed(0)))
    model.finish()
    model.save(tmp_path / "model.safetensors")
    assert load(tmp_path / "model.safetensors").post_processor is None


def test_nothing_unpickles() -> None:
    """Neither pickle nor its friends are imported, and torch.load is not called, wherever models are read."""
    tree = ast.parse(Path(artifact.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    calls = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not names & {"pickle", "dill", "joblib", "shelve", "marshal"}
    assert "torch.load" not in calls


# -------------------------------------------------------------------------------------------------------------- writing


def test_unfitted(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match=r"not fitted, so there is nothing to save. Run Engine.fit first"):
        Patchcore(image_size=64).save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_custom_post_processor_is_refused(model: Detector, tmp_path: Path) -> None:
    class Mine(BasePostProcessor):
        def forward(self, batch: InferenceBatch) -> InferenceBatch:
            return batch

    model.post_processor = Mine()
    with pytest.raises(UsageError, match=r"A file without code can't hold a post-processor of class Mine. Save the"):
        model.save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_detector_of_a_class_of_the_users_own_is_refused(model: Detector, tmp_path: Path) -> None:
    """It would come back as its base class, and judge as that."""
    model.__class__ = type("Mine", (type(model),), {})
    with pytest.raises(
        UsageError, match=r"A file without code can't hold a detector of class Mine: it would come back as"
    ):
        model.save(tmp_path / "model.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_parents_are_created(model: Detector, tmp_path: Path) -> None:
    model.save(tmp_path / "a" / "ü b" / "model.safetensors")
    assert load(tmp_path / "a" / "ü b" / "model.safetensors").is_fitted


def test_output_that_is_a_folder(model: Detector, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't be written: this is a folder. Choose another place"):
        model.save(tmp_path)


def test_output_below_a_file(model: Detector, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"model.safetensors can't be written: .*Choose another place"):
        model.save(tmp_path / "file" / "model.safetensors")


@pytest.mark.skipif(os.geteuid() == 0 if hasattr(os, "geteuid") else True, reason="root may write everywhere")
def test_read_only_folder(model: Detector, tmp_path: Path) -> None:
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(OutputError, match=r"can't be written: .*Choose a place that you may write to"):
            model.save(tmp_path / "model.safetensors")
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("disk full"), MemoryError()], ids=repr)
@pytest.mark.parametrize("before", [None, b"an older model"], ids=["new", "old"])
def test_interrupted_save(
    error: BaseException, before: bytes | None, model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a file is written, then it stops: no broken model, no litter, and what was there is there."""
    path = tmp_path / "model.safetensors"
    if before is not None:
        path.write_bytes(before)

    def stop(tensors: Any, filename: Path, metadata: Any) -> None:
        filename.write_bytes(b"half")
        raise error

    monkeypatch.setattr(artifact, "save_file", stop)
    with pytest.raises(OutputError if isinstance(error, OSError) else type(error)):
        model.save(path)
    assert [one.name for one in tmp_path.iterdir()] == ([] if before is None else ["model.safetensors"])
    assert before is None or path.read_bytes() == before


def test_others_may_read_it(model: Detector, tmp_path: Path) -> None:
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


# -------------------------------------------------------------------------------------------------------------- attacks


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"There is no model file at .*none.safetensors"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(ArtifactError, match="There is no model file at"):
        load(tmp_path)


def header(content: bytes, size: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if size is None else size) + content


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("unpickled",))


DAMAGED = {
    "empty": b"",
    "one byte": b"x",
    "text": b"just some text, long enough to hold a header size",
    "random bytes": bytes(range(256)) * 40,
    "zeros": bytes(4096),
    "pickle": pickle.dumps(Bomb()),
    "huge header": header(b"{}", size=2**62),
    "header past the end": header(b"{}", size=1000),
    "header not JSON": header(b"{not json}"),
    "header nested deeply": header(b"[" * 50_000),
    "tensor past the end": header(b'{"a":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}}'),
    "shape overflow": header(b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}') + bytes(4),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"model.safetensors is not a model file, or it is damaged: .*Fit again"):
        load(path)


def test_torch_checkpoint(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "model.ckpt")
    with pytest.raises(ArtifactError, match="is not a model file, or it is damaged"):
        load(tmp_path / "model.ckpt")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_truncated_file(share: float, model_file: Path, tmp_path: Path) -> None:
    whole = model_file.read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArtifactError, match=r"cut.safetensors is not a model file, or it is damaged"):
        load(tmp_path / "cut.safetensors")


def test_foreign_safetensors(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"other.safetensors is a safetensors file, but not one that blemish wrote"):
        load(tmp_path / "other.safetensors")
    save_file({"weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ArtifactError, match="not one that blemish wrote"):
        load(tmp_path / "other.safetensors")


MANIFESTS = {
    "text": ("not json", r"is not JSON: Expecting value"),
    "list": ("[1, 2]", r"is not valid: manifest: "),
    "null": ("null", r"is not valid: manifest: "),
    "empty": ("{}", r"is not valid: schema_number: Field required"),
    "nested deeply": ("[" * 100_000, r"is not JSON"),
    "number with too many digits": ("9" * 5000, r"is not JSON"),
}


@pytest.mark.parametrize(("text", "message"), MANIFESTS.values(), ids=MANIFESTS.keys())
def test_broken_manifest(text: str, message: str, tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(3)}, tmp_path / "model.safetensors", metadata={KEY: text})
    with pytest.raises(ArtifactError, match=r"The manifest of .*model.safetensors " + message):
        load(tmp_path / "model.safetensors")


def setting(*keys: str, to: Any) -> Edit:
    """Sets one value of the manifest."""

    def edit(manifest: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for key in keys[:-1]:
            manifest = manifest[key]
        manifest[keys[-1]] = to

    return edit


def tensor(name: str, value: torch.Tensor | None) -> Edit:
    """Sets one tensor, or drops it."""

    def edit(manifest: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    return edit


FORGED: dict[str, tuple[Edit, str]] = {
    "newer schema": (
        setting("schema_number", to=SCHEMA + 1),
        rf"has schema {SCHEMA + 1}; this blemish \(.*\) reads up to {SCHEMA}. .*upgrade with pip install --upgrade",
    ),
    "schema zero": (setting("schema_number", to=0), "schema_number: Input should be greater than or equal to 1"),
    "schema of a sly kind": (setting("schema_number", to=2.0), "schema_number: "),
    "no schema": (lambda manifest, _: manifest.pop("schema_number"), "schema_number: Field required"),
    "unknown key": (setting("run_me", to="os.system"), "is not valid: run_me: Extra inputs are not permitted"),
    "unknown calibration key": (setting("calibration", "run_me", to=1), "is not valid: calibration.run_me"),
    "unknown weights key": (setting("weights", "run_me", to=1), "is not valid: weights.run_me: Extra inputs"),
    "unknown data key": (setting("data", "run_me", to=1), "is not valid: data.run_me"),
    "unknown detector": (setting("detector", to="os.system"), "holds a detector called 'os.system'. Known: patchcore"),
    "unknown argument": (setting("arguments", "run_me", to=1), "does not describe a model: .*run_me"),
    "two meanings": (setting("arguments", "pretrained", to=True), "does not describe a model: .*pretrained"),
    "weights to read": (setting("arguments", "weights", to="/etc/passwd"), "does not describe a model"),
    "bad argument": (setting("arguments", "num_neighbors", to=0), "num_neighbors must be at least 1. Got 0"),
    "unknown backbone": (
        setting("arguments", "backbone", to="evil"),
        "backbone must be 'bundled', 'filter_bank' or the name",
    ),
    "backbone of a wrong type": (setting("arguments", "backbone", to=5), "does not describe a model"),
    "layers of a wrong type": (setting("arguments", "layers", to={"a": 1}), "does not describe a model"),
    "seed too large": (setting("arguments", "seed", to=10**30), "does not describe a model: seed must be"),
    "seed of a wrong type": (
        setting("arguments", "seed", to="x"),
        "does not describe a model: seed must be a whole number",
    ),
    "sigma absurd": (setting("arguments", "sigma", to=1e12), "does not describe a model: sigma must be"),
    "tile of a wrong type": (setting("arguments", "tile_size", to="x"), "does not describe a model"),
    "size absurd": (
        setting("arguments", "image_size", to=[10**9, 96]),
        "image_size must be .* each between 1 and 16384, at most 16777216 pixels. Got",
    ),
    "area absurd": (setting("arguments", "image_size", to=[16384, 16384]), "at most 16777216 pixels"),
    "size negative": (
        setting("arguments", "image_size", to=[-1, 96]),
        "image_size must be .* each between 1 and 16384",
    ),
    "crop absurd": (
        setting("arguments", "crop_from", to=[10**9, 96]),
        "crop_from must be .* each between 1 and 16384",
    ),
    "roi is a file": (setting("arguments", "roi", to="roi.png"), "roi must be run lengths. Got 'roi.png'."),
    "roi too short": (
        setting("arguments", "roi", to={"size": [4, 4], "counts": [3, 4]}),
        "does not describe a model: counts of a region of interest must be whole numbers that add up to 4 x 4",
    ),
    "roi absurd": (
        setting("arguments", "roi", to={"size": [10**9, 10**9], "counts": [10**18]}),
        "does not describe a model: size of a region of interest must be",
    ),
    "crop too small": (setting("arguments", "crop_from", to=[8, 8]), "does not describe a model: crop_from must be"),
    "size of text": (setting("arguments", "image_size", to="64"), "image_size must be one number or"),
    "digests of images": (setting("data", "digests", to="abc"), "The digests of images in .* are damaged: "),
    "no size": (lambda manifest, _: manifest["arguments"].pop("image_size"), "image_size is missing"),
    "bad rate": (setting("post_processing", "max_false_alarm_rate", to=7.0), "max_false_alarm_rate must be between"),
    "unknown rate": (setting("post_processing", "run_me", to=7.0), "does not describe a model: .*run_me"),
    "tensor too many": (tensor("run.me", torch.zeros(1)), r'do not fit its manifest: .*Unexpected key.*"run.me"'),
    "tensor missing": (tensor("bank.rows", None), r'do not fit its manifest: .*Missing key.*"bank.rows"'),
    "width": (tensor("bank.rows", torch.zeros(40, 9)), r"do not fit its manifest: bank.rows must be \(40, 171\)"),
    "rank": (tensor("bank.norms", torch.zeros(1, 1)), r"do not fit its manifest: bank.norms must be"),
    "fixed shape": (tensor("post_processor._image_min", torch.zeros(2)), "do not fit its manifest: .*size mismatch"),
    "empty bank": (tensor("bank.rows", torch.zeros(0, 171)), r"bank.norms must be \(0,\)|without fitted state"),
}


@pytest.mark.parametrize(("edit", "message"), FORGED.values(), ids=FORGED.keys())
def test_forged_file(edit: Edit, message: str, model_file: Path, tmp_path: Path) -> None:
    path = forged(model_file, tmp_path / "forged.safetensors", edit)
    with pytest.raises(ArtifactError, match=r"(?s)" + message):
        load(path)


def test_forging_itself_is_harmless(model_file: Path, tmp_path: Path) -> None:
    """Or the tests above would prove nothing."""
    assert load(forged(model_file, tmp_path / "same.safetensors", lambda *_: None)).is_fitted


@pytest.mark.parametrize("kind", [torch.float64, torch.int32, torch.bool], ids=str)
def test_tensors_take_the_type_of_the_model(kind: torch.dtype, model_file: Path, tmp_path: Path) -> None:
    path = forged(model_file, tmp_path / "f.safetensors", lambda _, t: t.update({"bank.rows": t["bank.rows"].to(kind)}))
    assert load(path).get_buffer("bank.rows").dtype == torch.float32


def test_padim_state_of_another_grid(model_files: dict[str, Path], tmp_path: Path) -> None:
    edit = setting("arguments", "image_size", to=[64, 128])
    with pytest.raises(ArtifactError, match=r"gaussians.mean must be \(512, 100\). Got \(384, 100\)"):
        load(forged(model_files["padim"], tmp_path / "f.safetensors", edit))


def test_padim_channels_out_of_range(model_files: dict[str, Path], tmp_path: Path) -> None:
    edit = tensor("channel_index", torch.arange(100) + 136)
    with pytest.raises(ArtifactError, match="channel_index must be between 0 and 234"):
        load(forged(model_files["padim"], tmp_path / "f.safetensors", edit))


def test_flipped_bits_never_crash(tiles: Path, tmp_path: Path) -> None:
    """Every 7th byte of the header, one at a time: an `ArtifactError`, or a model that loads."""
    path = tmp_path / "flipped.safetensors"
    model = Patchcore(backbone="filter_bank", image_size=(64, 96))  # few tensors, or this takes a minute
    Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
    model.save(path)
    whole = bytearray(path.read_bytes())
    size = struct.unpack("<Q", whole[:8])[0]
    outcomes = set()
    for position in range(0, 8 + size, 7):
        whole[position] ^= 0x15
        path.write_bytes(whole)
        whole[position] ^= 0x15
        try:
            load(path)
            outcomes.add("loaded")
        except ArtifactError:
            outcomes.add("refused")
    assert "refused" in outcomes


# --------------------------------------------------------------------------------------------------------------- digest


@pytest.mark.parametrize("name", [*detectors(), "faiss"])
def test_no_bit_of_a_file_can_change(name: str, model_files: dict[str, Path], tmp_path: Path) -> None:
    """One bit in every kind of place: header, numbers that decide, bank, weights; and a cut, and an appended byte."""
    if name == "faiss":
        pytest.importorskip("faiss")
        by_faiss = setting("arguments", "neighbor_search", to="faiss")
        source = forged(model_files["patchcore"], tmp_path / "faiss.safetensors", by_faiss)
        load(source)
    else:
        source = model_files[name]
    good = source.read_bytes()
    header = struct.unpack("<Q", good[:8])[0]
    target = tmp_path / "model.safetensors"
    places = [*range(8 + header // 2, len(good), max(1, len(good) // 41)), len(good) - 1]
    for place in places:
        target.write_bytes(good[:place] + bytes([good[place] ^ (1 << place % 8)]) + good[place + 1 :])
        with pytest.raises(ArtifactError):
            load(target)
    for other in (good[:-1], good + b"\0"):
        target.write_bytes(other)
        with pytest.raises(ArtifactError):
            load(target)


def test_a_file_that_lost_its_digest(model_file: Path, tmp_path: Path) -> None:
    manifest, tensors = manifest_in(model_file), load_file(model_file)
    del manifest["seal"]
    save_file(tensors, tmp_path / "model.safetensors", metadata={KEY: json.dumps(manifest)})
    with pytest.raises(ArtifactError, match=r"model.safetensors has lost its digest"):
        load(tmp_path / "model.safetensors")


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, 1e39])
@pytest.mark.parametrize("name", ["_image_threshold", "_pixel_threshold", "_image_max", "_image_sensitivity"])
def test_numbers_that_decide_are_finite_and_in_range(name: str, value: float, model_file: Path, tmp_path: Path) -> None:
    def edit(_: Any, tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"post_processor.{name}"] = torch.tensor(value, dtype=torch.float32)

    with pytest.raises(ArtifactError, match=r"The numbers that decide in .* make no sense: .*must be"):
        load(forged(model_file, tmp_path / "model.safetensors", edit))


# --------------------------------------------------------------------------------------------------------- good images


def test_good_images_travel_with_pictures_where_asked_for(tiles: Path, tmp_path: Path) -> None:
    for thumbnails in (False, True):
        model = Patchcore(image_size=(64, 96))
        Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0), thumbnails=thumbnails)
        model.save(tmp_path / "model.safetensors")
        again = load(tmp_path / "model.safetensors")
        assert again.good_images == model.good_images
        named = read_manifest(tmp_path / "model.safetensors").good_images
        assert {image.name for image in named} <= {f"train/good/{i:03d}.png" for i in range(12)}
        assert len(named) > 3
        assert all((image.picture > 0) == thumbnails for image in named)
        again.save(tmp_path / "again.safetensors")
        assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def _good_images(change: Callable[[list[dict[str, Any]]], Any]) -> Edit:
    return lambda manifest, _: manifest.update(good_images=change(manifest["good_images"]))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (_good_images(lambda images: [{**images[0], "picture": 7}]), r"good_images tell of 7 bytes of pictures. Got 0"),
        (_good_images(lambda images: [{**images[0], "size": [0, 9]}]), r"The sides of good_images must be at least 1"),
        (
            _good_images(lambda images: [{**images[0], "name": 7}]),
            r"good_images.0.name: Input should be a valid str",
        ),
        (_good_images(lambda images: images[:1] * 10_001), r"good_images: Tuple should have at most 10000 items"),
        (
            lambda _, tensors: tensors.update({artifact.PICTURES: torch.zeros(3)}),
            r"tell of 0 bytes of pictures. Got 1",
        ),
    ],
    ids=["length", "size", "name", "many", "pictures"],
)
def test_good_images_that_make_no_sense(edit: Edit, message: str, model_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=message):
        load(forged(model_file, tmp_path / "model.safetensors", edit))


def test_files_without_good_images_load(model_file: Path, tmp_path: Path) -> None:
    path = forged(model_file, tmp_path / "model.safetensors", lambda manifest, _: manifest.pop("good_images"))
    assert load(path).good_images == GoodImages()
    image = np.zeros((96, 128, 3), np.uint8)
    assert runtime.load(path)(image)[0].raw_score == runtime.load(model_file)(image)[0].raw_score


# --------------------------------------------------------------------------------------------------- earlier versions

EARLIER = Path(__file__).parents[1] / "golden" / "schema1"


@pytest.mark.parametrize("name", ["patchcore", "padim", "patchcore_roi"])
def test_files_of_earlier_versions_judge_as_they_did(name: str, tmp_path: Path) -> None:
    images = list(np.load(EARLIER / "images.npz").values())
    expected = json.loads((EARLIER / "expected.json").read_text())[name]
    model = load(EARLIER / f"{name}.safetensors")
    model.save(tmp_path / "again.safetensors")
    for path in (EARLIER / f"{name}.safetensors", tmp_path / "again.safetensors"):
        for result, wanted in zip(runtime.load(path)(images), expected, strict=True):
            found = {"label": result.label, "mask_pixels": int(result.mask.sum()), "threshold": result.threshold}
            assert found == {key: wanted[key] for key in found}
            assert (result.raw_score, result.score) == pytest.approx((wanted["raw_score"], wanted["score"]), rel=1e-5)
            assert float(result.anomaly_map.mean()) == pytest.approx(wanted["map_mean"], abs=1e-5)
    before, after = load_file(EARLIER / f"{name}.safetensors"), load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    old, new = manifest_in(EARLIER / f"{name}.safetensors"), manifest_in(tmp_path / "again.safetensors")
    assert old["arguments"].items() <= new["arguments"].items(), "what is new has its default"


@pytest.mark.parametrize("schema", [1, SCHEMA])
def test_files_with_all_of_timms_stages_load(schema: int, tmp_path: Path) -> None:
    """As long as timm's network was in them, also what lies behind the last layer that is of use."""
    images = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    model = Patchcore(backbone="tf_efficientnet_lite0", layers=["blocks.1"], pretrained=False, image_size=64)
    model.start()
    model.observe(model.features(model.pre_processor(images)))
    model.finish()
    model.save(tmp_path / "model.safetensors")
    everything = timm.create_model("tf_efficientnet_lite0", features_only=True)
    everything.load_state_dict(model.extractor.network.state_dict(), strict=False)

    def grow(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        whole = {f"network.{name}": one for name, one in everything.state_dict().items()}
        tensors.update({f"extractor.{name}": one for name, one in whole.items()})
        content["schema_number"] = schema
        content["weights"]["sha256"] = digest(whole)
        if schema == 1:
            del content["seal"]

    def written(edit: Edit) -> Path:
        content, tensors = manifest_in(tmp_path / "model.safetensors"), load_file(tmp_path / "model.safetensors")
        edit(content, tensors)
        save_file(tensors, tmp_path / "earlier.safetensors", metadata={KEY: json.dumps(content)})
        return tmp_path / "earlier.safetensors"

    forge = written if schema == 1 else partial(forged, tmp_path / "model.safetensors", tmp_path / "other.safetensors")
    path = forge(grow)
    assert torch.equal(load(path)(images).pred_score, model(images).pred_score)

    def damage(content: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        grow(content, tensors)
        tensors["extractor.network.blocks.1.0.bn1.bias"] += 1

    if schema == 1:
        with pytest.raises(ArtifactError, match=r"weights in .* are damaged: their SHA-256 isn't the one recorded"):
            load(written(damage))


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_graphs_of_earlier_versions_judge_as_they_did(suffix: str) -> None:
    images = list(np.load(EARLIER / "images.npz").values())
    expected = json.loads((EARLIER / "expected.json").read_text())["patchcore"]
    session = runtime.load(EARLIER / f"patchcore{suffix}")
    assert session.fingerprint is None, "they carried no digest"
    alone = runtime.load(EARLIER / f"patchcore{suffix}", verdict_only=True)
    assert [one.raw_score for one in alone(images)] == [one.raw_score for one in session(images)]
    for result, wanted in zip(session(images), expected, strict=True):
        assert (result.label, result.threshold) == (wanted["label"], wanted["threshold"])
        assert result.raw_score == pytest.approx(wanted["raw_score"], rel=1e-5)
        assert sum(region.area for region in result.regions) == result.mask.sum(), "without a raw map, whole marks"
