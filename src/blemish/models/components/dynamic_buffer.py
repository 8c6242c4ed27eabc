"""Buffers whose shape is only known after fitting."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class DynamicBufferModule(nn.Module):
    """A module whose buffers take the shape of the state they are loaded from.

    A memory bank has as many rows as the coreset chose. Plain modules refuse to load it into a fresh instance, whose
    bank is empty.
    """

    def get_tensor_attribute(self, attribute_name: str) -> Tensor:
        """The tensor called `attribute_name`.

        Raises:
            ValueError: if there is no such tensor.
        """
        attribute = getattr(self, attribute_name, None)
        if not isinstance(attribute, Tensor):
            raise ValueError(f"{type(self).__name__} has no tensor called {attribute_name!r}.")
        return attribute

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            loaded = state_dict.get(prefix + name)
            if isinstance(loaded, Tensor) and loaded.shape != buffer.shape:
                setattr(self, name, buffer.new_empty(loaded.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
