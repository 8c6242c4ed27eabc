"""What Subspace can be told beside what every detector can."""

from __future__ import annotations

from typing import ClassVar

from blemish.options import Number, option
from blemish.settings import DetectorSettings


class SubspaceSettings(DetectorSettings):
    """Settings of Subspace. Layers default to those at strides of 8 and 16."""

    name: ClassVar[str] = "subspace"
    title: ClassVar[str] = "Subspace"
    layer_strides: ClassVar[tuple[int, int]] = (8, 16)

    variance: Number = option(0.99, "Share of the good features' variance that the subspace holds.", gt=0, lt=1)
    worst_share: Number | None = option(
        0.01, "Image score: mean of this share of the worst patches; the paper's is 0.01.", gt=0, le=1
    )
