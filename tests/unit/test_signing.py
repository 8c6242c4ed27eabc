"""Where a signature is required, no model is opened that its owner didn't sign, in any runtime and by any verb."""

from __future__ import annotations

import shutil
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

from blemish import artifact, runtime, signing
from blemish.errors import ArtifactError, BlemishError, MissingExtraError, UsageError
from blemish.seal import read_seal
from exported import export_untried
from known import known


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    for name in ("line", "other"):
        assert signing.new_keys(folder / f"{name}.pem") == folder / f"{name}.pub"
    return folder


@pytest.fixture(scope="module")
def files(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in all runtimes, none of them signed."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copy(model_file, folder / "m.safetensors")
    for suffix in ("onnx", "xml"):
        export_untried(model_file, folder / f"m.{suffix}")
    return folder


def signed(files: Path, name: str, key: Path, folder: Path) -> Path:
    for file in files.iterdir():
        shutil.copy(file, folder)
    path = folder / name
    digest = known(read_seal(path, [path.with_suffix(".bin")] if path.suffix == ".xml" else []))
    assert signing.sign(path, digest, key) == folder / f"{name}.sig"
    return path


@pytest.mark.parametrize("name", ["m.safetensors", "m.onnx", "m.xml"])
def test_signed_models_only(
    name: str, keys: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signing.REQUIRE, str(keys / "line.pub"))
    with pytest.raises(ArtifactError, match=rf"{name} is not signed, .* there is no {name}.sig. Copy it"):
        runtime.load(files / name)
    path = signed(files, name, keys / "line.pem", tmp_path)
    assert runtime.load(path).fingerprint == read_seal(path, [path.with_suffix(".bin")] if name == "m.xml" else [])
    monkeypatch.setenv(signing.REQUIRE, str(keys / "other.pub"))
    with pytest.raises(ArtifactError, match=r"or .*other.pub is not the key that signed it"):
        runtime.load(path)


def test_another_model_under_a_good_signature(
    keys: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a digest of its own, as whoever changes a model writes it."""
    path = signed(files, "m.safetensors", keys / "line.pem", tmp_path)
    model = artifact.load(path)
    model.decider.image_sensitivity = 0.0
    artifact.save(model, path)
    artifact.load(path)
    monkeypatch.setenv(signing.REQUIRE, str(keys / "line.pub"))
    with pytest.raises(ArtifactError, match=r"was changed after it was signed"):
        artifact.load(path)
    Path(f"{path}.sig").write_text("no base64 \0")
    with pytest.raises(ArtifactError):
        artifact.load(path)


def test_models_of_versions_without_digest(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = Path(__file__).parents[1] / "golden" / "schema1"
    monkeypatch.setenv(signing.REQUIRE, str(keys / "line.pub"))
    for name in ("patchcore.safetensors", "patchcore.onnx", "patchcore.xml"):
        with pytest.raises(ArtifactError, match=r"is of a version that wrote no digest to be signed"):
            runtime.load(old / name)


def test_keys(keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sys.platform == "win32" or stat.S_IMODE((keys / "line.pem").stat().st_mode) == 0o600
    for name in ("line.pem", "line.pub"):
        with pytest.raises(UsageError, match=r"exists, and keys are never replaced"):
            signing.new_keys(keys / name)
    with pytest.raises(UsageError, match=r"The private key .*line.pub can't be read"):
        signing.sign(tmp_path / "m", "0" * 64, keys / "line.pub")
    for wrong in ("line.pem", "absent.pub"):
        monkeypatch.setenv(signing.REQUIRE, str(keys / wrong))
        with pytest.raises(UsageError, match=r"The public key .* can't be read.* blemish sign --new-key"):
            signing.check(tmp_path / "m", "0" * 64)


def test_the_key_is_required_even_where_nothing_can_check_it(
    keys: Path, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signing.REQUIRE, str(keys / "line.pub"))
    for name in [name for name in sys.modules if name.partition(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"needs cryptography"):
        artifact.load(files / "m.safetensors")


def test_export_tries_its_own_file(keys: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = artifact.load(files / "m.safetensors")
    monkeypatch.setenv(signing.REQUIRE, str(keys / "line.pub"))
    done = model.export(tmp_path / "new", "torch", images=[np.zeros((96, 128, 3), np.uint8)])
    with pytest.raises(BlemishError, match="is not signed"):
        artifact.load(done.path)
