"""Parts that detectors share: buffers of unknown shape, tiles and maps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blemish.engine import AnomalyModule
from blemish.errors import UsageError
from blemish.functional.maps import smooth
from blemish.functional.resize import resize
from blemish.models import components, detectors
from blemish.models.components import DynamicBufferModule, Tiler
from blemish.models.components.map_maker import MapMaker


class Holder(DynamicBufferModule):
    bank: Tensor

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.register_buffer("bank", torch.rand(rows, 3, generator=torch.Generator().manual_seed(rows)))


def test_names() -> None:
    assert list(detectors()) == ["patchcore", "padim", "subspace", "fused"]
    assert all(kind.Settings.name == name for name, kind in detectors().items())
    assert components.AnomalyModule is AnomalyModule
    with pytest.raises(AttributeError, match="has no attribute 'Foo'"):
        _ = components.Foo


@pytest.mark.parametrize("rows", [0, 2, 9])
def test_buffer_takes_the_shape_of_its_state(rows: int) -> None:
    nest = torch.nn.ModuleDict({"inner": Holder(4)})
    nest.load_state_dict({"inner.bank": Holder(rows).bank})
    assert torch.equal(nest["inner"].bank, Holder(rows).bank)


def test_loading_copies() -> None:
    """Two models must not share a bank because they were loaded from one dict."""
    state, holder = Holder(5).state_dict(), Holder(4)
    holder.load_state_dict(state)
    holder.bank.zero_()
    assert state["bank"].any()


def test_get_tensor_attribute() -> None:
    holder = Holder(4)
    assert holder.get_tensor_attribute("bank") is holder.bank
    for name in ("absent", "training"):
        with pytest.raises(ValueError, match=f"Holder has no tensor called '{name}'"):
            holder.get_tensor_attribute(name)


def pyramid(images: Tensor) -> list[Tensor]:
    """An extractor that looks at nothing but its own cell, so tiles can't differ from the whole."""
    return [F.avg_pool2d(images, 4), F.avg_pool2d(images, 8).repeat(1, 2, 1, 1)]


@pytest.mark.parametrize("size", [(64, 64), (64, 96), (70, 101), (33, 32), (32, 200)])
@pytest.mark.parametrize(("tile", "stride"), [(32, None), (32, 8), (32, 32), ((32, 24), (16, 24))])
def test_blending_tiles_gives_the_whole(size: tuple[int, int], tile: int | tuple[int, int], stride: int | None) -> None:
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    tiler = Tiler(tile, stride, size)
    grid = tiler.grid((tiler.tile_size[0] // 4, tiler.tile_size[1] // 4), [4, 8])
    padded = F.pad(images, (0, -size[1] % 8, 0, -size[0] % 8), mode="replicate")
    for got, want in zip(tiler(pyramid, images), pyramid(padded), strict=True):
        torch.testing.assert_close(got, want)
    assert grid == tuple(tiler(pyramid, images)[0].shape[-2:])


def test_seams_are_blended() -> None:
    """Tiles that disagree: the result goes from one to the other in small steps, never in a jump."""
    tiler = Tiler(32, 16, (32, 80))
    tiler.grid((32, 32), [1])
    numbers = iter(range(10))
    (layer,) = tiler(lambda tile: [torch.full((1, 1, 32, 32), float(next(numbers)))], torch.zeros(1, 3, 32, 80))
    assert next(numbers) == 4  # tiles at 0, 16, 32, 48
    steps = layer[0, 0, 10].diff()
    assert (steps >= 0).all()
    assert float(steps.max()) < 0.15
    assert (float(layer.min()), float(layer.max())) == (0.0, 3.0)


@pytest.mark.parametrize(
    ("tile", "stride", "message"),
    [
        (0, None, r"tile_size must be one number or \(height, width\), each at least 1. Got 0."),
        ((32, 32, 32), None, r"tile_size must be one number or \(height, width\)"),
        (32, 0, r"tile_stride must be one number or \(height, width\), each at least 1. Got 0."),
        (32, (16, 40), r"tile_stride must be at most tile_size \(32, 32\), or pixels are never seen. Got \(16, 40\)."),
        (100, None, r"tile_size must be at most image_size \(64, 96\). Got \(100, 100\)."),
    ],
)
def test_tiles_that_do_not_fit(tile: int, stride: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Tiler(tile, stride, (64, 96))


def test_map_maker_is_resize_and_blur() -> None:
    scores = torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(0))
    expected = smooth(resize(scores, (64, 100)), 4.0)
    torch.testing.assert_close(MapMaker((8, 12), (64, 100))(scores.flatten(1)), expected)
    assert MapMaker((8, 12), (64, 100)).state_dict() == {}


def test_map_maker_of_a_region() -> None:
    """The mean of the patches inside, under the weights they have in a map of all."""
    generator = torch.Generator().manual_seed(0)
    cells = torch.rand(8, 12, generator=generator) > 0.4
    pixels = resize(cells.float()[None], (64, 100))[0] > 0.5
    maker, whole = MapMaker((8, 12), (64, 100), 4.0, cells.numpy(), pixels.numpy()), MapMaker((8, 12), (64, 100))
    features = torch.rand(2, 5, 8, 12, generator=generator)
    assert torch.equal(maker.patches(features), features[:, :, cells].mT)
    assert maker.count == int(cells.sum())
    scores = torch.rand(2, maker.count, generator=generator)
    full = torch.zeros(2, 8, 12)
    full[:, cells] = scores
    expected = whole(full.flatten(1)) / whole(cells.float().expand(2, -1, -1).flatten(1))
    got = maker(scores)
    torch.testing.assert_close(got[..., pixels], expected[..., pixels])
    torch.testing.assert_close(maker(torch.full_like(scores, 3.0))[..., pixels], torch.full_like(got[..., pixels], 3.0))
    assert torch.equal(maker.peak(got), got[..., pixels].amax(dim=(1, 2)))
    assert torch.equal(whole.peak(got), got.amax(dim=(1, 2, 3)))
    assert torch.equal(whole.patches(features), features.flatten(2).mT)
    assert maker.state_dict() == {}
