"""Every name that the five documents of the older library describe: it is here, takes what it took, does what was said.

`TABLE` has one row per name: document, dotted path with the package replaced, the documented signature without its
annotations, and a check of the behavior (or the test that checks it at length). Where the documents are at hand
(BLEMISH_REFERENCE), the table is held against them; where stored numbers are (BLEMISH_GOLDEN), every one is compared.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import logging
import os
import re
import sys
from abc import ABC
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn

import blemish
from blemish.data.batch import InferenceBatch
from blemish.errors import UsageError
from blemish.functional.distances import square_norms
from blemish.functional.gaussian import mahalanobis_from_inverse, merge_moments_, pack, whitening_factors
from blemish.functional.thresholds import f1_threshold
from blemish.functional.verdict import normalize
from blemish.metrics import AUPRO, AUROC, AveragePrecision, F1Max
from blemish.models.components import AnomalyModule, DynamicBufferModule
from blemish.models.padim.anomaly_map import AnomalyMapGenerator as PadimMapGenerator
from blemish.models.patchcore import Patchcore
from blemish.models.patchcore.bank import MemoryBank
from blemish.models.patchcore.model import AnomalyMapGenerator as PatchcoreMapGenerator
from blemish.post_processing import OneClassPostProcessor, PostProcessor, base, post_process, visualizer
from blemish.post_processing.normalization import cdf, min_max
from blemish.visualization import classic
from blemish.visualization.visualizer import ImageResult, Visualizer

TESTS = Path(__file__).parent
REFERENCE = Path(os.environ.get("BLEMISH_REFERENCE", "../shared/reference"))
GOLDEN = Path(os.environ.get("BLEMISH_GOLDEN", "../shared/golden")) / "peer_numbers.npz"

CLASSIC = "classic_post_processing.rst"
API = "post_processors_api.txt"
GUIDE = "post_processing_guide.md"
PADIM = "padim_anomaly_map.rst"
PATCHCORE = "patchcore_model.rst"
TESTED_IN = {
    CLASSIC: "legacy/test_visualizer.py",
    PADIM: "legacy/test_padim_anomaly_map.py",
    PATCHCORE: "legacy/test_patchcore_model.py",
}


class Row(NamedTuple):
    document: str
    path: str
    """Below `blemish`."""
    signature: str | None
    """As documented, without annotations; None for what isn't called."""
    check: Callable[[Any], object] | str
    """Takes what the path leads to (the field, for an attribute of a dataclass), and may return False; or the name of
    the test that checks it at length."""


# -------------------- behavior

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)
MAP = RNG.random((48, 64), dtype=np.float32)
MASK = np.zeros((48, 64), np.uint8)
MASK[10:20, 10:30] = 1


def same_as(other: Any) -> Callable[[Any], None]:
    def check(thing: Any) -> None:
        assert thing is other

    return check


def has(*names: str) -> Callable[[Any], None]:
    def check(thing: Any) -> None:
        assert all(hasattr(thing, name) for name in names)

    return check


def inherits(*bases: type) -> Callable[[Any], None]:
    def check(thing: Any) -> None:
        assert all(issubclass(thing, base) for base in bases)

    return check


def labels_a_copy(draw: Any) -> None:
    before, drawn = IMAGE.copy(), draw(IMAGE)
    assert (drawn != IMAGE).any()
    assert (drawn[24:, 40:] == IMAGE[24:, 40:]).all(), "only a corner"
    assert (draw(IMAGE, 0.9) != drawn).any()
    assert (before == IMAGE).all()


def runs_from_blue_to_red(color: Any) -> None:
    assert color(np.array([[2.0, 5.0]])).tolist() == [[[0, 0, 128], [128, 0, 0]]]
    assert color(np.array([[0.0, 2.0]]), normalize=False).tolist() == [[[0, 0, 128], [128, 0, 0]]]
    assert (color(MAP / 2, normalize=False) != color(MAP / 2)).any()


def cuts_and_opens(mask: Any) -> None:
    values = MASK.astype(np.float32)
    values[40, 50] = 1.0
    assert set(np.unique(mask(values, 0.5))) == {0, 255}
    assert mask(values, 0.5, kernel_size=0)[40, 50] == 255
    assert mask(values, 0.5)[40, 50] == 0, "a speck"
    assert mask(values, 0.5)[15, 20] == 255


def blends(superimpose: Any) -> None:
    colors = classic.anomaly_map_to_color_map(MAP, normalize=False).astype(np.float64)
    assert np.abs(superimpose(MAP, IMAGE) - (0.4 * colors + 0.6 * IMAGE)).max() < 0.51
    stretched = classic.anomaly_map_to_color_map(MAP / 2).astype(np.float64)
    expected = np.clip(0.7 * stretched + 0.3 * IMAGE + 9, 0, 255)
    assert np.abs(superimpose(MAP / 2, IMAGE, alpha=0.7, gamma=9, normalize=True) - expected).max() < 0.51


def result() -> ImageResult:
    return ImageResult(IMAGE, 0.7, "anomalous", anomaly_map=MAP, gt_mask=MASK, pred_mask=MASK)


