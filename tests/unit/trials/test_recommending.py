"""What is said beside a recommendation, and which backbones are tried."""

from __future__ import annotations

from pathlib import Path

import pytest

from blemish.trials.recommend import limits, local_backbones


@pytest.mark.parametrize(
    ("images", "best", "said"),
    [
        (40, 0.9, []),
        (39, 0.9, ["39 good images are few: false alarms come in steps of 10% on 10 held-out images"]),
        (40, 0.6, ["Even the best image AUROC, 0.60, is close to chance"]),
        (39, 0.6, ["39 good images are few", "Even the best"]),
    ],
)
def test_what_the_figures_cannot_carry_is_said(images: int, best: float, said: list[str]) -> None:
    found = limits({"fit": images - 18, "calibrate": 8, "held_out": 10, "planted": 1}, best)
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_backbones_that_need_no_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("resnet18.pth", "notes.txt", "wide_resnet50_2.tv_in1k.safetensors"):
        (tmp_path / name).touch()
    monkeypatch.setenv("BLEMISH_WEIGHTS", str(tmp_path))
    found = local_backbones()
    assert found[-2:] == ["resnet18", "wide_resnet50_2.tv_in1k"]
    assert "filter_bank" in found
    assert len(set(found)) == len(found)
