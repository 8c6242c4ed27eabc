"""Three scripts as people wrote them for the older library, with another package name; and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.artifact import load
from blemish.data.image_io import read_image
from blemish.errors import DataError, UsageError
from blemish.export import exporting
from blemish.legacy.data import Folder, MVTecAD, PredictDataset
from blemish.legacy.deploy import ExportType, OpenVINOInferencer, TorchInferencer
from blemish.legacy.engine import Engine
from blemish.legacy.metrics import AUROC, F1Score
from blemish.legacy.models import Padim, Patchcore
from blemish.legacy.visualizer import Visualizer
from exported import trace_once

SMALL: dict[str, Any] = {"backbone": "filter_bank", "image_size": (64, 96)}


@pytest.fixture(scope="module")
def roles(tiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that are called as nobody could guess."""
    root = tmp_path_factory.mktemp("roles")
    shutil.copytree(tiles / "train" / "good", root / "gut")
    shutil.copytree(tiles / "test" / "good", root / "gut spaeter")
    for kind in ("scratch", "hole"):
        shutil.copytree(tiles / "test" / kind, root / "schlecht" / kind)
        shutil.copytree(tiles / "ground_truth" / kind, root / "wo" / kind)
    (root / "notes").mkdir()
    shutil.copy(next((root / "gut").iterdir()), root / "notes" / "0.png")
    return root


def test_a_script_that_trains_and_tests(tiles: Path, tmp_path: Path) -> None:
    datamodule = MVTecAD(root=tiles.parent, category=tiles.name, train_batch_size=8, eval_batch_size=4, num_workers=0)
    model = Patchcore(**SMALL, bank_size=60)
    engine = Engine(max_epochs=1, devices=1, accelerator="cpu", logger=False, default_root_dir=tmp_path)
    engine.fit(datamodule=datamodule, model=model)
    (figures,) = engine.test(datamodule=datamodule, model=model)
    assert figures.keys() == {"image_AUROC", "image_F1Score", "pixel_AUROC", "pixel_F1Score"}
    f1, auroc = F1Score(fields=["pred_label", "gt_label"], prefix="image_"), AUROC(fields=["anomaly_map", "gt_mask"])
    datamodule.predict_dataloader = datamodule.test_dataloader  # type: ignore[method-assign] # so that truth comes along
    for batch in engine.predict(datamodule=datamodule):
        f1.update(batch)
        auroc.update(batch)
    assert f1.name == "image_F1Score"
    assert f1.compute() == pytest.approx(figures["image_F1Score"])
    assert auroc.compute() == pytest.approx(figures["pixel_AUROC"], abs=1e-3)  # there of a histogram


def test_a_script_with_folders_that_exports(
    roles: Path, model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    datamodule = Folder(
        name="screws",
        root=roles,
        normal_dir="gut",
        abnormal_dir=["schlecht/scratch", "schlecht/hole"],
        normal_test_dir="gut spaeter",
        mask_dir=["wo/scratch", "wo/hole"],
        num_workers=0,
    )
    assert len(datamodule.split.test) == len(list(roles.glob("gut spaeter/*"))) + len(list(roles.glob("schlecht/*/*")))
    assert all(sample.mask is not None for sample in datamodule.index.samples if sample.label)
    assert not any("notes" in sample.relative for sample in datamodule.index.samples)
    engine = Engine(accelerator="cpu", default_root_dir=tmp_path)
    engine.train(Padim(**SMALL, n_features=8), datamodule)
    kept = load(engine.export(export_type=ExportType.TORCH, datamodule=datamodule))
    assert (kept.name, kept.grid) == ("padim", (8, 12))
    monkeypatch.setattr(exporting, "to_onnx", trace_once)
    model = load(model_file)  # other tests ask for its graph, too
    path = engine.export(model, export_type=ExportType.OPENVINO, datamodule=datamodule)
    assert path.suffix == ".xml"
    assert path.is_relative_to(tmp_path / "weights" / "openvino")
    image = next(roles.glob("schlecht/hole/*"))
    (batch,) = engine.predict(model, data_path=image)
    assert batch.image_path == [image.as_posix()]
    result = OpenVINOInferencer(path, device="CPU").predict(image=image)
    assert result.pred_score.item() == pytest.approx(batch.pred_score.item(), rel=1e-4)  # type: ignore[attr-defined, union-attr]
    assert Visualizer(mode="simple", task="segmentation").visualize_image(result).shape == read_image(image).shape


def test_a_script_with_an_inferencer(model_file: Path, tiles: Path) -> None:
    image = next((tiles / "test" / "hole").iterdir())
    inferencer = TorchInferencer(path=model_file, device="cpu")
    results = [inferencer.predict(given) for given in (image, read_image(image), np.float32(read_image(image) / 255))]
    assert len({result.pred_label for result in results}) == 1
    assert all(result.image.dtype == np.uint8 for result in results)
    assert results[0].pred_score == results[1].pred_score


def test_what_has_no_meaning_names_what_has(tmp_path: Path, model_file: Path) -> None:
    for make, message in (
        (lambda: Folder(root=tmp_path, image_size=(256, 256)), r"Folder doesn't take image_size=\(256, 256\). Give it"),
        (lambda: Folder(root=tmp_path, val_split_mode="synthetic"), "val_split_mode must be None, 'same_as_test', 'fr"),
        (lambda: MVTecAD(tmp_path, traansform=1), "It is not known here. Did you mean 'transform'"),
        (lambda: Engine(max_epochs=100), "max_epochs must be 1: fitting looks at every image once. Got 100"),
        (lambda: Engine(logger=True), "Engine doesn't take logger=True. Fitting has no curves to log"),
        (lambda: Engine().test(Padim(**SMALL)), "test needs a datamodule"),
        (lambda: Engine().predict(), "predict needs one of datamodule, dataset and data_path. Got 0"),
        (lambda: Engine().predict(data_path=tmp_path), "has fitted no model yet"),
        (lambda: Engine().predict(data_path=tmp_path, ckpt_path="last.ckpt"), "blemish.load_detector"),
        (lambda: F1Score(fields=["pred_score", "gt_label"]), "must be 'pred_label' with 'gt_label', 'pred_mask'"),
        (lambda: OpenVINOInferencer(model_file), r"OpenVINOInferencer opens .xml files. Got .*blemish.load opens all"),
    ):
        with pytest.raises(UsageError, match=message):
            make()
    for data, message in (
        (Folder(root=tmp_path), "good: no folder with images. folder needs it"),
        (PredictDataset(tmp_path / "gone"), "gone: no image, and no folder with images"),
    ):
        with pytest.raises(DataError, match=message):
            _ = data.index
