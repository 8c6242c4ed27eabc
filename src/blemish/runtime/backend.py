"""What a runtime contributes: one model, from a stack of images of one size to arrays in their own pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from blemish.data.explanation import Explanation
from blemish.data.good_images import GoodImages
from blemish.data.record import ColorRecord
from blemish.functional.regions import Region
from blemish.post_processing.decision import Decision


class Outputs(NamedTuple):
    """What a graph returns for N images of one size (H, W).

    A backend may leave out map and mask where it gives the raw map: sessions decide about its pixels by the same rule,
    and normalize what somebody looks at. Without any of the three, verdicts alone were wanted.
    """

    raw_score: npt.NDArray[np.float32]  # (N,)
    pred_score: npt.NDArray[np.float32]  # (N,) in [0, 1]
    pred_label: npt.NDArray[np.bool_]  # (N,)
    anomaly_map: npt.NDArray[np.float32] | None = None  # (N, H, W) in [0, 1]
    pred_mask: npt.NDArray[np.bool_] | None = None  # (N, H, W)
    raw_map: npt.NDArray[np.float32] | None = None  # (N, H, W), not cut off; None from files of earlier versions, too


VERDICT = Outputs._fields[:3]
"""Those of `Outputs` that a backend for verdicts alone gives."""

RAW = (*VERDICT, "raw_map")
"""Those that a session needs for everything else."""


class Backend(Protocol):
    """A model in some runtime. It decides as it is told and keeps nothing of it: many sessions may share one."""

    @property
    def decision(self) -> Decision:
        """The one it was calibrated to, or exported with."""
        ...

    @property
    def roi(self) -> npt.NDArray[np.bool_] | None:
        """The region of interest, (H', W') bool over pictures of any size; None for everything."""
        ...

    @property
    def bit_depth(self) -> int | None:
        """How many bits of 16-bit files its images use, see `blemish.data.image_io.read_image`; None for all."""
        ...

    @property
    def color(self) -> ColorRecord | None:
        """What colors the images have that it was fitted on; None where that isn't known."""
        ...

    @property
    def fingerprint(self) -> str | None:
        """SHA-256 of the model's file, hexadecimal; None for one that never was a file."""
        ...

    @property
    def good_images(self) -> GoodImages:
        """Those that explanations refer to. UsageError where it can't explain."""
        ...

    def run(self, images: npt.NDArray[Any], decision: Decision) -> Outputs:
        """(N, H, W, 3) RGB, uint8 or float32 in [0, 1] -> `Outputs`; NonFiniteError for scores without a meaning,
        DataError for images that this model can't take.
        """
        ...

    def explain(
        self, image: npt.NDArray[Any], regions: Sequence[Region], decision: Decision, count: int
    ) -> Explanation:
        """What deviates in an image (H, W, 3), and what to compare it with. UsageError where it can't explain."""
        ...
