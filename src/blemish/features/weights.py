"""Where backbone weights come from: a given file, the local store, an installed package, the hub's cache, the hub, in
this order.

A plant behind a proxy has no hub: what is on the machine is used without a question to the network, and what is missing
is one error that says how to get it. Files are read here and nowhere else, as tensors only: a pickle can't run
anything. Every set of weights is identified by a checksum, recorded in the model file.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from blemish.errors import WeightsError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Keys under which training programs store the state dict beside other things, the one to prefer first."""


def store() -> Path:
    """The local store: the folder named by `BLEMISH_WEIGHTS`, else `~/.cache/blemish/weights`."""
    return Path(os.environ.get("BLEMISH_WEIGHTS") or Path.home() / ".cache" / "blemish" / "weights")


def find_local(backbone: str, weights: str | os.PathLike[str] | None) -> Path | None:
    """The weight file to use without network, or None if there is none under the backbone's name.

    Args:
        backbone: timm name; in the store its file is `<backbone>.safetensors` (or .pth, .pt, .bin).
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


def from_hub(hub_id: str | None, file: str, elsewhere: str | None) -> Path:
    """A file of the hub: what an earlier download left in its cache, or a download into it.

    Args:
        hub_id: its repository; None if there is none.
        file: its name there.
        elsewhere: another address of the weights, for the message.

    Raises:
        FileNotFoundError: without a repository. Exception: whatever huggingface_hub and the layers below it raise.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    if hub_id is None:
        raise FileNotFoundError(f"the hub doesn't have them, timm knows {elsewhere or 'no other place either'}")
    cached = try_to_load_from_cache(hub_id, file)
    if isinstance(cached, str):
        return Path(cached)
    require_connection()
    return Path(hf_hub_download(hub_id, file))


def require_connection() -> None:
    """Fails at once where there is no way to the hub, instead of after a minute of retries.

    Raises:
        OSError: if the hub's host can't be reached and no proxy is configured that might reach it.
    """
    from huggingface_hub.constants import ENDPOINT

    if not getproxies():
        address = urlsplit(ENDPOINT)
        socket.create_connection((address.hostname or "", address.port or 443), timeout=5).close()


def missing_message(backbone: str, cause: BaseException, command: str | None = None) -> str:
    """What to tell a user whose weights are nowhere.

    Args:
        backbone: timm name.
        cause: why they could not be downloaded.
        command: what installs them, where a package has them.
    """
    reason = str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
    get = f"Run: {command} - or get" if command else "Get"
    return (
        f"The weights of backbone {backbone!r} could not be downloaded ({reason[:200]}). {get} the file on a machine "
        f"with network (a timm state dict, .safetensors or .pth) and put it at "
        f"{store() / (backbone + '.safetensors')}, or pass weights=FILE. BLEMISH_WEIGHTS names another store folder. "
        f"backbone='bundled' needs no download."
    )


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict, on the CPU.

    Args:
        path: a .safetensors file, or one that `torch.save` wrote: a state dict, or a dict that has one under one of
            `WRAPPERS`.

    Raises:
        WeightsError: if the file is damaged, or holds anything else than tensors.
    """
    try:
        content: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # safetensors, pickle, zipfile and torch raise their own kinds
        # torch's message goes on with the advice to switch the protection off: it isn't passed on.
        refused = re.search(r"GLOBAL (\S+)", str(error))
        reason = (
            f"it asks for {refused[1]}, but only tensors are read" if refused else "it is damaged, or something else"
        )
        raise WeightsError(
            f"{path} is not a state dict: {reason}. Give a .safetensors file, or torch.save(model.state_dict(), FILE)."
        ) from error
    if isinstance(content, dict):
        content = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content or not all(isinstance(one, Tensor) for one in content.values()):
        raise WeightsError(f"{path} is not a state dict: it must hold tensors by name, and nothing else.")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}  # DataParallel's


def checksum(module: nn.Module) -> str:
    """`digest` of a module's state."""
    return digest(module.state_dict())


def digest(state: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, shapes and bytes of tensors, in name order."""
    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        found.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes())
    return found.hexdigest()
