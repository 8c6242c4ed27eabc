"""Cameras and videos as sources, over a real stream and a real file."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from blemish.errors import DataError, UsageError
from blemish.runtime import load
from blemish.serve.configuration import station_settings
from blemish.serve.station import Station
from blemish.serve.tables import verdicts
from receivers import Wire, free_port, network_camera
from stations import running, until


def jpeg_of(picture: bytes) -> bytes:
    content = io.BytesIO()
    Image.open(io.BytesIO(picture)).convert("RGB").save(content, "JPEG", quality=95)
    return content.getvalue()


def count(station: Station) -> int:
    with station.engine.connect() as connection:
        return connection.scalar(select(func.count()).select_from(verdicts)) or 0


def test_a_camera_of_the_network_that_goes_and_comes(small_model: Path, tmp_path: Path, good: bytes) -> None:
    with network_camera(jpeg_of(good)) as port:
        wire = Wire(port)
        values: dict[str, Any] = {
            "products": [{"code": "tile", "model": small_model}],
            "sources": [{"camera": f"http://user:word@127.0.0.1:{wire.port}/stream", "name": "line 3", "every": 0.3}],
        }
        with running(data=tmp_path, **values) as (station, client):
            until(lambda: count(station) >= 3)
            [newest] = client.get("/api/v1/verdicts", params={"limit": 1}).json()["verdicts"]
            assert newest["source"] == "line 3"
            assert newest["label"] != "failed"
            assert client.get("/api/v1/sources").json() == [
                {"name": "line 3", "address": "127.0.0.1-stream", "trouble": None}
            ]
            picture = client.get("/api/v1/sources/line 3/picture")
            assert picture.headers["content-type"] == "image/jpeg"
            assert Image.open(io.BytesIO(picture.content)).size == Image.open(io.BytesIO(good)).size
            assert client.get("/api/v1/sources/other/picture").status_code == 404
            wire.cut()
            until(
                lambda: client.get("/readyz").json()["troubles"] == ["source line 3: 127.0.0.1-stream can't be opened."]
            )
            wire.mend()
            before = count(station)
            until(lambda: count(station) > before)
            until(lambda: not station.troubles)
        wire.cut()


def test_a_camera_with_a_trigger_inspects_when_it_is_asked(small_model: Path, tmp_path: Path, good: bytes) -> None:
    with network_camera(jpeg_of(good)) as port:
        wire = Wire(port)
        address = f"http://127.0.0.1:{wire.port}/stream"
        values: dict[str, Any] = {
            "products": [{"code": "tile", "model": small_model}],
            "sources": [{"camera": address, "name": "asked", "trigger": True}, {"camera": address, "every": 3600}],
        }
        with running(data=tmp_path, **values) as (station, client):
            until(lambda: count(station) == 1)  # of the one that inspects by itself
            for part in ("a", "b"):
                verdict = client.post("/api/v1/sources/asked/trigger", params={"part": part}).json()
                assert (verdict["source"], verdict["part"], verdict["product"]) == ("asked", part, "tile")
                assert client.get(f"/api/v1/verdicts/{verdict['uid']}").json() == verdict
            assert count(station) == 3
            assert client.post("/api/v1/sources/other/trigger").status_code == 404
            refused = client.post("/api/v1/sources/127.0.0.1-stream/trigger")
            assert (refused.status_code, "Give it trigger: true" in refused.json()["detail"]) == (400, True)
        wire.cut()


def test_every_frame_of_a_video_once_also_after_a_restart(
    small_model: Path, tmp_path: Path, ranked: list[Path]
) -> None:
    images = [np.asarray(Image.open(path).convert("RGB")) for path in (*ranked[:3], *ranked[-3:])]
    height, width = images[0].shape[:2]
    writer = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"png "), 10, (width, height))
    for image in images:
        writer.write(image[..., ::-1])
    writer.release()
    values: dict[str, Any] = {
        "products": [{"code": "tile", "model": small_model}],
        "sources": [{"video": str(tmp_path / "clip.avi"), "step": 2}],
        "queue": 1,
    }
    for _ in range(2):
        with running(data=tmp_path / "s", **values) as (station, client):
            until(lambda: station.sources[0].finished)  # type: ignore[union-attr]
            until(lambda: count(station) == 3)
            found = client.get("/api/v1/verdicts").json()["verdicts"][::-1]
    assert [verdict["part"] for verdict in found] == ["0", "2", "4"]
    assert [verdict["raw_score"] for verdict in found] == [
        result.raw_score for image in images[::2] for result in load(small_model)(image)
    ]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            {"camera": "http://127.0.0.1:{port}/x", "patience": 0.4},
            UsageError,
            "The camera '127.0.0.1-x' can't be used: 127.0",
        ),
        ({"video": "gone.mp4"}, DataError, "gone.mp4: no such video"),
    ],
)
def test_what_gives_no_picture_is_an_error_at_the_start(
    source: dict[str, Any], error: type[Exception], message: str, small_model: Path, tmp_path: Path
) -> None:
    places = {
        name: value.format(port=free_port()) if isinstance(value, str) else value for name, value in source.items()
    }
    settings = station_settings({"products": [{"code": "tile", "model": small_model}], "sources": [places]}, tmp_path)
    with pytest.raises(error, match=message):
        Station(settings.model_copy(update={"data": tmp_path / "s"}))
