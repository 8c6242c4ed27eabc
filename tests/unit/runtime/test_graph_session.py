"""What an exported graph says about itself, damaged by someone who writes the digest anew."""

from __future__ import annotations

import json
from typing import Any

import pytest

from blemish.errors import ArtifactError
from blemish.runtime.backend import RAW
from blemish.runtime.graph_session import GraphBackend, parse_metadata

_DECISION = {
    f"{name}_{key}": value
    for name in ("image", "pixel")
    for key, value in {"threshold": 1.0, "min": 0.0, "max": 2.0, "sensitivity": 0.5}.items()
}
_CALIBRATION = {
    "policy": "highest normal score",
    "pixel_policy": "highest normal score",
    "source": "cross",
    "normal": 2,
    "anomalous": 0,
    "certified_false_alarm_rate": None,
    "f1": None,
    "scores": [0.5, 1.0],
    "names": ["a.png", "b.png"],
}
_COLOR = {"tilt": 0.1, "tilt_deviation": 0.01, "saturation": 0.2}


def content(**changed: Any) -> dict[str, Any]:
    manifest = {"arguments": {}, "calibration": _CALIBRATION, "data": {"bit_depth": 12, "color": _COLOR}}
    return {"manifest": manifest, "decision": _DECISION, "static": [1, 24, 36], **changed}


def test_what_an_exporter_wrote_is_read() -> None:
    backend = GraphBackend(parse_metadata(json.dumps(content()), "m.onnx", "0"), "0", RAW)
    assert (backend.bit_depth, backend.roi, backend.decision.image.effective_threshold) == (12, None, 1.0)
    assert backend.color is not None
    assert backend.color.tilt == 0.1
    assert backend.decision.record is not None
    assert backend.decision.record.scores == (0.5, 1.0)


@pytest.mark.parametrize(
    ("damaged", "reason"),
    [
        ([], "all of it: "),
        (content(manifest=[]), "manifest: "),
        (content(manifest={"arguments": 1}), "manifest.arguments: "),
        (content(manifest={"data": "x"}), "manifest.data: "),
        (content(manifest={"data": {"bit_depth": "12"}}), "manifest.data.bit_depth: "),
        (content(manifest={"data": {"color": {**_COLOR, "tilt": "red"}}}), "manifest.data.color.tilt: "),
        (content(manifest={"data": {"color": {"tilt": 0.1}}}), "manifest.data.color.tilt_deviation: "),
        (content(manifest={"calibration": {**_CALIBRATION, "scores": ["a"]}}), "manifest.calibration.scores.0: "),
        (content(manifest={"calibration": {**_CALIBRATION, "names": ["a.png"]}}), "Every score needs a name"),
        (content(decision=None), "decision: "),
        (content(decision={}), "image_threshold"),
        (content(decision={**_DECISION, "image_threshold": 10**400}), "threshold must be a finite"),
        (content(decision={**_DECISION, "image_threshold": 1e39}), "threshold must be a finite"),
        (content(decision={**_DECISION, "image_threshold": "1"}), "threshold must be a number"),
        (content(decision={**_DECISION, "pixel_sensitivity": True}), "sensitivity must be a number"),
        (content(static=[0, 24, 36]), "static.0: "),
        (content(static=[True, 24, 36]), "static.0: "),
        (content(static=[24, 36]), "static"),
    ],
)
def test_what_none_wrote_is_refused(damaged: Any, reason: str) -> None:
    with pytest.raises(ArtifactError, match=rf"The metadata of m.onnx is damaged: .*({reason})"):
        parse_metadata(json.dumps(damaged), "m.onnx", "0")
