"""Where the time of a verdict goes: every part is there in every runtime, and they belong to one whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.errors import ArtifactError, ImageReadError, UsageError
from blemish.runtime.time_sheet import PARTS, READ, REGIONS, WHOLE, time_sheet
from exported import export_untried


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".xml"])
def test_a_sheet_has_every_part(suffix: str, model_file: Path, tiles: Path, tmp_path: Path) -> None:
    model = model_file if suffix == ".safetensors" else export_untried(model_file, tmp_path / f"m{suffix}")
    sheet = time_sheet(model, tiles / "test/good/000.png", rounds=2)
    assert list(sheet) == [READ, *PARTS, REGIONS, WHOLE]
    assert all(seconds > 0 for seconds in sheet.values())


def test_what_is_refused(model_file: Path, tiles: Path, tmp_path: Path) -> None:
    image = tiles / "test/good/000.png"
    with pytest.raises(UsageError, match=r"rounds must be at least 1. Got 0."):
        time_sheet(model_file, image, rounds=0)
    with pytest.raises(ImageReadError, match="no such file"):
        time_sheet(model_file, tmp_path / "absent.png")
    with pytest.raises(ArtifactError):
        time_sheet(tmp_path / "absent.safetensors", image)
