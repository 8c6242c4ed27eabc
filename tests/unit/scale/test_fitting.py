"""A fit by many gives the bytes of a fit by one, whoever dies on the way."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from finding import workers_of

import blemish
from blemish.artifact import save
from blemish.data.datamodule import ImageDataModule
from blemish.engine import Engine
from blemish.engine.post_processor import BasePostProcessor
from blemish.engine.remembering import good_images_of
from blemish.errors import ImageReadError, UsageError
from blemish.models import detectors
from blemish.models.base import Detector
from blemish.models.components import moments
from blemish.scale import fitting

KINDS: dict[str, dict[str, Any]] = {
    "patchcore": {"bank_size": 60},
    "padim": {"n_features": 8},
    "subspace": {},
    "fused": {"bank_size": 60, "n_features": 8},
}


def build(name: str, **settings: Any) -> Detector:
    return detectors()[name].build(backbone="filter_bank", **{"image_size": (64, 96)} | KINDS[name] | settings)


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Detector], bytes]:
    def write(model: Detector) -> bytes:
        save(model, tmp_path / "model.safetensors")
        return (tmp_path / "model.safetensors").read_bytes()

    return write


class Here:
    """A pool of this process: work is done when it is handed in."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def put(self, value: Any) -> Any:
        return value

    def submit(self, function: Callable[..., Any], *arguments: Any, returns: int = 1) -> list[Any]:
        found = function("cpu", *arguments)
        return [found] if returns == 1 else list(found)

    def wait(self, reference: Any) -> None:
        pass

    def get(self, reference: Any) -> Any:
        return reference


def fit_here(model: Detector, data: ImageDataModule, workers: int, begin: str = "start", **how: int) -> None:
    """What `Engine` does around `fitting.fit`."""
    data.transform = model.pre_processor
    getattr(model, begin)()
    first = model.next_number
    fitting.fit(model, data, Here(workers), **how)
    model.data_record = data.record().after(model.data_record if begin == "resume" else None)
    model.good_images = good_images_of(model, data, first, thumbnails=False)
    model.eval()


def drawn(count: int, seed: int = 0) -> list[Any]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8))


@pytest.mark.parametrize(("calibrate_on", "numbers"), [("cross", (1, 2, 4, 8)), ("test", (3,))])
@pytest.mark.parametrize("name", KINDS)
def test_any_number_of_workers_gives_the_bytes_of_one_process(
    name: str, calibrate_on: Any, numbers: tuple[int, ...], tiles: Path, written: Callable[[Detector], bytes]
) -> None:
    def data() -> ImageDataModule:
        defects = tiles / "test" / "scratch" if calibrate_on == "cross" else None
        return ImageDataModule(
            tiles / "train" if defects else tiles,
            num_workers=0,
            batch_size=3,
            calibrate_on=calibrate_on,
            planted=7,
            defects=defects,
        )

    model = build(name)
    Engine("cpu", progress=False).fit(model, data())
    expected = written(model)
    for workers in numbers:
        other = build(name)
        fit_here(other, data(), workers)
        assert written(other) == expected, workers


