"""A session answers alike however an image reaches it, and never lets a broken one pass or take others along."""

from __future__ import annotations

import io
import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish import runtime
from blemish.artifact import load
from blemish.data.record import ColorRecord
from blemish.data.roi import stretched
from blemish.errors import (
    ArtifactError,
    ImageReadError,
    MissingExtraError,
    NonFiniteError,
    NotCalibratedError,
    UsageError,
)
from blemish.functional.outlines import fill
from blemish.functional.regions import label_components
from blemish.models.base import Detector
from blemish.post_processing import Decision, DecisionModule, PostProcessor, Scale
from blemish.runtime.backend import Outputs
from blemish.runtime.inputs import odd_colors
from blemish.runtime.marks import NORMALIZED, maps_of
from blemish.runtime.session import STACKED_PIXELS, Failure, Result, Session
from blemish.runtime.torch_session import TorchBackend
from blemish.synthetic.products import render


def part(seed: int, defect: str | None = None, size: tuple[int, int] = (96, 128)) -> Any:
    return render("tile", size=size, rng=np.random.default_rng(2000 + seed), defect=defect)[0]


@pytest.fixture
def session(model_file: Path) -> Session:
    return runtime.load(model_file)


class Recorder:
    """A backend that scores an image by its mean and remembers its stacks; NaN where a pixel is NaN."""

    decision = Decision(Scale(0.5, 0.0, 1.0), Scale(0.5, 0.0, 1.0))
    roi = None
    bit_depth = None
    fingerprint = None

    def __init__(self) -> None:
        self.stacks: list[int] = []

    def run(self, images: Any, decision: Decision) -> Outputs:
        self.stacks.append(len(images))
        values = images / np.float32(255) if images.dtype == np.uint8 else images
        if not np.isfinite(values).all():
            raise NonFiniteError("a score is NaN")
        score = values.mean(axis=(1, 2, 3), dtype=np.float32)
        maps = values.mean(axis=3, dtype=np.float32)
        return Outputs(score, score, decision.image.is_anomalous(score), maps, decision.pixel.is_anomalous(maps))


def flat(value: int, size: tuple[int, int] = (8, 9)) -> Any:
    return np.full((*size, 3), value, dtype=np.uint8)


# ------------------------------------------------------------------------------------------------------ what goes in


def test_every_kind_of_source_gives_one_answer(session: Session, tmp_path: Path) -> None:
    image = part(0, "hole")
    path = tmp_path / "ein Bild 图.PNG"
    Image.fromarray(image).save(path)
    sources = [path, str(path), path.read_bytes(), Image.open(path), Image.fromarray(image), image]
    results = [session(source)[0] for source in sources]
    for result in results:
        assert result.raw_score == results[0].raw_score
        np.testing.assert_array_equal(result.anomaly_map, results[0].anomaly_map)
        assert result.regions == results[0].regions
    assert [result.path for result in results] == [str(path), str(path), "", "", "", ""]
    floats = session(image.astype(np.float32) / 255)[0]
    assert floats.raw_score == pytest.approx(results[0].raw_score, rel=1e-4)


def pictures() -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    image = Image.fromarray(part(1, "stain"))
    alpha = image.copy()
    alpha.putalpha(Image.linear_gradient("L").resize(image.size))
    turned = Image.Exif()
    turned[0x0112] = 6
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    yield "gray", image.convert("L"), {"format": "PNG"}
    yield "palette", image.quantize(32), {"format": "PNG"}
    yield "alpha", alpha, {"format": "PNG"}
    yield "turned", image, {"format": "PNG", "exif": turned}
    yield "sixteen bit", deep, {"format": "PNG"}
    yield "CMYK", image.convert("CMYK"), {"format": "TIFF"}


@pytest.mark.parametrize(("picture", "options"), [p[1:] for p in pictures()], ids=[p[0] for p in pictures()])
def test_pillow_pictures_are_taken_as_their_files(
    picture: Image.Image, options: dict[str, Any], session: Session, tmp_path: Path
) -> None:
    path = tmp_path / "image"
    picture.save(path, **options)
    from_file, opened = session(path)[0], session(Image.open(path))[0]
    assert opened.raw_score == from_file.raw_score
    assert opened.mask.shape == from_file.mask.shape


