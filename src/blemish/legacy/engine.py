"""The engine as the older library's scripts call it: `fit(datamodule=, model=)`, `predict(data_path=)`, `export`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from blemish.data.batch import InferenceBatch
from blemish.data.datamodule import ImageDataModule
from blemish.engine import Engine as Verbs
from blemish.errors import UsageError
from blemish.legacy.data import PredictDataset
from blemish.legacy.deploy import ExportType
from blemish.legacy.refusing import refuse
from blemish.models.base import Detector

FIGURES = {
    "image_AUROC": "image_auroc",
    "image_F1Score": "image_f1",
    "pixel_AUROC": "pixel_auroc",
    "pixel_F1Score": "pixel_f1",
}
"""What `test` calls figures -> attribute of `EvaluationResult`."""
_SPELLINGS = {
    "logger": "Fitting has no curves to log.",
    "callbacks": "Give them to a lightning.Trainer(max_epochs=1), which fits these models, too.",
    "ckpt_path": "Models are .safetensors files: blemish.load_detector(path) opens one.",
    "train_dataloaders": "Give a datamodule: blemish.ImageDataModule(folder), or .from_arrays(images).",
    "val_dataloaders": "Give a datamodule: blemish.ImageDataModule(folder), or .from_arrays(images).",
    "dataloaders": "Give a datamodule: blemish.ImageDataModule(folder), or .from_arrays(images).",
    "input_size": "Exported files take images of any size.",
    "compression_type": 'Write blemish.Engine().export(model, root, "openvino", images=folder, int8=True).',
    "ov_kwargs": "Write model.export(root, export_mode), whose options are in its documentation.",
    "onnx_kwargs": "Write model.export(root, export_mode), whose options are in its documentation.",
}


class Prediction(InferenceBatch):
    """Verdicts on a batch, with the older name of `path`."""

    @property
    def image_path(self) -> list[str]:
        """N file paths."""
        return list(self.path)


class Engine:
    """`blemish.Engine` under the older signatures. It remembers the model of its last `fit`.

    Args:
        accelerator, devices: see `blemish.Engine`; devices "auto" is 1.
        max_epochs: 1, or None: fitting looks at every image once.
        default_root_dir: folder of exported files.
        logger: False or None.

    Raises:
        UsageError: for what has no meaning here, naming what has.
    """

    def __init__(
        self,
        accelerator: str = "auto",
        devices: int | str = "auto",
        max_epochs: int | None = None,
        default_root_dir: str | os.PathLike[str] = "results",
        logger: Any = None,
        **others: Any,
    ) -> None:
        if max_epochs not in (None, 1):
            raise UsageError(f"max_epochs must be 1: fitting looks at every image once. Got {max_epochs!r}.")
        refuse("Engine", {**others, "logger": logger or None}, _SPELLINGS)
        self.default_root_dir = Path(default_root_dir)
        self._verbs = Verbs(accelerator, devices=None if devices == "auto" else int(devices))
        self._model: Detector | None = None

    def fit(self, model: Detector, datamodule: ImageDataModule, **others: Any) -> None:
        """Fits and calibrates, see `blemish.Engine.fit`."""
        refuse("fit", others, _SPELLINGS)
        self._verbs.fit(model, datamodule)
        self._model = model

    def train(self, model: Detector, datamodule: ImageDataModule, **others: Any) -> list[dict[str, float]]:
        """`fit`, then `test`."""
        self.fit(model, datamodule, **others)
        return self.test(model, datamodule)

    def test(
        self, model: Detector | None = None, datamodule: ImageDataModule | None = None, **others: Any
    ) -> list[dict[str, float]]:
        """Measures on the test images; one dict of the figures of `FIGURES` that there are."""
        refuse("test", others, _SPELLINGS)
        found = self._verbs.test(self._known(model), _given(datamodule, "test"))
        figures = {name: getattr(found, own).value for name, own in FIGURES.items()}
        return [{name: value for name, value in figures.items() if value is not None}]

    def predict(
        self,
        model: Detector | None = None,
        datamodule: ImageDataModule | None = None,
        *,
        dataset: PredictDataset | None = None,
        data_path: str | os.PathLike[str] | None = None,
        return_predictions: bool | None = None,
        **others: Any,
    ) -> list[Prediction]:
        """Verdicts on the images of a data module, a data set, or a path; exactly one of them."""
        refuse("predict", others, _SPELLINGS)
        if return_predictions is False:
            raise UsageError(
                "predict returns its predictions. For streams of any length use blemish.load(path).stream."
            )
        given = [one for one in (datamodule, dataset, data_path) if one is not None]
        if len(given) != 1:
            raise UsageError(f"predict needs one of datamodule, dataset and data_path. Got {len(given)} of them.")
        images = given[0] if isinstance(given[0], ImageDataModule) else PredictDataset(given[0])
        return [Prediction(**vars(batch)) for batch in self._verbs.predict(self._known(model), images)]

    def export(
        self,
        model: Detector | None = None,
        export_type: ExportType | str = ExportType.OPENVINO,
        export_root: str | os.PathLike[str] | None = None,
        datamodule: ImageDataModule | None = None,
        **others: Any,
    ) -> Path:
        """Writes `model` for a runtime into `export_root`, by default a folder of `default_root_dir`; its path.

        Verdicts are compared on the images of the data module, where one is given.
        """
        refuse("export", others, _SPELLINGS)
        kind = ExportType(export_type)
        root = self.default_root_dir / "weights" / kind.value if export_root is None else Path(export_root)
        compared = {} if datamodule is None else {"images": datamodule.root}
        exported = self._known(model).export(root / "model", kind.value, **compared)
        path: Path = exported.path
        return path

    def _known(self, model: Detector | None) -> Detector:
        known = self._model if model is None else model
        if known is None:
            raise UsageError("This engine has fitted no model yet. Give one: model=...")
        return known


def _given(datamodule: ImageDataModule | None, verb: str) -> ImageDataModule:
    if datamodule is None:
        raise UsageError(f"{verb} needs a datamodule. Give the one that was fitted on, or another.")
    return datamodule