def holds(expected: Any) -> Callable[[Any], None]:
    """The field of `result()` holds a value."""

    def check(field: Any) -> None:
        np.testing.assert_array_equal(getattr(result(), field.name), expected)

    return check


def is_made_from_the_fields(post_init: Any) -> None:
    made = result()
    np.testing.assert_array_equal(made.heat_map, classic.superimpose_anomaly_map(MAP, IMAGE))
    assert made.segmentations is not None
    outline = (made.segmentations != IMAGE).any(axis=2)
    assert outline.any()
    assert (made.segmentations[outline] == (255, 0, 0)).all()
    assert MASK.max() == 1, "the mask that was given is as it was"


def draws(mode: str) -> Callable[[Any], None]:
    def check(thing: Any) -> None:
        for task in ("segmentation", "classification"):
            picture = getattr(Visualizer(mode, task), thing.__name__)(result())
            assert picture.dtype == np.uint8
            assert picture.shape[2] == 3
            assert (picture.shape[:2] == IMAGE.shape[:2]) == (mode == "simple")

    return check


def knows_its_modes_and_tasks(cls: Any) -> None:
    with pytest.raises(UsageError, match="mode must be"):
        cls("fancy", "segmentation")
    with pytest.raises(UsageError, match="task must be"):
        cls("full", "detection")


def yields_one_picture_each(visualize_batch: Any) -> None:
    batch = {"image": torch.from_numpy(IMAGE)[None], "pred_scores": torch.ones(1), "pred_labels": torch.ones(1).bool()}
    pictures = visualize_batch(Visualizer("simple", "classification"), batch)
    assert isinstance(pictures, Iterator)
    assert [picture.shape for picture in pictures] == [IMAGE.shape]


