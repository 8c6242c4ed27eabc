"""The same checks for every session: the artifact in torch, and its graph in ONNX Runtime and in OpenVINO."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detector_checks import calibrate, fitted, model_with_region, parts
from PIL import Image

from blemish import runtime
from blemish.artifact import load
from blemish.errors import ArtifactError, ImageReadError, UsageError
from blemish.export import exporting
from blemish.models import Patchcore
from blemish.runtime.backend import Backend
from blemish.runtime.session import Failure, Result, Session
from blemish.runtime.whole import open_whole
from blemish.seal import BLANK, write_seal
from blemish.synthetic.products import render
from exported import assert_sealed, content_of, export_untried, traced

SIZES = [(97, 1301), (256, 256), (1024, 768)]
RUNTIMES = {"torch": ".safetensors", "onnxruntime": ".onnx", "openvino": ".xml"}
EXPORTED = {name: suffix for name, suffix in RUNTIMES.items() if name != "torch"}


@pytest.fixture(scope="session")
def artifacts(model_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """PatchCore, PaDiM and Fused with a region of interest, and one with all that is done differently: letterbox, crop,
    tiles, a float16 bank of directions, layers of a learned backbone.
    """
    # One neighbor: among patches of padding, which are equal, rounding chooses the worst one, and so its weight.
    options: dict[str, Any] = {"fit_mode": "letterbox", "tile_size": 64, "bank_dtype": "float16", "num_neighbors": 1}
    options |= {"crop_from": (72, 104), "distance": "cosine", "position_weight": 0.5}
    network = {"backbone": "resnet18", "layers": ["layer2", "layer3"], "pretrained": False}
    model = fitted(lambda: Patchcore(image_size=(64, 96), **network, **options), parts(8))
    folder = tmp_path_factory.mktemp("special")
    calibrate(model, parts(4, first=50)).save(folder / "special.safetensors")
    for name in ("padim", "fused"):
        model_with_region(name).save(folder / f"{name}.safetensors")
    return {**model_files, **{path.stem: path for path in folder.iterdir()}}


@pytest.fixture(scope="session", params=["patchcore", "padim", "fused", "special"])
def files(request: pytest.FixtureRequest, artifacts: dict[str, Path]) -> dict[str, Path]:
    """One model for every runtime."""
    path = artifacts[request.param]
    exported = {name: export_untried(path, path.with_suffix(suffix)) for name, suffix in EXPORTED.items()}
    return {"torch": path, **exported}


@pytest.fixture(scope="session", params=RUNTIMES)
def path(request: pytest.FixtureRequest, model_file: Path) -> Path:
    """PatchCore in one runtime."""
    suffix = RUNTIMES[request.param]
    return model_file if suffix == ".safetensors" else export_untried(model_file, model_file.with_suffix(suffix))


# Compiling a graph takes longer than most of what is asked of it, and backends keep nothing: sessions share them.
@pytest.fixture(scope="session")
def backends(files: dict[str, Path]) -> dict[str, Backend]:
    return {name: runtime.load(path).backend for name, path in files.items()}


@pytest.fixture(scope="session")
def backend(path: Path) -> Backend:
    return runtime.load(path).backend


@pytest.fixture
def session(backend: Backend) -> Session:
    return Session(backend)


def drawn(seed: int, defect: str | None = None, size: tuple[int, int] = (96, 128)) -> Any:
    return render("tile", size=size, rng=np.random.default_rng(3000 + seed), defect=defect)[0]


def mixed() -> list[Any]:
    return [drawn(i, defect, size) for i, size in ((0, (96, 128)), (1, (80, 90))) for defect in (None, "hole", "stain")]


def assert_same(got: Any, want: Any) -> None:
    assert got.label == want.label
    assert got.raw_score == pytest.approx(want.raw_score, rel=1e-4)
    assert got.score == pytest.approx(want.score, abs=1e-3)
    assert got.threshold == want.threshold
    assert got.anomaly_map.shape == want.anomaly_map.shape
    np.testing.assert_allclose(got.anomaly_map, want.anomaly_map, atol=1e-3)
    assert [one.box for one in got.regions] == [one.box for one in want.regions]
    assert [one.area for one in got.regions] == pytest.approx([one.area for one in want.regions], rel=1e-2)
    undecided = np.abs(want.anomaly_map - 0.5) < 1e-3
    np.testing.assert_array_equal(got.mask | undecided, want.mask | undecided)


def test_every_runtime_says_what_torch_says(backends: dict[str, Backend]) -> None:
    reference = Session(backends["torch"])
    expected = [reference(image)[0] for image in mixed()]
    assert {one.label for one in expected} == {"normal", "anomalous"}
    for name in EXPORTED:
        for got, want in zip(Session(backends[name])(mixed()), expected, strict=True):
            assert_same(got, want)


@pytest.mark.parametrize("size", SIZES)
def test_batches_of_every_size(backends: dict[str, Backend], size: tuple[int, int]) -> None:
    image = drawn(7, "hole", size)
    stack = np.stack([np.roll(image, 11 * i, axis=(0, 1)) for i in range(5)])
    expected = backends["torch"].run(stack, backends["torch"].decision)
    for name in EXPORTED:
        backend = backends[name]
        for count in (1, 2, 5):
            got = backend.run(stack[:count], backend.decision)
            np.testing.assert_array_equal(got.pred_label, expected.pred_label[:count])
            np.testing.assert_allclose(got.raw_score, expected.raw_score[:count], rtol=1e-4)
            np.testing.assert_allclose(got.raw_map, expected.raw_map[:count], rtol=1e-3)


@pytest.mark.parametrize("name", EXPORTED)
def test_a_session_says_of_pixels_what_the_graph_says(
    name: str, files: dict[str, Path], backends: dict[str, Backend]
) -> None:
    """Sessions ask for raw maps alone, and decide about their pixels by the same rule."""
    graph, session = Session(open_whole(files[name])), Session(backends[name])
    for one in (graph, session):
        one.set_sensitivity(image=0.6, pixel=0.6)
    assert session.backend.run(mixed()[0][None], session.decision).anomaly_map is None
    for got, want in zip(session(mixed()), graph(mixed()), strict=True):
        assert (got.raw_score, got.score, got.label) == (want.raw_score, want.score, want.label)
        np.testing.assert_array_equal(got.mask, want.mask)
        np.testing.assert_allclose(got.anomaly_map, want.anomaly_map, atol=2**-23)
        assert [one.polygon for one in got.regions] == [one.polygon for one in want.regions]


def test_verdicts_alone_are_those_with_maps(files: dict[str, Path], backends: dict[str, Backend]) -> None:
    def verdicts(results: list[Result]) -> list[tuple[Any, ...]]:
        return [(one.label, one.raw_score, one.score, one.threshold, one.size) for one in results]

    stack = np.stack([drawn(i, "hole") for i in range(3)])
    for name, path in files.items():
        whole, alone = Session(backends[name]), runtime.load(path, verdict_only=True)
        for images in (mixed(), stack):
            assert verdicts(alone(images)) == verdicts(whole(images))
        for session in (whole, alone):
            session.set_sensitivity(image=1.0, pixel=0.7)
        assert verdicts(alone(stack)) == verdicts(whole(stack))
        assert (whole.verdict_only, alone.verdict_only) == (False, True)
        (result,) = alone(stack[0])
        assert result.maps is None
        with pytest.raises(UsageError, match=r"verdict alone, without map, mask and regions. Load the model w"):
            alone.explain(result)


def test_settings_mean_the_same_everywhere(backends: dict[str, Backend]) -> None:
    sessions = {name: Session(backend) for name, backend in backends.items()}
    low, high = sorted(one.raw_score for one in sessions["torch"]([drawn(0), drawn(0, "hole")]))
    for settings in [
        {"sensitivity": (0.3, 0.8)},
        {"sensitivity": (1.0, None)},
        {"threshold": ((low + high) / 2, None)},
        {"sensitivity": (0.5, 0.5), "threshold": (high * 2, low)},
    ]:
        for session in sessions.values():
            for kind, values in settings.items():
                getattr(session, f"set_{kind}")(*values)
        first, *others = [session([drawn(0), drawn(0, "hole")]) for session in sessions.values()]
        for other in others:
            for got, want in zip(other, first, strict=True):
                assert (got.label, got.threshold) == (want.label, want.threshold)
                np.testing.assert_allclose(got.anomaly_map, want.anomaly_map, atol=1e-3)


def test_sensitivity_changes_the_label_and_not_the_raw_score(session: Session) -> None:
    (before,) = session(drawn(0))
    session.set_sensitivity(image=1.0)
    (after,) = session(drawn(0))
    assert (before.label, after.label) == ("normal", "anomalous")
    assert after.raw_score == before.raw_score
    assert after.threshold == -np.inf
    session.set_sensitivity(image=0.5, pixel=1.0)
    (pixels,) = session(drawn(0))
    assert pixels.label == "normal"
    assert pixels.mask.all()
    assert session.pixel_cut == 0.0


def test_threshold_is_the_score_from_which_an_image_is_anomalous(session: Session) -> None:
    score = np.float32(session(drawn(0))[0].raw_score)
    for threshold, label in [(score, "anomalous"), (np.nextafter(score, np.float32(np.inf)), "normal")]:
        session.set_threshold(image=float(threshold))
        (result,) = session(drawn(0))
        assert (result.label, result.threshold) == (label, threshold)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.set_sensitivity(1.1), r"image_sensitivity must be between 0 and 1. Got 1.1."),
        (lambda s: s.set_sensitivity(pixel=-0.1), r"pixel_sensitivity must be between 0 and 1. Got -0.1."),
        (lambda s: s.set_sensitivity(0.9, float("nan")), r"pixel_sensitivity must be between 0 and 1. Got nan."),
        (
            lambda s: s.set_threshold(float("inf")),
            r"image_threshold must be a finite number, at most 3.4e38 either way. Got inf.",
        ),
        (
            lambda s: s.set_threshold(1e39),
            r"image_threshold must be a finite number, at most 3.4e38 either way. Got 1e\+39.",
        ),
    ],
)
def test_settings_out_of_range_change_nothing(session: Session, change: Any, message: str) -> None:
    before = session.threshold
    with pytest.raises(UsageError, match=message):
        change(session)
    assert session.threshold == before


@pytest.mark.parametrize(
    ("image", "got"),
    [
        (np.zeros((3, 80, 90), np.uint8), r"shape \(3, 80, 90\), uint8"),
        (np.zeros((80, 90, 4), np.uint8), r"shape \(80, 90, 4\), uint8"),
        (np.zeros((0, 90, 3), np.uint8), r"shape \(0, 90, 3\), uint8"),
        (np.zeros((80, 90, 3), np.int64), r"shape \(80, 90, 3\), int64"),
    ],
)
def test_wrong_arrays_never_reach_the_graph(
    session: Session, image: Any, got: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session.backend, "run", None)
    with pytest.raises(UsageError, match=rf"An image array must be .* Got ndarray of {got}."):
        session(image)


def test_images_of_sixteen_bits(session: Session) -> None:
    """Graphs take uint8: the float image is rounded to it, and says nearly the same."""
    image = drawn(2, "hole")
    (eight,), (deep,) = session(image), session(image.astype(np.float32) / 255)
    assert deep.raw_score == pytest.approx(eight.raw_score, rel=1e-4)
    broken = image.astype(np.float32) / 255
    broken[3, 4] = np.nan
    good, bad = session.stream([image, broken])
    assert type(good).__name__ == "Result"
    assert "NaN or inf" in bad.reason  # type: ignore[union-attr]


def test_nothing_gives_nothing(session: Session) -> None:
    assert session([]) == []


def test_results_do_not_depend_on_neighbors(session: Session) -> None:
    alone = session(drawn(4))[0]
    for others in ([drawn(5, "hole")] * 4, [np.full_like(drawn(4), 255)] * 4):
        together = session([drawn(4), *others])[0]
        assert_same(together, alone)
        assert together.raw_score == pytest.approx(alone.raw_score, rel=1e-5)


def test_threads_share_a_session(session: Session) -> None:
    images = [drawn(i, defect) for i in range(4) for defect in (None, "hole")]
    expected = [session(image)[0] for image in images]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(lambda image: session(image)[0], images * 2), expected * 2, strict=True):
            assert_same(got, want)


def test_a_threshold_that_moves_meanwhile_contradicts_no_label(session: Session) -> None:
    score = session(drawn(0))[0].raw_score
    done = threading.Event()

    def move() -> None:
        for threshold in itertools.cycle((0.5 * score, 2 * score)):
            session.set_threshold(image=threshold)
            if done.is_set():
                return

    with ThreadPoolExecutor(4) as pool:
        moving = pool.submit(move)
        found = [result for results in pool.map(session, [drawn(0)] * 60) for result in results]
        done.set()
        moving.result()
    assert {result.label for result in found} == {"normal", "anomalous"}
    for result in found:
        assert (result.label == "anomalous") == (result.raw_score >= result.threshold)


def test_workers_give_the_bytes_of_one_after_the_other(session: Session, path: Path, tmp_path: Path) -> None:
    files: list[Any] = [tmp_path / f"{number}.png" for number in range(9)]
    for number, file in enumerate(files):
        Image.fromarray(drawn(number, (None, "hole", "stain")[number % 3], (96, 128 - 8 * (number > 5)))).save(file)
    files.insert(4, tmp_path / "absent.png")
    at_once = runtime.load(path, threads=1, workers=2, batch_size=2)
    one_by_one = Session(at_once.backend, batch_size=2)
    for got, want in zip(at_once.stream(files), one_by_one.stream(files), strict=True):
        if isinstance(want, Failure):
            assert got == want
            continue
        assert isinstance(got, Result)
        assert (got.path, got.label, got.raw_score, got.regions) == (
            want.path,
            want.label,
            want.raw_score,
            want.regions,
        )
        assert got.anomaly_map.tobytes() == want.anomaly_map.tobytes()
        assert got.mask.tobytes() == want.mask.tobytes()
        assert got.image is not None
        assert got.image.tobytes() == want.image.tobytes()  # type: ignore[union-attr]


def test_graphs_refuse_to_explain(session: Session, path: Path) -> None:
    if path.suffix == ".safetensors":
        assert len(session.explain(drawn(1, "hole")).findings) > 0
        return
    for attempt in (lambda: session.good_images, lambda: session.explain(drawn(1))):
        with pytest.raises(UsageError, match=r"can't explain its verdicts. Explain with the .safetensors file"):
            attempt()


def test_warmup(session: Session) -> None:
    assert session.warmup((96, 128)) > 0


@pytest.mark.parametrize("runtime_name", EXPORTED)
def test_options_of_exported_models(runtime_name: str, model_file: Path) -> None:
    path = export_untried(model_file, model_file.with_suffix(EXPORTED[runtime_name]))
    assert runtime.load(path, threads=1)(drawn(0))[0].label == "normal"
    with pytest.raises(UsageError, match=r"threads must be at least 1. Got 0."):
        runtime.load(path, threads=0)
    with pytest.raises(UsageError, match=r"device must be one of .*cpu.*Got 'moon'"):
        runtime.load(path, device="moon")


def test_files_of_others_are_refused(model_file: Path, tmp_path: Path) -> None:
    import onnx

    foreign = onnx.ModelProto()
    foreign.CopyFrom(traced(model_file))
    foreign.ClearField("metadata_props")
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(ArtifactError, match=r"foreign.onnx has no metadata of blemish. Export it with"):
        runtime.load(tmp_path / "foreign.onnx")
    onnx.helper.set_model_props(foreign, {"blemish": "{}"})
    onnx.save(foreign, tmp_path / "empty.onnx")
    with pytest.raises(ArtifactError, match=r"The metadata of .*empty.onnx is damaged: decision: Field required"):
        runtime.load(tmp_path / "empty.onnx")
    text = export_untried(model_file, tmp_path / "m.xml").read_text(encoding="utf-8")
    changed = re.sub(r"blemish-sha256-[0-9a-f]{64}", BLANK, text.replace('name="pixel_sensitivity"', 'name="other"'))
    (tmp_path / "m.xml").write_text(changed, encoding="utf-8")
    write_seal(tmp_path / "m.xml", [tmp_path / "m.bin"])  # by someone who knows how
    with pytest.raises(ArtifactError, match=r"m.xml is not a graph that blemish exported. Export again."):
        runtime.load(tmp_path / "m.xml")
    (tmp_path / "noise.bin").write_bytes(b"no numbers")
    for suffix in EXPORTED.values():
        (tmp_path / f"noise{suffix}").write_bytes(b"no model")
        with pytest.raises(ArtifactError, match=rf"noise{suffix} can't be r.* Export again"):
            runtime.load(tmp_path / f"noise{suffix}")
        with pytest.raises(ArtifactError, match="There is no model file at"):
            runtime.load(tmp_path / f"none{suffix}")


def test_no_bit_of_an_exported_file_can_change(model_file: Path, tmp_path: Path) -> None:
    """In the graph, in its numbers and in what decides; and a pair from two exports is no pair."""
    for name in ("m.onnx", "m.xml"):
        assert_sealed(export_untried(model_file, tmp_path / name))
    other = tmp_path / "other.xml"
    content = content_of(load(model_file))
    exporting.write(traced(model_file), other, {**content, "static": [1, 96, 128]})
    other.with_suffix(".bin").write_bytes(other.with_suffix(".bin").read_bytes() + b"0")
    with pytest.raises(ArtifactError, match=r"other.xml and other.bin don't have the digest"):
        runtime.load(other)


WITHOUT_TORCH = """
import sys
import threading

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "lightning", "timm", "onnx", "openvino"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocked())
from blemish.runtime import load

session = load(sys.argv[1])
results = session(sys.argv[2:])
import itertools
import json
print(json.dumps([[r.label, r.raw_score, [list(region.box) for region in r.regions]] for r in results]))
"""


def test_onnx_runs_without_torch(model_file: Path, tiles: Path) -> None:
    path = export_untried(model_file, model_file.with_suffix(".onnx"))
    images = [str(one) for one in sorted((tiles / "test").rglob("*.png"))[:4]]
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(path), *images], capture_output=True, text=True, check=True
    )
    expected = runtime.load(path)(images)
    assert json.loads(ran.stdout) == [
        [one.label, one.raw_score, [list(region.box) for region in one.regions]] for one in expected
    ]
    with pytest.raises(ImageReadError, match="no such file"):
        runtime.load(path)("none.png")
