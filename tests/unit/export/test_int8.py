"""8-bit integers in the backbone: in the backbone alone, and verdicts hold, or there is no file."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from blemish import runtime
from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import read_image
from blemish.engine import Engine
from blemish.errors import DataError, ExportError, MissingExtraError, UsageError
from blemish.export import exporting, int8
from blemish.export.onnx import BACKBONE
from blemish.export.report import Limits, int8_limits
from blemish.export.samples import good_ones, list_samples, read_samples, spread, to_compare
from blemish.models import Patchcore
from blemish.models.base import Detector
from blemish.post_processing.decision import SETTINGS
from blemish.runtime.backend import Outputs
from blemish.runtime.onnx_session import OnnxBackend
from blemish.synthetic.products import render
from exported import assert_sealed, trace_once, traced


@pytest.fixture(scope="module")
def network_file(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PatchCore on a network that learned nothing, but has all the parts of one that did."""
    folder = tmp_path_factory.mktemp("network")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model("resnet18", pretrained=False, zero_init_last=False)
        for name, tensor in network.state_dict().items():
            if name.endswith(("running_mean", "bn1.bias", "bn2.bias")):
                tensor.uniform_(-0.1, 0.1)
            if name.endswith(("running_var", "bn1.weight", "bn2.weight")):
                tensor.uniform_(0.8, 1.2)
    save_file(network.state_dict(), folder / "weights.safetensors")
    options: dict[str, Any] = {"backbone": "resnet18", "weights": folder / "weights.safetensors"}
    model = Patchcore(image_size=(64, 96), layers=["layer1", "layer2"], bank_size=100, **options)
    Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
    model.save(folder / "model.safetensors")
    return folder / "model.safetensors"


@pytest.fixture
def network(network_file: Path, monkeypatch: pytest.MonkeyPatch) -> Detector:
    """The same, traced before; what it learned nothing of may be rounded away, so the limits are wide."""
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: copied(network_file))
    monkeypatch.setattr(exporting, "int8_limits", lambda max_flips: Limits(1.0, 1.0, max_flips))
    monkeypatch.setattr(exporting, "BATCHES", (1,))
    return load(network_file)


def copied(path: Path) -> Any:
    proto = onnx.ModelProto()
    proto.CopyFrom(traced(path))
    return proto


def drawn(seed: int, defect: str | None = None) -> Any:
    return render("tile", size=(96, 128), rng=np.random.default_rng(5000 + seed), defect=defect)[0]


# ----------------------------------------------------------------------------------------------------------- the files


def test_onnx_file(network: Detector, network_file: Path, tiles: Path, tmp_path: Path) -> None:
    done = network.export(tmp_path / "m", int8=True, images=tiles, max_flips=14)
    assert [one.name for one in tmp_path.iterdir()] == ["m.onnx"]
    assert [(row.runtime, row.images) for row in done.parity.rows] == [("onnxruntime", 14)]  # the test images
    proto = onnx.load(done.path)
    onnx.checker.check_model(proto)
    content = json.loads(proto.metadata_props[0].value)
    assert [one.key for one in proto.metadata_props] == ["blemish"]
    assert content["precision"] == "int8"
    assert content["parity"] == done.parity.to_dict()

    # integers: the weights of all convolutions of the backbone, and nothing that the rest calculates with
    numbers = {one.name: one for one in proto.graph.initializer}
    makers = {name: node for node in proto.graph.node for name in node.output}
    backbone = [node for node in proto.graph.node if node.name.startswith(BACKBONE)]
    convolutions = [node for node in backbone if node.op_type == "Conv"]
    assert len(convolutions) >= 10
    assert {numbers[makers[node.input[1]].input[0]].data_type for node in convolutions} == {onnx.TensorProto.INT8}
    weights = [onnx.numpy_helper.to_array(numbers[makers[node.input[1]].input[0]]) for node in convolutions]
    assert max(np.abs(one.astype(int)).max() for one in weights) <= 64  # seven bits
    users = {name: [node for node in proto.graph.node if name in node.input] for name in makers}
    for node in proto.graph.node:
        if node.op_type == "QuantizeLinear":
            (back,) = users[node.output[0]]
            source = makers.get(node.input[0])
            ours = source is not None and source.name.startswith(BACKBONE)
            assert ours or all(one.name.startswith(BACKBONE) for one in users[back.output[0]]), node.name
    assert len(proto.SerializeToString()) < 0.5 * len(traced(network_file).SerializeToString())

    # a session like any other
    session = runtime.load(done.path)
    (before,) = session(drawn(0))
    session.set_sensitivity(1.0)
    (after,) = session(drawn(0))
    assert (after.label, after.raw_score) == ("anomalous", before.raw_score)

    # AUROC before and after
    paths = sorted((tiles / "test").rglob("*.png"))
    labels = [path.parent.name != "good" for path in paths]
    images = [torch.from_numpy(read_image(path))[None] for path in paths]
    scores = {
        "torch": [float(network(image).raw_score[0]) for image in images],
        "onnxruntime": [result.raw_score for result in session(paths)],
    }
    assert done.parity.auroc == pytest.approx({name: roc_auc_score(labels, each) for name, each in scores.items()})
    assert scores["torch"] != scores["onnxruntime"]
    assert scores["torch"] == pytest.approx(scores["onnxruntime"], rel=0.5)
    assert_sealed(done.path)