def test_pillow_picture_without_a_range(session: Session) -> None:
    with pytest.raises(ImageReadError, match="mode F has no declared range; give RGB, L or I;16"):
        session(Image.new("F", (96, 64)))


def test_truncated_pillow_picture(session: Session) -> None:
    buffer = io.BytesIO()
    Image.fromarray(part(0)).save(buffer, "PNG")
    opened = Image.open(io.BytesIO(buffer.getvalue()[:2000]))
    with pytest.raises(ImageReadError, match="can't be taken from Pillow"):
        session(opened)


def test_lists_and_generators(session: Session) -> None:
    images = [part(i) for i in range(5)]
    expected = [session(image)[0].raw_score for image in images]
    assert [r.raw_score for r in session(images)] == pytest.approx(expected, rel=1e-5)
    assert [r.raw_score for r in session(image for image in images)] == pytest.approx(expected, rel=1e-5)
    assert session([]) == []
    assert list(session.stream([])) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 9, 4), np.uint8), r"must be \(H, W, 3\) or \(H, W\). Got ndarray of shape \(8, 9, 4\), uint8"),
        (np.zeros((3, 8, 9), np.uint8), r"Its channels seem to come first: move them to the end."),
        (np.zeros((8, 9, 3), np.int64), r"must be uint8, uint16, or floats in \[0, 1\]. Got .*, int64"),
        (np.zeros((0, 9, 3), np.uint8), r"Got ndarray of shape \(0, 9, 3\)"),
        (np.full((8, 9, 3), 255, np.float32), r"floats must lie in \[0, 1\]. Got 255 to 255."),
        (np.full((8, 9, 3), -0.1, np.float32), r"floats must lie in \[0, 1\]. Got -0.1 to -0.1."),
        (None, r"An image must be a file name, .*, or a list of such. Got None."),
        ([None], r"or a list of such. Got None."),
        (7, r"or a list of such. Got int."),
        (io.StringIO("x"), r"A file must be open in binary mode, open\(name, 'rb'\). Got StringIO."),
    ],
)
def test_arrays_of_another_kind(image: Any, message: str, session: Session) -> None:
    with pytest.raises(UsageError, match=message):
        session(image)


def test_a_torn_frame_costs_that_frame(session: Session) -> None:
    frames = [part(0), part(1), part(1)[:0], part(2).astype(np.int64), None, part(2)]
    found = list(session.stream(frames))  # type: ignore[arg-type]
    assert [type(one) for one in found] == [Result, Result, Failure, Failure, Failure, Result]
    assert [one.reason for one in found if isinstance(one, Failure)] == [
        "An image array must be (H, W, 3) or (H, W). Got ndarray of shape (0, 128, 3), uint8.",
        "An image array must be uint8, uint16, or floats in [0, 1]. Got ndarray of shape (96, 128, 3), int64.",
        "An image must be a file name, bytes, an open binary file, a picture of Pillow, an array (H, W, 3) or (H, W), "
        "or a tensor (3, H, W), or a list of such. Got None.",
    ]
    with pytest.raises(UsageError, match=r"or a list of such. Got None."):
        session([part(0), None])  # type: ignore[arg-type]


def test_large_images_are_not_stacked() -> None:
    for size, stacks in (((1024, 4096), [2, 2, 1]), ((1024, 4097), [1] * 5), ((8, 9), [5])):
        images = [flat(value, size) for value in range(5)]
        recorder = Recorder()
        assert [one.raw_score * 255 for one in Session(recorder)(images)] == pytest.approx(range(5))
        assert recorder.stacks == stacks


def test_arguments(session: Session) -> None:
    with pytest.raises(UsageError, match=r"batch_size must be at least 1. Got 0."):
        Session(session.backend, batch_size=0)
    with pytest.raises(UsageError, match=r"min_area must be at least 1. Got 0."):
        Session(session.backend, min_area=0)


# ----------------------------------------------------------------------------------------------------- what comes out


