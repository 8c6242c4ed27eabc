"""Several models in one file: the bytes that went in come out, what they share is there once, and damage is refused."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from blemish.catalog import KEY, code_of, read_catalog, shares, unpack, write_catalog
from blemish.errors import ArtifactError, UsageError
from blemish.manifest import read_manifest
from blemish.runtime import load
from blemish.seal import BLANK, write_seal


@pytest.fixture(scope="module")
def line(model_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("catalog") / "line.catalog"
    write_catalog(model_files, path)
    return path


def test_models_come_out_as_they_went_in_and_judge_alike(
    line: Path, model_files: dict[str, Path], tiles: Path, tmp_path: Path
) -> None:
    unpacked = unpack(line, tmp_path)
    assert unpacked.keys() == model_files.keys()
    for code, path in model_files.items():
        assert unpacked[code].read_bytes() == path.read_bytes()
    pictures = sorted((tiles / "test").rglob("*.png"))[:3]
    alone, together = load(model_files["padim"]), load(unpacked["padim"])
    for one, other in zip(alone(pictures), together(pictures), strict=True):
        assert (one.raw_score, one.label) == (other.raw_score, other.label)
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    changed = [path.stat().st_mtime_ns for path in unpacked.values()]
    assert [path.stat().st_mtime_ns for path in unpack(line, tmp_path).values()] == changed  # not written again


def test_what_models_share_is_there_once(line: Path, model_files: dict[str, Path]) -> None:
    size, alone = shares(line)
    assert alone == sum(path.stat().st_size for path in model_files.values())
    assert len({read_manifest(path).weights.sha256 for path in model_files.values()}) == 1
    backbone = sum(
        tensor.nbytes for name, tensor in load(model_files["padim"]).backend.model.state_dict().items()  # type: ignore[attr-defined]
        if name.startswith("extractor.")
    )  # fmt: skip
    assert backbone > 0
    assert size < alone - (len(model_files) - 1) * backbone + 20_000  # of headers, which are deflated
    assert line.stat().st_size == size


def test_the_same_models_give_the_same_bytes(line: Path, model_files: dict[str, Path], tmp_path: Path) -> None:
    write_catalog(model_files, tmp_path / "again.catalog")
    assert (tmp_path / "again.catalog").read_bytes() == line.read_bytes()


def test_another_catalog_takes_the_place_of_the_one_before(
    line: Path, model_files: dict[str, Path], tmp_path: Path
) -> None:
    before = unpack(line, tmp_path / "models")
    write_catalog({"gear": model_files["padim"]}, tmp_path / "other.catalog")
    after = unpack(tmp_path / "other.catalog", tmp_path / "models")
    assert [path.is_file() for path in (*before.values(), *after.values())] == [False] * len(before) + [True]


@pytest.mark.parametrize("place", [0.0, 0.001, 0.3, 0.6, 0.9, 0.9999])
def test_a_flipped_bit_is_refused(line: Path, tmp_path: Path, place: float) -> None:
    content = bytearray(line.read_bytes())
    content[int(place * len(content))] ^= 1
    damaged = tmp_path / "damaged.catalog"
    damaged.write_bytes(content)
    with pytest.raises(ArtifactError):
        unpack(damaged, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_torn_file_and_others_are_refused(line: Path, model_files: dict[str, Path], tmp_path: Path) -> None:
    torn = tmp_path / "torn.catalog"
    torn.write_bytes(line.read_bytes()[:-1])
    for path, message in (
        (torn, "is not a catalog, or it is damaged"),
        (model_files["padim"], "is not a catalog that blemish wrote"),
        (tmp_path / "none.catalog", "There is no catalog at"),
    ):
        with pytest.raises(ArtifactError, match=message):
            read_catalog(path)


def forged(path: Path, entries: dict[str, Any], **content: Any) -> Path:
    """A catalog of somebody who can compute digests as well."""
    save_file(entries, path, metadata={KEY: json.dumps({"schema": 1, "seal": BLANK, **content})})
    write_seal(path)
    return path


def product(code: str = "gear", tensors: tuple[str, ...] = ("a",)) -> dict[str, Any]:
    return {"code": code, "tensors": list(tensors), "signature": None}


HEADER = np.frombuffer(zlib.compress(b"x" * 40), dtype=np.uint8)
ENTRIES = {"header.gear": HEADER, "a": np.zeros(10_000, dtype=np.uint8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"products": []}, "is not a catalog that blemish wrote"),
        ({"products": [product("../../etc")]}, "is not a catalog that blemish wrote"),
        ({"products": [product(), product()]}, "its parts don't belong together"),
        ({"products": [product(tensors=("b",))]}, "its parts don't belong together"),
        ({"products": [product(tensors=("a",) * 1000)]}, "would be larger than a model of it can be"),
        ({"products": [product()], "schema": 2}, "has schema 2; this blemish reads 1: pip install"),
        ({"products": [product()], "code": "import os"}, "is not a catalog that blemish wrote"),
    ],
)
def test_forged_ones_are_refused(content: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = forged(tmp_path / "forged.catalog", ENTRIES, **content)
    with pytest.raises(ArtifactError, match=message):
        unpack(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_forged_model_in_a_whole_catalog_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    models = unpack(forged(tmp_path / "forged.catalog", ENTRIES, products=[product()]), tmp_path / "models")
    with pytest.raises(ArtifactError):
        load(models["gear"])


def test_a_header_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.catalog.MOST_HEADER", 1000)
    entries = {**ENTRIES, "header.gear": np.frombuffer(zlib.compress(bytes(10**6)), dtype=np.uint8)}
    path = forged(tmp_path / "forged.catalog", entries, products=[product()])
    with pytest.raises(ArtifactError, match="holds a header of more than 1000 bytes"):
        unpack(path, tmp_path / "models")


def test_what_is_no_model_or_no_code_is_refused(model_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"A catalog holds \.safetensors models"):
        write_catalog({"gear": tmp_path / "gear.onnx"}, tmp_path / "c.catalog")
    with pytest.raises(ArtifactError, match="There is no model file"):
        write_catalog({"gear": tmp_path / "gear.safetensors"}, tmp_path / "c.catalog")
    with pytest.raises(UsageError, match="A product code has 1 to 64 letters"):
        write_catalog({"a/b": model_files["padim"]}, tmp_path / "c.catalog")
    assert code_of(Path("a b/Zahnrad 7.safetensors")) == "Zahnrad-7"
