"""Several models in one file, which holds what they have in common once: a line's products mostly share a backbone.

A `.catalog` is a safetensors file. Each distinct tensor of the models is an entry of bytes, named by its SHA-256; the
metadata key "blemish-catalog" says per product which header, and which entries behind it, make up the model's file:

    {"schema": 1, "seal": ..., "products": [{"code": "gear", "tensors": ["ab12...", ...], "signature": null}, ...]}

So a model comes out as the bytes that went in, with its own digest, and judges to the last bit as it did. Headers are
deflated: they hold digests in plain letters, of which a sealed file has its own alone. Reading needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from blemish.errors import ArtifactError, UsageError
from blemish.files import replacing, writing
from blemish.manifest import checked_seal, read_manifest
from blemish.seal import BLANK, read_seal, write_seal
from blemish.signing import signature_of

SUFFIX = ".catalog"
KEY = "blemish-catalog"
SCHEMA = 1
CODE = r"^[\w.+-]{1,64}$"
"""What a product code may look like: it is a part of addresses, labels and file names."""
MOST_HEADER = 100_000_000
"""Bytes of a model's header; safetensors takes no longer ones."""


class Product(BaseModel):
    """A model in a catalog. `tensors` are the names of its entries in the order of its file, `signature` is the text of
    the `.sig` that lay beside it.
    """

    model_config = ConfigDict(extra="forbid")
    code: str = Field(pattern=CODE)
    tensors: list[str]
    signature: str | None


class Catalog(BaseModel):
    """What a catalog says about itself. `seal` is its SHA-256."""

    model_config = ConfigDict(extra="forbid")
    schema_number: int = Field(alias="schema")
    seal: str
    products: list[Product] = Field(min_length=1)

    @property
    def codes(self) -> list[str]:
        """The products' codes."""
        return [product.code for product in self.products]


def code_of(model: Path) -> str:
    """A product code from the name of a model file."""
    return re.sub(r"[^\w.+-]", "-", model.stem)[:64]


def write_catalog(models: Mapping[str, Path], output: Path) -> Catalog:
    """Packs models.

    Args:
        models: product code -> file of `blemish.artifact.save`.
        output: the catalog; it is replaced in one step.

    Raises:
        ArtifactError: if a model is missing or damaged.
        UsageError: for a file of another kind, or a code that isn't one.
        OutputError: if the catalog can't be written.
    """
    entries: dict[str, npt.NDArray[np.uint8]] = {}
    products = []
    for code, path in models.items():
        if path.suffix.lower() != ".safetensors":
            raise UsageError(f"A catalog holds .safetensors models. Got {path}, which is served as it is.")
        checked_seal(path, read_manifest(path))
        header, tensors = _taken_apart(path)
        entries[f"header.{code}"] = np.frombuffer(zlib.compress(header, 9), dtype=np.uint8)
        names = []
        for tensor in tensors:
            name = hashlib.sha256(tensor.data).hexdigest()
            entries.setdefault(name, tensor)
            names.append(name)
        signature = signature_of(path)
        text = signature.read_text(encoding="ascii") if signature.is_file() else None
        try:
            products.append(Product(code=code, tensors=names, signature=text))
        except ValidationError as error:
            raise UsageError(f"A product code has 1 to 64 letters, digits or .+-_ characters. Got {code!r}.") from error
    content = {"schema": SCHEMA, "seal": BLANK, "products": [product.model_dump() for product in products]}
    with replacing(output) as temporary:
        try:
            save_file(entries, temporary, metadata={KEY: json.dumps(content, sort_keys=True)})
        except SafetensorError as error:
            raise OSError(str(error)) from error
        write_seal(temporary)
    return read_catalog(output)


