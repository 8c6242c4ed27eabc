"""Where backbone weights come from: a given file, the local store, the hub's cache, the hub, in this order.

A plant behind a proxy has no hub: what is in the store is used without a question to the network, and what is missing
is one error that names the file and the place to put it. Every set of weights is identified by a checksum, recorded in
the model file.
"""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
from torch import nn

from blemish.errors import WeightsError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def store() -> Path:
    """The local store: the folder named by `BLEMISH_WEIGHTS`, else `~/.cache/blemish/weights`."""
    return Path(os.environ.get("BLEMISH_WEIGHTS") or Path.home() / ".cache" / "blemish" / "weights")


def find_local(backbone: str, weights: str | os.PathLike[str] | None) -> Path | None:
    """The weight file to use without network, or None if the hub has to be asked.

    Args:
        backbone: timm name; in the store its file is `<backbone>.safetensors` (or .pth, .pt, .bin: read as tensors
            only).
        weights: a file given by the user, which must exist.

    Raises:
        WeightsError: if the given file doesn't exist.
    """
    if weights is not None:
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(
                f"There is no weight file at {path}. Give the path of a .safetensors or .pth state dict."
            )
        return path
    return next((path for suffix in SUFFIXES if (path := store() / f"{backbone}{suffix}").is_file()), None)


def find_cached(hub_id: str) -> Path | None:
    """The hub's file in its local cache, if an earlier download left it there."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(hub_id, "model.safetensors")
    return Path(path) if isinstance(path, str) else None


def require_connection() -> None:
    """Fails at once where there is no way to the hub, instead of after a minute of retries.

    Raises:
        OSError: if the hub's host can't be reached and no proxy is configured that might reach it.
    """
    from huggingface_hub.constants import ENDPOINT

    if not getproxies():
        address = urlsplit(ENDPOINT)
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()


def missing_message(backbone: str, cause: BaseException) -> str:
    """What to tell a user whose download failed."""
    reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    return (
        f"The weights of backbone {backbone!r} could not be downloaded ({reason[:200]}). Get the file on a machine "
        f"with network "
        f"(a timm state dict, .safetensors or .pth) and put it at {store() / (backbone + '.safetensors')}, or pass "
        f"weights=FILE. "
        f"BLEMISH_WEIGHTS names another store folder. backbone='bundled' needs no download."
    )


def checksum(module: nn.Module) -> str:
    """SHA-256 over names, shapes and bytes of a module's state, in name order."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return digest.hexdigest()
