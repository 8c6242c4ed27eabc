"""`blemish report` and `blemish test --report`: one page from a model, or from predictions."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest

from blemish.artifact import load, read_manifest, save
from blemish.data.datamodule import ImageDataModule
from blemish.engine import Engine
from blemish.models import detectors
from blemish.report.assemble import fit_command

HOSTILE = "<script>window.hacked=1<script>\"'&.png"


@pytest.fixture(scope="module")
def parts(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiles, with a kind of defect whose name is markup."""
    root = shutil.copytree(tiles, tmp_path_factory.mktemp("report") / "parts")
    for folder in ("test", "ground_truth"):
        (root / folder / "contamination").rename(root / folder / HOSTILE)
    return root


def test_test_writes_a_report(blemish: Any, model_file: Path, parts: Path, inside: Path) -> None:
    ran = blemish("test", model_file, parts, "--report", "new/r.html", "--json")
    assert ran.code == 0, ran.err
    plain = blemish("test", model_file, parts, "--json").json
    assert {key: value for key, value in ran.json.items() if not key.startswith("report")} == plain
    page = (inside / "new/r.html").read_text(encoding="utf-8")
    assert ran.json["report"] == str(Path("new/r.html"))
    assert ran.json["report_bytes"] == len(page.encode())
    assert f"{plain['image_auroc']:.3f}" in page
    assert HOSTILE not in page
    assert "&lt;script&gt;window.hacked=1" in page
    assert "(this folder)" in page  # files of the test set were renamed, none of the fit
    assert page.count("data:image/jpeg;base64,") >= 2
    scores = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert len(scores["score"]) == 14
    found = sum(s >= scores["threshold"] for s, truth in zip(scores["score"], scores["truth"], strict=True) if truth)
    assert found == round((1 - plain["miss_rate"]) * 10)


def test_a_model_and_its_predictions_give_the_same_figures(
    blemish: Any, model_file: Path, parts: Path, inside: Path
) -> None:
    assert blemish("predict", model_file, parts / "test", "--out", "rows.jsonl").code == 0
    ran = blemish("report", "rows.jsonl", parts, "--json")
    assert ran.code == 0, ran.err
    from_model = blemish("report", model_file, parts, "-o", "model.html")
    assert from_model.code == 0, from_model.err
    assert "Report: model.html (" in from_model.out
    tested = blemish("test", model_file, parts, "--json").json
    for key in ("image_auroc", "image_ap", "image_f1", "false_alarm_rate", "miss_rate", "threshold"):
        assert ran.json[key] == pytest.approx(tested[key], abs=1e-6)
    assert ran.json["counts"] == {**tested["counts"], "with_masks": 0}
    assert ran.json["reasons"]["pixel_auroc"] == "no anomaly maps"
    page = (inside / "report.html").read_text(encoding="utf-8")
    assert "predictions hold no record of how the threshold was chosen" in page
    assert "noted down when the images were predicted" in page
    assert "predicted boxes" in page
    assert "from the pixel threshold upwards" not in page


def test_predictions_of_some_images(blemish: Any, model_file: Path, parts: Path, inside: Path) -> None:
    assert blemish("predict", model_file, parts / "test/good", parts / "train", "--out", "rows.csv").code == 0
    ran = blemish("report", "rows.csv", parts)
    assert ran.code == 0, ran.err
    assert "no anomalous images" in ran.out
    page = (inside / "report.html").read_text(encoding="utf-8")
    assert "10 labeled images have no prediction and count nowhere: test/" in page
    assert "12 predictions are of no labeled test image and count nowhere." in page


def test_test_images_alone(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    """A manifest of test images: nothing to fit on, so nothing to deal."""
    images = sorted((tiles / "test").rglob("*.png"))
    lines = [f"{path},{'good' if path.parent.name == 'good' else 'bad'},{path.parent.name},test" for path in images]
    Path("m.csv").write_text("\n".join(["path,label,defect,split", *lines]))
    ran = blemish("test", model_file, "m.csv", "--report", "r.html", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["counts"] == {"images": 14, "good": 4, "anomalous": 10, "with_masks": 0}
    page = (inside / "r.html").read_text(encoding="utf-8")
    assert "no images to fit on" in page
    assert "Thresholds would come from" not in page
    assert "blemish fit DIR -o" in page
    assert "no defect masks" in page


def test_an_uncalibrated_model(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    model = load(model_file)
    model.decider.forget()
    save(model, "raw.safetensors")
    ran = blemish("test", "raw.safetensors", tiles, "--report", "r.html", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["threshold"] is None
    assert ran.json["calibration"] is None
    assert ran.json["image_auroc"] > 0.9
    assert ran.json["reasons"]["false_alarm_rate"] == "no verdicts: the model is not calibrated"
    assert "no verdicts: the model is not calibrated" in (inside / "r.html").read_text(encoding="utf-8")


def test_the_printed_command_fits_the_same_model(
    blemish: Any, tiles: Path, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = detectors()["patchcore"].build(image_size=(64, 96), bank_size=None, num_neighbors=3, sigma=2.5, seed=7)
    data = ImageDataModule(tiles, num_workers=0, calibration_fraction=0.4, seed=7)
    Engine("cpu", progress=False).fit(model, data)
    model.decider.image_sensitivity = 0.3
    model.save("first.safetensors")
    manifest = read_manifest("first.safetensors")
    command = fit_command(manifest, model.decider, tiles, Path("second.safetensors"))
    assert shlex.split(command)[:2] == ["blemish", "fit"]
    ran = blemish(*shlex.split(command)[1:])
    assert ran.code == 0, ran.err
    assert read_manifest("second.safetensors") == manifest
    assert Path("second.safetensors").read_bytes() == Path("first.safetensors").read_bytes()
    cut = manifest.model_copy(update={"arguments": {**manifest.arguments, "roi": {"counts": [1, 2]}}})
    words = shlex.split(fit_command(cut, model.decider, tiles, Path("m")))
    assert words[words.index("--roi") + 1] == "ROI"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{model}", "{tiles}", "-o", "r.pdf"], "The output must end in .html. Got 'r.pdf'"),
        (
            ["m.onnx", "{tiles}"],
            "m.onnx is an exported model. Predict first: blemish predict m.onnx .* --out rows",
        ),
        (["rows.jsonl", "{tiles}"], "There are no predictions at rows.jsonl"),
        (["{model}", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_bad_input(
    arguments: list[str], message: str, blemish: Any, model_file: Path, tiles: Path, inside: Path
) -> None:
    ran = blemish("report", *(word.format(model=model_file, tiles=tiles) for word in arguments))
    assert ran.code in (2, 3)
    assert re.search(message, ran.err)
    assert list(inside.iterdir()) == []
