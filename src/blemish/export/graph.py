"""The module that becomes the graph: the detector's own forward, with what a user may change later as inputs.

Nothing is rewritten for export. `forward` calls the detector with four of its buffers replaced by inputs, so
thresholds and sensitivities can be changed in the exported file, and everything else is the path that was calibrated.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.func import functional_call

from blemish.data.batch import InferenceBatch
from blemish.models.base import Detector
from blemish.post_processing.post_processor import SETTING_BUFFERS
from blemish.runtime.backend import Outputs

OUTPUTS = Outputs._fields


class Graph(nn.Module):
    """A calibrated detector as a function of tensors.

    Args:
        model: with a calibrated `DecisionModule`.
    """

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        image: Tensor,
        image_threshold: Tensor,
        pixel_threshold: Tensor,
        image_sensitivity: Tensor,
        pixel_sensitivity: Tensor,
    ) -> tuple[Tensor, ...]:
        """(N, H, W, 3) uint8 RGB and () float32 for each of `SETTINGS` -> tensors in the order of `OUTPUTS`."""
        settings = (image_threshold, pixel_threshold, image_sensitivity, pixel_sensitivity)
        names = (f"post_processor.{buffer}" for buffer in SETTING_BUFFERS.values())
        buffers = dict(zip(names, settings, strict=True))
        batch: InferenceBatch = functional_call(self.model, buffers, (image,))
        return tuple(getattr(batch, name) for name in OUTPUTS)
