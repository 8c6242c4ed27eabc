"""`blemish calibrate` and `update`, and the same thresholds for one run of `predict`, `test` and `report`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from blemish.artifact import load
from blemish.runtime import load as open_session
from exported import export_untried
from known import known


@pytest.fixture
def score(tiles: Path, model_file: Path) -> float:
    """Raw score of a good part."""
    return open_session(model_file)(tiles / "test/good/000.png")[0].raw_score


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx", ".xml"])
def test_a_threshold_is_written_down(
    blemish: Any, tiles: Path, model_file: Path, inside: Path, score: float, suffix: str
) -> None:
    model = model_file if suffix == ".safetensors" else export_untried(model_file, inside / f"model{suffix}")
    before = model.read_bytes()
    cut = round(score * 0.9, 3)
    ran = blemish("calibrate", model, "--threshold", cut, "-o", f"new{suffix}")
    assert ran.code == 0, ran.err
    assert f"new{suffix}: images from {cut:.4g} on (before: " in ran.out
    assert model.read_bytes() == before
    old, new = open_session(model), open_session(inside / f"new{suffix}")
    assert new.threshold == pytest.approx(cut)
    ratio = new.decision.pixel.effective_threshold / old.decision.pixel.effective_threshold
    assert ratio == pytest.approx(cut / old.threshold)
    (was,), (now,) = old(tiles / "test/good/000.png"), new(tiles / "test/good/000.png")
    assert (was.label, now.label) == ("normal", "anomalous")
    assert now.raw_score == pytest.approx(was.raw_score)
    assert now.mask.any(), "the marks followed"


def test_labels_and_new_images_calibrate(blemish: Any, tiles: Path, model_file: Path, inside: Path) -> None:
    ran = blemish("calibrate", model_file, tiles, "--from-labels", "-o", "new.safetensors", "--accelerator", "cpu")
    assert ran.code == 0, ran.err
    assert "maximum F1 on 4 good and 10 anomalous images (test)" in ran.out
    assert "ORACLE" in ran.out
    ran = blemish("calibrate", model_file, tiles, "-o", "never.safetensors", "--accelerator", "cpu")
    assert ran.code == 2
    assert "The detector was made from" in ran.err
    shutil.copytree(tiles / "test/good", inside / "more/good")
    ran = blemish(
        *("calibrate", model_file, inside / "more", "--rate", "0.25", "-o", "new.safetensors", "--accelerator", "cpu"),
        "--overwrite",
    )
    assert ran.code == 0, ran.err
    assert "false-alarm rate on 4 good images (held out)" in ran.out
    seen = known(load(inside / "new.safetensors").data_record)
    assert len(seen.seen()) == len(known(load(model_file).data_record).seen()) + 4


def test_without_the_image_that_decided(blemish: Any, model_file: Path, inside: Path) -> None:
    before = known(open_session(model_file).decision.record)
    ranked = sorted(zip(before.scores, before.names, strict=True), reverse=True)
    (inside / "out.txt").write_text(f"train/good/{before.decided_by}\n", "utf-8")
    ran = blemish("calibrate", model_file, "--exclude", "out.txt", "-o", "new.safetensors")
    assert ran.code == 0, ran.err
    assert "The model learned from these images all the same." in ran.err
    session = open_session(inside / "new.safetensors")
    assert session.threshold == pytest.approx(ranked[1][0])
    record = known(session.decision.record)
    assert (record.names, record.normal) == (tuple(n for n in before.names if n != before.decided_by), len(ranked) - 1)
    assert (record.decided_by, record.certified_false_alarm_rate) == (ranked[1][1], None)
    (inside / "out.txt").write_text("nobody.png\n", "utf-8")
    ran = blemish("calibrate", model_file, "--exclude", "out.txt", "-o", "never.safetensors")
    assert (ran.code, "None of the images that calibrated is called nobody.png." in ran.err) == (2, True)
    assert not (inside / "never.safetensors").exists()


def test_update_adds_images(blemish: Any, tiles: Path, model_file: Path, inside: Path) -> None:
    shutil.copytree(tiles / "test/good", inside / "more/good")
    ran = blemish("update", model_file, inside / "more", "-o", "new.safetensors", "--accelerator", "cpu", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["calibration"]["normal"] == 1
    assert ran.json["threshold"] != ran.json["threshold_before"]


def test_one_run_with_another_threshold(
    blemish: Any, tiles: Path, model_file: Path, inside: Path, score: float
) -> None:
    image = tiles / "test/good/000.png"
    for flags in (("--threshold", score), ("--sensitivity", 1)):
        row = blemish("predict", model_file, image, "--json", *flags).run["predictions"][0]
        assert row["label"] == "anomalous"
        assert row["threshold"] <= row["raw_score"]
    figures = blemish("test", model_file, tiles, "--json", "--threshold", score, "--accelerator", "cpu").json
    assert figures["threshold"] == pytest.approx(score)
    assert figures["false_alarm_rate"] > 0
    assert figures["calibration"]["policy"] == "set by hand"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give --threshold, --sensitivity, --rate or --exclude, or DIR: a folder of good images that calibrate."),
        (["--from-labels"], "--from-labels needs DIR, a folder of labeled images."),
        (["--threshold", "3", "--rate", "0.1"], "Give one of --threshold, --sensitivity, --rate and --from-labels."),
        (["here", "--threshold", "3"], "--threshold needs no images. Drop DIR, or drop --threshold."),
        (
            ["--exclude", __file__, "--threshold", "3"],
            "needs no images. Drop --exclude, or drop --threshold.",
        ),
        (
            ["--all-good", "--rate", "0.1"],
            "--all-good is about the images of DIR. Name that",
        ),
        (["--threshold", "nan"], "image_threshold must be a finite number"),
        (["--sensitivity", "2"], "image_sensitivity must be between 0 and 1. Got 2.0."),
        (["--rate", "1.5"], "max_false_alarm_rate must lie between 0 and 1, both excluded. Got 1.5."),
    ],
)
def test_usage(blemish: Any, model_file: Path, inside: Path, arguments: list[str], message: str) -> None:
    ran = blemish("calibrate", model_file, *arguments, "-o", "new.safetensors")
    assert ran.code == 2
    assert message in ran.err
    assert not list(inside.iterdir())


def test_exported_files_need_no_images(blemish: Any, tiles: Path, model_file: Path, inside: Path) -> None:
    model = export_untried(model_file, inside / "model.onnx")
    ran = blemish("calibrate", model, tiles, "-o", "new.onnx")
    assert (ran.code, "Calibrate the .safetensors, and export it." in ran.err) == (2, True)
    ran = blemish("calibrate", model, "--threshold", "3", "-o", "new.xml")
    assert (ran.code, "The output must end in .onnx" in ran.err) == (2, True)
