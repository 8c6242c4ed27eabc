"""A GPU's path, recorded: what comes out is what comes out without."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from blemish.runtime.recorded import SETTLED, Recorded

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def asked(images: Tensor) -> tuple[Tensor, Tensor]:
    return images * 2 + 1, images.sum(dim=0)


@cuda
@torch.inference_mode()
def test_a_settled_shape_is_recorded_and_gives_the_same() -> None:
    calls = []

    def function(images: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(images.shape)
        return asked(images)

    recorded = Recorded(function)
    found = []
    for number in range(SETTLED + 3):
        images = torch.full((2, 3), float(number), device="cuda")
        found.append((images, recorded(images)))
    assert len(calls) == SETTLED + 1  # without a recording, then once to warm up and once to record
    for images, made in found:  # of which none was overwritten
        for one, other in zip(made, asked(images), strict=True):
            assert torch.equal(one, other)


@cuda
@torch.inference_mode()
def test_changing_shapes_are_not_recorded() -> None:
    calls = []

    def function(images: Tensor) -> tuple[Tensor, ...]:
        calls.append(images.shape)
        return asked(images)

    recorded = Recorded(function)
    for number in range(3 * SETTLED):
        recorded(torch.zeros(1 + number % 2, 3, device="cuda"))
    assert len(calls) == 3 * SETTLED


@cuda
@torch.inference_mode()
def test_what_looks_at_a_value_is_called_each_time() -> None:
    def looking(images: Tensor) -> tuple[Tensor, ...]:
        return (images * 2,) if float(images.sum()) > 0 else (images,)

    recorded, other = Recorded(looking), Recorded(asked)
    for number in range(3 * SETTLED):
        images = torch.full((2, 3), float(number % 2), device="cuda")
        assert torch.equal(recorded(images)[0], images * 2)
        assert torch.equal(other(images)[0], images * 2 + 1), "others still are recorded"


@cuda
def test_threads_take_turns() -> None:
    recorded = Recorded(asked)

    @torch.inference_mode()
    def ask(number: int) -> bool:
        images = torch.full((64, 64), float(number), device="cuda")
        return all(torch.equal(one, other) for one, other in zip(recorded(images), asked(images), strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(200)))
