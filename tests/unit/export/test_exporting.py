"""Exporting ends with a file that gives the model's verdicts, or with the table that says why there is none."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from blemish import artifact, runtime
from blemish.artifact import load
from blemish.engine import Engine
from blemish.errors import (
    DataError,
    ExportError,
    NonFiniteError,
    NotCalibratedError,
    NotFittedError,
    OutputError,
    UsageError,
)
from blemish.export import exporting
from blemish.export.onnx import OPSET, describe, to_onnx
from blemish.export.openvino import write_openvino
from blemish.export.parity import compare, generated_images
from blemish.export.report import Comparison, ParityReport
from blemish.files import replacing
from blemish.models import Padim
from blemish.models.base import Detector
from blemish.post_processing import BasePostProcessor, DecisionModule, PostProcessor
from blemish.post_processing.decision import SETTINGS
from blemish.runtime.backend import Outputs
from blemish.runtime.onnx_session import OnnxBackend
from blemish.runtime.session import Session
from blemish.synthetic.products import render
from disks import files_end_at
from exported import trace_once, traced


def drawn(seed: int, defect: str | None = None, size: tuple[int, int] = (96, 128)) -> Any:
    return render("tile", size=size, rng=np.random.default_rng(4000 + seed), defect=defect)[0]


@pytest.fixture
def traced_before(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    """Takes the graph of `model_file` in place of tracing again, for tests of what happens around it."""

    def copied(model: Any, *args: Any) -> Any:
        proto = onnx.ModelProto()
        proto.CopyFrom(traced(model_file))
        return proto

    monkeypatch.setattr(exporting, "to_onnx", copied)


# ----------------------------------------------------------------------------------------------------------- the file


def test_onnx_file(model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "to_onnx", trace_once)  # other tests ask for the same graph
    done = Engine.export(model, tmp_path / "new" / "part.v2", "onnx")
    assert done.path == tmp_path / "new" / "part.v2.onnx"
    assert [one.name for one in done.path.parent.iterdir()] == ["part.v2.onnx"]
    assert done.parity.passed
    assert {(row.runtime, row.batch) for row in done.parity.rows} == {
        (name, batch) for name in ("onnxruntime", "openvino") for batch in (1, 2, 5)
    }
    proto = onnx.load(done.path)
    onnx.checker.check_model(proto)
    assert [(one.domain, one.version) for one in proto.opset_import] == [("", OPSET)]
    shapes = {
        one.name: [dim.dim_param or dim.dim_value for dim in one.type.tensor_type.shape.dim]
        for one in (*proto.graph.input, *proto.graph.output)
    }
    assert shapes == {
        "image": ["N", "H", "W", 3],
        **{key: [] for key in SETTINGS},
        **{key: ["N"] for key in ("raw_score", "pred_score", "pred_label")},
        **{key: ["N", "H", "W"] for key in ("anomaly_map", "pred_mask", "raw_map")},
    }
    assert set(SETTINGS) <= {one.name for one in proto.graph.initializer}
    (entry,) = proto.metadata_props
    content = json.loads(entry.value)
    assert entry.key == "blemish"
    assert content["manifest"]["detector"] == "patchcore"
    assert content["parity"] == done.parity.to_dict()
    assert str(Path.cwd()).encode() not in proto.SerializeToString()  # no traces of the machine


def test_onnx_needs_the_image_alone(model_file: Path, tmp_path: Path) -> None:
    import onnxruntime

    from exported import export_untried

    session = onnxruntime.InferenceSession(export_untried(model_file, tmp_path / "m.onnx"))
    names = list(Outputs._fields)
    image = drawn(0)[None]
    plain = session.run(names, {"image": image})
    strict = session.run(names, {"image": image, "image_sensitivity": np.array(1.0, dtype=np.float32)})
    assert not plain[2][0]
    assert strict[2][0]
    assert strict[0][0] == plain[0][0] == pytest.approx(float(load(model_file)(torch.from_numpy(image)).raw_score[0]))


def test_static_shape(model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "to_onnx", trace_once)
    done = model.export(tmp_path / "fixed.onnx", static=(2, 96, 128))
    assert done.parity.passed
    assert {row.batch for row in done.parity.rows} == {2}
    (image, *_) = onnx.load(done.path).graph.input
    assert [dim.dim_value for dim in image.type.tensor_type.shape.dim] == [2, 96, 128, 3]
    session, images = runtime.load(done.path), [drawn(i) for i in range(3)]
    assert [one.raw_score for one in session(images)] == pytest.approx(
        [session(image)[0].raw_score for image in images], rel=1e-5
    )
    with pytest.raises(DataError, match=r"exported for images of 96 x 128 pixels \(H x W\). Got 97 x 128."):
        session(drawn(0, size=(97, 128)))


def test_torch_mode_is_the_artifact(model: Detector, tmp_path: Path) -> None:
    done = model.export(tmp_path, "torch")
    assert done.path == tmp_path / "model.safetensors"
    assert done.parity.rows == ()
    expected = model(torch.from_numpy(drawn(0))[None]).raw_score
    assert runtime.load(done.path)(drawn(0))[0].raw_score == float(expected[0])


def test_the_artifact_is_compared_on_images(model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = model.export(tmp_path / "m", "torch", images=[drawn(0), drawn(1)])
    assert {(row.runtime, row.batch, row.images) for row in done.parity.rows} >= {("artifact", 1, 2)}
    assert done.parity.passed
    with pytest.raises(DataError, match=r"none is no folder with images"):
        model.export(tmp_path / "m", "torch", images="none")
    other = copy.deepcopy(model)
    other.get_buffer("bank.rows").mul_(1.1)
    before = done.path.read_bytes()
    monkeypatch.setattr("blemish.artifact.save", lambda _, path, save=artifact.save: save(other, path))
    with pytest.raises(ExportError, match=r"would not give the verdicts of the model, so nothing was written"):
        model.export(tmp_path / "m", "torch", images=[drawn(0)])
    approximate = copy.deepcopy(model)
    approximate.settings = approximate.settings.model_copy(update={"neighbor_search": "faiss"})
    with pytest.raises(ExportError, match=r"looks for neighbors by faiss.*Fit with neighbor_search exact to export"):
        approximate.export(tmp_path / "m", "torch", images=[drawn(0)])
    assert done.path.read_bytes() == before


def test_exporting_changes_nothing(model: Detector, tmp_path: Path, traced_before: None) -> None:
    state, before = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    model.export(tmp_path / "a.onnx", images=[drawn(0)])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_guide_runs_on_the_file(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced_before: None
) -> None:
    """The guide's example of a deployment, completed: our outputs have names, where it takes apart one array."""
    monkeypatch.chdir(tmp_path)
    model = load(model_file)
    model.export("model", export_mode="openvino", images=[drawn(0)])

    from openvino import Core

    core = Core()
    ov_model = core.read_model("model.xml")
    compiled_model = core.compile_model(ov_model, config={"INFERENCE_PRECISION_HINT": "f32"})
    assert [one.any_name for one in compiled_model.inputs] == ["image"]
    image = np.expand_dims(drawn(0, "hole"), axis=0)
    results = compiled_model([image])
    expected = model(torch.from_numpy(image))
    assert results["pred_label"].tolist() == expected.pred_label.tolist() == [True]
    assert results["pred_score"] == pytest.approx(expected.pred_score.numpy(), abs=1e-4)
    np.testing.assert_allclose(results["anomaly_map"], expected.anomaly_map.numpy(), atol=1e-3)
    assert results["pred_mask"].shape == (1, 96, 128)
    assert json.loads(ov_model.get_rt_info(["blemish"]).value)["parity"]["passed"] is True
    assert sorted(one.name for one in tmp_path.iterdir()) == ["model.bin", "model.xml"]


