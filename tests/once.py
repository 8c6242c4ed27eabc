"""What several processes of a test run need, made by the first one that asks."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


def common_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder per run, whatever the number of pytest-xdist's workers."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "common"
    folder.mkdir(exist_ok=True)
    return folder


def once(target: Path, fill: Callable[[Path], None]) -> Path:
    """The folder `target`, filled by the first who asks for it; others wait until it is there, whole."""
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            draft = target.with_suffix(".draft")
            shutil.rmtree(draft, ignore_errors=True)  # of one who failed
            draft.mkdir()
            fill(draft)
            draft.rename(target)
    return target
