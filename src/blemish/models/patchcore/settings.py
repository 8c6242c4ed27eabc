"""What PatchCore can be told beside what every detector can."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator
from typing_extensions import Self

from blemish.errors import UsageError
from blemish.options import Number, option
from blemish.settings import DetectorSettings


class BankSettings(DetectorSettings):
    """What PatchCore's memory bank can be told, also where it is a member of a fused detector."""

    name: ClassVar[str] = "patchcore"
    title: ClassVar[str] = "PatchCore"
    layer_strides: ClassVar[tuple[int, int]] = (8, 16)

    distance: Literal["euclidean", "cosine"] = option(
        "euclidean", "Between patches; cosine compares directions of features, not lengths."
    )
    position_weight: Number = option(
        0.0, "How much the place of a patch counts beside its features, for parts that lie alike.", ge=0
    )
    coreset_sampling_ratio: Number = option(0.1, "Share of the patches to keep.", gt=0, le=1)
    bank_size: int | None = option(
        10_000, "Most patches to keep; 0 sets no limit.", ge=1, note=", or None for no limit", zero_is_none=True
    )
    selection_channels: int | None = option(
        None, "Select in a random projection to so many channels. Default: off.", ge=1, note=", or None"
    )
    bank_dtype: Literal["float32", "float16"] = option("float32", "How the bank is stored.")
    neighbor_search: Literal["exact", "faiss"] = option("exact", "faiss is approximate.")

    @model_validator(mode="after")
    def _places_have_a_measure(self) -> Self:
        if self.position_weight and self.distance != "cosine":
            raise UsageError(
                f"position_weight weighs places against features of length 1, and needs distance 'cosine'. Got "
                f"{self.distance!r}."
            )
        return self


class PatchcoreSettings(BankSettings):
    """Settings of PatchCore. Layers default to the paper's: those at strides of 8 and 16."""

    num_neighbors: int = option(9, "Neighbors of the score's re-weighting.", ge=1)