def test_nan_in_the_graph_is_anomalous(model_file: Path, tmp_path: Path) -> None:
    """Fail closed: in the file a verdict, in Python an error."""
    import onnxruntime

    from exported import content_of

    content = content_of(load(model_file))
    proto = onnx.ModelProto()
    proto.CopyFrom(traced(model_file))
    (center,) = (one for one in proto.graph.initializer if one.name.endswith("bank.center"))
    broken = np.full(tuple(center.dims), np.nan, dtype=np.float32)
    center.CopyFrom(onnx.numpy_helper.from_array(broken, center.name))
    exporting.write(proto, tmp_path / "nan.onnx", content)
    exporting.write(proto, tmp_path / "nan.xml", content)
    image = drawn(0)[None]
    raw = onnxruntime.InferenceSession(tmp_path / "nan.onnx").run(list(Outputs._fields), {"image": image})
    assert np.isnan(raw[0][0])
    assert raw[2][0]
    for name in ("nan.onnx", "nan.xml"):
        backend: Any = runtime.load(tmp_path / name).backend
        settings = {key: np.array(value, dtype=np.float32) for key, value in backend.decision.settings().items()}
        assert backend.infer({"image": image, **settings})[2][0]
        with pytest.raises(NonFiniteError, match="score is NaN or infinite, so there is no verdict"):
            Session(backend)(image[0])


