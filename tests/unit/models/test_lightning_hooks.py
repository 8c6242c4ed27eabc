"""A detector under a Trainer of the user's own, without the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer

from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.models import detectors
from blemish.post_processing import DecisionModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # one process is quicker for ten images
    pytest.mark.filterwarnings("ignore:.*configure_optimizers.*returned `None`"),  # nothing is optimized
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training"),  # the backbone stays in eval mode
    pytest.mark.filterwarnings("ignore:.*overridden `transfer_batch_to_device`"),  # the detector moves its batches
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),  # Lightning's own use of an old torch name
    pytest.mark.filterwarnings("ignore:GPU available but not used"),  # the CPU was asked for
]


def trainer(**arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", devices=1, max_epochs=1, enable_model_summary=False, **quiet, **arguments)


@pytest.mark.parametrize("name", detectors())
@pytest.mark.parametrize("sanity_steps", [0, 2])
def test_same_model_as_the_engine(name: str, sanity_steps: int, tiles: Path, model_files: dict[str, Path]) -> None:
    """Lightning's sanity check of the validation loop, before anything was seen, must not calibrate or finish."""
    model, expected = detectors()[name].build(image_size=(64, 96)), load(model_files[name])
    module = ImageDataModule(tiles, num_workers=0)
    module.transform = model.pre_processor
    trainer(num_sanity_val_steps=sanity_steps).fit(model, datamodule=module)
    assert isinstance(model.post_processor, DecisionModule)
    assert isinstance(expected.post_processor, DecisionModule)
    assert model.post_processor.record == expected.post_processor.record
    for key, value in expected.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key
