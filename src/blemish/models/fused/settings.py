"""What a fused detector can be told: which members it has, and all that these can be told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import model_validator
from typing_extensions import Self

from blemish.errors import UsageError
from blemish.models.padim.settings import PadimSettings
from blemish.models.patchcore.settings import BankSettings
from blemish.models.subspace.settings import SubspaceSettings
from blemish.options import Names, Number, nearest, option
from blemish.settings import DetectorSettings

MEMBERS: tuple[type[DetectorSettings], ...] = (PadimSettings, BankSettings, SubspaceSettings)
"""Settings of the detectors that can be members; their names are those of the table of detectors."""


class FusedSettings(BankSettings, PadimSettings, SubspaceSettings):
    """Settings of Fused: those of its members, who share backbone, layers and grid."""

    name: ClassVar[str] = "fused"
    title: ClassVar[str] = "Fused"
    layer_strides: ClassVar[tuple[int, int]] = (4, 16)

    members: Names = option(("padim", "patchcore"), "Detectors whose maps are added, comma-separated.")
    grid_stride: int | None = option(8, "Least pixels per patch; finer layers are averaged.", ge=1)
    worst_share: Number | None = option(0.01, "Image score: mean of this share of the worst patches.", gt=0, le=1)

    @classmethod
    def takes(cls, name: str, values: Mapping[str, Any]) -> bool:
        """Those of all detectors, and of its members."""
        known = {kind.name: kind for kind in MEMBERS}
        members = values.get("members", cls.model_fields["members"].default)
        own = (known[member].model_fields for member in members if member in known)
        return name in {"members", *DetectorSettings.model_fields}.union(*own)

    @model_validator(mode="after")
    def _members_know_their_settings(self) -> Self:
        known = [kind.name for kind in MEMBERS]
        for name in self.members:
            if name not in known:
                raise UsageError(f"members must be out of {', '.join(known)}. Got {name!r}.{nearest(name, known)}")
        if not 2 <= len(self.members) == len(set(self.members)):
            raise UsageError(f"members must be two detectors or more, each once. Got {', '.join(self.members)!r}.")
        for name, field in type(self).model_fields.items():
            if getattr(self, name) != field.default and not self.takes(name, dict(self)):
                raise UsageError(f"{name} has no meaning for members {', '.join(self.members)}. Drop it.")
        return self
