"""What the guide to post-processing of the older library promises, example by example, with the package name replaced.

The OpenVINO example needs a file that the exporter wrote: tests/unit/export/test_exporting.py.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blemish import Engine, ImageDataModule
from blemish.data import InferenceBatch
from blemish.models import Padim, Patchcore
from blemish.post_processing import DecisionModule, PostProcessor
from blemish.synthetic.products import write_dataset

GUIDE = Path(os.environ.get("BLEMISH_REFERENCE", "../shared/reference")) / "post_processing_guide.md"


@pytest.mark.skipif(not GUIDE.exists(), reason=f"{GUIDE} is absent (set BLEMISH_REFERENCE)")
def test_every_python_block_of_the_guide_runs() -> None:
    text = GUIDE.read_text(encoding="utf-8").replace("anomalib", "blemish")
    blocks = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "openvino" not in block]
    assert len(blocks) == 7
    names: dict[str, Any] = {"__name__": "guide"}
    printed = []
    for block in blocks:  # one after the other, as a reader runs them: later ones use what earlier ones imported
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(block, str(GUIDE), "exec"), names)
        printed.append(output.getvalue())
    assert printed[2].startswith("PostProcessor(")
    assert printed[3].startswith("PostProcessor(")
    assert printed[4] == "True\n"
    assert type(names["model"].post_processor) is names["CustomPostProcessor"]
    with pytest.raises(NotImplementedError):
        names["post_processor"](InferenceBatch(pred_score=torch.ones(1)))


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guide")
    return write_dataset(root, product="plate", good_train=10, good_test=2, per_defect=1, size=(64, 64))


def fitted(parts: Path, post_processor: PostProcessor | bool | None = None) -> tuple[Padim, list[InferenceBatch]]:
    model = Padim(image_size=64, n_features=8, post_processor=post_processor)
    engine = Engine(accelerator="cpu", progress=False)
    data = ImageDataModule(parts, batch_size=4, num_workers=0)
    engine.fit(model, data)
    return model, engine.predict(model, data)


@pytest.mark.parametrize("detector", [Padim, Patchcore])
def test_a_detector_takes_a_post_processor_or_makes_its_own(detector: type[Padim | Patchcore]) -> None:
    mine = PostProcessor(image_sensitivity=0.4, pixel_sensitivity=0.3)
    model = detector(image_size=64, post_processor=mine)
    assert model.post_processor is mine
    assert mine.normalized_image_threshold == pytest.approx(0.6)
    assert mine.normalized_pixel_threshold == pytest.approx(0.7)
    default = detector(image_size=64).post_processor
    assert type(default) is type(detector.configure_post_processor()) is PostProcessor
    assert detector(image_size=64, post_processor=False).post_processor is None


def test_printing_a_fitted_model_shows_threshold_and_statistics(parts: Path) -> None:
    model, _ = fitted(parts)
    assert isinstance(model.post_processor, DecisionModule)
    shown = repr(model.post_processor)
    for scale in ("image", "pixel"):
        theta, low, high = (
            getattr(model.post_processor, name) for name in (f"raw_{scale}_threshold", f"{scale}_min", f"{scale}_max")
        )
        assert f"{scale}: threshold={theta:.4g}, min={low:.4g}, max={high:.4g}, sensitivity=0.5" in shown


def test_without_a_post_processor_predictions_are_the_detectors(parts: Path) -> None:
    model, batches = fitted(parts, post_processor=False)
    assert model.post_processor is None
    assert all(batch.pred_label is None and batch.raw_score is None for batch in batches)
    assert max(float(batch.pred_score.max()) for batch in batches if batch.pred_score is not None) > 1.0  # unbounded


class Cautious(PostProcessor):
    """Calls nothing anomalous whose map is not; an example of a subclass that extends the default."""

    def forward(self, predictions: InferenceBatch) -> InferenceBatch:
        done = super().forward(predictions)
        if done.pred_label is not None and isinstance(done.pred_mask, Tensor):
            done.pred_label = done.pred_label & done.pred_mask.any(dim=(1, 2))
        return done


def test_a_custom_post_processor_works_inside_a_trained_model(parts: Path) -> None:
    custom = Cautious(image_sensitivity=1.0)  # everything would be anomalous
    model, batches = fitted(parts, custom)
    labels = torch.cat([batch.pred_label for batch in batches if batch.pred_label is not None])
    marked = torch.cat([batch.pred_mask.any(dim=(1, 2)) for batch in batches if isinstance(batch.pred_mask, Tensor)])
    assert torch.equal(labels, marked)
    assert not bool(labels.all())
    image = torch.randint(0, 256, (1, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    result = model(image)  # and the same subclass runs in the model's own forward
    assert torch.equal(result.pred_label, result.pred_mask.any(dim=(1, 2)))
