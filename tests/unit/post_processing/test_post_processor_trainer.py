"""The post-processor under a real `lightning.Trainer`, in one process and in two."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from blemish import Engine, ImageDataModule, Padim
from blemish.data.batch import InferenceBatch
from blemish.data.gather import own_share
from blemish.errors import CalibrationError
from blemish.post_processing import PostProcessor
from blemish.synthetic.products import write_dataset
from known import known
from processes import two

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),  # data in memory need none
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),  # there is no logger
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*is deprecated.*"),  # Lightning's own use of an old torch name
    pytest.mark.filterwarnings("ignore:.*GPU available but not used.*"),
]


def numbers(n: int = 20, seed: int = 0) -> TensorDataset:
    """Scores, maps, labels and masks, as if a detector had made them."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(n) % 3 == 2
    mask = torch.zeros(n, 6, 5, dtype=torch.bool)
    mask[label, 2:4, 1:3] = True
    score = torch.randn(n, generator=generator) + 2 * label
    return TensorDataset(score, torch.randn(n, 6, 5, generator=generator) + 2 * mask, label, mask)


def loader(data: TensorDataset, batch_size: int = 3) -> DataLoader[Any]:
    return DataLoader(data, batch_size=batch_size)


class Replay(LightningModule):
    """A detector whose raw predictions are its input."""

    def __init__(self, post_processor: PostProcessor) -> None:
        super().__init__()
        self.post_processor = post_processor
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.tested: list[InferenceBatch] = []
        self.calls: list[str] = []

    def configure_callbacks(self) -> list[Callback]:
        return [self.post_processor]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.weight.square()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return InferenceBatch(pred_score=batch[0], anomaly_map=batch[1], gt_label=batch[2], gt_mask=batch[3])

    def test_step(self, batch: list[Tensor], batch_idx: int) -> Any:
        return InferenceBatch(pred_score=batch[0].clone(), anomaly_map=batch[1].clone())

    def predict_step(self, batch: list[Tensor], batch_idx: int = 0) -> InferenceBatch:
        return InferenceBatch(pred_score=batch[0].clone(), anomaly_map=batch[1].clone())

    def on_test_batch_end(self, outputs: Any, *args: Any) -> None:
        self.tested.append(outputs)

    def on_validation_end(self) -> None:
        record = self.post_processor.record
        self.calls.append("none" if record is None else f"{record.normal}+{record.anomalous}")


def trainer(**arguments: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**{"accelerator": "cpu", "devices": 1, **quiet, **arguments})


def expected(post_processor: PostProcessor, data: TensorDataset) -> InferenceBatch:
    result: InferenceBatch = post_processor(InferenceBatch(pred_score=data.tensors[0], anomaly_map=data.tensors[1]))
    return result


def assert_done(batches: list[InferenceBatch], whole: InferenceBatch, n: int) -> None:
    for name in ("pred_score", "pred_label", "anomaly_map", "pred_mask", "raw_score", "raw_map"):
        found = torch.cat([getattr(batch, name) for batch in batches])
        assert len(found) == n
        assert torch.equal(found, getattr(whole, name)), name


def test_fit_validate_test_and_predict() -> None:
    model, data = Replay(PostProcessor()), numbers(20)
    run = trainer(max_epochs=2, num_sanity_val_steps=2)
    run.fit(model, loader(data), loader(data))
    # the sanity check calibrates nothing, and every epoch starts afresh
    assert model.calls == ["none", "14+6", "14+6"]
    post_processor = model.post_processor
    record = known(post_processor.record)
    assert record.source == "validation"
    assert post_processor.image_min == float(data.tensors[0].min())
    assert post_processor.pixel_max == float(data.tensors[1].max())
    first = post_processor.raw_image_threshold

    other = numbers(11, seed=1)
    run.test(model, loader(other), verbose=False)
    whole = expected(post_processor, other)
    assert_done(model.tested, whole, 11)
    assert_done(run.predict(model, loader(other)), whole, 11)  # type: ignore[arg-type]
    assert post_processor.raw_image_threshold == first  # test images calibrate nothing

    run.validate(model, loader(other), verbose=False)
    assert model.calls[-1] == "8+3"
    assert post_processor.raw_image_threshold != first


def test_without_calibration_predictions_are_raw() -> None:
    model, data = Replay(PostProcessor()), numbers(5)
    batches = known(trainer().predict(model, loader(data)))
    for batch in batches:
        assert isinstance(batch, InferenceBatch)
        assert batch.pred_label is batch.pred_mask is None
        assert torch.equal(batch.raw_score, batch.pred_score)  # type: ignore[arg-type]
    assert torch.equal(torch.cat([batch.pred_score for batch in batches]), data.tensors[0])  # type: ignore[union-attr]


def test_an_interrupted_validation_leaves_no_evidence_behind() -> None:
    model, data = Replay(PostProcessor()), numbers(20)
    unlabeled = [*data.tensors[:2], torch.ones(20, dtype=torch.bool), data.tensors[3]]
    with pytest.raises(CalibrationError, match="none of them normal"):
        trainer().validate(model, loader(TensorDataset(*unlabeled)), verbose=False)
    trainer().validate(model, loader(data), verbose=False)
    assert model.calls == ["14+6"]


def test_calibration_travels_in_a_checkpoint(tmp_path: Path) -> None:
    model, data = Replay(PostProcessor()), numbers(20)
    run = trainer()
    run.validate(model, loader(data), verbose=False)
    run.save_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    fresh = Replay(PostProcessor())
    fresh.load_state_dict(torch.load(tmp_path / "model.ckpt", weights_only=True)["state_dict"])
    assert fresh.post_processor.is_calibrated
    assert_done([expected(fresh.post_processor, data)], expected(model.post_processor, data), 20)