def says_when_there_is_no_window(show: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tkinter", None)
        with pytest.raises(UsageError, match=r"Use Visualizer\.save instead"):
            show("title", IMAGE, delay=1)


def puts_the_threshold_at_one_half(normalize: Any) -> None:
    np.testing.assert_allclose(normalize(np.array([0.0, 3.0, 4.0, 9.0]), 3.0, 1.0, 6.0), [0, 0.5, 0.7, 1])
    assert normalize(torch.tensor([3.0]), 3.0, 1.0, 6.0).tolist() == [0.5]


def takes_logarithms(standardize: Any) -> None:
    np.testing.assert_allclose(standardize(np.exp([1.0, 2.0]), 1.0, 2.0), [0, 0.5])
    np.testing.assert_allclose(
        standardize(torch.tensor([1.0, 2.0]).exp(), 9.0, 2.0, center_at=1.0), [0, 0.5], atol=1e-6
    )


def is_the_normal_distribution(normalize: Any) -> None:
    np.testing.assert_allclose(normalize(np.array([0.3, 0.3 + 1.959964]), 0.3), [0.5, 0.975], atol=1e-6)


# -------------------- behavior of post-processors

SCORES = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
LABELS = torch.tensor([False, False, False, True, False, True])
TRAINER = SimpleNamespace()


def batch(scores: Tensor = SCORES, labels: Tensor | None = LABELS) -> InferenceBatch:
    """Maps of one pixel above and one at 0; the pixel above is true where the image is anomalous."""
    maps = torch.stack([torch.zeros_like(scores), scores], dim=1)[:, None, :]  # (N, 1, 2)
    masks = None if labels is None else torch.stack([torch.zeros_like(labels), labels], dim=1)[:, None, :]
    return InferenceBatch(pred_score=scores.clone(), anomaly_map=maps, gt_label=labels, gt_mask=masks)


def calibrated(labels: Tensor = LABELS, **options: float) -> PostProcessor:
    processor = PostProcessor(**options)
    processor.on_validation_epoch_start(TRAINER, None)
    processor.on_validation_batch_end(TRAINER, None, batch(labels=labels))
    processor.on_validation_epoch_end(TRAINER, None)
    return processor


def is_after_calibration(expected: float) -> Callable[[Any], None]:
    def check(prop: Any) -> None:
        assert prop.fget(calibrated()) == pytest.approx(expected, rel=1 / 2048)  # pixels: the width of a bin

    return check


def is_one_minus(sensitivity: str) -> Callable[[Any], None]:
    def check(prop: Any) -> None:
        assert prop.fget(PostProcessor()) == 0.5
        assert prop.fget(PostProcessor(**{sensitivity: 0.2})) == pytest.approx(0.8)

    return check


def is_abstract(cls: Any) -> None:
    inherits(nn.Module, Callback, ABC)(cls)
    with pytest.raises(TypeError, match="forward"):
        cls()


def must_be_implemented(forward: Any) -> None:
    class Lazy(base.PostProcessor):  # type: ignore[misc]
        def forward(self, batch: InferenceBatch) -> InferenceBatch:
            return forward(self, batch)

    with pytest.raises(NotImplementedError, match=r"Lazy must implement forward"):
        Lazy()(batch())


def takes_sensitivities(cls: Any) -> None:
    processor = cls(image_sensitivity=0.4, pixel_sensitivity=0.3)
    assert (processor.image_sensitivity, processor.pixel_sensitivity) == pytest.approx((0.4, 0.3))
    assert cls(max_false_alarm_rate=0.1).max_false_alarm_rate == 0.1, "what **kwargs stood for has a name"
    with pytest.raises(TypeError, match="image_sensitivty"):
        cls(image_sensitivty=0.4)


def normalizes_and_decides(forward: Any) -> None:
    done = forward(calibrated(), batch())
    assert done.pred_score.tolist() == pytest.approx([0, 0.1, 0.3, 0.5, 0.7, 0.9])
    assert done.pred_label.tolist() == [False, False, False, True, True, True]
    assert done.pred_mask[:, 0, 1].tolist() == done.pred_label.tolist()
    only_maps = forward(calibrated(), InferenceBatch(anomaly_map=batch().anomaly_map))
    assert only_maps.pred_label.tolist() == done.pred_label.tolist()
    with pytest.raises(ValueError, match="pred_score and anomaly_map must be given"):
        forward(calibrated(), InferenceBatch())


def fills_in_place(*fields: str) -> Callable[[Any], None]:
    def check(method: Any) -> None:
        given, expected = batch(), calibrated()(batch())
        assert method(calibrated(), given) is None
        for field in fields:
            assert torch.equal(getattr(given, field), getattr(expected, field)), field

    return check


def completes_the_outputs(hook: Any) -> None:
    given, expected = batch(), calibrated()(batch())
    hook(calibrated(), TRAINER, None, given, None, 0, dataloader_idx=0)
    assert torch.equal(given.pred_label, expected.pred_label)
    assert torch.equal(given.pred_score, expected.pred_score)


def collects_evidence(hook: Any) -> None:
    processor = PostProcessor()
    hook(processor, TRAINER, None, batch(), None, 0, dataloader_idx=0)
    processor.on_validation_epoch_end(TRAINER, None)
    assert processor.raw_image_threshold == 4.0


def computes_thresholds(hook: Any) -> None:
    processor = PostProcessor()
    processor.on_validation_batch_end(TRAINER, None, batch())
    assert np.isnan(processor.raw_image_threshold)
    hook(processor, TRAINER, None)
    assert processor.raw_image_threshold == 4.0


def example_my_post_processor(cls: Any) -> None:
    class MyPostProcessor(cls):  # type: ignore[misc]
        def forward(self, batch: InferenceBatch) -> InferenceBatch:
            return batch

    given = batch()
    assert MyPostProcessor()(given) is given


def example_anomaly_maps_keyword(cls: Any) -> None:
    post_processor = cls(image_sensitivity=0.5)
    predictions = post_processor(anomaly_maps=torch.rand(2, 8, 8))
    assert predictions.pred_score.shape == (2,)


def example_padim_map(cls: Any) -> None:
    anomaly_map_generator = cls(image_size=(16, 24))
    identity = torch.eye(3).expand(6, 3, 3)
    output = anomaly_map_generator(embedding=torch.zeros(1, 3, 2, 3), mean=torch.ones(3, 6), covariance=4 * identity)
    torch.testing.assert_close(output, torch.full((1, 1, 16, 24), 0.75**0.5))


def example_patchcore_map(cls: Any) -> None:
    anomaly_map_generator = cls(input_size=(16, 24))
    numpy_array = np.full((6, 9), 2.0, np.float32)
    anomaly_map, score = anomaly_map_generator(patch_scores=numpy_array, feature_map_shape=torch.Size((2, 3)))
    torch.testing.assert_close(anomaly_map, torch.full((1, 1, 16, 24), 2.0))
    torch.testing.assert_close(score, torch.tensor([2 * (1 - 1 / 9)]))


def maximizes_f1(cls: Any) -> None:
    def f1(threshold: float) -> float:
        called = threshold <= SCORES
        return 2 * int((called & LABELS).sum()) / int(called.sum() + LABELS.sum())

    assert f1(calibrated().raw_image_threshold) == max(map(f1, SCORES.tolist()))


def decides_from_the_threshold_upwards(cls: Any) -> None:
    scores = torch.tensor([4.0, float(np.nextafter(np.float32(4), np.float32(0)))])
    assert calibrated()(batch(scores, None)).pred_label.tolist() == [True, False]


def normalizes_by_the_formula(cls: Any) -> None:
    scores = torch.linspace(-3, 12, 31)
    expected = ((scores - 4.0) / (6.0 - 1.0) + 0.5).clamp(0, 1)
    torch.testing.assert_close(calibrated()(batch(scores, None)).pred_score, expected)


def widens_with_sensitivity(cls: Any) -> None:
    scores = torch.linspace(0, 8, 41)
    for alpha in (0.1, 0.4, 0.5, 0.8):
        done = calibrated(image_sensitivity=alpha)(batch(scores, None))
        clear = (done.pred_score - (1 - alpha)).abs() > 1e-6
        assert torch.equal(done.pred_label[clear], (done.pred_score >= 1 - alpha)[clear])


def takes_the_highest_normal_score(cls: Any) -> None:
    with recorded() as messages:
        assert calibrated(labels=torch.zeros(6, dtype=torch.bool)).raw_image_threshold == 6.0
    assert len(messages) == 1, "said once, not per batch"
    assert "no anomalous" in messages[0]
    assert "highest score" in messages[0]


@contextmanager
def recorded() -> Iterator[list[str]]:
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("blemish.post_processing.post_processor")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def takes_a_post_processor(cls: Any) -> None:
    post_processor = PostProcessor(image_sensitivity=0.4, pixel_sensitivity=0.4)
    assert cls(post_processor=post_processor).post_processor is post_processor


def default_prints_thresholds(cls: Any) -> None:
    printed = str(cls().post_processor)
    assert printed.startswith("PostProcessor(")
    assert "not calibrated" in printed
    assert all(f"{word}=" in str(calibrated()) for word in ("threshold", "min", "max", "sensitivity"))


def can_be_disabled(cls: Any) -> None:
    assert cls(post_processor=False).post_processor is None


def gives_a_default(configure: Any) -> None:
    assert type(configure()) is PostProcessor
    assert configure() is not configure()


def takes_the_export_mode(export: Any) -> None:
    assert list(inspect.signature(export).parameters)[2] == "export_mode"


def custom_in_a_model(cls: Any) -> None:
    class CustomPostProcessor(cls):  # type: ignore[misc]
        def forward(self, predictions: InferenceBatch) -> InferenceBatch:
            raise NotImplementedError

    model = blemish.Padim(post_processor=CustomPostProcessor())
    with pytest.raises(NotImplementedError):
        model.post_processor(batch())


FUNCTIONS: dict[str, tuple[str, Callable[[Any], object]]] = {
    "add_anomalous_label": ("(image, confidence=None)", labels_a_copy),
    "add_normal_label": ("(image, confidence=None)", labels_a_copy),
    "anomaly_map_to_color_map": ("(anomaly_map, normalize=True)", runs_from_blue_to_red),
    "compute_mask": ("(anomaly_map, threshold, kernel_size=4)", cuts_and_opens),
    "superimpose_anomaly_map": ("(anomaly_map, image, alpha=0.4, gamma=0, normalize=False)", blends),
}
RESULT = "post_processing.ImageResult"
VISUALIZER = "post_processing.Visualizer"
ONE_CLASS = "post_processing.one_class.OneClassPostProcessor"
BASE = "post_processing.base.PostProcessor"
HOOK = "(trainer, pl_module, outputs, *args, **kwargs)"
MAPS = "models.padim.anomaly_map.AnomalyMapGenerator"
NEAREST_MAPS = "models.patchcore.model.AnomalyMapGenerator"
MODEL = "models.patchcore.model.PatchcoreModel"
LIGHTNING = "models.patchcore.model.PatchcoreLightning"

TABLE = [
    # -------------------- classic_post_processing.rst
    Row(CLASSIC, "post_processing", None, has(*FUNCTIONS, "ImageResult", "Visualizer")),
    *(Row(CLASSIC, f"post_processing.{name}", *row) for name, row in FUNCTIONS.items()),
    Row(CLASSIC, RESULT, None, dataclasses.is_dataclass),
    Row(CLASSIC, f"{RESULT}.image", None, holds(IMAGE)),
    Row(CLASSIC, f"{RESULT}.pred_score", None, holds(0.7)),
    Row(CLASSIC, f"{RESULT}.pred_label", None, holds("anomalous")),
    Row(CLASSIC, f"{RESULT}.anomaly_map", None, holds(MAP)),
    Row(CLASSIC, f"{RESULT}.gt_mask", None, holds(255 * MASK)),
    Row(CLASSIC, f"{RESULT}.pred_mask", None, holds(255 * MASK)),
    Row(CLASSIC, f"{RESULT}.heat_map", None, holds(classic.superimpose_anomaly_map(MAP, IMAGE))),
    Row(CLASSIC, f"{RESULT}.segmentations", None, "test_the_simple_segmentation_is_the_outlined_heat_map"),
    Row(CLASSIC, f"{RESULT}.__post_init__", "(self)", is_made_from_the_fields),
    Row(CLASSIC, VISUALIZER, "(mode, task)", knows_its_modes_and_tasks),
    Row(CLASSIC, f"{VISUALIZER}.visualize_batch", "(self, batch)", yields_one_picture_each),
    Row(CLASSIC, f"{VISUALIZER}.visualize_image", "(self, image_result)", draws("full")),
    Row(CLASSIC, f"{VISUALIZER}._visualize_full", "(self, image_result)", draws("full")),
    Row(CLASSIC, f"{VISUALIZER}._visualize_simple", "(self, image_result)", draws("simple")),
    Row(CLASSIC, f"{VISUALIZER}.show", "(title, image, delay=0)", says_when_there_is_no_window),
    Row(CLASSIC, f"{VISUALIZER}.save", "(file_path, image)", "test_a_saved_image_is_read_back"),
    # Sub-packages and submodules that the document links to.
    *(
        Row(CLASSIC, f"post_processing.post_process.{name}", row[0], same_as(getattr(classic, name)))
        for name, row in FUNCTIONS.items()
    ),
    Row(CLASSIC, "post_processing.post_process", None, same_as(post_process)),
    Row(CLASSIC, "post_processing.visualizer", None, same_as(visualizer)),
    Row(CLASSIC, "post_processing.visualizer.ImageResult", None, same_as(ImageResult)),
    Row(CLASSIC, "post_processing.visualizer.Visualizer", "(mode, task)", same_as(Visualizer)),
    Row(CLASSIC, "post_processing.normalization", None, has("min_max", "cdf")),
    Row(
        CLASSIC,
        "post_processing.normalization.min_max.normalize",
        "(targets, threshold, min_val, max_val)",
        puts_the_threshold_at_one_half,
    ),
    Row(
        CLASSIC,
        "post_processing.normalization.cdf.standardize",
        "(targets, mean, std, center_at=None)",
        takes_logarithms,
    ),
    Row(CLASSIC, "post_processing.normalization.cdf.normalize", "(targets, threshold)", is_the_normal_distribution),
    # -------------------- post_processors_api.txt
    Row(API, BASE, "(*args, **kwargs)", is_abstract),
    Row(API, f"{BASE}.forward", "(batch)", must_be_implemented),
    Row(API, "post_processing.PostProcessor", None, example_my_post_processor),
    Row(API, ONE_CLASS, "(image_sensitivity=None, pixel_sensitivity=None, **kwargs)", takes_sensitivities),
    Row(API, ONE_CLASS, None, example_anomaly_maps_keyword),
    Row(API, "post_processing.OneClassPostProcessor", None, same_as(OneClassPostProcessor)),
    Row(API, "post_processing.one_class", None, has("OneClassPostProcessor")),
    Row(API, f"{ONE_CLASS}.forward", "(predictions)", normalizes_and_decides),
    Row(API, f"{ONE_CLASS}.image_min", None, is_after_calibration(1.0)),
    Row(API, f"{ONE_CLASS}.image_max", None, is_after_calibration(6.0)),
    Row(API, f"{ONE_CLASS}.pixel_min", None, is_after_calibration(0.0)),
    Row(API, f"{ONE_CLASS}.pixel_max", None, is_after_calibration(6.0)),
    Row(API, f"{ONE_CLASS}.raw_image_threshold", None, is_after_calibration(4.0)),
    Row(API, f"{ONE_CLASS}.raw_pixel_threshold", None, is_after_calibration(4.0)),
    Row(API, f"{ONE_CLASS}.normalized_image_threshold", None, is_one_minus("image_sensitivity")),
    Row(API, f"{ONE_CLASS}.normalized_pixel_threshold", None, is_one_minus("pixel_sensitivity")),
    Row(API, f"{ONE_CLASS}.normalize_batch", "(batch)", fills_in_place("pred_score", "anomaly_map")),
    Row(API, f"{ONE_CLASS}.threshold_batch", "(batch)", fills_in_place("pred_label", "pred_mask")),
    Row(
        API,
        f"{ONE_CLASS}.post_process_batch",
        "(batch)",
        fills_in_place("pred_score", "anomaly_map", "pred_label", "pred_mask"),
    ),
    Row(API, f"{ONE_CLASS}.on_predict_batch_end", HOOK, completes_the_outputs),
    Row(API, f"{ONE_CLASS}.on_test_batch_end", HOOK, completes_the_outputs),
    Row(API, f"{ONE_CLASS}.on_validation_batch_end", HOOK, collects_evidence),
    Row(API, f"{ONE_CLASS}.on_validation_epoch_end", "(trainer, pl_module)", computes_thresholds),
    # -------------------- post_processing_guide.md
    Row(
        GUIDE, "post_processing.PostProcessor", "(image_sensitivity=None, pixel_sensitivity=None)", takes_sensitivities
    ),
    Row(GUIDE, "post_processing.PostProcessor", None, maximizes_f1),
    Row(GUIDE, "post_processing.PostProcessor", None, decides_from_the_threshold_upwards),
    Row(GUIDE, "post_processing.PostProcessor", None, normalizes_by_the_formula),
    Row(GUIDE, "post_processing.PostProcessor", None, widens_with_sensitivity),
    Row(GUIDE, "post_processing.PostProcessor", None, takes_the_highest_normal_score),
    Row(GUIDE, "post_processing.PostProcessor", None, custom_in_a_model),
    Row(GUIDE, "data.InferenceBatch", None, same_as(InferenceBatch)),
    Row(GUIDE, "models.Padim", None, takes_a_post_processor),
    Row(GUIDE, "models.Padim", None, default_prints_thresholds),
    Row(GUIDE, "models.Padim", None, can_be_disabled),
    Row(GUIDE, "models.Padim.configure_post_processor", "()", gives_a_default),
    Row(GUIDE, "models.Patchcore", None, takes_a_post_processor),
    Row(GUIDE, "models.Patchcore.configure_post_processor", "()", gives_a_default),
    Row(GUIDE, "models.Patchcore.export", None, takes_the_export_mode),
    # -------------------- padim_anomaly_map.rst
    Row(PADIM, "models.padim.anomaly_map", None, has("AnomalyMapGenerator")),
    Row(PADIM, MAPS, "(image_size, sigma=4)", inherits(nn.Module)),
    Row(PADIM, MAPS, None, example_padim_map),
    Row(PADIM, f"{MAPS}.compute_distance", "(embedding, stats)", "test_distances_are_those_of_a_loop_over_patches"),
    Row(PADIM, f"{MAPS}.up_sample", "(self, distance)", "test_up_sampling_is_bilinear"),
    Row(PADIM, f"{MAPS}.smooth_anomaly_map", "(self, anomaly_map)", "test_smoothing_is_the_gaussian_blur_of_opencv"),
    Row(
        PADIM,
        f"{MAPS}.compute_anomaly_map",
        "(self, embedding, mean, inv_covariance)",
        "test_covariance_is_inverted_and_inv_covariance_is_not",
    ),
    Row(PADIM, f"{MAPS}.forward", "(self, **kwargs)", "test_wrong_keywords_are_named"),
    # -------------------- patchcore_model.rst
    Row(PATCHCORE, "models.patchcore.model", None, has("AnomalyMapGenerator", "PatchcoreModel", "PatchcoreLightning")),
    Row(PATCHCORE, NEAREST_MAPS, "(input_size, sigma=4)", example_patchcore_map),
    Row(
        PATCHCORE,
        f"{NEAREST_MAPS}.compute_anomaly_map",
        "(self, patch_scores, feature_map_shape)",
        "test_a_patch_lands_on_its_own_pixels",
    ),
    Row(
        PATCHCORE,
        f"{NEAREST_MAPS}.compute_anomaly_score",
        "(patch_scores)",
        "test_the_score_is_the_formula_for_every_image",
    ),
    Row(PATCHCORE, f"{NEAREST_MAPS}.__call__", "(self, **kwargs)", "test_wrong_keywords_are_named"),
    Row(
        PATCHCORE,
        MODEL,
        "(layers, input_size, backbone='wide_resnet50_2', apply_tiling=False, tile_size=None, tile_stride=None)",
        inherits(DynamicBufferModule, nn.Module),
    ),
    Row(PATCHCORE, MODEL, None, "test_tiles_are_joined_by_the_tiler"),
    Row(PATCHCORE, f"{MODEL}.forward", "(self, input_tensor)", "test_training_mode_embeds_and_evaluation_mode_scores"),
    Row(
        PATCHCORE,
        f"{MODEL}.generate_embedding",
        "(self, features)",
        "test_layers_are_averaged_and_joined_at_the_finest",
    ),
    Row(PATCHCORE, f"{MODEL}.reshape_embedding", "(embedding)", "test_reshaping_goes_image_by_image_and_row_by_row"),
    Row(
        PATCHCORE,
        f"{MODEL}.subsample_embedding",
        "(self, embedding, sampling_ratio)",
        "test_the_bank_is_the_greedy_selection",
    ),
    Row(
        PATCHCORE,
        f"{MODEL}.nearest_neighbors",
        "(self, embedding, n_neighbors=9)",
        "test_neighbors_are_those_of_scikit_learn",
    ),
    Row(PATCHCORE, LIGHTNING, "(hparams)", inherits(AnomalyModule, Patchcore)),
    Row(PATCHCORE, LIGHTNING, None, "test_hparams_reach_the_detector"),
    Row(PATCHCORE, f"{LIGHTNING}.configure_optimizers", "(self)", "test_a_trainer_trains_it_from_a_mapping"),
    Row(
        PATCHCORE, f"{LIGHTNING}.training_step", "(self, batch, _batch_idx)", "test_a_trainer_trains_it_from_a_mapping"
    ),
    Row(PATCHCORE, f"{LIGHTNING}.on_validation_start", "(self)", "test_the_embedding_is_subsampled_once"),
    Row(PATCHCORE, f"{LIGHTNING}.validation_step", "(self, batch, _)", "test_a_trainer_trains_it_from_a_mapping"),
    Row(PATCHCORE, "models.components.DynamicBufferModule", None, inherits(nn.Module)),
    Row(PATCHCORE, "models.components.AnomalyModule", None, same_as(AnomalyModule)),
]


# -------------------- the table against the library


def resolve(path: str) -> Any:
    """What `blemish.<path>` leads to; the field, where it's one of a dataclass; functions of a class unbound."""
    thing: Any = blemish
    name = "blemish"
    for part in path.split("."):
        name = f"{name}.{part}"
        if dataclasses.is_dataclass(thing) and part in (fields := {one.name: one for one in dataclasses.fields(thing)}):
            thing = fields[part]
            continue
        try:
            thing = getattr(thing, part)
        except AttributeError:
            thing = importlib.import_module(name)
    return thing


def documented(signature: str) -> list[str]:
    """'(self, a: int, b: str = "x", **kwargs) -> T' -> ["self", "a", "b='x'", "**kwargs"]."""
    function: Any = ast.parse(f"def f{signature.partition(' -> ')[0]}: ...").body[0]
    given = function.args
    named = [argument.arg for argument in given.args]
    defaults = [""] * (len(named) - len(given.defaults)) + [f"={ast.unparse(value)}" for value in given.defaults]
    listed = [name + default for name, default in zip(named, defaults, strict=True)]
    listed += [f"*{given.vararg.arg}"] if given.vararg else []
    listed += [f"**{given.kwarg.arg}"] if given.kwarg else []
    return listed


def ours(thing: Any) -> tuple[list[str], list[str]]:
    """The same of an object, and what it takes beyond: keyword-only arguments."""
    listed, extra = [], []
    for name, parameter in inspect.signature(thing).parameters.items():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        default = "" if parameter.default is parameter.empty else f"={parameter.default!r}"
        (extra if parameter.kind is parameter.KEYWORD_ONLY else listed).append(star + name + default)
    return listed, extra


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.path)
def test_a_documented_name_is_here_and_does_what_it_did(row: Row) -> None:
    thing = resolve(row.path)
    if row.signature is not None:
        expected = documented(row.signature)
        taken, extra = ours(thing)
        if row.document == API and taken[:1] == ["self"]:
            del taken[0]  # this document leaves it out
        assert all("=" in one for one in extra), f"what is new must be optional: {extra}"
        if "**kwargs" in expected and extra:
            expected.remove("**kwargs")  # what it stood for has names here
        # what the document requires may have become optional here
        required = {one for one in expected if "=" not in one}
        assert [one.partition("=")[0] if one.partition("=")[0] in required else one for one in taken] == expected
    if isinstance(row.check, str):
        assert f"\ndef {row.check}(" in (TESTS / "unit" / TESTED_IN[row.document]).read_text(encoding="utf-8")
    else:
        assert row.check(thing) is not False


