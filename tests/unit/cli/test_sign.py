"""`blemish sign`, and `--require-signature` in front of every verb."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from blemish.signing import REQUIRE


def test_a_pair_of_keys_and_a_signed_model(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    shutil.copy(model_file, "m.safetensors")
    assert blemish("sign", "--new-key", "line.pem").out == (
        "Private key: line.pem. Keep it secret. Public key: line.pub.\n"
    )
    require = ("--require-signature", "line.pub")
    for verb in ("inspect m.safetensors", f"predict m.safetensors {tiles}/test/good", f"test m.safetensors {tiles}"):
        ran = blemish(*require, *verb.split())
        assert ran.code == 3
        assert "m.safetensors is not signed" in ran.err
    assert blemish("sign", "m.safetensors", "--key", "line.pem", "--json").json == {
        "signatures": {"m.safetensors": "m.safetensors.sig"}
    }
    assert blemish(*require, "inspect", "m.safetensors").code == 0
    assert REQUIRE not in os.environ


@pytest.mark.parametrize(
    "words",
    [[], ["m.safetensors"], ["--key", "k"], ["m.safetensors", "--new-key", "k"], ["--key", "k", "--new-key", "l"]],
)
def test_arguments(words: list[str], blemish: Any, inside: Path) -> None:
    ran = blemish("sign", *words)
    assert ran.code == 2
    assert "Give models with --key to sign them, or --new-key alone" in ran.err
    assert not list(inside.iterdir())


def test_what_is_no_model(blemish: Any, inside: Path) -> None:
    Path("empty.safetensors").touch()
    blemish("sign", "--new-key", "line.pem")
    for name in ("empty.safetensors", "absent.onnx"):
        ran = blemish("sign", name, "--key", "line.pem")
        assert ran.code == 3
        assert f"The model {name} can't be read" in ran.err