def test_result(session: Session, model: Detector) -> None:
    """The module that was fitted, applied by hand, says the same."""
    image = part(3, "hole", size=(70, 201))
    result = session(image)[0]
    batch = model(torch.from_numpy(image)[None])
    assert isinstance(model.post_processor, DecisionModule)
    assert result.raw_score == float(batch.raw_score[0])
    assert result.score == float(batch.pred_score[0])
    assert result.threshold == model.post_processor.effective_image_threshold
    assert result.label == "anomalous"
    assert result.anomaly_map.shape == result.mask.shape == (70, 201)
    assert (result.anomaly_map.dtype, result.mask.dtype) == (np.float32, np.bool_)
    np.testing.assert_array_equal(result.mask, batch.pred_mask[0].numpy())
    np.testing.assert_array_equal(result.anomaly_map, batch.anomaly_map[0].numpy())
    assert set(result.seconds) == {"read", "inspect"}


def test_label_is_the_threshold_rule(session: Session) -> None:
    results = session([part(i, defect) for i in range(6) for defect in (None, "hole", "scratch")])
    assert {r.label for r in results} == {"normal", "anomalous"}
    for result in results:
        assert (result.label == "anomalous") == (result.raw_score >= result.threshold)
        assert 0.0 <= result.score <= 1.0
        assert 0.0 <= result.anomaly_map.min() <= result.anomaly_map.max() <= 1.0
        np.testing.assert_array_equal(result.mask, result.anomaly_map >= np.float32(session.pixel_cut))


def test_regions_lie_in_the_mask(session: Session) -> None:
    result = session(part(3, "hole", size=(150, 220)))[0]
    assert result.regions
    inside = sum(fill(region.polygon, result.mask.shape).astype(int) for region in result.regions)
    assert np.max(inside) == 1, "none lies on another"
    assert not (inside & ~result.mask).any()
    assert len(result.regions) == label_components(result.mask)[1]
    assert np.sum(inside) < result.mask.sum()
    peaks = [region.peak_score for region in result.regions]
    assert peaks == sorted(peaks, reverse=True)


def test_small_regions_are_not_listed_and_stay_in_the_mask(session: Session) -> None:
    image = part(3, "hole", size=(150, 220))
    everything = session(image)[0]
    areas = sorted(region.area for region in everything.regions)
    large = Session(session.backend, min_area=areas[-1])(image)[0]
    assert large.regions == tuple(region for region in everything.regions if region.area == areas[-1])
    assert Session(session.backend, min_area=areas[-1] + 1)(image)[0].regions == ()
    np.testing.assert_array_equal(large.mask, everything.mask)
    assert (large.label, large.raw_score) == (everything.label, everything.raw_score)


@pytest.mark.parametrize("roi", [None, np.tri(3, 5, dtype=bool)], ids=["everywhere", "region"])
@pytest.mark.parametrize("sensitivity", [0.0, 0.4, 0.5, 1.0])
def test_a_raw_map_is_enough(sensitivity: float, roi: Any) -> None:
    """What a session makes of it is what a model would have given beside it."""
    raw = np.random.default_rng(0).normal(3, 1, (2, 301, 241)).astype(np.float32)
    assert raw[0].size > NORMALIZED
    raw[:, 80:150, 4:30] += 7
    inside = np.ones(raw.shape[1:], bool) if roi is None else stretched(roi, raw.shape[1:])
    raw[:, ~inside] = 0
    scale, score, label = Scale(5.0, 0.5, 7.5, sensitivity), np.zeros(2, np.float32), np.ones(2, bool)
    whole = Outputs(score, score, label, inside * scale.normalize(raw), inside & scale.is_anomalous(raw), raw)
    for number in range(2):
        want = maps_of(whole, number, scale, roi, min_area=3)
        got = maps_of(Outputs(score, score, label, raw_map=raw), number, scale, roi, min_area=3)
        assert got is not None
        assert want is not None
        assert got.regions == want.regions
        assert got.regions
        np.testing.assert_array_equal(got.mask, want.mask)
        np.testing.assert_array_equal(got.anomaly_map, want.anomaly_map, strict=True)
        assert got.anomaly_map is got.anomaly_map, "made once"
    low = Outputs(score, score, label, raw_map=np.zeros_like(raw))
    nothing = maps_of(low, 0, Scale(5.0, 0.5, 7.5), roi, min_area=3)
    assert nothing is not None
    assert (nothing.mask.any(), nothing.anomaly_map.any(), nothing.regions) == (False, False, ())
    assert maps_of(Outputs(score, score, label), 0, scale, roi, min_area=3) is None


