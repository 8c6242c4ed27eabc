"""Initial weights of networks: drawn apart from the global random state, or not at all where all are replaced at once.

Drawing takes most of the time of building a network: a file's detector loads in half the time without. `torch.device
("meta")` would do so too, but leaves no memory to load into, also not for what is computed and is in no state dict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import init
from torch.overrides import TorchFunctionMode

_DRAWS = frozenset(
    {torch.Tensor.normal_, torch.Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_uniform_}
)  # of nn.init, those that call a mode before they draw


class undrawn(TorchFunctionMode):
    """Within it, tensors that would be drawn keep what their memory happened to hold: to be replaced before use."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """See `torch.overrides.TorchFunctionMode`."""
        given = dict(kwargs or {})
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


@contextmanager
def private_random_state(seed: int) -> Iterator[None]:
    """Networks draw from torch's global generator: within it that one is seeded, afterwards it is as it was."""
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