# -------------------- the table against the documents


def names_in(document: str) -> Iterator[tuple[str, str | None]]:
    """Paths and signatures that an API document declares."""
    text = (REFERENCE / document).read_text(encoding="utf-8")
    module = owner = ""
    for line in text.splitlines():
        if match := re.match(r"\.\. py:module:: \w+\.([\w.]+)", line):
            module = match[1]
            yield module, None
        elif match := re.match(r"( *)\.\. py:(?:function|class|method|attribute):: (\w+)(\(.*)?$", line):
            owner = owner if match[1] else match[2]
            yield f"{module}.{owner}.{match[2]}" if match[1] else f"{module}.{match[2]}", match[3]
        elif match := re.match(r"class \w+\.([\w.]+)(\(.*\))#$", line):
            owner = match[1]
            yield owner, match[2]
        elif match := re.match(r"(?:abstract )?(\w+)(\(.*\))#$|property (\w+): \w+#$", line):
            yield f"{owner}.{match[1] or match[3]}", match[2]


@pytest.mark.parametrize("document", [CLASSIC, API, PADIM, PATCHCORE])
def test_the_table_holds_every_name_of_the_documents(document: str) -> None:
    if not (REFERENCE / document).exists():
        pytest.skip(f"{REFERENCE} is absent (set BLEMISH_REFERENCE)")
    signatures = {row.path: row.signature for row in reversed(TABLE) if row.document == document}
    declared = dict(names_in(document))
    assert len(declared) > 5
    for path, signature in declared.items():
        assert path in signatures, path
        expected = signatures[path]
        assert (expected and documented(expected)) == (signature and documented(signature)), path


