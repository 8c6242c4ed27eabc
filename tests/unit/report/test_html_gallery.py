"""Which images are shown, what is drawn on them, and that it stays small."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from blemish.data.layouts import Sample
from blemish.post_processing.decision import Decision, Scale
from blemish.report.html_gallery import NO_VERDICTS, SIDE, Speed, choose, from_model, from_predictions
from blemish.report.html_rows import ImageRow
from blemish.runtime.backend import Outputs

CUT = 0.5


def row(score: float, *, truth: bool, verdict: bool | None, path: Path = Path("x.png")) -> ImageRow:
    name = f"test/{'hole' if truth else 'good'}/{score}.png"
    return ImageRow(Sample(path, name, truth, "hole" if truth else "good", None, "test"), score, verdict)


def shown(rows: list[ImageRow], key: str, count: int = 2) -> list[float]:
    return [one.score for one in choose(rows, count)[key][1]]


def test_the_worst_are_chosen() -> None:
    good = [row(score, truth=False, verdict=score >= CUT) for score in (0.1, 0.9, 0.6, 0.7)]
    bad = [row(score, truth=True, verdict=score >= CUT) for score in (0.4, 0.2, 0.3, 0.95, 0.8, 0.5)]
    rows = good + bad
    assert shown(rows, "false_alarms") == [0.9, 0.7]
    assert shown(rows, "misses") == [0.2, 0.3]
    assert shown(rows, "finds") == [0.95, 0.8]
    assert [row.score for row in choose(rows, 4)["near_misses"][1]] == [0.5, 0.8], "half as many"
    assert [total for total, _, _ in choose(rows).values()] == [3, 3, 3, 3]


def test_an_empty_group_says_why() -> None:
    reasons = {key: reason for key, (_, _, reason) in choose([row(0.1, truth=False, verdict=False)]).items()}
    assert reasons["false_alarms"] == "no good image was called anomalous"
    assert reasons["misses"] == reasons["finds"] == "no anomalous test images"
    assert choose([row(0.9, truth=True, verdict=True)])["misses"][2] == "no anomalous image was missed"
    assert choose([row(0.9, truth=True, verdict=True)])["false_alarms"][2] == "no good test images"
    unknown = choose([row(0.9, truth=True, verdict=None)])
    assert {reason for _, _, reason in unknown.values()} == {NO_VERDICTS}


class FakeBackend:
    """Marks the left half of every image."""

    decision = Decision(Scale(CUT, 0.0, 1.0), Scale(0.5, 0.0, 1.0))
    roi = None
    fingerprint = None
    bit_depth = None

    def __init__(self) -> None:
        self.inspected = 0

    def run(self, images: npt.NDArray[Any], decision: Decision) -> Outputs:
        n, height, width = images.shape[:3]
        self.inspected += n
        marked = np.zeros((n, height, width), dtype=bool)
        marked[:, :, : width // 2] = True
        score = np.full(n, 0.9, np.float32)
        return Outputs(score, score, score >= CUT, marked.astype(np.float32), marked)


def decoded(uri: str) -> npt.NDArray[np.uint8]:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


@pytest.fixture
def rows(tmp_path: Path) -> list[ImageRow]:
    made = []
    for i in range(40):
        path = tmp_path / f"{i}.png"
        Image.new("RGB", (1000, 500) if i % 2 else (300, 900), (90, 90, 90)).save(path)
        truth = i >= 20
        name = f"test/{'hole' if truth else 'good'}/{i}.png"
        sample = Sample(path, name, truth, "hole" if truth else "good", None, "test")
        made.append(ImageRow(sample, i / 40, i % 4 != 0, ((0, 0, 50, 50),)))
    return made


def test_pictures_of_a_model_are_few_and_small(rows: list[ImageRow]) -> None:
    backend = FakeBackend()
    gallery = from_model(rows, backend)
    assert backend.inspected == 8 + 5 + 8 + 4 + 1  # the first one twice
    assert [group.total for group in gallery.groups] == [15, 5, 15, 15]
    assert [len(group.shown) for group in gallery.groups] == [8, 5, 8, 4]
    for group in gallery.groups:
        for one in group.shown:
            photo, picture = decoded(one.photo), decoded(one.overlay)
            assert photo.shape == picture.shape
            assert max(photo.shape) == SIDE
            assert abs(photo.astype(int) - 90).max() < 6
            half = photo.shape[1] // 2
            assert (picture[:, : half - 4, 0].astype(int) > 100).all()  # hot
            assert abs(picture[:, half + 8 :].astype(int) - 90).max() < 9  # untouched
            cold = decoded(one.heatmap)[:, half + 8 :].astype(int)
            assert (cold[..., 2] > cold[..., 0]).all(), "below the threshold is blue"
    assert gallery.speed.images == 25
    assert gallery.speed.median is not None
    assert gallery.speed.reading is not None


def test_a_file_that_is_gone_is_said_to_be(rows: list[ImageRow]) -> None:
    rows[39].sample.path.unlink()
    gallery = from_model(rows, FakeBackend())
    first = gallery.groups[2].shown[0]
    assert (first.photo, first.problem) == ("", "no such file")
    assert from_predictions(rows, []).groups[2].shown[0].problem == "no such file"


def test_without_a_calibrated_model_there_are_reasons(rows: list[ImageRow]) -> None:
    unknown = [ImageRow(one.sample, one.score, None) for one in rows]
    gallery = from_model(unknown, None)
    assert [(group.total, group.shown, group.reason) for group in gallery.groups] == [(0, [], NO_VERDICTS)] * 4
    assert (gallery.speed.median, gallery.speed.how) == (None, NO_VERDICTS)


def test_predictions_are_drawn_as_boxes(rows: list[ImageRow]) -> None:
    gallery = from_predictions(rows, [0.1, 0.3, 0.2])
    picture = decoded(gallery.groups[0].shown[0].overlay).astype(int)
    magenta = (picture[..., 0] > 150) & (picture[..., 1] < 110)
    assert magenta.any()
    ys, xs = np.nonzero(magenta)
    assert max(ys.max(), xs.max()) < 60
    assert gallery.speed.median == 0.2
    assert gallery.speed.reading is None


def test_masks_are_outlined(tmp_path: Path) -> None:
    Image.new("RGB", (100, 80), (90, 90, 90)).save(tmp_path / "a.png")
    mask = Image.new("L", (100, 80))
    mask.paste(255, (60, 20, 90, 60))
    mask.save(tmp_path / "m.png")
    sample = Sample(tmp_path / "a.png", "test/hole/a.png", True, "hole", tmp_path / "m.png", "test")
    picture = decoded(from_predictions([ImageRow(sample, 1.0, True)], []).groups[2].shown[0].overlay).astype(int)
    cyan = (picture[..., 2] > 150) & (picture[..., 0] < 90)
    ys, xs = np.nonzero(cyan)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == pytest.approx((20, 59, 60, 89), abs=1)


def test_speed_is_of_quantiles() -> None:
    speed = Speed.of([0.1] * 19 + [1.0], [], "so")
    assert speed.median == 0.1
    assert speed.slow == pytest.approx(np.quantile([0.1] * 19 + [1.0], 0.95))
    assert Speed.of([], [], "so").median is None
