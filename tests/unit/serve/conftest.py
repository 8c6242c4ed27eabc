"""A tiny model and pictures for it."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_model(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from blemish.data.datamodule import ImageDataModule
    from blemish.engine import Engine
    from blemish.models import detectors

    model = detectors()["patchcore"].build(backbone="filter_bank", image_size=(64, 64), seed=0)  # type: ignore[arg-type]
    Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
    path = tmp_path_factory.mktemp("small") / "tile.safetensors"
    model.save(path)
    return path


@pytest.fixture(scope="session")
def ranked(tiles: Path, small_model: Path) -> list[Path]:
    """Pictures by score, lowest first."""
    from blemish.runtime import load

    session = load(small_model)
    files = [*sorted((tiles / "train").rglob("*.png")), *sorted((tiles / "test").rglob("*.png"))]
    scores = {path: session(path)[0].raw_score for path in files}
    assert scores[min(files, key=scores.__getitem__)] < session.threshold <= max(scores.values())
    return sorted(files, key=scores.__getitem__)


@pytest.fixture(scope="session")
def good(ranked: list[Path]) -> bytes:
    return ranked[0].read_bytes()


@pytest.fixture(scope="session")
def bad(ranked: list[Path]) -> bytes:
    return ranked[-1].read_bytes()