# -------------------- stored numbers


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN} is absent (set BLEMISH_GOLDEN)")
    with np.load(GOLDEN) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def padim_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    generator = PadimMapGenerator((56, 72))
    distance = generator.compute_distance(given["embedding"], [given["mean"], given["inv_covariance"]])
    maps = generator(**{key: given[key] for key in ("embedding", "mean", "inv_covariance")})
    return {"distance": distance, "upsampled": generator.up_sample(distance), "map": maps}


def patchcore_classic_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    maps, scores = PatchcoreMapGenerator((80, 64))(patch_scores=given["patch_scores"], feature_map_shape=(10, 8))
    return {"map": maps, "score": scores[0]}


def classic_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    image, values = given["image"].numpy(), given["anomaly_map"].numpy()
    return {
        "color_map": classic.anomaly_map_to_color_map(values),
        "color_map_raw": classic.anomaly_map_to_color_map(0.7 * values, normalize=False),
        "superimposed": classic.superimpose_anomaly_map(values, image),
        "superimposed_a6_g10_n": classic.superimpose_anomaly_map(3 * values, image, 0.6, 10, normalize=True),
        "mask_t50_k4": classic.compute_mask(values, 0.5),
        "mask_t50_k1": classic.compute_mask(values, 0.5, 1),
    }


