"""Whatever happens outside the region of interest, in every runtime: not one bit of the answer changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detector_checks import SIZE, TRAPEZE, fitted, model_with_region, parts
from hypothesis import given, settings
from hypothesis import strategies as st

from blemish import runtime
from blemish.artifact import manifest_of
from blemish.data.batch import InferenceBatch
from blemish.data.roi import stretched
from blemish.errors import UsageError
from blemish.metrics.evaluation import Evaluator
from blemish.models import Padim, Patchcore
from blemish.models.padim import PadimDetector
from blemish.models.patchcore import PatchcoreDetector
from blemish.post_processing import PostProcessor
from blemish.runtime.whole import open_whole
from exported import export_untried
from known import known


def repainted(image: np.ndarray, inside: np.ndarray, data: st.DataObject) -> np.ndarray:
    """Rectangles of any color, everywhere outside."""
    other = image.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        y, x = data.draw(st.integers(0, image.shape[0] - 1)), data.draw(st.integers(0, image.shape[1] - 1))
        height, width = data.draw(st.integers(1, image.shape[0])), data.draw(st.integers(1, image.shape[1]))
        other[y : y + height, x : x + width] = data.draw(st.tuples(*[st.integers(0, 255)] * 3))
    return np.where(inside[..., None], image, other)


@pytest.mark.parametrize("name", ["padim", "patchcore"])
@given(data=st.data())
@settings(max_examples=15)
def test_a_defect_outside_never_changes_score_label_map_or_mask(name: str, data: st.DataObject) -> None:
    model = model_with_region(name)
    size = data.draw(st.sampled_from([SIZE, (70, 131), (200, 90)]))
    image = parts(1, data.draw(st.sampled_from([None, "hole", "scratch"])), size=size)[0].numpy()
    inside = known(model.pre_processor.inside(size))
    other = repainted(image, inside.numpy(), data)
    with torch.no_grad():
        done, alike = (model(torch.from_numpy(one[None])) for one in (image, other))
        both = model(torch.from_numpy(np.stack([image, other])))
    for field in ("raw_score", "pred_score", "pred_label", "raw_map", "anomaly_map", "pred_mask"):
        assert torch.equal(getattr(done, field), getattr(alike, field)), field
    # The order in which a product adds up depends on the place in the batch.
    torch.testing.assert_close(both.raw_score, done.raw_score.expand(2), rtol=1e-5, atol=1e-4)
    assert torch.equal(both.pred_label, done.pred_label.expand(2))
    assert not done.pred_mask[:, ~inside].any()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("region")
    for name in ("padim", "fused"):
        model_with_region(name).save(folder / f"{name}.safetensors")
    return {path.stem: path for path in folder.iterdir()}


def test_every_session_knows_the_region(files: dict[str, Path], tmp_path: Path) -> None:
    """For pictures; `stretched` is what `PreProcessor.inside` does."""
    model = model_with_region("padim")
    graph = runtime.load(export_untried(files["padim"], tmp_path / "padim.onnx")).backend
    graph.content["manifest"] = manifest_of(model).model_dump(mode="json")  # type: ignore[attr-defined] # tests' have none
    for backend in (graph, runtime.load(files["padim"]).backend):
        for size in (SIZE, (70, 1301)):
            inside = known(model.pre_processor.inside(size))
            assert backend.roi is not None
            np.testing.assert_array_equal(stretched(backend.roi, size), inside.numpy())


def test_what_a_session_makes_of_raw_maps_stays_inside(files: dict[str, Path], tmp_path: Path) -> None:
    """Where every pixel is beyond the threshold, too."""
    model = model_with_region("padim")
    graph = runtime.load(export_untried(files["padim"], tmp_path / "padim.onnx"))
    graph.backend.content["manifest"] = manifest_of(model).model_dump(mode="json")  # type: ignore[attr-defined] # tests' have none
    image = parts(1, "hole", first=100, size=(70, 130))[0].numpy()
    outside = ~known(model.pre_processor.inside((70, 130))).numpy()
    whole = runtime.load(files["padim"])
    for sensitivity in (0.5, 1.0):
        graph.set_sensitivity(pixel=sensitivity)
        whole.set_sensitivity(pixel=sensitivity)
        [found], [wanted] = graph(image), whole(image)
        np.testing.assert_array_equal(found.mask, wanted.mask)
        np.testing.assert_allclose(found.anomaly_map, wanted.anomaly_map, atol=1e-3)
        assert not found.anomaly_map[outside].any()
        assert not found.mask[outside].any()
        assert found.mask.any()
        assert [region.box for region in found.regions] == [region.box for region in wanted.regions]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("name", ["padim", "fused"])
def test_the_same_in_exported_graphs(name: str, suffix: str, files: dict[str, Path]) -> None:
    """In the graph of Fused is that of PatchCore."""
    model = model_with_region(name)
    backend = open_whole(export_untried(files[name], files[name].with_suffix(suffix)))
    for size in (SIZE, (201, 77)):
        images = parts(3, "hole", first=100, size=size)
        inside = known(model.pre_processor.inside(size))
        got = backend.run(images.numpy(), backend.decision)
        with torch.no_grad():
            want = model(images)
        np.testing.assert_array_equal(got.pred_label, want.pred_label.numpy())
        np.testing.assert_allclose(got.raw_score, want.raw_score.numpy(), rtol=1e-4)
        np.testing.assert_allclose(got.anomaly_map, want.anomaly_map.numpy(), atol=1e-3)
        again = backend.run(torch.where(inside[..., None], images, 255 - images).numpy(), backend.decision)
        for one, other in zip(got, again, strict=True):
            np.testing.assert_array_equal(one, other)
        alone = runtime.load(files[name].with_suffix(suffix), verdict_only=True).backend
        for one, other in zip(alone.run(images.numpy(), backend.decision)[:3], got[:3], strict=True):
            np.testing.assert_array_equal(one, other)
        everything = backend.run(images.numpy(), backend.decision.replace(pixel_sensitivity=1.0))
        np.testing.assert_array_equal(everything.pred_mask, np.broadcast_to(inside.numpy(), (3, *size)))
        assert not everything.anomaly_map[:, ~inside.numpy()].any()


def test_the_parity_gate_looks_inside() -> None:
    """With the zeros outside, its threshold would lie below every pixel inside, and clipped maps hide differences."""
    from blemish.export.parity import _reference

    model = model_with_region("padim")
    _, decision = _reference(model, parts(1).numpy())
    inside = known(model.pre_processor.inside(SIZE))
    values = model(parts(1)).raw_map[:, inside]
    assert decision.pixel.threshold == pytest.approx(float(values.min() + values.max()) / 2)


def test_only_patches_inside_are_kept() -> None:
    padim, patchcore = model_with_region("padim"), model_with_region("patchcore")
    assert isinstance(padim, PadimDetector)
    assert isinstance(patchcore, PatchcoreDetector)
    assert len(padim.gaussians.mean) == padim.map_maker.count < padim.grid[0] * padim.grid[1]
    features = patchcore.features(patchcore.pre_processor(parts(10))).detach()
    cells = torch.from_numpy(patchcore.pre_processor.cells(patchcore.grid))
    kept = patchcore.bank.rows + patchcore.bank.center
    kept, features = kept.double(), features.double()  # `cdist` cancels digits
    assert (torch.cdist(kept, features[:, :, cells].mT.flatten(0, 1)).amin(dim=1) < 1e-4).all()
    outside = torch.cdist(features[:, :, ~cells].mT.flatten(0, 1), kept).amin(dim=1)
    assert (outside > 1e-2).any(), "or the test could not tell"


def test_a_region_needs_a_place_in_the_model() -> None:
    with pytest.raises(UsageError, match=r"roi can't be combined with fit_mode 'letterbox'. Use 'stretch'."):
        Padim(image_size=64, roi=TRAPEZE, fit_mode="letterbox")
    corner = [[(0, 0), (0.05, 0), (0.05, 0.05)]]
    with pytest.raises(UsageError, match=r"lies outside of what crop_from leaves. Crop less, or move it."):
        Patchcore(image_size=64, crop_from=128, roi=corner)
    assert Patchcore(image_size=64, roi=corner).map_maker.count < 5


def test_a_region_of_everything_is_no_region() -> None:
    whole = fitted(lambda **_: Padim(image_size=(64, 96), n_features=20, roi=np.ones((3, 3))), parts(6))
    plain = fitted(lambda **_: Padim(image_size=(64, 96), n_features=20), parts(6))
    images = parts(2, "hole")
    for one, other in zip(whole(images).raw_map, plain(images).raw_map, strict=True):
        assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------------------------ measuring


def batch_of(maps: torch.Tensor, truth: torch.Tensor, roi: Any) -> InferenceBatch:
    labels = truth.flatten(1).any(dim=1)
    return InferenceBatch(
        pred_score=maps.flatten(1).amax(dim=1), anomaly_map=maps, gt_mask=truth, gt_label=labels, roi=roi
    )


@pytest.mark.parametrize("listed", [False, True])
def test_pixels_outside_count_nowhere(listed: bool) -> None:
    """A rectangle is measured, and calibrated, as the images cut to it are."""
    generator = torch.Generator().manual_seed(0)
    maps, truth = torch.rand(6, 20, 24, generator=generator), torch.rand(6, 20, 24, generator=generator) > 0.8
    truth[:2] = False
    inside = torch.zeros(20, 24, dtype=torch.bool)
    inside[4:15, 6:20] = True
    roi: Any = [inside] * 6 if listed else inside.expand(6, -1, -1)
    scores = maps.flatten(1).amax(dim=1)
    cut = batch_of(maps[:, 4:15, 6:20], truth[:, 4:15, 6:20], None)
    whole = batch_of(maps, truth, roi)
    cut.pred_score = whole.pred_score = scores
    figures, thresholds = [], []
    for batch in (cut, whole):
        processor = PostProcessor()
        processor.on_validation_epoch_start(None, None)  # type: ignore[arg-type]
        processor.on_validation_batch_end(None, None, batch)  # type: ignore[arg-type]
        processor.on_validation_epoch_end(None, None)  # type: ignore[arg-type]
        thresholds.append([processor.raw_pixel_threshold, processor.pixel_min, processor.pixel_max])
        evaluator = Evaluator()
        evaluator.update(processor(batch))
        figures.append(evaluator.compute().to_dict())
    assert thresholds[0] == thresholds[1]
    assert figures[0] == figures[1]