def test_outputs_of_another_kind_are_left_alone() -> None:
    class Plain(Replay):
        def validation_step(self, batch: list[Tensor], batch_idx: int) -> Any:
            return None

        def predict_step(self, batch: list[Tensor], batch_idx: int = 0) -> Any:
            return batch[0]

    model, data = Plain(PostProcessor()), numbers(4)
    batches = trainer().predict(model, loader(data))
    assert torch.equal(torch.cat(batches), data.tensors[0])  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parts")
    return write_dataset(root, product="knob", good_train=12, good_test=3, per_defect=1, size=(64, 80))


def test_a_detector_on_pictures(parts: Path) -> None:
    model = Padim(image_size=64, n_features=10, post_processor=PostProcessor(image_sensitivity=0.6))
    engine = Engine(accelerator="cpu", progress=False)
    engine.fit(model, ImageDataModule(parts, batch_size=5, num_workers=0))
    post_processor = model.post_processor
    assert isinstance(post_processor, PostProcessor)
    record = known(post_processor.record)
    assert record.policy == "highest normal score"
    assert record.source == "held_out"
    assert record.anomalous == 0
    batches = engine.predict(model, ImageDataModule(parts, batch_size=4, num_workers=0))
    for batch in batches:
        assert batch.raw_score is not None
        assert isinstance(batch.raw_map, Tensor)
        assert isinstance(batch.pred_mask, Tensor)
        assert batch.pred_mask.shape[1:] == (64, 80)
        assert torch.equal(batch.pred_label, batch.raw_score >= post_processor.effective_image_threshold)  # type: ignore[arg-type]
        assert torch.equal(batch.pred_mask, batch.raw_map >= post_processor.effective_pixel_threshold)


# --- two processes

SCRIPT = """
import json
import sys
import warnings

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.utils.data import DataLoader, TensorDataset

from blemish.data.batch import InferenceBatch
from blemish.errors import CalibrationError
from blemish.post_processing import PostProcessor


class Replay(LightningModule):
    def __init__(self, **arguments):
        super().__init__()
        self.post_processor = PostProcessor(**arguments)

    def configure_callbacks(self):
        return [self.post_processor]

    def validation_step(self, batch, batch_idx):
        score, maps, label, *mask = batch
        return InferenceBatch(score, maps, gt_label=label, gt_mask=mask[0] if mask else None)


def data(n, anomalous, masks, seed):
    generator = torch.Generator().manual_seed(seed)
    label = torch.zeros(n, dtype=torch.bool)
    label[list(anomalous)] = True
    mask = torch.zeros(n, 6, 5, dtype=torch.bool)
    mask[label, 2:4, 1:3] = True
    score = torch.randn(n, generator=generator) + 1.5 * label
    score[0] = 9.0  # a repetition of the first image would change F1, rank and count
    maps = torch.randn(n, 6, 5, generator=generator) + 2 * mask
    return TensorDataset(score, maps, label, *([mask] if masks else []))


CASES = {
    "labeled, with masks": (data(7, (2, 3, 6), True, 0), {}),
    "labeled, without masks": (data(9, (1, 3, 5, 7), False, 1), {}),  # all anomalous images on one process
    "normal only": (data(5, (), False, 2), {}),
    "wanted rate": (data(21, (), True, 3), {"max_false_alarm_rate": 0.1}),
    "one image": (data(1, (), True, 4), {}),  # the other process owns none
    "too few": (data(5, (), True, 5), {"max_false_alarm_rate": 0.1}),
}


def calibrate(**trainer_arguments):
    results = {}
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **trainer_arguments
    )
    for name, (numbers, arguments) in CASES.items():
        model = Replay(**arguments)
        try:
            trainer.validate(model, DataLoader(numbers, batch_size=2), verbose=False)
        except CalibrationError as error:
            results[name] = str(error)
            continue
        record = model.post_processor.record
        values = [float(value) for value in model.post_processor.state_dict().values()]
        results[name] = [values, record.policy, record.pixel_policy, record.normal, record.anomalous, record.f1]
    return results, trainer.global_rank


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    results, rank = calibrate(strategy="ddp", devices=2)
    with open(f"{sys.argv[1]}/rank{rank}.json", "w") as file:
        json.dump(results, file)
"""


@pytest.mark.parametrize("wrap", [lambda one: one, lambda one: [one]])
@pytest.mark.parametrize(("rank", "seen", "left"), [(0, 0, 4), (0, 3, 1), (1, 0, 3), (1, 3, 0), (1, 4, 0)])
def test_the_share_of_a_process(wrap: Any, rank: int, seen: int, left: int) -> None:
    fake = SimpleNamespace(world_size=2, global_rank=rank, val_dataloaders=wrap(loader(numbers(7))))
    assert own_share(fake, seen) == left
    fake.world_size = 1
    assert own_share(fake, seen) is None


def test_two_processes_calibrate_like_one(tmp_path: Path) -> None:
    """Odd numbers of images: the distributed sampler repeats one to fill up, which must not count twice."""
    ended = two(SCRIPT, tmp_path)
    assert [code for code, _ in ended] == [0, 0], ended

    namespace: dict[str, Any] = {"__name__": "alone"}
    exec(SCRIPT, namespace)
    alone, _ = namespace["calibrate"](devices=1)
    alone = json.loads(json.dumps(alone))
    assert alone["too few"].startswith("max_false_alarm_rate=0.1 needs at least 9 normal scores. Got 5")
    for rank in (0, 1):
        together = json.loads((tmp_path / f"rank{rank}.json").read_text())
        assert together == alone