# ----------------------------------------------------------------------------------------------------------- the gate


class Shifted(OnnxBackend):
    """Disagrees by what a test asks for."""

    score = 0.0
    maps = 0.0
    flip = False

    def infer(self, feed: dict[str, Any]) -> list[Any]:
        raw, score, label, maps, *rest = super().infer(feed)
        return [raw * np.float32(1 + self.score), score, label ^ self.flip, maps + np.float32(self.maps), *rest]


@pytest.mark.parametrize(
    "fault", [{"score": 2e-4}, {"score": np.nan}, {"maps": 2e-3}, {"maps": np.nan}, {"flip": True}]
)
def test_a_graph_that_disagrees_is_not_written(
    fault: dict[str, Any], model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traced_before: None
) -> None:
    for name, value in fault.items():
        monkeypatch.setattr(Shifted, name, value)
    monkeypatch.setattr("blemish.runtime.onnx_session.OnnxBackend", Shifted)
    (tmp_path / "m.onnx").write_bytes(b"the last good one")
    broken = NonFiniteError if np.isnan(fault.get("score", 0)) else ExportError
    with pytest.raises(
        broken, match="no verdict" if broken is NonFiniteError else "nothing was written.\nruntime"
    ) as e:
        model.export(tmp_path / "m.onnx", images=[drawn(0), drawn(1, "hole")])
    if broken is ExportError:
        rows = [line for line in str(e.value).splitlines() if line.startswith(("onnxruntime", "openvino"))]
        assert [row.endswith("refused") for row in rows] == [True] * 3 + [False] * 3
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("m.onnx", b"the last good one")]


def test_ties_at_the_threshold_are_no_flips(model_file: Path, tmp_path: Path) -> None:
    from exported import export_untried

    model = load(model_file)
    assert isinstance(model.post_processor, DecisionModule)
    backend = OnnxBackend(export_untried(model_file, tmp_path / "m.onnx"), whole=True)
    score = float(model(torch.from_numpy(drawn(0))[None]).raw_score[0])
    for distance, (flips, ties) in {0.0: (0, 1), 1e-6: (0, 1), 1e-5: (1, 0)}.items():
        threshold = score * (1 + distance)
        model.decider.decision = model.decider.decision.replace(image_threshold=threshold)
        truth, verdict = backend.infer, model(torch.from_numpy(drawn(0))[None]).pred_label.numpy()

        def other(feed: dict[str, Any], truth: Any = truth, verdict: Any = verdict) -> list[Any]:
            raw, normalized, _, *rest = truth(feed)
            return [raw, normalized, ~verdict, *rest]

        backend.infer = other  # type: ignore[method-assign]
        (row,) = compare(model, {"ort": backend}, [drawn(0)], [1]).rows
        backend.infer = truth  # type: ignore[method-assign]
        assert (row.flips, row.ties) == (flips, ties)


def test_report() -> None:
    good, bad = Comparison("ort", 1, 6, 1e-7, 1e-5, 0, 0), Comparison("ov", 2, 6, float("inf"), 0.0, 1, 2)
    report = ParityReport((good, bad))
    assert not report.passed
    assert re.sub(" +", " ", str(report)).splitlines() == [
        "runtime batch images score map flips ties",
        "ort 1 6 1.0e-07 1.0e-05 0 0",
        "ov 2 6 inf 0.0e+00 1 2 refused",
        "at most 1.0e-04 1.0e-03 0",
    ]
    content = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert content["rows"][1]["score"] is None
    again = ParityReport.from_dict(content)
    assert (again.rows[0], again.limits, again.passed) == (good, report.limits, False)
    assert ParityReport.from_dict(again.to_dict()).to_dict() == content


