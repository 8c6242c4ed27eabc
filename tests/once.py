"""What several tests of a run need, made by the first that asks, whichever of pytest-xdist's workers it runs in."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


class Common:
    """A folder that all workers of a run share. `folder` is set before the first test."""

    folder: Path

    def begin(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Each worker has a folder of its own, side by side in one."""
        own = tmp_path_factory.getbasetemp()
        self.folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "common"
        self.folder.mkdir(exist_ok=True)

    def once(self, name: str, fill: Callable[[Path], None]) -> Path:
        """The folder `name`, filled by the first who asks; others wait until it is whole. Copy what you change."""
        target = self.folder / name
        with target.with_name(f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                draft = target.with_name(f"{name}.draft")
                shutil.rmtree(draft, ignore_errors=True)  # of one who failed
                draft.mkdir()
                fill(draft)
                draft.rename(target)
        return target


common = Common()