def read_catalog(path: Path) -> Catalog:
    """What a catalog holds, once its digest is found to fit.

    Raises:
        ArtifactError: if it is missing, damaged, of another program, or of a newer schema.
    """
    try:
        with safe_open(path, framework="np") as file:
            text, names = (file.metadata() or {}).get(KEY), set(file.keys())
        digest = read_seal(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"There is no catalog at {path}.") from error
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is not a catalog, or it is damaged: {error}. Copy it again.") from error
    try:
        content: Any = json.loads(text or "null")
        schema = content.get("schema") if isinstance(content, dict) else None
        newer = isinstance(schema, int) and schema > SCHEMA
        found = None if newer else Catalog.model_validate(content)
    except (ValueError, RecursionError) as error:  # ValidationError is a ValueError
        raise ArtifactError(f"{path} is not a catalog that blemish wrote.") from error
    if found is None:
        raise ArtifactError(f"{path} has schema {schema}; this blemish reads {SCHEMA}: pip install --upgrade blemish.")
    codes = found.codes
    wanted = {name for product in found.products for name in (*product.tensors, f"header.{product.code}")}
    if digest is None or len(set(codes)) < len(codes) or not wanted <= names:
        raise ArtifactError(f"{path} is damaged: its parts don't belong together. Copy it again.")
    return found


def models_of(catalog: Catalog, folder: Path) -> dict[str, Path]:
    """Product code -> where `unpack` puts its model: another catalog has other places."""
    place = folder / catalog.seal.rpartition("-")[2][:16]
    return {code: place / f"{code}.safetensors" for code in catalog.codes}


def unpack(path: Path, folder: Path) -> dict[str, Path]:
    """Writes each model of a catalog as its own file, unless it lies there already.

    Args:
        path: the catalog.
        folder: where to; other models in it are removed.

    Returns:
        Product code -> model file.

    Raises:
        ArtifactError: see `read_catalog`. OutputError: if they can't be written.
    """
    catalog = read_catalog(path)
    models = models_of(catalog, folder)
    sizes, size = _sizes(path), path.stat().st_size
    for product in catalog.products:
        if sum(sizes[name] for name in product.tensors) > 2 * size:  # a file of a megabyte must not become a terabyte
            raise ArtifactError(f"{path} is damaged: {product.code!r} would be larger than a model of it can be.")
    with writing(folder):
        for old in folder.iterdir() if folder.is_dir() else ():
            if old not in {model.parent for model in models.values()}:
                shutil.rmtree(old, ignore_errors=True)
    with safe_open(path, framework="np") as file:
        for product in catalog.products:
            model = models[product.code]
            if model.is_file():
                continue
            with replacing(model) as temporary, temporary.open("wb") as written:
                written.write(_inflated(file.get_tensor(f"header.{product.code}").tobytes(), path))
                for name in product.tensors:
                    written.write(file.get_tensor(name).tobytes())
            if product.signature is not None:
                with replacing(signature_of(model)) as temporary:
                    temporary.write_text(product.signature, encoding="ascii")
    return models


def shares(path: Path) -> tuple[int, int]:
    """Bytes of a catalog, and of its models as files of their own."""
    catalog = read_catalog(path)
    sizes = _sizes(path)
    with safe_open(path, framework="np") as file:
        headers = sum(len(_inflated(file.get_tensor(f"header.{code}").tobytes(), path)) for code in catalog.codes)
    return os.stat(path).st_size, headers + sum(sizes[name] for one in catalog.products for name in one.tensors)


def _sizes(path: Path) -> dict[str, int]:
    """Bytes of each entry."""
    with safe_open(path, framework="np") as file:
        return {name: int(np.prod(file.get_slice(name).get_shape())) for name in file.keys()}  # noqa: SIM118


def _taken_apart(path: Path) -> tuple[bytes, list[npt.NDArray[np.uint8]]]:
    """The header of a safetensors file with its length before it, and the bytes of each tensor in their order. The
    library has checked that they follow each other without gaps.
    """
    content = np.memmap(path, dtype=np.uint8, mode="r")
    start = 8 + int.from_bytes(content[:8].tobytes(), "little")
    header = content[:start].tobytes()
    described = json.loads(header[8:])
    places = sorted(entry["data_offsets"] for name, entry in described.items() if name != "__metadata__")
    return header, [content[start + begin : start + end] for begin, end in places]


def _inflated(content: bytes, path: Path) -> bytes:
    try:
        header = zlib.decompressobj().decompress(content, MOST_HEADER)
    except zlib.error as error:
        raise ArtifactError(f"{path} is damaged: {error}. Copy it again.") from error
    if len(header) == MOST_HEADER:
        raise ArtifactError(f"{path} holds a header of more than {MOST_HEADER} bytes, which no model has.")
    return header
