"""What a result shows and gives away."""

from __future__ import annotations

import html
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from blemish.errors import ImageReadError, UsageError
from blemish.functional.regions import find_regions
from blemish.post_processing.decision import CalibrationRecord, Decision, Scale
from blemish.runtime.result import PICTURES, Failure, Maps, Result, to_dataframe

RECORD = CalibrationRecord(
    "highest normal score", "highest normal score", "held_out", 3, 0, 0.25, None, scores=(1, 2, 4)
)
DECISION = Decision(Scale(4.0, 1.0, 4.0), Scale(8.0, 4.0, 8.0), RECORD)


def result(marked: bool = True, **changes: Any) -> Result:
    values = np.zeros((120, 160), np.float32)
    values[20:40, 30:60] = 0.9 if marked else 0.4
    values[25, 35] = 0.95 if marked else 0.45
    values[80:90, 100:110] = 0.7 if marked else 0.0
    mask = values >= 0.5
    given: dict[str, Any] = {
        "path": "a<b>.png",
        "label": "anomalous",
        "raw_score": 5.0,
        "score": 0.8,
        "threshold": 4.0,
        "size": (120, 160),
        "maps": Maps(values, mask, tuple(find_regions(mask, values))),
        "seconds": {"read": 0.1, "inspect": 0.2},
        "image": np.full((120, 160, 3), 90, np.uint8),
        "decision": DECISION,
    }
    return Result(**given | changes)


def test_every_picture_is_drawn_and_saved(tmp_path: Path) -> None:
    for kind in PICTURES:
        path = result().save(tmp_path / kind / "a.png", kind)
        with Image.open(path) as picture:
            assert picture.size[0] >= 160
    assert result().overlay(caption=False).shape == result().heatmap(caption=False).shape == (120, 160, 3)
    with pytest.raises(UsageError, match=r"A picture is one of overlay, heatmap, panel, mask, map. Got 'heat'."):
        result().save(tmp_path / "b.png", "heat")
    with pytest.raises(UsageError, match=r"A picture is written as .png. Got 'a.jpg'."):
        result().save("a.jpg")
    with pytest.raises(UsageError, match="This result doesn't hold its image"):
        result(image=None).overlay()


def test_the_scale_has_raw_numbers() -> None:
    """Thresholds 8 and 4, ranges 4 to 8: the ends are 6 and 10. The median good score, 2, would be a peak of 4."""
    assert result()._ticks() == [(0.5, "threshold 8"), (0.0, "6"), (1.0, "10")]
    closer = Decision(DECISION.image, DECISION.pixel, CalibrationRecord(**{**vars(RECORD), "scores": (1, 3.5, 4)}))
    assert result(decision=closer)._ticks()[-1] == (0.25, "good ~7")


def test_words() -> None:
    assert repr(result()) == "<Result 'a<b>.png' 120 x 160: anomalous, score 5 (threshold 4), 2 regions>"
    assert result().note == ""
    assert result(marked=False).note == "anomalous, nothing above the pixel threshold"
    page = result()._repr_html_()
    assert "a&lt;b&gt;.png" in page
    assert "data:image/png;base64," in page
    assert "a<b>" not in result(image=None)._repr_html_()


def test_a_verdict_alone_has_nothing_to_show() -> None:
    alone = result(maps=None)
    assert repr(alone) == "<Result 'a<b>.png' 120 x 160: anomalous, score 5 (threshold 4)>"
    assert (alone.note, alone._repr_html_()) == ("", f"<code>{html.escape(repr(alone))}</code>")
    assert alone.to_dict() == {**result().to_dict(), "regions": None}
    for what in (*PICTURES, "anomaly_map", "regions"):
        with pytest.raises(UsageError, match="This is a verdict alone"):
            alone.picture(what) if what in PICTURES else getattr(alone, what)


def test_plain_values() -> None:
    content = json.loads(json.dumps(result(threshold=-np.inf).to_dict(mm_per_pixel=0.5), allow_nan=False))
    assert content["threshold"] < -3e38
    assert (content["height"], content["width"], content["label"]) == (120, 160, "anomalous")
    assert [region["area_mm2"] for region in content["regions"]] == [150.0, 25.0]


def test_a_table() -> None:
    failure = Failure("broken.png", "is empty", ImageReadError("broken.png", "is empty"))
    table = to_dataframe([result(), failure])
    assert table["path"].tolist() == ["a<b>.png", "broken.png"]
    assert table["raw_score"].isna().tolist() == [False, True]
    assert table["error"].tolist()[1] == "is empty"


@pytest.mark.skipif(importlib.util.find_spec("supervision") is None, reason="supervision isn't installed")
def test_detections() -> None:
    found = result().to_detections()
    assert found.xyxy.tolist() == [[30, 20, 60, 40], [100, 80, 110, 90]]
    assert found.mask.sum(axis=(1, 2)).tolist() == [600, 100]
    assert len(result(marked=False).to_detections()) == 0
