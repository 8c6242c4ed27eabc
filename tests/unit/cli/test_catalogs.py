"""`blemish catalog`, and what `inspect` says of its files."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any


def test_a_catalog_is_packed_shown_and_not_replaced_unasked(
    blemish: Any, model_files: dict[str, Path], inside: Path
) -> None:
    shutil.copy(model_files["padim"], "pin 7.safetensors")
    ran = blemish("catalog", f"gear={model_files['patchcore']}", "pin 7.safetensors", "-o", "line.catalog", "--json")
    assert (ran.json["products"], ran.json["catalog"]) == (["gear", "pin-7"], "line.catalog")
    assert ran.json["bytes"] == Path("line.catalog").stat().st_size
    shown = blemish("inspect", "line.catalog", "--json").json
    assert shown["products"] == [{"code": "gear", "signed": False}, {"code": "pin-7", "signed": False}]
    assert shown["bytes_alone"] == sum(model_files[name].stat().st_size for name in ("padim", "patchcore"))
    assert "pin-7" in blemish("inspect", "line.catalog").out
    again = blemish("catalog", "pin 7.safetensors", "-o", "line.catalog")
    assert (again.code, "exists. Replace it with --overwrite" in again.err) == (2, True)
    twice = blemish("catalog", "pin 7.safetensors", "pin-7=pin 7.safetensors", "-o", "b.catalog")
    assert (twice.code, "Two models are of product 'pin-7'" in twice.err) == (2, True)
    exported = blemish("catalog", "pin.onnx", "-o", "b.catalog")
    assert (exported.code, "an exported one is served as it is" in exported.err) == (2, True)


def test_a_signed_model_comes_out_signed(blemish: Any, model_file: Path, inside: Path) -> None:
    from blemish.catalog import unpack

    shutil.copy(model_file, "m.safetensors")
    blemish("sign", "--new-key", "line.pem")
    blemish("sign", "m.safetensors", "--key", "line.pem")
    blemish("catalog", "gear=m.safetensors", "-o", "line.catalog")
    model = unpack(Path("line.catalog"), Path("models"))["gear"]
    assert blemish("--require-signature", "line.pub", "inspect", str(model)).code == 0