def test_openvino_file(network: Detector, tiles: Path, tmp_path: Path) -> None:
    done = network.export(
        tmp_path / "m", "openvino", int8=True, images=[drawn(0)], calibration_images=[drawn(1), drawn(2)], max_flips=1
    )
    assert sorted(one.name for one in tmp_path.iterdir()) == ["m.bin", "m.xml"]
    assert [(row.runtime, row.images) for row in done.parity.rows] == [("openvino", 1)]
    assert done.parity.auroc == {}
    session = runtime.load(done.path)
    backend: Any = session.backend
    assert backend.content["precision"] == "int8"
    assert backend.signature()["inputs"]["image"] == "u8 [?,?,?,3]"

    # never with open shapes, which end the process on some processors: one graph for each size, one image at a time
    one, other, wide = session([drawn(1), drawn(2), drawn(1)[:, :64]])
    assert backend._compiled.cache_info().currsize == 2
    shapes = [backend._compiled(size).input("image").partial_shape for size in ((96, 128), (96, 64))]
    assert [list(shape.to_shape()) for shape in shapes] == [[1, 96, 128, 3], [1, 96, 64, 3]]
    assert [one.raw_score, other.raw_score] == [session(drawn(seed))[0].raw_score for seed in (1, 2)]
    assert wide.anomaly_map.shape == (96, 64)
    model = backend._compiled((96, 128)).get_runtime_model()
    assert all(op.get_output_partial_shape(0).is_static for op in model.get_ops() if op.get_output_size())

    kinds = Counter()
    for op in model.get_ops():
        information = op.get_rt_info()
        kinds[information["layerType"].astype(str), information["runtimePrecision"].astype(str)] += 1
    precisions = {precision for kind, precision in kinds if kind == "Convolution"}
    assert precisions <= {"u8", "i8"}, kinds  # with INFERENCE_PRECISION_HINT f32: the hint is about floats
    assert {precision for kind, precision in kinds if kind in ("MatMul", "FullyConnected", "TopK")} <= {"f32", "i32"}
    assert_sealed(done.path)


def test_static_shape(model: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "to_onnx", trace_once)  # other tests ask for the same graph
    monkeypatch.setattr(exporting, "int8_limits", lambda max_flips: Limits(1.0, 1.0, max_flips))
    images = [drawn(0), drawn(1)]
    done = model.export(tmp_path / "m", int8=True, images=images, max_flips=2, static=(2, 96, 128))
    assert [(row.batch, row.images) for row in done.parity.rows] == [(2, 2)]
    assert runtime.load(done.path)(drawn(0))


# ------------------------------------------------------------------------------------------------------------ the gate


class Flipped(OnnxBackend):
    """Turns one verdict around."""

    left = 1

    def infer(self, feed: dict[str, Any]) -> list[Any]:
        raw, score, label, *rest = super().infer(feed)
        self.left, flip = self.left - 1, self.left > 0
        return [raw, score, label ^ flip, *rest]