def norm_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    targets = given["targets"]
    standardized = cdf.standardize(targets + 0.1, 0.4, 0.8)
    return {
        "min_max_thr3.7_min0.2_max8.5": min_max.normalize(targets, 3.7, 0.2, 8.5),
        "cdf_standardized_mean0.4_std0.8": standardized,
        "cdf_standardized_center1.1": cdf.standardize(targets + 0.1, 0.4, 0.8, center_at=1.1),
        "cdf_normalized_thr0.3": cdf.normalize(standardized, 0.3),
    }


def post_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    processor = PostProcessor()
    evidence = InferenceBatch(given["score"], given["map"], gt_label=given["label"], gt_mask=given["mask"] > 0)
    processor.on_validation_batch_end(TRAINER, None, evidence)
    processor.on_validation_epoch_end(TRAINER, None)
    # Deliberate difference: calibration reads the pixel threshold from a histogram, because memory must not grow with
    # the images, and takes the edge of a bin: 2.0e-4 lower here, at most 1/2048. Computed exactly, it's the stored one.
    pixel_threshold, _ = f1_threshold(given["map"], given["mask"] > 0)
    assert 1 - 1 / 2048 < processor.raw_pixel_threshold / pixel_threshold <= 1
    pixel = (torch.tensor(value) for value in (pixel_threshold, processor.pixel_min, processor.pixel_max))
    numbers = {name: getattr(processor, name) for name in ("image_min", "image_max", "pixel_min", "pixel_max")}
    return numbers | {
        "image_threshold": processor.raw_image_threshold,
        "pixel_threshold": pixel_threshold,
        "normalized_score": processor(InferenceBatch(given["score"])).pred_score,
        "normalized_map": normalize(given["map"], *pixel),
    }


