"""What PaDiM can be told beside what every detector can."""

from __future__ import annotations

from typing import ClassVar, Literal

from blemish.errors import UsageError
from blemish.options import Number, option
from blemish.settings import DetectorSettings

PAPER_FEATURES = {"resnet18": 100, "wide_resnet50_2": 550}
DEFAULT_FEATURES = 100


class PadimSettings(DetectorSettings):
    """Settings of PaDiM. Layers default to the paper's: those at strides of 4, 8 and 16."""

    name: ClassVar[str] = "padim"
    title: ClassVar[str] = "PaDiM"
    layer_strides: ClassVar[tuple[int, int]] = (4, 16)

    n_features: int | None = option(
        None, "Channels to keep. Default: the paper's, at most 100.", allowed="from 1 to the channels of the layers"
    )
    shrinkage: Number = option(
        0.0, "Share of the mean covariance of all positions in each one's; helps where images are few.", ge=0, lt=1
    )
    epsilon: Number = option(
        0.01, "Added to the diagonal of covariances.", gt=0, note=", or covariances can't be inverted"
    )
    factor_dtype: Literal["float32", "float16"] = option("float32", "How factors are kept.")

    def features_of(self, channels: int) -> int:
        """How many of the backbone's channels to keep: `n_features`, or the paper's number for this backbone.

        Raises:
            UsageError: if there are not so many.
        """
        usual = min(PAPER_FEATURES.get(self.backbone.partition(".")[0], DEFAULT_FEATURES), channels)
        wanted = usual if self.n_features is None else self.n_features
        if not 1 <= wanted <= channels:
            raise UsageError(
                f"n_features must be between 1 and {channels}, the channels of these layers. Got {wanted}."
            )
        return wanted
