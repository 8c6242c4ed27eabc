"""Who wrote a model: signatures beside model files, and loading that accepts signed ones only.

A digest (`blemish.seal`) tells damage; whoever can replace a file can replace its digest. A signature (Ed25519, RFC
8032) over the digest can be made with a private key alone, and checked with the public one, which a machine at a line
holds. The digest covers every byte of the file and of those that belong to it, so nothing is left to change.

Where `REQUIRE` names a public key, every model that any verb or session of the process opens must be signed with its
private half. `cryptography` does the arithmetic.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from blemish.errors import ArtifactError, UsageError
from blemish.extras import require
from blemish.files import write_text, writing

REQUIRE = "BLEMISH_REQUIRE_SIGNATURE"
"""The environment variable that names the public key; `blemish --require-signature KEY` sets it."""

_PREFIX = b"blemish model, signature 1\n"
"""No signature that was made for another purpose is one for a model."""

_made_here: ContextVar[bool] = ContextVar("made_here", default=False)


def new_keys(path: str | os.PathLike[str]) -> Path:
    """Writes a new private key to `path`, readable by its owner only, and returns the public one's, `path` with .pub.

    Raises:
        UsageError: if one of them exists. OutputError: if they can't be written. MissingExtraError: without
            cryptography.
    """
    serialization, ed25519 = _cryptography()
    path, public = Path(path), Path(path).with_suffix(".pub")
    if path.exists() or public.exists() or path == public:
        raise UsageError(
            f"{path} or {public} exists, and keys are never replaced. Name another file, such as line.pem."
        )
    key = ed25519.Ed25519PrivateKey.generate()
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    content = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
    write_text(public, key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo).decode())
    return public


def sign(model: str | os.PathLike[str], digest: str, key: str | os.PathLike[str]) -> Path:
    """Signs a model file and returns the signature's file, the model's name with .sig.

    Args:
        model: the file.
        digest: its own, see `blemish.seal.read_seal`.
        key: file of the private key.

    Raises:
        UsageError: if the key can't be read. OutputError: if the signature can't be written. MissingExtraError:
            without cryptography.
    """
    signature = _read_key(Path(key), private=True).sign(_PREFIX + digest.encode())
    write_text(signature_of(Path(model)), base64.b64encode(signature).decode() + "\n")
    return signature_of(Path(model))


def check(model: str | os.PathLike[str], digest: str | None) -> None:
    """Nothing, unless a signature is required and this isn't one.

    Args:
        model: the file.
        digest: that it was found to have; None for files of versions that wrote none.

    Raises:
        ArtifactError: if the model isn't signed with the required key. UsageError: if that key can't be read.
        MissingExtraError: without cryptography.
    """
    key = os.environ.get(REQUIRE)
    if not key or _made_here.get():
        return
    public, path = _read_key(Path(key), private=False), signature_of(Path(model))
    if digest is None:
        raise ArtifactError(f"{model} is of a version that wrote no digest to be signed. Load and save it again.")
    try:
        signature = base64.b64decode(path.read_bytes(), validate=False)
    except FileNotFoundError:
        raise ArtifactError(
            f"{model} is not signed, and {key} is required to have signed it: there is no {path.name}. Copy it along, "
            f"or sign the model with blemish sign."
        ) from None
    except (OSError, binascii.Error) as error:
        raise ArtifactError(f"The signature {path} can't be read: {error}. Copy it again.") from error
    invalid = require("cryptography.exceptions").InvalidSignature
    try:
        public.verify(signature, _PREFIX + digest.encode())
    except invalid:
        raise ArtifactError(
            f"{model} was changed after it was signed, or {key} is not the key that signed it. Take the model from who "
            f"made it."
        ) from None


@contextmanager
def required(key: str | os.PathLike[str]) -> Iterator[None]:
    """While the block runs, this process and those that it starts open only models that this public key accepts."""
    before = os.environ.get(REQUIRE)
    os.environ[REQUIRE] = os.path.abspath(key)
    try:
        yield
    finally:
        os.environ.pop(REQUIRE)
        if before is not None:
            os.environ[REQUIRE] = before


@contextmanager
def made_here() -> Iterator[None]:
    """For files that this process has just made, to try them: they can't be signed yet."""
    token = _made_here.set(True)
    try:
        yield
    finally:
        _made_here.reset(token)


def signature_of(model: Path) -> Path:
    """Where the signature of a model file lies."""
    """Where the signature of a model file lies."""
    return model.with_name(f"{model.name}.sig")


def _read_key(path: Path, *, private: bool) -> Any:
    serialization, ed25519 = _cryptography()
    kind = "private" if private else "public"
    try:
        content = path.read_bytes()
        key = (
            serialization.load_pem_private_key(content, password=None)
            if private
            else serialization.load_pem_public_key(content)
        )
    except (OSError, ValueError, TypeError, require("cryptography.exceptions").UnsupportedAlgorithm) as error:
        raise UsageError(
            f"The {kind} key {path} can't be read: {error} Make a pair with blemish sign --new-key."
        ) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey):
        raise UsageError(f"The key {path} is not of Ed25519. Make a pair with blemish sign --new-key.")
    return key


def _cryptography() -> tuple[Any, Any]:
    hazmat = "cryptography.hazmat.primitives"
    return require(f"{hazmat}.serialization"), require(f"{hazmat}.asymmetric.ed25519")
