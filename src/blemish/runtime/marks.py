"""Maps, masks and regions of an image, from what a backend gives of it: by the one rule, and no sooner than needed."""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from blemish.data.roi import stretched
from blemish.functional.regions import cores, find_regions
from blemish.post_processing.decision import Scale
from blemish.runtime.backend import Outputs
from blemish.runtime.result import Maps

NORMALIZED = 2**16
"""How many pixels of a map are normalized at once: that takes a dozen passes, between which they stay in a cache."""


def maps_of(
    outputs: Outputs, number: int, scale: Scale, roi: npt.NDArray[np.bool_] | None, *, min_area: int
) -> Maps | None:
    """What was found in one of the images; None where verdicts alone were wanted.

    Args:
        outputs: of the backend.
        number: of the image.
        scale: how pixels are decided about, where the backend left that to the session.
        roi: the region of interest, (H', W') bool; None for everything.
        min_area: see `Session`.
    """
    raw = None if outputs.raw_map is None else outputs.raw_map[number]
    if outputs.anomaly_map is not None and outputs.pred_mask is not None:
        values, mask = outputs.anomaly_map[number], outputs.pred_mask[number]
        core = mask if raw is None else cores(mask, raw)
        return Maps(values, mask, tuple(find_regions(core, values, min_area=min_area)))
    if raw is None:
        return None
    whole, mask = partial(normalized, raw, scale, roi), scale.is_anomalous(raw)
    if not mask.any():
        return Maps(whole, mask, ())
    if roi is not None:
        mask &= stretched(roi, raw.shape)
    core = cores(mask, raw)
    values = np.zeros(raw.shape, np.float32)  # pages that nobody touches take neither time nor memory
    values[core] = scale.normalize(raw[core])
    return Maps(whole, mask, tuple(find_regions(core, values, min_area=min_area)))


def normalized(
    raw: npt.NDArray[np.float32], scale: Scale, roi: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.float32]:
    """A raw map (H, W) on the scale from 0 to 1, with 0 outside the region of interest, (H', W') bool."""
    values = np.empty_like(raw)
    rows = max(1, NORMALIZED // raw.shape[1])
    for top in range(0, len(raw), rows):
        values[top : top + rows] = scale.normalize(raw[top : top + rows])
    if roi is not None:
        values[~stretched(roi, raw.shape)] = 0
    return values
