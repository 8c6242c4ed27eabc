"""One predictor under every engine: the rows of a session, whoever asks for them."""

from __future__ import annotations

import dataclasses
import io
import json
import multiprocessing
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import blemish
from blemish.errors import ArtifactError, UsageError
from blemish.runtime import load
from blemish.scale.predictor import Predictor, given_threads
from blemish.scale.versions import require_same, versions


@pytest.fixture(scope="module")
def names(pictures: Path) -> list[str]:
    return [str(path) for path in sorted(pictures.rglob("*.png"))]


@pytest.fixture(scope="module")
def predictor(model_file: Path) -> Predictor:
    return blemish.make_predictor(model_file, threads=1)


@pytest.fixture(scope="module")
def expected(predictor: Predictor, names: list[str]) -> dict[str, Any]:
    return predictor({"path": names})


def same(got: Any, expected: Any) -> None:
    for column in ("path", "label", "raw_score", "score", "regions", "height", "error", "model"):
        np.testing.assert_array_equal(np.asarray(got[column]), np.asarray(expected[column]), err_msg=column)


def test_a_batch_of_names_gives_what_the_session_says(
    predictor: Predictor, names: list[str], expected: dict[str, Any], model_file: Path
) -> None:
    session = load(model_file)
    for place, name in enumerate(names):
        if name.endswith("05x.png"):
            assert expected["label"][place] == ""
            assert np.isnan(expected["raw_score"][place])
            assert "not an image" in expected["error"][place] or expected["error"][place]
            continue
        (result,) = session(name)
        assert expected["path"][place] == name
        assert expected["label"][place] == result.label
        assert expected["raw_score"][place] == pytest.approx(result.raw_score, rel=1e-5)
        assert (expected["height"][place], expected["width"][place]) == result.mask.shape
        assert len(json.loads(expected["regions"][place])) == len(result.regions)
        assert expected["error"][place] == ""
    assert set(expected["label"]) == {"normal", "anomalous", ""}


def test_bytes_arrays_and_urls_give_the_same(predictor: Predictor, names: list[str], expected: dict[str, Any]) -> None:
    assert set(expected) == {*expected} >= {"path", "label", "raw_score", "seconds", "model", "regions", "error"}
    content = [Path(name).read_bytes() for name in names]
    same(predictor({"path": names, "bytes": content}), expected)
    good = [name for name in names if not name.endswith("05x.png")]
    arrays = np.empty(len(good), dtype=object)
    arrays[:] = [np.asarray(Image.open(name).convert("RGB")) for name in good]
    kept = {key: values[[name in good for name in names]] for key, values in expected.items()}
    got = predictor({"image": arrays, "path": good, "station": np.arange(len(good))})
    np.testing.assert_allclose(got["raw_score"], kept["raw_score"], rtol=1e-5)
    np.testing.assert_array_equal(got["station"], np.arange(len(good)))
    assert "image" not in got
    urls = predictor({"path": [f"file://{name}" for name in names] + ["file:///no/such.png", "nonsense://a/b.png"]})
    np.testing.assert_array_equal(urls["raw_score"][: len(names)], expected["raw_score"])
    assert list(urls["label"][-2:]) == ["", ""]
    assert "No such file" in urls["error"][-2]
    assert "nonsense" in urls["error"][-1]


def test_inputs_are_never_written_to(predictor: Predictor) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    before = images.copy()
    images.flags.writeable = False  # as Ray's shared memory is
    floats = (before / 255).astype(np.float32)
    floats.flags.writeable = False
    predictor({"image": images})
    predictor({"image": floats})
    np.testing.assert_array_equal(images, before)


def test_maps_come_stacked_where_sizes_agree(model_file: Path, names: list[str]) -> None:
    predictor = blemish.make_predictor(model_file, maps=True)
    alike = predictor({"image": np.zeros((2, 64, 96, 3), dtype=np.uint8)})
    assert alike["anomaly_map"].shape == alike["mask"].shape == (2, 64, 96)
    assert alike["mask"].dtype == np.bool_
    mixed = predictor({"path": names})
    assert {None if one is None else one.shape for one in mixed["mask"]} == {(96, 128), (64, 80), None}


def test_verdicts_alone_have_no_regions(predictor: Predictor, model_file: Path, names: list[str]) -> None:
    alone = blemish.make_predictor(model_file, threads=1, verdict_only=True)({"path": names})
    whole = predictor({"path": names})
    assert set(alone["regions"]) == {""}
    for column in ("label", "raw_score", "score", "threshold", "height", "error"):
        np.testing.assert_array_equal(alone[column], whole[column])


