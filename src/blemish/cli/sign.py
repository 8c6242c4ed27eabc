"""`blemish sign`: whoever made a model says so."""

from __future__ import annotations

from pathlib import Path

import typer

from blemish import signing
from blemish.cli.console import out, print_json
from blemish.errors import ArtifactError, UsageError
from blemish.seal import read_seal


def sign(
    models: list[Path] = typer.Argument(None, metavar="MODEL...", help="Model files: .safetensors, .onnx or .xml."),
    key: Path | None = typer.Option(None, "--key", help="Private key to sign with."),
    new_key: Path | None = typer.Option(None, "--new-key", help="Make a pair of keys: this file, and one with .pub."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Sign models, so that machines with the public key accept no others: blemish --require-signature KEY.pub ..."""
    if (key is None) == (new_key is None) or bool(models) == (key is None):
        raise UsageError("Give models with --key to sign them, or --new-key alone to make a pair of keys.")
    if new_key is not None:
        public = signing.new_keys(new_key)
        if as_json:
            print_json({"private_key": str(new_key), "public_key": str(public)})
        else:
            out().print(f"Private key: {new_key}. Keep it secret. Public key: {public}.", markup=False)
        return
    assert key is not None  # or there would be a new one
    signatures = {model: signing.sign(model, _digest(model), key) for model in models}
    if as_json:
        print_json({"signatures": {str(model): str(path) for model, path in signatures.items()}})
        return
    for path in signatures.values():
        out().print(f"Signature: {path}. Copy it along with the model.", markup=False)


def _digest(model: Path) -> str:
    companions = [model.with_suffix(".bin")] if model.suffix.lower() == ".xml" else []
    try:
        digest = read_seal(model, companions)
    except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
        if isinstance(error, ArtifactError):
            raise
        raise ArtifactError(f"The model {model} can't be read: {error}. Check the path.") from error
    if digest is None:
        raise ArtifactError(f"{model} holds no digest to sign. Save, or export, it again with this version.")
    return digest
