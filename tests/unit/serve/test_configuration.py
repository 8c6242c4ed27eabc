"""What a station is told is checked when it is read, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from blemish.catalog import code_of
from blemish.errors import UsageError
from blemish.serve.configuration import read_station, station_settings

GEAR = {"code": "gear", "model": "gear.onnx"}
PIN = {"code": "pin", "model": "pin.onnx"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quee": 3}, "quee: Extra inputs are not permitted"),
        ({"queue": 0}, "queue: Input should be greater than or equal to 1. Got 0"),
        ({"products": [GEAR, GEAR]}, "each product code may be given once. Twice: gear"),
        ({"products": [{**GEAR, "code": "../x"}]}, "products.0.code: String should match"),
        (
            {"products": [GEAR, PIN], "sources": [{"folder": "a"}]},
            "source 'a' needs a product, or, as a folder, a pattern",
        ),
        ({"products": [GEAR], "sources": [{"folder": "a", "product": "pin"}]}, "names the product 'pin', which isn't"),
        ({"products": [GEAR], "sources": [{"folder": "a/x"}, {"folder": "b/x"}]}, "source name may be given once"),
        ({"products": [GEAR], "sources": [{"folder": "a", "pattern": "("}]}, "sources.0.folder.pattern: not a regular"),
        ({"products": [GEAR], "sources": [{"folder": "a", "pattern": "(?P<x>a)"}]}, "needs a group"),
        (
            {"products": [GEAR], "sources": [{"name": "a"}]},
            "sources.0: must have one of the keys folder, camera, video",
        ),
        ({"products": [GEAR], "sources": [{"camera": -1}]}, "sources.0.camera.camera: must be an index from 0 on"),
        ({"products": [GEAR], "sources": [{"camera": "cam"}]}, "or an address such as rtsp://host/stream. Got 'cam'"),
        ({"products": [GEAR], "sources": [{"video": "v.mp4", "step": 0}]}, "sources.0.video.step: Input should be"),
    ],
)
def test_what_is_wrong_is_one_line(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        station_settings(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_paths_of_a_file_start_at_it_and_flags_win(tmp_path: Path) -> None:
    path = tmp_path / "line.yaml"
    path.write_text("port: 1000\nqueue: 5\nproducts: [{code: gear, model: m/gear.onnx}]\nsources: [{folder: in}]\n")
    settings = read_station(path, port=2000, host=None)
    assert (settings.port, settings.queue, settings.host) == (2000, 5, "127.0.0.1")
    assert settings.products[0].model == tmp_path / "m/gear.onnx"
    assert settings.sources[0].folder == tmp_path / "in"
    assert settings.database_url == f"sqlite:///{tmp_path.resolve()}/station/station.sqlite"
    path.write_text("- 1\n")
    with pytest.raises(UsageError, match="must be a mapping"):
        read_station(path)


def test_a_file_name_makes_a_product_code() -> None:
    assert code_of(Path("a b/Zahnrad 7.onnx")) == "Zahnrad-7"