def metric_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    numbers = {}
    for level, scores, truth in (("image", "score", "label"), ("pixel", "map", "mask")):
        for name, kind in (("AUROC", AUROC), ("AUPR", AveragePrecision), ("F1Max", F1Max)):
            metric = kind(level, exact=True)
            metric.update(given[scores], given[truth] > 0)
            numbers[f"{level}_{name}"] = metric.compute().value
    overlap = AUPRO(0.3, exact=True)
    overlap.update(given["map"], given["mask"] > 0)
    return {**numbers, "pixel_AUPRO_fpr0.3": overlap.compute().value}


def patchcore_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    center = given["bank"].mean(dim=0)
    rows = given["bank"] - center
    bank = MemoryBank()
    bank.load_state_dict({"center": center, "rows": rows, "norms": square_norms(rows), "radius": torch.tensor(0.0)})
    found = bank.nearest(given["queries"])
    return {
        "patch_scores": found.distance.view(2, 30),
        "locations": found.row.view(2, 30),
        "pred_score": bank.image_scores(given["queries"], found, 2, 9),
    }


def gaussian_numbers(given: Mapping[str, Tensor]) -> dict[str, Any]:
    images = given["embedding"].flatten(2).mT  # (30, 20, 6)
    mean, scatter = torch.zeros(20, 6), torch.zeros(20, 6, 6)
    count = merge_moments_(0, mean, [scatter], images)
    # Deliberate difference: one regularizer with a name. The stored numbers have two, 0.01 and a hidden 1e-5.
    factor = whitening_factors(count, pack(scatter), 0.01 + 1e-5)
    inverse = factor.mT @ factor
    distance = mahalanobis_from_inverse(images, mean, given["inv_covariance"])
    torch.testing.assert_close(mahalanobis_from_inverse(images, mean, inverse), distance, rtol=1e-5, atol=0)
    return {"mean": mean.mT, "inv_covariance": inverse}


