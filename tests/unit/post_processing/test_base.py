from __future__ import annotations

import dataclasses

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from blemish.data.batch import InferenceBatch
from blemish.post_processing import BasePostProcessor, PostProcessor, base


class Halving(BasePostProcessor):
    def forward(self, batch: InferenceBatch) -> InferenceBatch:
        assert batch.pred_score is not None
        return dataclasses.replace(batch, pred_score=batch.pred_score / 2)


class Lazy(BasePostProcessor):
    def forward(self, batch: InferenceBatch) -> InferenceBatch:
        return super().forward(batch)  # type: ignore[safe-super]


def test_the_base_is_a_module_a_callback_and_abstract() -> None:
    assert issubclass(BasePostProcessor, nn.Module)
    assert issubclass(BasePostProcessor, Callback)
    assert issubclass(PostProcessor, BasePostProcessor)
    assert base.PostProcessor is BasePostProcessor  # its name in an older library
    with pytest.raises(TypeError, match=r"abstract.*forward"):
        BasePostProcessor()  # type: ignore[abstract]


def test_a_subclass_implements_forward() -> None:
    result = Halving()(InferenceBatch(pred_score=torch.tensor([3.0])))
    assert result.pred_score.tolist() == [1.5]


def test_the_base_forward_says_what_to_implement() -> None:
    with pytest.raises(NotImplementedError, match=r"Lazy must implement forward\(batch\) -> InferenceBatch"):
        Lazy()(InferenceBatch())
