"""`blemish serve` as people run it: its own process, which is stopped, and killed."""

from __future__ import annotations

import random
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from blemish.cli import main
from blemish.serve.database import open_database
from blemish.serve.tables import accepted, verdicts
from processes import COMMAND, Script
from stations import Process, drop, until


def test_kill_9_under_load_loses_no_part_and_judges_none_twice(small_model: Path, tmp_path: Path, good: bytes) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    values: dict[str, Any] = {
        "products": [{"code": "tile", "model": str(small_model)}],
        "sources": [{"folder": str(inbox), "settle": 0.1}],
    }
    rng, dropped, answered = random.Random(0), 0, {}
    for round_ in range(2):
        with Process(tmp_path, **values) as station:
            ended = threading.Event()
            address = str(station.client.base_url)

            def upload(worker: int, address: str = address, round_: int = round_, ended: Any = ended) -> dict[str, str]:
                found, number = {}, 0
                with httpx.Client(base_url=address, timeout=30) as client:
                    while not ended.is_set():
                        number += 1
                        key = f"{round_}-{worker}-{number}"
                        try:
                            answer = client.post(
                                "/api/v1/inspect", params={"part": key}, content=good, headers={"Idempotency-Key": key}
                            )
                        except httpx.TransportError:
                            break
                        if answer.status_code == 200:
                            found[key] = answer.json()["uid"]
                return found

            with ThreadPoolExecutor(4) as pool:
                uploads = [pool.submit(upload, worker) for worker in range(4)]
                for _ in range(20):
                    drop(inbox, f"{dropped:04d}.png", good)
                    dropped += 1
                until(lambda: station.client.get("/api/v1/verdicts", params={"limit": 1}).json()["verdicts"])
                threading.Event().wait(rng.uniform(0.2, 0.8))
                station.kill()
                ended.set()
                for one in uploads:
                    answered.update(one.result())
    with Process(tmp_path, **values) as station:
        engine = open_database(f"sqlite:///{tmp_path}/station/station.sqlite")

        def waiting() -> int:
            with engine.connect() as connection:
                return connection.scalar(select(func.count()).select_from(accepted)) or 0

        def count(*conditions: Any) -> int:
            with engine.connect() as connection:
                return connection.scalar(select(func.count()).select_from(verdicts).where(*conditions)) or 0

        until(lambda: count(verdicts.c.source == "inbox") == dropped)
        until(lambda: waiting() == 0)  # the parts that the last run left, from wherever they came
        with engine.connect() as connection:
            uid_of = dict(
                connection.execute(select(verdicts.c.part, verdicts.c.uid).where(verdicts.c.source == "http")).all()
            )
            parts = connection.scalars(select(verdicts.c.part)).all()
        engine.dispose()
        assert len(parts) == len(set(parts))
        assert answered
        assert answered.items() <= uid_of.items()  # what a client was told is in the history, under the same uid
        key = next(iter(answered))
        again = station.client.post(
            "/api/v1/inspect", params={"part": key}, content=good, headers={"Idempotency-Key": key}
        ).json()
        assert again["uid"] == answered[key]
        assert station.stop() == 0


def test_a_stop_finishes_what_was_accepted(small_model: Path, tmp_path: Path, good: bytes) -> None:
    inbox = tmp_path / "in"
    inbox.mkdir()
    for number in range(30):
        drop(inbox, f"{number}.png", good)
    arguments = (str(small_model), "--watch", str(inbox), "--port", "0", "--data", "d")
    with Process(tmp_path, *arguments) as station:
        until(lambda: station.client.get("/api/v1/verdicts", params={"limit": 1}).json()["verdicts"])
        assert station.stop() == 0
    engine = open_database(f"sqlite:///{tmp_path}/d/station.sqlite")
    with engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(accepted)) == 0
        assert connection.scalar(select(func.count()).select_from(verdicts)) or 0 > 0
    engine.dispose()
    assert '"message": "the station has stopped"' in station.log.read_text()


def test_what_would_not_work_ends_with_one_line(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that have opened a port as processes, the others in this one."""
    taken = socket.create_server(("127.0.0.1", 0))
    port = str(taken.getsockname()[1])
    table = [
        ((str(small_model), "--port", port), f"can't listen on 127.0.0.1:{port}: Address already in use"),
        (
            (str(small_model), "--host", "0.0.0.0", "--port", "0"),
            "reached from other machines, and nobody has an account",
        ),
        ((), "Give a model file, or --config, or --demo"),
        (("--demo", "--watch", "x"), "--watch goes with a model file"),
    ]
    ended: list[tuple[object, str]] = []
    for arguments, _ in table[:2]:
        with Script(COMMAND, "serve", *arguments, folder=tmp_path) as process:
            ended.append(process.wait(60))
    monkeypatch.chdir(tmp_path)
    for arguments, _ in table[2:]:
        monkeypatch.setattr(sys, "argv", ["blemish", "serve", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        ended.append((end.value.code, capsys.readouterr().err))
    for (_, message), (code, errors) in zip(table, ended, strict=True):
        assert code == 2
        assert message in errors
        assert errors.count("\n") == 1
    taken.close()


@pytest.mark.slow
def test_the_demo_moves(tmp_path: Path) -> None:
    with Process(tmp_path, "--demo", "--port", "0") as station:
        until(lambda: len(station.client.get("/api/v1/verdicts").json()["verdicts"]) >= 2, 60)
        assert station.stop() == 0
    assert (tmp_path / "station/demo/tile.safetensors").is_file()