def test_sensitivity_of_the_model_is_used(model: Detector) -> None:
    assert isinstance(model.post_processor, DecisionModule)
    normal = part(0)
    before = Session(TorchBackend(model))(normal)[0]
    model.post_processor.image_sensitivity = 1.0
    after = Session(TorchBackend(model))(normal)[0]
    assert (before.label, after.label) == ("normal", "anomalous")
    assert after.raw_score == before.raw_score
    assert after.threshold < before.threshold


# -------------------------------------------------------------------------------------------------- stacking, failures


def test_stacking_changes_nothing(session: Session) -> None:
    images = [part(i, size=size) for i, size in enumerate([(96, 128)] * 3 + [(80, 90)] * 2 + [(96, 128)] * 2)]
    expected = [Session(session.backend, batch_size=1)(image)[0] for image in images]
    for batch_size in (1, 2, 8):
        for got, want in zip(Session(session.backend, batch_size=batch_size)(images), expected, strict=True):
            assert got.raw_score == pytest.approx(want.raw_score, rel=1e-5)
            assert got.label == want.label
            np.testing.assert_allclose(got.anomaly_map, want.anomaly_map, atol=1e-4)


def test_only_equal_neighbors_share_a_stack() -> None:
    recorder = Recorder()
    images = [flat(1), flat(2), flat(3, (5, 5)), flat(4), flat(5).astype(np.float32) / 255, flat(6), flat(7), flat(8)]
    results = Session(recorder, batch_size=2)(images)
    assert recorder.stacks == [2, 1, 1, 1, 2, 1]
    assert [round(r.raw_score * 255) for r in results] == [1, 2, 3, 4, 5, 6, 7, 8]


def test_a_run_can_be_continued_after_any_batch() -> None:
    images = [flat(1), flat(2), flat(3), b"", flat(4, (5, 5)), flat(5), flat(6), flat(7), b"broken", flat(8)]
    whole = Recorder()
    batches = list(Session(whole, batch_size=2).batches(images))
    assert [len(batch) for batch in batches] == [2, 1, 1, 1, 2, 1, 1, 1]
    done = 0
    for count in range(len(batches)):
        rest = Recorder()
        again = list(Session(rest, batch_size=2).batches(images[done:]))
        assert [len(batch) for batch in again] == [len(batch) for batch in batches[count:]]
        assert rest.stacks == whole.stacks[len(whole.stacks) - len(rest.stacks) :]
        done += len(batches[count])


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_change_neither_stacks_nor_order_nor_failures(workers: int) -> None:
    nan = np.full((4, 4, 3), np.nan, np.float32)
    images = [flat(1), flat(2), b"broken", flat(3), nan, flat(4, (5, 5)), *[flat(value) for value in range(5, 40)], b""]
    plain, at_once = Recorder(), Recorder()
    expected = list(Session(plain, batch_size=3).batches(images))
    got = list(Session(at_once, batch_size=3, workers=workers).batches(images))
    assert [[type(result) for result in batch] for batch in got] == [[type(one) for one in batch] for batch in expected]
    for one, other in zip(itertools.chain(*got), itertools.chain(*expected), strict=True):
        assert (one.raw_score, one.label) == (other.raw_score, other.label) if isinstance(one, Result) else one == other
    assert sorted(at_once.stacks) == sorted(plain.stacks)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("blemish")]


class Blank(Recorder):
    """Finds nothing, at no cost."""

    def run(self, images: Any, decision: Decision) -> Outputs:
        scores = np.zeros(len(images), np.float32)
        maps = np.broadcast_to(np.float32(0), images.shape[:3])
        return Outputs(scores, scores, scores > 0, maps, np.broadcast_to(np.False_, maps.shape))


