"""A detector under a Trainer of the user's own, without the engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

import blemish
from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.errors import UsageError
from blemish.models.patchcore import PatchcoreDetector
from blemish.post_processing import DecisionModule
from processes import two

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),  # one process is quicker for ten images
    pytest.mark.filterwarnings("ignore:.*configure_optimizers.*returned `None`"),  # nothing is optimized
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training"),  # the backbone stays in eval mode
    pytest.mark.filterwarnings("ignore:.*overridden `transfer_batch_to_device`"),  # the detector moves its batches
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated"),  # Lightning's own use of an old torch name
    pytest.mark.filterwarnings("ignore:GPU available but not used"),  # the CPU was asked for
]


MODULES = {"patchcore": blemish.Patchcore, "padim": blemish.Padim, "fused": blemish.Fused}


def trainer(**arguments: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    fixed = {"accelerator": "cpu", "devices": 1, "max_epochs": 1, "enable_model_summary": False}
    return Trainer(**{**fixed, **quiet, **arguments})


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("sanity_steps", [0, 2])
def test_same_model_as_the_engine(name: str, sanity_steps: int, tiles: Path, model_files: dict[str, Path]) -> None:
    """Lightning's sanity check of the validation loop, before anything was seen, must not calibrate or finish."""
    model, expected = MODULES[name](image_size=(64, 96)), load(model_files[name])
    module = ImageDataModule(tiles, num_workers=0)
    module.transform = model.pre_processor
    trainer(num_sanity_val_steps=sanity_steps).fit(model, datamodule=module)
    assert isinstance(model.post_processor, DecisionModule)
    assert isinstance(expected.post_processor, DecisionModule)
    assert model.post_processor.record == expected.post_processor.record
    for key, value in expected.state_dict().items():
        assert torch.equal(value, model.state_dict()[key]), key


def test_a_module_is_its_detector_too() -> None:
    model = blemish.Patchcore(backbone="filter_bank", image_size=64)
    assert isinstance(model, LightningModule)
    assert isinstance(model, PatchcoreDetector)
    assert model.detector is model


def test_several_processes_or_epochs_are_refused_in_one_sentence(tiles: Path) -> None:
    model, module = blemish.Padim(backbone="filter_bank", image_size=64), ImageDataModule(tiles, num_workers=0)
    module.transform = model.pre_processor
    with pytest.raises(UsageError, match=r"sees every image once: Trainer\(max_epochs=1\). Got 3."):
        trainer(max_epochs=3).fit(model, datamodule=module)


FIT = """
import sys

import blemish
from lightning.pytorch import Trainer

model = blemish.Padim(backbone="filter_bank", image_size=64)
data = blemish.ImageDataModule(sys.argv[1], num_workers=0)
data.transform = model.pre_processor
Trainer(accelerator="cpu", devices=2, strategy="ddp", max_epochs=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False).fit(model, datamodule=data)
"""


def test_two_processes_of_a_plain_trainer_are_refused(tiles: Path) -> None:
    """Each ends with the sentence, not with torch's own error."""
    for code, errors in two(FIT, tiles):
        assert code == 1
        assert "is fitted by one process: Trainer(devices=1). Got 2 processes." in errors