@pytest.mark.parametrize("name", KINDS)
def test_so_do_sets_that_no_buffer_holds(
    name: str, written: Callable[[Detector], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """150 images in two folds: blocks of 32 images are folded, buffers of 12 images reduced, shards are of 4 or 8."""
    monkeypatch.setattr(moments, "BLOCK_IMAGES", 8)

    def model_and_data() -> tuple[Detector, ImageDataModule]:
        names = [f"{number // 10:02}-{number % 7 // 4}-{number:03}" for number in range(150)]
        data = ImageDataModule.from_arrays(
            drawn(150), names=names, calibrate_on="cross", batch_size=4, group=r"^\d\d-(\d)"
        )
        model = build(name, image_size=64)
        if name == "patchcore":
            model.bank.buffer_bytes = 12 * model.map_maker.count * model.channels * 4  # type: ignore[union-attr,operator]
        return model, data

    model, data = model_and_data()
    Engine("cpu", progress=False).fit(model, data)
    assert set(data.split.folds) == {0, 1}
    other, data = model_and_data()
    assert other.scattered < 75
    fit_here(other, data, 3, shard=16)
    assert written(other) == written(model)


def test_images_are_added_to_a_model_alike(written: Callable[[Detector], bytes]) -> None:
    results = []
    for together in (False, True):
        model = build("padim", image_size=64)
        Engine("cpu", progress=False).fit(model, ImageDataModule.from_arrays(drawn(12)))
        more = ImageDataModule.from_arrays(drawn(14, seed=1), calibrate_on="cross")
        if together:
            fit_here(model, more, 3, "resume")
        else:
            Engine("cpu", progress=False).update(model, more)
        results.append(written(model))
    assert results[0] == results[1]


# -------------------- processes


@pytest.fixture(scope="module")
def one_process(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Model files of one process, with cross calibration."""
    file = tmp_path_factory.mktemp("one") / "model.safetensors"
    found = {}
    for name in KINDS:
        model = build(name)
        Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0, calibrate_on="cross"))
        save(model, file)
        found[name] = file.read_bytes()
    return found


@pytest.mark.parametrize(("name", "devices"), [("patchcore", 1), ("patchcore", 2), ("patchcore", 4), ("padim", 2)])
def test_on_ray(
    ray: Any,
    name: str,
    devices: int,
    tiles: Path,
    written: Callable[[Detector], bytes],
    one_process: dict[str, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build(name)
    engine = Engine("cpu", strategy="ray", devices=devices, progress=False)
    monkeypatch.chdir(tiles.parent)  # workers aren't there
    engine.fit(model, ImageDataModule(tiles.name, num_workers=0, calibrate_on="cross"))
    assert written(model) == one_process[name]


@pytest.mark.parametrize("detector", KINDS)
@pytest.mark.slow
def test_on_ray_from_the_command_line(detector: str, ray: Any, tiles: Path, tmp_path: Path) -> None:
    from finding import run

    flags = ("--detector", detector, "--backbone", "filter_bank", "--image-size", "64", "--calibrate-on", "cross")
    for name, more in (("one", ()), ("ray", ("--ray", "--devices", "3")), ("two", ("--devices", "2"))):
        run("fit", tiles, "-o", tmp_path / f"{name}.safetensors", "--preset", "plain", *flags, *more)
    files = {(tmp_path / f"{name}.safetensors").read_bytes() for name in ("one", "ray", "two")}
    assert len(files) == 1


def test_by_two_processes_of_this_machine(
    tiles: Path,
    written: Callable[[Detector], bytes],
    one_process: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which don't import Lightning: it takes longer than torch."""
    (tmp_path / "first" / "lightning").mkdir(parents=True)
    (tmp_path / "first" / "lightning" / "__init__.py").write_text("raise RuntimeError('imported by a worker')")
    monkeypatch.syspath_prepend(tmp_path / "first")
    model = build("padim")
    engine = Engine("cpu", devices=2, progress=False)
    engine.fit(model, ImageDataModule(tiles, num_workers=0, calibrate_on="cross"))
    assert written(model) == one_process["padim"]


@pytest.fixture
def murderer(ray: Any) -> Iterator[list[int]]:
    """Kills one worker that is at work on a fit, and says which."""
    killed: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while not killed and not stop.is_set():
            for process in workers_of(ray, "_checked"):
                os.kill(process, signal.SIGKILL)
                killed.append(process)
                break
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    stop.set()
    thread.join()


def test_a_killed_worker_changes_no_bit(
    murderer: list[int], tiles: Path, written: Callable[[Detector], bytes], one_process: dict[str, bytes]
) -> None:
    model = build("subspace")
    engine = Engine("cpu", strategy="ray", progress=False)
    engine.fit(model, ImageDataModule(tiles, num_workers=0, calibrate_on="cross"))
    assert murderer
    assert written(model) == one_process["subspace"]


def test_an_image_that_can_not_be_read_is_named(ray: Any, tiles: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tiles"
    shutil.copytree(tiles / "train", folder / "train")
    (folder / "train/good/003.png").write_bytes(b"no")
    model = build("padim")
    with pytest.raises(ImageReadError, match=r"003.png"):
        Engine("cpu", strategy="ray", progress=False).fit(model, ImageDataModule(folder, num_workers=0))
    assert not model.is_fitted


class Own(BasePostProcessor):
    def forward(self, batch: Any) -> Any:
        return batch


def test_what_can_not_be_is_said(tiles: Path) -> None:
    with pytest.raises(UsageError, match=r"strategy must be 'auto' or 'ray'. Got 'dask'"):
        Engine(strategy="dask")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"devices must be at least 1. Got 0"):
        Engine(devices=0)
    with pytest.raises(UsageError, match=r"address is that of a Ray cluster. Got 'a:1' with strategy 'auto'"):
        Engine(address="a:1")
    data = ImageDataModule(tiles, num_workers=0)
    with pytest.raises(UsageError, match=r"accelerator 'mps' with 2 devices can't be used"):
        Engine("mps", devices=2, progress=False).fit(build("padim"), data)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match=r"accelerator 'cuda' with 2 devices can't be used: this machine has 0"):
            Engine("cuda", devices=2, progress=False).fit(build("padim"), data)
    model = blemish.Padim(backbone="filter_bank", image_size=64, post_processor=Own())
    with pytest.raises(UsageError, match="Several processes can't calibrate a post-processor of class Own"):
        fit_here(model, data, 2)