GROUPS = {
    "padim": (padim_numbers, {"embedding", "mean", "inv_covariance"}),
    "patchcore_classic": (patchcore_classic_numbers, {"patch_scores"}),
    "classic": (classic_numbers, {"image", "anomaly_map"}),
    "norm": (norm_numbers, {"targets"}),
    "post": (post_numbers, {"score", "label", "mask", "map"}),
    "metric": (metric_numbers, set()),
    "patchcore": (patchcore_numbers, {"bank", "queries"}),
    "gaussian": (gaussian_numbers, {"embedding"}),
}
"""Key prefix -> what computes our numbers, and which keys are its inputs."""


def deviation(number: Any, expected: Tensor) -> float:
    """Largest difference relative to the largest expected magnitude; infinite for whole numbers that differ at all."""
    number = torch.as_tensor(number)
    assert number.shape == expected.shape
    if not expected.is_floating_point():
        return 0.0 if torch.equal(number, expected) else float("inf")
    return float((number - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("group", GROUPS)
def test_the_numbers_of_other_releases_are_met(golden: dict[str, Tensor], group: str) -> None:
    """Labels aren't compared: the other library decides with `>`, this one with `>=`."""
    compute, inputs = GROUPS[group]
    stored = {key.partition(".")[2]: value for key, value in golden.items() if key.partition(".")[0] == group}
    shared = {
        key.removeprefix("post."): value for key, value in golden.items() if group == "metric" and key[:5] == "post."
    }
    numbers = compute(stored | shared)
    assert numbers.keys() == stored.keys() - inputs
    deviations = {key: deviation(number, stored[key]) for key, number in numbers.items()}
    worst = max(deviations, key=lambda key: deviations[key])
    print(f"{group}: {len(deviations)} numbers, largest deviation {deviations[worst]:.1e} ({worst})")
    assert deviations[worst] <= 1e-5, worst


def test_every_stored_number_belongs_to_a_group(golden: dict[str, Tensor]) -> None:
    assert {key.partition(".")[0] for key in golden} == set(GROUPS)