def test_workers_read_less_far_ahead_where_images_are_large() -> None:
    def furthest(size: tuple[int, int], count: int) -> int:
        asked: list[int] = []

        def camera() -> Iterator[Any]:
            for number in range(count):
                asked.append(number)
                yield np.broadcast_to(np.uint8(number), (*size, 3))

        batches = Session(Blank(), batch_size=4, workers=2).batches(camera())
        taken, gone = 0, []
        for batch in batches:
            taken += len(batch)
            gone.append(len(asked) - taken)
        return max(gone)

    assert 4 <= furthest((4, 4), 60) <= 2 * 4 + 3 * 4  # read for the next stacks; stacks under way
    assert furthest((2, STACKED_PIXELS // 2 + 1), 8) <= 4  # two images read, two inspected


def test_an_abandoned_run_leaves_no_thread() -> None:
    batches = Session(Recorder(), batch_size=2, workers=3).batches(flat(1) for _ in itertools.count())
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("blemish")]


def test_a_stream_without_a_batch_size_stays_one_at_a_time() -> None:
    asked: list[int] = []

    def camera() -> Iterator[Any]:
        for number in range(5):
            asked.append(number)
            yield flat(number)

    for number, _ in enumerate(Session(Recorder(), workers=4).stream(camera())):
        assert asked == list(range(number + 1))


def test_workers_are_at_least_one() -> None:
    with pytest.raises(UsageError, match=r"workers must be at least 1. Got 0."):
        Session(Recorder(), workers=0)


def test_stream_is_lazy() -> None:
    """An endless camera: results come while images do."""

    def camera() -> Iterator[Any]:
        while True:
            yield flat(100)

    stream = Session(Recorder(), batch_size=3).stream(camera())
    assert all(isinstance(next(stream), Result) for _ in range(7))


def test_failures_keep_their_place(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "empty.png").touch()
    Image.fromarray(flat(9)).save(tmp_path / "good.png")
    sources = [flat(1), tmp_path / "broken.png", flat(2), tmp_path / "absent.png", tmp_path / "good.png", b"", tmp_path]
    results = list(Session(Recorder()).stream(sources))
    kinds = [type(result).__name__ for result in results]
    assert kinds == ["Result", "Failure", "Result", "Failure", "Result", "Failure", "Failure"]
    reasons = [result.reason for result in results if isinstance(result, Failure)]
    assert reasons[0].startswith("not an image. PNG, JPEG")
    assert reasons[1:] == ["no such file", "the file is empty (0 bytes)", "this is a folder, not an image file"]
    assert results[1].path == str(tmp_path / "broken.png")
    with pytest.raises(ImageReadError, match=r"broken.png: not an image"):
        Session(Recorder())(sources)


def test_nan_does_not_take_its_neighbors() -> None:
    broken = flat(50).astype(np.float32) / 255
    fine = broken.copy()
    broken[3, 4, 1] = np.nan
    results = list(Session(Recorder(), batch_size=4).stream([fine, broken, fine, fine, fine]))
    assert [type(result).__name__ for result in results] == ["Result", "Failure", "Result", "Result", "Result"]
    assert results[1] == Failure("", "a score is NaN", NonFiniteError())
    with pytest.raises(NonFiniteError, match="a score is NaN"):
        Session(Recorder())(broken)


def test_nan_through_the_model(session: Session) -> None:
    broken = part(0).astype(np.float32) / 255
    broken[40, 50] = np.nan
    good, bad, also_good = session.stream([part(0), broken, part(1)])
    assert isinstance(bad, Failure)
    assert "features that are NaN or infinite" in bad.reason
    assert isinstance(good, Result)
    assert isinstance(also_good, Result)


def test_pixel_limit(session: Session, tmp_path: Path) -> None:
    Image.fromarray(part(0)).save(tmp_path / "large.png")
    session.max_pixels = 96 * 128 - 1
    with pytest.raises(ImageReadError, match=r"large.png: 96 x 128 = 12,288 pixels are more than max_pixels = 12,287"):
        session(tmp_path / "large.png")
    session.max_pixels = 96 * 128
    assert session(tmp_path / "large.png")


# -------------------------------------------------------------------------------------------------------------- opening


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"A model file ends in .safetensors or .onnx or .xml. Got 'model.pkl'."):
        runtime.load("model.pkl")


