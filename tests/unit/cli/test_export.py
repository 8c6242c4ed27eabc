"""`blemish export`, and `blemish predict` on what it wrote."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import pytest

from blemish.export import exporting
from blemish.post_processing.decision import SETTINGS
from blemish.runtime.backend import Outputs
from exported import export_untried, traced
from ran import Blemish


@pytest.fixture(autouse=True)
def _traced_before(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    def copied(*args: Any) -> Any:
        proto = onnx.ModelProto()
        proto.CopyFrom(traced(model_file))
        return proto

    monkeypatch.setattr(exporting, "to_onnx", copied)


@pytest.mark.parametrize(("to", "suffix"), [("onnx", ".onnx"), ("openvino", ".xml")])
def test_export_then_predict(
    to: str, suffix: str, blemish: Blemish, model_file: Path, tiles: Path, tmp_path: Path
) -> None:
    target = tmp_path / f"m{suffix}"
    images = tiles / "test" / "good"
    ran = blemish("export", model_file, "--to", to, "-o", target, "--images", images)
    assert (ran.code, ran.err) == (0, "It holds the weights of bundled, license: apache-2.0.\n")
    lines = ran.out.splitlines()
    assert lines[0].split() == ["runtime", "batch", "images", "score", "map", "flips", "ties"]
    assert len(lines) == 9
    assert lines[-2].split() == ["at", "most", "1.0e-04", "1.0e-03", "0"]
    assert lines[-1] == f"Exported to {target}."
    ours, theirs = (blemish("predict", path, tiles / "test", "--json").run for path in (target, model_file))
    assert [one["label"] for one in ours["predictions"]] == [one["label"] for one in theirs["predictions"]]
    assert ours["failures"] == []

    # what is in it, in words and as JSON
    ran = blemish("inspect", target)
    assert (ran.code, ran.err) == (0, "")
    assert "Backbone in float32; all sizes." in ran.out
    assert [line.split() for line in ran.out.splitlines()][-8:] == [line.split() for line in lines[:-1]]
    content, model = (blemish("inspect", path, "--json").json for path in (target, model_file))
    for name in ("detector", "arguments", "calibration", "weights", "data", "versions"):
        assert content[name] == model[name]
    assert content["thresholds"] == model["thresholds"]
    assert content["parity"]["passed"] is True
    assert set(content["graph"]["inputs"]) == {"image", *SETTINGS}
    assert set(content["graph"]["outputs"]) == set(Outputs._fields)
    if suffix == ".onnx":
        assert content["graph"]["outputs"]["raw_score"] == "tensor(float) ['N']"
        for verb in ("inspect", "predict"):
            arguments = [verb, str(target), *([str(images)] if verb == "predict" else [])]
            code = WITHOUT_TORCH.format(arguments=["blemish", *arguments])
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout.split() == blemish(*arguments).out.split()


WITHOUT_TORCH = """
import sys
sys.modules.update(dict.fromkeys(("torch", "lightning", "timm", "onnx", "openvino")))
sys.argv = {arguments}
from blemish.cli import main
main()
"""


def test_inspect_metadata_that_is_not_whole(blemish: Blemish, model_file: Path, tmp_path: Path) -> None:
    ran = blemish("inspect", export_untried(model_file, tmp_path / "m.onnx"))
    assert ran.code == 3
    assert "m.onnx is damaged: KeyError('precision'). Export again." in ran.err


def test_export_json(blemish: Blemish, model_file: Path, tiles: Path, tmp_path: Path) -> None:
    copy = tmp_path / "part.safetensors"
    copy.write_bytes(model_file.read_bytes())
    (tmp_path / "part").mkdir()  # the images, perhaps; the file goes beside the model
    content = blemish("export", copy, "--to", "onnx", "--images", tiles / "test" / "good", "--json").json
    assert content["model"] == str(tmp_path / "part.onnx")
    assert content["parity"]["passed"] is True
    assert content["weights_license"] == "apache-2.0"
    assert content["bytes"] == (tmp_path / "part.onnx").stat().st_size


@pytest.mark.parametrize("text", ["1,96", "1,x,128"])
def test_export_static(text: str, blemish: Blemish, model_file: Path, tmp_path: Path) -> None:
    ran = blemish("export", model_file, "--to", "onnx", "-o", tmp_path / "m", "--static", text)
    assert ran.code == 2
    assert "--static must be" in ran.err


def test_export_int8(blemish: Blemish, model_file: Path, tiles: Path, tmp_path: Path) -> None:
    """The flags arrive; what comes of them is tested with the exporter."""
    ran = blemish("export", model_file, "--to", "onnx", "-o", tmp_path / "m", "--int8")
    assert ran.code == 2
    assert "int8 is fitted to photographs and judged on them" in ran.err
    ran = blemish("export", model_file, "--to", "onnx", "-o", tmp_path / "m", "--max-flips", 2)
    assert "calibration_images and max_flips are for int8" in ran.err
    given = ("--int8", "--images", tiles / "test", "--calibration-images", tmp_path / "none")
    ran = blemish("export", model_file, "--to", "onnx", "-o", tmp_path / "m", *given)
    assert ran.code == 3
    assert f"{tmp_path / 'none'} is no folder with images" in ran.err
