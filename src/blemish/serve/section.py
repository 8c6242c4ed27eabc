"""What all sections of a station's configuration have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())  # some names begin with "model_"


def kind_by_key(*kinds: str) -> Callable[[Any], str | None]:
    """What a section is, by which of these keys it has: `{folder: inbox}` is a folder."""

    def kind(section: Any) -> str | None:
        keys: Sequence[str] = list(section) if isinstance(section, dict) else list(type(section).model_fields)
        found = [name for name in kinds if name in keys]
        return found[0] if len(found) == 1 else None

    return kind