def test_more_flips_than_allowed(network: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blemish.runtime.onnx_session.OnnxBackend", Flipped)
    monkeypatch.setattr(exporting, "quantize_onnx", lambda graph, stacks, folder: graph)
    with pytest.raises(ExportError, match=r"nothing was written.\n(.|\n)*onnxruntime +1 +1 .* 1 +0  refused\nat most"):
        network.export(tmp_path / "m", int8=True, images=[drawn(0)])
    assert list(tmp_path.iterdir()) == []
    done = network.export(tmp_path / "m", int8=True, images=[drawn(0)], max_flips=1)
    assert done.parity.rows[0].flips == 1


def test_the_bundled_backbones_filters_stay_as_they_are(model_file: Path) -> None:
    names = [node.name for node in traced(model_file).graph.node if node.op_type == "Conv"]
    assert 0 < sum(name.startswith(BACKBONE) for name in names) < len(names)


def test_limits() -> None:
    assert int8_limits(3) == (0.1, 0.2, 3)


def test_a_network_that_eight_bits_ruin(tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The filter bank takes fourth roots of small numbers, of which 8 bits leave nothing."""
    monkeypatch.setattr(exporting, "BATCHES", (1,))
    model = Patchcore(backbone="filter_bank", image_size=(64, 96), bank_size=100)
    Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
    with pytest.raises(ExportError, match=r"would not give the verdicts of the model, so nothing was written"):
        model.export(tmp_path / "m", int8=True, images=[drawn(0), drawn(1, "hole")], static=(1, 96, 128))
    assert list(tmp_path.iterdir()) == []


# ----------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"int8": True}, r"int8 is fitted to photographs and judged on them: name some with images"),
        ({"int8": True, "images": [], "export_mode": "torch"}, r"int8 is for export_mode 'onnx' and 'openvino'"),
        ({"max_flips": 1}, r"calibration_images and max_flips are for int8. Set int8, or drop them."),
        ({"calibration_images": []}, r"calibration_images and max_flips are for int8"),
        ({"int8": True, "images": [], "max_flips": -1}, r"max_flips must be at least 0. Got -1."),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str, network: Detector, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        Engine.export(network, tmp_path / "m", **arguments)


def test_no_images(network: Detector, tmp_path: Path) -> None:
    for arguments in ({"images": []}, {"images": [drawn(0)], "calibration_images": []}):
        with pytest.raises(DataError, match=r"There is no image"):
            network.export(tmp_path / "m", int8=True, **arguments)  # type: ignore[arg-type]


def test_nncf_fails(network: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request: dict[str, Any] = {"export_mode": "openvino", "int8": True, "images": [drawn(0)]}
    broken = tmp_path / "broken" / "nncf"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise RuntimeError('no such pattern.')")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent), prepend=os.pathsep)
    reason = r"NNCF can't quantize this model: RuntimeError: no such pattern. Export it as ONNX, or without int8."
    with pytest.raises(ExportError, match=reason):
        network.export(tmp_path / "m", **request)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r'needs nncf, which is not installed. Run: pip install "blemish\[int8\]"'
    ):
        network.export(tmp_path / "m", **request)
    assert [one.name for one in tmp_path.iterdir()] == ["broken"]


# -------------------------------------------------------------------------------------------------------------- pieces


def test_batch_norms_are_folded(network_file: Path) -> None:
    proto = copied(network_file)
    folded = int8.fold_batch_norms(proto)
    assert proto == traced(network_file)
    kinds = [Counter(node.op_type for node in one.graph.node) for one in (proto, folded)]
    assert kinds[0]["BatchNormalization"] >= 10
    assert kinds[0] - kinds[1] == {"BatchNormalization": kinds[0]["BatchNormalization"]}
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    feed = {"image": drawn(0, "hole")[None]}
    plain, other = (
        onnxruntime.InferenceSession(one.SerializeToString(), options).run(list(Outputs._fields), feed)
        for one in (proto, folded)
    )
    np.testing.assert_allclose(other[0], plain[0], rtol=1e-4)
    np.testing.assert_allclose(other[3], plain[3], atol=1e-3)
    assert set(SETTINGS) <= {one.name for one in folded.graph.initializer}


def test_headroom() -> None:
    image = np.array([[[100, 0, 7], [120, 200, 7]]], dtype=np.uint8)
    same, wider = int8.with_headroom([image])
    assert same is image
    assert wider.tolist() == [[[90, 0, 7], [130, 255, 7]]]


def test_which_images_are_taken(tiles: Path, tmp_path: Path) -> None:
    whole = list_samples(tiles)
    assert Counter(one.anomalous for one in to_compare(whole)) == {False: 4, True: 10}
    assert {one.source.parent.name for one in good_ones(whole)} == {"good"}  # type: ignore[union-attr]
    assert {one.subset for one in good_ones(whole)} == {"train"}
    test = list_samples(tiles / "test")  # no layout to fit on, but good/ beside other folders
    assert Counter(one.anomalous for one in test) == {False: 4, True: 10}
    assert to_compare(test) == test
    assert len(good_ones(test)) == 4
    assert [one.anomalous for one in list_samples(tiles / "test" / "hole")] != [True, True]
    unknown = list_samples([drawn(0), tiles / "test/good/000.png"])
    assert good_ones(unknown) == unknown
    assert [one.shape for one, _ in read_samples(unknown, (96, 128))] == [(96, 128, 3)] * 2
    assert len(spread(whole, 5)) == 5
    assert spread(whole, 100) == whole
    with pytest.raises(DataError, match="is no folder with images"):
        list_samples(tmp_path)