def test_it_is_cheap_to_send_and_opens_the_file_once_per_process(predictor: Predictor, model_file: Path) -> None:
    assert len(pickle.dumps(predictor)) < 1500
    copy = pickle.loads(pickle.dumps(predictor))
    assert copy.session().backend is predictor.session().backend
    shipped = blemish.make_predictor(model_file, ship=True)
    assert len(pickle.dumps(shipped)) > model_file.stat().st_size


def test_a_shipped_model_needs_no_file(model_file: Path, tmp_path: Path, names: list[str]) -> None:
    file = tmp_path / "gone.safetensors"
    shutil.copy(model_file, file)
    shipped, sent = blemish.make_predictor(file, ship=True), blemish.make_predictor(file)
    file.unlink()
    assert shipped({"path": names[:1]})["label"][0] in ("normal", "anomalous")
    with pytest.raises(ArtifactError, match=r"doesn't see the model file .*gone.safetensors.*ship=True.*--ship-model"):
        dataclasses.replace(sent, device="cpu", threads=3)({"path": names[:1]})
    shutil.copy(model_file, file)
    with file.open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ArtifactError, match=r"is another one: its fingerprint is [0-9a-f]{16}, not [0-9a-f]{16}"):
        dataclasses.replace(sent, threads=3)({"path": names[:1]})


def test_what_can_not_be_is_refused_at_once(model_file: Path, predictor: Predictor, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="can't be read: No such file"):
        blemish.make_predictor(tmp_path / "no.safetensors")
    for options, message in (
        ({"threads": 0}, "threads must be at least 1. Got 0"),
        ({"batch_size": 0}, "batch_size must be at least 1. Got 0"),
        ({"maps": True, "verdict_only": True}, "maps and verdict_only exclude each other. Give one of them."),
        ({"frames": "all"}, "frames must be 'refuse' or 'first'. Got 'all'"),
    ):
        with pytest.raises(UsageError, match=message):
            blemish.make_predictor(model_file, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"A batch needs a column image, bytes or path. Got name"):
        predictor({"name": ["a.png"]})
    assert len(predictor({"path": []})["label"]) == 0


def test_other_versions_are_refused_with_both(predictor: Predictor) -> None:
    require_same(versions())
    require_same({"library_that_is_not_here": "1"})
    other = dataclasses.replace(predictor, sent_by={"blemish": "0.0.1"})
    with pytest.raises(UsageError, match=rf"has blemish {blemish.__version__}, and the process .* has blemish 0.0.1"):
        other({"path": []})


def test_threads_follow_what_the_process_was_given(ray: Any) -> None:
    threads = ray.remote(given_threads)
    assert ray.get([threads.options(num_cpus=n).remote() for n in (1, 2)]) == [1, 2]
    code = "from blemish.scale.predictor import given_threads; print(given_threads())"

    def said(**environment: str) -> str:
        path = {"PYTHONPATH": str(Path(blemish.__file__).parents[1])}
        return subprocess.run(
            [sys.executable, "-c", code], env=path | environment, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert said(OMP_NUM_THREADS="3") == "3"
    assert said() == "None"


def halves(names: list[str]) -> list[dict[str, list[str]]]:
    return [{"path": names[:8]}, {"path": names[8:]}]


def joined(batches: Any) -> dict[str, Any]:
    batches = list(batches)
    return {key: np.concatenate([np.asarray(batch[key]) for batch in batches]) for key in batches[0]}


def test_in_a_pool(predictor: Predictor, names: list[str]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        got = joined(pool.map(predictor, halves(names)))
    same(got, joined(map(predictor, halves(names))))


def test_in_a_data_loader(predictor: Predictor, names: list[str]) -> None:
    from torch.utils.data import DataLoader

    loader = DataLoader(halves(names), batch_size=None, num_workers=1, collate_fn=predictor)  # type: ignore[arg-type]
    same(joined(loader), joined(map(predictor, halves(names))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of names that Ray itself uses
def test_in_ray_data(ray: Any, predictor: Predictor, names: list[str]) -> None:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    dataset = ray.data.from_items([{"path": name} for name in names])
    table = dataset.map_batches(predictor, batch_size=8).to_pandas()
    expected = joined(map(predictor, ({"path": names[i : i + 8]} for i in range(0, len(names), 8))))
    same({key: table[key].to_numpy() for key in table}, expected)


def test_encoded_images_never_were_files(predictor: Predictor) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (96, 64)).save(stream, "PNG")
    assert list(predictor({"bytes": [stream.getvalue()]})["path"]) == [""]
