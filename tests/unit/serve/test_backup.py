"""A copy of a running station is a station."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from blemish.cli import app
from blemish.errors import UsageError
from blemish.serve.backup import Copied, back_up
from stations import running, until


def test_a_station_starts_on_the_copy_of_a_running_one(small_model: Path, tmp_path: Path, bad: bytes) -> None:
    products = [{"code": "tile", "model": small_model}]
    copy = tmp_path / "copy"
    with running(data=tmp_path / "a", products=products) as (station, client):
        first = client.post("/api/v1/inspect", content=bad).json()
        until(lambda: station.pictures.anomaly_map(station.history.get(first["uid"]) or {}) is not None)
        assert back_up(tmp_path / "a", copy) == Copied(verdicts=1, pictures=2)
        second = client.post("/api/v1/inspect", content=bad).json()
        until(lambda: station.pictures.anomaly_map(station.history.get(second["uid"]) or {}) is not None)
        answer = CliRunner().invoke(app, ["serve", "backup", str(copy), "--data", str(tmp_path / "a")])
        assert answer.stdout.endswith("copy: 2 verdicts, 2 new pictures\n"), answer.output
        again = CliRunner().invoke(app, ["serve", "backup", str(copy), "--data", str(tmp_path / "a"), "--json"])
        assert json.loads(again.stdout) == {"target": str(copy), "verdicts": 2, "pictures": 0}
        picture = client.get(f"/api/v1/verdicts/{second['uid']}/overlay").content
    for path in (tmp_path / "a").rglob("*.png"):
        path.unlink()
    with running(data=copy, products=products) as (_, client):
        assert client.get("/api/v1/verdicts").json()["verdicts"] == [second, first]
        assert client.get(f"/api/v1/verdicts/{second['uid']}/overlay").content == picture


def test_what_is_no_station_is_not_copied(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"There is no station.sqlite in .*pg_dump"):
        back_up(tmp_path, tmp_path / "copy")
    sqlite3.connect(tmp_path / "station.sqlite").close()
    (tmp_path / "station.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(UsageError, match="would be inside the station's own folder"):
        back_up(tmp_path, tmp_path / "copy")
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    with pytest.raises(UsageError, match="can't be copied: file is not a database"):
        back_up(tmp_path, copy)
    assert not (copy / "station.sqlite").exists()
