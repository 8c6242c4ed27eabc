"""One small Ray cluster per test process, started by the library, and files to score."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from finding import Reports


@pytest.fixture(scope="session")
def reports() -> Iterator[Reports]:
    """Where Ray's usage statistics go instead of to the network."""
    with Reports() as listening:
        yield listening


@pytest.fixture(scope="session")
def ray(tmp_path_factory: pytest.TempPathFactory, reports: Reports) -> Iterator[Any]:
    """Ray on two CPUs of this machine, as the library starts it."""
    from blemish.scale.cluster import cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)  # the library sees to that
        patch.setenv("RAY_worker_niceness", "0")  # 15 by default: on a busy machine tests would wait for minutes
        for name, value in reports.environment.items():
            patch.setenv(name, value)
        token = tmp_path_factory.mktemp("ray") / "token"
        token.write_text(secrets.token_hex(32))
        patch.setenv("RAY_AUTH_TOKEN_PATH", str(token))  # else Ray leaves one in the home folder
        with cluster(cpus=2) as ray:
            yield ray


@pytest.fixture(scope="session")
def pictures(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images in two sizes, of which one can't be read."""
    from blemish.synthetic.products import write_dataset

    root = tmp_path_factory.mktemp("pictures")
    small = write_dataset(root / "drawn", product="tile", good_train=2, good_test=2, per_defect=1, size=(64, 80))
    files = [*sorted(tiles.glob("test/*/*.png"))[:12], *sorted(small.glob("test/*/*.png"))[:7]]
    folder = root / "new"
    (folder / "b").mkdir(parents=True)
    for number, file in enumerate(files):
        shutil.copy(file, folder / f"{'b/' if number % 3 == 0 else ''}{number:02}.png")
    (folder / "05x.png").write_bytes(b"not a picture")
    return folder