def test_generated_images() -> None:
    images = generated_images((64, 96))
    sizes = [one.shape[:2] for one in images]
    assert (640, 960) in sizes
    assert sum(height % 2 for height, _ in sizes) >= 2
    assert any(one.max() <= 1 and one.any() for one in images)
    assert any((one == 255).all() for one in images)
    assert {one.shape for one in generated_images((64, 96), (30, 40))} == {(30, 40, 3)}


# ---------------------------------------------------------------------------------------------------------- arguments


def test_images_to_compare_on(model: Detector, tiles: Path, tmp_path: Path, traced_before: None) -> None:
    done = model.export(tmp_path / "a.onnx", images=tiles / "test" / "good")
    assert {(row.batch, row.images) for row in done.parity.rows} == {(1, 4), (2, 4), (5, 5)}
    deep = np.linspace(0, 65535, 96 * 128).reshape(96, 128).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    done = model.export(tmp_path / "a.onnx", images=[tmp_path / "deep.png", drawn(0)])
    assert {(row.batch, row.images) for row in done.parity.rows} == {(1, 2), (2, 2), (5, 5)}
    with pytest.raises(DataError, match=r"none is no folder with images"):
        model.export(tmp_path / "b.onnx", images=tmp_path / "none")
    with pytest.raises(DataError, match=r"There is no image of 10 x 10 pixels to compare on"):
        model.export(tmp_path / "b.onnx", images=[drawn(0)], static=(1, 10, 10))


def test_models_without_verdicts(model: Detector, tmp_path: Path) -> None:
    with pytest.raises(NotFittedError, match=r"This PaDiM is not fitted, so it can't be exported"):
        Padim(image_size=64).export(tmp_path / "a.onnx")
    model.post_processor = Custom()
    with pytest.raises(UsageError, match=r"can't hold a post-processor of class Custom"):
        model.export(tmp_path / "a.onnx")
    for processor in (PostProcessor(), None):
        model.post_processor = processor
        for mode in ("onnx", "openvino", "torch"):
            with pytest.raises(NotCalibratedError, match=r"no thresholds, so an exported file could give no verdict"):
                model.export(tmp_path / "a", mode)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


class Custom(BasePostProcessor):
    def forward(self, predictions: Any) -> Any:
        return predictions


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"export_mode": "tflite"}, r"export_mode must be one of onnx, openvino, torch. Got 'tflite'."),
        ({"static": (1, 96)}, r"static must be \(N, H, W\), each at least 1. Got \(1, 96\)."),
        ({"static": (0, 96, 128)}, r"static must be \(N, H, W\), each at least 1. Got \(0, 96, 128\)."),
        ({"static": (1, 96, 128), "export_mode": "torch"}, r"static has no meaning for export_mode 'torch'"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str, model: Detector, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        model.export(tmp_path / "a", **arguments)


def test_too_large(model: Detector) -> None:
    with pytest.raises(
        ExportError, match=r"an ONNX file ends at 2. Store them as float16 \(bank_dtype, factor_dtype\)"
    ):
        to_onnx(model, model.decider.decision.to_dict(), None, max_bytes=1000)


def test_graph_that_cannot_be_traced(model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def depends_on_data(images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images

    monkeypatch.setattr(model.pre_processor, "forward", depends_on_data)
    with pytest.raises(ExportError, match=r"torch can't trace backbone 'bundled': .*Choose another backbone"):
        model.export(tmp_path / "a.onnx")


def test_place_that_cannot_be_written(model: Detector, tmp_path: Path, traced_before: None) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"m.onnx can't be written: .*Choose another place"):
        model.export(tmp_path / "file" / "m.onnx")


def test_openvino_on_a_full_disk(tmp_path: Path) -> None:
    """The .bin doesn't fit."""
    openvino = pytest.importorskip("openvino")
    from openvino import opset13

    image = opset13.parameter([1, 500], np.float64)
    product = opset13.matmul(image, opset13.constant(np.random.default_rng(0).random((500, 500))), False, False)
    message = r"m.xml can't be written: OpenVINO says: .*Choose another place."
    with pytest.raises(OutputError, match=message), replacing(tmp_path / "m.xml") as temporary, files_end_at(100_000):
        write_openvino(openvino.Model([product], [image]), temporary, {})
    assert list(tmp_path.iterdir()) == []


def test_describe_replaces(model_file: Path) -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(traced(model_file))
    for value in (1, 2):
        describe(proto, {"value": value})
    assert [one.value for one in proto.metadata_props] == ['{"value": 2}']