def test_upper_case_suffix(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "MODEL.SAFETENSORS").write_bytes(model_file.read_bytes())
    assert runtime.load(tmp_path / "MODEL.SAFETENSORS")(part(0))


def test_missing_model() -> None:
    with pytest.raises(ArtifactError, match=r"There is no model file at none.safetensors"):
        runtime.load("none.safetensors")


@pytest.mark.parametrize("post_processor", [False, True])
def test_model_without_thresholds(post_processor: bool, model_file: Path, tmp_path: Path) -> None:
    model = load(model_file)
    model.post_processor = PostProcessor() if post_processor else None
    model.save(tmp_path / "raw.safetensors")
    with pytest.raises(NotCalibratedError, match=r"has no thresholds, so it can't give verdicts. Calibrate it with"):
        runtime.load(tmp_path / "raw.safetensors")


def test_missing_runtime(monkeypatch: pytest.MonkeyPatch, model_file: Path) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(runtime.importlib, "import_module", absent)
    with pytest.raises(
        MissingExtraError, match=r'needs torch, which is not installed. Run: pip install "blemish\[train\]"'
    ):
        runtime.load(model_file)


def test_an_image_is_the_same_in_every_form(session: Session, tmp_path: Path) -> None:
    import torch

    image = part(0)
    Image.fromarray(image).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (expected,) = session(tmp_path / "a.png")
    planes = torch.from_numpy(image.copy()).permute(2, 0, 1)
    with (tmp_path / "a.png").open("rb") as file:
        forms = [
            *(content, bytearray(content), file, io.BytesIO(content), Image.fromarray(image), [image], image[None]),
            *(image, image.astype(np.uint16) * 257, image / 255, planes, planes[None], planes / 255),
        ]
        for form in forms:
            (result,) = session(form)
            assert result.raw_score == pytest.approx(expected.raw_score, rel=1e-5), type(form)
    gray = image[..., :1]
    assert session(gray)[0].raw_score == session(gray[..., 0])[0].raw_score == session(gray.repeat(3, 2))[0].raw_score
    with pytest.raises(UsageError, match=r"The file .* is closed. Open it again, or give its name."):
        session(file)


def test_channels_are_what_the_session_was_told(session: Session) -> None:
    image = part(0)
    backend = session.backend
    swapped = Session(backend, channels="bgr")(image[..., ::-1])[0]
    assert swapped.raw_score == session(image)[0].raw_score
    assert Session(backend, channels="gray")(image[..., 0])[0].raw_score == session(image[..., 0])[0].raw_score
    with pytest.raises(UsageError, match=r'channels is "gray", so an image array must be'):
        Session(backend, channels="gray")(image)
    with pytest.raises(UsageError, match=r"channels must be one of rgb, bgr, gray. Got 'brg'."):
        Session(backend, channels="brg")  # type: ignore[arg-type]


def test_odd_colors_have_a_cause() -> None:
    color = ColorRecord(tilt=0.2, tilt_deviation=0.01, saturation=0.2)
    warm = np.full((40, 40, 3), (180, 150, 129), np.uint8)
    assert odd_colors(warm, color) is None
    assert "red and blue were exchanged" in (odd_colors(warm[..., ::-1], color) or "")
    assert "is gray" in (odd_colors(np.full((40, 40, 3), 90, np.uint8), color) or "")
    assert "has colors" in (odd_colors(warm, ColorRecord(0.0, 0.0, 0.0)) or "")


def test_odd_colors_are_told_once(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    again = Session(session.backend)
    assert again.backend.color is not None
    for _ in range(2):
        again(np.full((40, 40, 3), 90, np.uint8))
    assert len(caplog.records) == 1
    again(part(0))


def test_a_stream_gives_each_verdict_before_it_asks_for_more(session: Session) -> None:
    asked = []

    def camera() -> Iterator[Any]:
        for i in range(3):
            asked.append(i)
            yield part(i)

    for number, _ in enumerate(Session(session.backend).stream(camera())):
        assert asked == list(range(number + 1))
    asked.clear()
    next(Session(session.backend, batch_size=3).stream(camera()))
    assert asked == [0, 1, 2]
