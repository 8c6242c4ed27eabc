"""A tiny data set and fitted models, made once. Nobody may change them: copy the model or the folder first."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from once import common

if TYPE_CHECKING:
    from blemish.models.base import Detector

# One thread: tests start processes of their own, which would wait for one another if each used all cores. Before
# torch is imported, and inherited by the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A run in the background may inherit that Ctrl-C is ignored, and would hand it on.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A Ray that a test starts without our help (by `ray.data` alone, say) reports nothing to anybody.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

# Equal code meets equal examples, however long one takes on a busy machine; `pytest --hypothesis-profile=default` looks
# for new ones.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

IMAGE_SIZE = (64, 96)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Generator[None, object, object]:
    """Handlers that a library adds to the root logger would write what later tests log into their output."""
    loggers = logging.getLogger(), logging.getLogger("blemish")
    before = [(set(logger.handlers), logger.level) for logger in loggers]
    try:
        return (yield)
    finally:
        for logger, (handlers, level) in zip(loggers, before, strict=True):
            logger.setLevel(level)
            for handler in set(logger.handlers) - handlers:
                logger.removeHandler(handler)


@pytest.fixture(scope="session", autouse=True)
def _common_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    common.begin(tmp_path_factory)


@pytest.fixture(scope="session")
def tiles() -> Path:
    """MVTec AD layout: 12 good parts to fit on, 4 good and 5 x 2 defective ones to test on; 96 x 128 pixels."""
    from blemish.synthetic.products import write_dataset

    def fill(folder: Path) -> None:
        write_dataset(folder, product="tile", good_train=12, good_test=4, per_defect=2, size=(96, 128))

    return common.once("tiles", fill) / "tile"


@pytest.fixture(scope="session")
def model_files(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One model file per detector, fitted and calibrated on `tiles`."""
    from blemish.data.datamodule import ImageDataModule
    from blemish.engine import Engine
    from blemish.models import detectors

    def fit(name: str) -> Path:
        def fill(folder: Path) -> None:
            model = detectors()[name].build(image_size=IMAGE_SIZE)
            Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
            model.save(folder / f"{name}.safetensors")

        return common.once(f"model-{name}", fill)

    # A copy for each worker: tests write other files beside them. Two workers begin at either end, and wait for less.
    folder = tmp_path_factory.mktemp("models")
    for name in sorted(detectors(), reverse=os.environ.get("PYTEST_XDIST_WORKER") == "gw1"):
        shutil.copytree(fit(name), folder, dirs_exist_ok=True)
    return {name: folder / f"{name}.safetensors" for name in detectors()}


@pytest.fixture(scope="session")
def model_file(model_files: dict[str, Path]) -> Path:
    return model_files["patchcore"]


@pytest.fixture
def model(model_file: Path) -> Detector:
    """A fitted PatchCore of one's own."""
    from blemish.artifact import load

    return load(model_file)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any attempt to open a connection fails the test; not those of threads that earlier tests left, as Ray's does."""
    import socket

    others = set(threading.enumerate()) - {threading.current_thread()}

    def refusing(usual: Callable[..., Any]) -> Callable[..., Any]:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            if threading.current_thread() in others:
                return usual(*args, **kwargs)
            return pytest.fail(f"network access: {args[1:]}")

        return refuse

    for place, name in [
        *((socket.socket, name) for name in ("connect", "connect_ex", "sendto")),
        (socket, "create_connection"),
        (socket, "getaddrinfo"),
    ]:
        monkeypatch.setattr(place, name, refusing(getattr(place, name)))


@pytest.fixture(scope="session")
def realdata() -> Callable[[str], Path]:
    """Finds an evaluation set by name, or skips."""
    root = Path(os.environ.get("BLEMISH_DATA") or Path(__file__).parents[2] / "shared" / "data")

    def find(name: str) -> Path:
        if not (root / name).is_dir():
            pytest.skip(f"{root / name} is absent; BLEMISH_DATA names the folder of evaluation sets")
        return root / name

    return find
