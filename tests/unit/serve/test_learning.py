"""Learning from reviewed pictures: a real fit in its own process, the shadow, promotion and the way back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import insert, select

from blemish.artifact import load
from blemish.data.datamodule import ImageDataModule
from blemish.errors import UsageError
from blemish.runtime import load as open_session
from blemish.serve import audit
from blemish.serve.accounts import Person
from blemish.serve.backup import back_up
from blemish.serve.configuration import station_settings
from blemish.serve.learning_process import learn
from blemish.serve.reviewed import Reviewed, folder_of, is_held_out, write_data_set
from blemish.serve.station import Station
from blemish.serve.tables import candidates, shadow_verdicts
from stations import Process, running, until

ADMIN = Person("root", "admin")


@pytest.fixture(scope="module")
def line(
    small_model: Path, ranked: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Station, httpx.Client, dict[str, Path]]]:
    """A station with an engineer, whose people have judged every part; and which picture each part is."""
    folder = tmp_path_factory.mktemp("station")
    sinks = [{"csv": folder / "verdicts.csv"}]
    products = [{"code": code, "model": small_model} for code in ("tile", "other")]
    pictures = {"keep_normal": 1}
    with running(data=folder / "data", products=products, pictures=pictures, sinks=sinks) as (
        station,
        client,
    ):
        station.accounts.add_user(ADMIN, "root", "correct horse battery", "admin")
        client.headers["Authorization"] = f"Bearer {station.accounts.add_token(ADMIN, 'ada', 'engineer', 1)}"
        parts = {}
        for path in ranked * 2:  # good ones twice, so that there are enough of both kinds
            verdict = client.post("/api/v1/inspect", params={"product": "tile"}, content=path.read_bytes()).json()
            parts[verdict["uid"]] = path
            good = path.parent.name == "good"
            said = {True: "right", False: "false alarm" if good else "missed"}[(verdict["label"] == "normal") == good]
            body = {"judgement": said, "kind": "" if good else path.parent.name}
            assert client.post(f"/api/v1/verdicts/{verdict['uid']}/feedback", json=body).status_code == 201
        yield station, client, parts


def overview(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/v1/products/tile/learning").json()
    return found


def made(client: httpx.Client, how: str) -> dict[str, Any]:
    """The candidate of a job."""
    answer = client.post("/api/v1/products/tile/learning", json={"how": how})
    assert answer.status_code == 202, answer.text
    until(lambda: overview(client)["job"] is None, 120)
    newest: dict[str, Any] = overview(client)["candidates"][0]
    assert newest["id"] == answer.json()["candidate"]
    return newest


def test_reviewed_pictures_become_a_data_set(line: Any) -> None:
    _, client, parts = line
    good = {uid for uid, path in parts.items() if path.parent.name == "good"}
    counts = overview(client)["reviewed"]
    assert counts["good"] + counts["held_out"] == len(good)
    assert counts["held_out"] == sum(is_held_out(uid) for uid in good)
    assert sum(counts["defective"].values()) == len(parts) - len(good)
    assert set(counts["defective"]) == {path.parent.name for path in parts.values()} - {"good"}
    assert counts["gone"] == 0


@pytest.mark.parametrize(
    ("kind", "folder"),
    [("scratch", "scratch"), ("good", "defect-good"), ("OK", "defect-OK"), ("", "defect"), ("../../x y", "x-y")],
)
def test_a_kind_of_defect_is_a_folder_of_defective_parts(kind: str, folder: str) -> None:
    assert folder_of(kind) == folder


def test_a_candidate_is_made_judges_in_the_shadow_is_promoted_and_taken_back(line: Any, good: bytes) -> None:
    station, client, parts = line
    before = overview(client)
    assert before["promoted"] is None
    row = {"product": "tile", "how": "fit", "who": "ada", "state": "ready", "report": "{}", "time": 0}
    station.writer.run(lambda connection: connection.execute(insert(candidates).values(**row)))
    candidate = made(client, "fit")
    assert (candidate["state"], candidate["error"]) == ("ready", None)
    assert overview(client)["candidates"][1]["state"] == "discarded"  # the newest is the one in the shadow
    report = candidate["report"]
    assert report["model"] == candidate["model"] != before["model"]
    assert report["good"] == before["reviewed"]["held_out"]
    assert report["defective"] == sum(before["reviewed"]["defective"].values())
    folder = station.settings.data / "learning" / str(candidate["id"])
    index = ImageDataModule(folder / "data").index
    assert index.layout == "mvtec"
    learned = {sample.path.stem for sample in index.samples if sample.subset == "train"}
    assert learned == {uid for uid, path in parts.items() if path.parent.name == "good" and not is_held_out(uid)}
    # every count is what the two models say of the test set
    for name, session in (("current", station.models.session("tile")), ("candidate", opened(folder))):
        tested = [sample for sample in index.samples if sample.subset == "test"]
        labels = {sample.path.stem: session(sample.path)[0].label for sample in tested}
        defective = {sample.path.stem for sample in index.samples if sample.label}
        alarms = sum(label != "normal" for uid, label in labels.items() if uid not in defective)
        misses = sum(labels[uid] == "normal" for uid in defective)
        assert report[name] == {"false_alarms": alarms, "misses": misses}

    # in the shadow: beside the verdict, and nobody else hears of it
    verdict = client.post("/api/v1/inspect", params={"product": "tile"}, content=good).json()
    assert verdict["model"] == before["model"]
    until(lambda: overview(client)["candidates"][0]["shadow"]["parts"] == 1, 60)
    with station.engine.connect() as connection:
        row = connection.execute(select(shadow_verdicts)).mappings().one()
    expected = opened(folder)(parts_picture(station, verdict))[0]
    assert (row["uid"], row["label"], row["raw_score"]) == (verdict["uid"], expected.label, expected.raw_score)
    assert client.get(f"/api/v1/verdicts/{verdict['uid']}").json() == verdict
    [sink] = client.get("/api/v1/sinks").json()
    until(lambda: client.get("/api/v1/sinks").json()[0]["waiting"] == 0)
    assert candidate["model"] not in Path(sink["address"]).read_text()

    # promoted by who has seen what it replaces, and not twice
    number = candidate["id"]
    wrong = client.post(f"/api/v1/candidates/{number}/promote", json={"seen": "f" * 64})
    assert wrong.status_code == 409
    assert wrong.json()["detail"] == f"Product 'tile' is judged by model {before['model'][:16]} by now. Look again."
    seen = {"seen": before["model"]}
    assert client.post(f"/api/v1/candidates/{number}/promote", json=seen).status_code == 200
    again = client.post(f"/api/v1/candidates/{number}/promote", json=seen)
    assert (again.status_code, again.json()["detail"]) == (409, f"Candidate {number} is promoted. Look again.")
    after = client.post("/api/v1/inspect", params={"product": "tile"}, content=good).json()
    assert after["model"] == candidate["model"]
    assert client.post("/api/v1/inspect", params={"product": "other"}, content=good).json()["model"] == before["model"]
    copy = station.settings.data.parent / "copy"
    back_up(station.settings.data, copy)

    # taken back
    assert overview(client)["promoted"] == number
    assert client.post("/api/v1/products/tile/rollback", json={"seen": candidate["model"]}).status_code == 200
    assert client.post("/api/v1/inspect", params={"product": "tile"}, content=good).json()["model"] == before["model"]
    refused = client.post("/api/v1/products/tile/rollback", json=seen)
    assert refused.json()["detail"] == "Product 'tile' has its configured model. There is no way back."
    events = [(entry["who"], entry["action"]) for entry in audit.entries(station.engine)]
    assert [event for event in events if event[1] in ("learn", "change model")] == [
        ("token ada", "learn"),
        ("token ada", "change model"),
        ("token ada", "change model"),
    ]

    # a station on the copy, and one whose configuration names another file
    configured = station.settings.products[0].model
    for model, wanted in ((configured, candidate["model"]), (folder / "model.safetensors", None)):
        products = [{"code": "tile", "model": model}]
        other = Station(station_settings({"data": copy, "products": products}))
        fingerprint = other.models.session("tile").fingerprint
        assert fingerprint == (wanted or candidate["model"])
        assert other.promotions.candidate("tile") == (number if wanted else None)
        other.writer.close()
        other.close()


def opened(folder: Path) -> Any:
    return open_session(folder / "model.safetensors")


def parts_picture(station: Station, verdict: dict[str, Any]) -> Path:
    found = station.pictures.find(station.history.get(verdict["uid"]) or {})
    assert found is not None
    return found


def test_an_update_adds_to_the_model(line: Any, small_model: Path, tmp_path: Path) -> None:
    station, _, parts = line
    learned = write_data_set(station.learning.reviewed("tile"), tmp_path / "data", None)
    seen: list[str] = []
    task = {"how": "update", "current": str(small_model), "threshold": 1e9}
    task |= {"data": str(tmp_path / "data"), "output": str(tmp_path / "model.safetensors")}
    report = learn(task, lambda phase, *_: seen.append(phase))
    before, after = load(small_model), load(tmp_path / "model.safetensors")
    assert before.data_record is not None
    assert after.data_record is not None
    assert after.data_record.seen() > before.data_record.seen()
    assert {"features", "calibration", "comparison"} <= set(seen)
    held_out = sum(is_held_out(uid) for uid, path in parts.items() if path.parent.name == "good")
    assert report["current"] == {"false_alarms": 0, "misses": report["defective"]}  # at such a threshold
    assert (report["good"], learned) == (held_out, len(seen_good(parts)) - held_out)


def seen_good(parts: dict[str, Path]) -> list[str]:
    return [uid for uid, path in parts.items() if path.parent.name == "good"]


def test_pictures_of_the_first_fit_are_learned_from_as_well(tiles: Path, tmp_path: Path) -> None:
    found = Reviewed(good={"a": next(tiles.glob("test/good/*"))})
    with pytest.raises(UsageError, match="There are 1 good pictures to learn from, and at least 2 are needed"):
        write_data_set(found, tmp_path / "alone", None)
    assert write_data_set(found, tmp_path / "both", tiles) == 1 + len(list(tiles.glob("train/good/*")))


def test_one_job_at_a_time_and_what_cannot_be_learned_says_why(line: Any) -> None:
    station, client, _ = line
    refused = client.post("/api/v1/products/other/learning", json={"how": "update"})
    assert refused.status_code == 400
    assert refused.json()["detail"].startswith("There are 0 good pictures to learn from, and at least 2 are needed")
    number = client.post("/api/v1/products/tile/learning", json={"how": "fit"}).json()["candidate"]
    busy = client.post("/api/v1/products/tile/learning", json={"how": "fit"})
    assert (busy.status_code, busy.json()["detail"]) == (
        409,
        f"Candidate {number} is being made. One job runs at a time.",
    )
    assert client.delete(f"/api/v1/candidates/{number}").status_code == 200  # which ends it
    until(lambda: station.learning.job is None)
    assert overview(client)["candidates"][0]["state"] == "discarded"
    again = client.delete(f"/api/v1/candidates/{number}")
    assert again.json()["detail"] == f"There is no candidate {number} that is made or ready."
    assert not (station.settings.data / "learning" / str(number) / "data").exists()


def test_a_job_ends_with_a_killed_station_which_calls_it_interrupted(
    small_model: Path, ranked: list[Path], tmp_path: Path
) -> None:
    values: dict[str, Any] = {"products": [{"code": "tile", "model": str(small_model)}], "pictures": {"keep_normal": 1}}
    with Process(tmp_path, **values) as station:
        for path in ranked[:12]:
            uid = station.client.post("/api/v1/inspect", content=path.read_bytes()).json()["uid"]
            station.client.post(f"/api/v1/verdicts/{uid}/feedback", json={"judgement": "right"})
        link = station.process.stdout.readline().rpartition("key=")[2].strip()
        station.client.post("/setup", data={"key": link, "name": "root", "password": "correct horse battery"})
        station.client.post("/login", data={"name": "root", "password": "correct horse battery"})
        assert station.client.post("/api/v1/products/tile/learning", json={"how": "fit"}).status_code == 202
        child = children(station.process.pid)
        assert len(child) == 1
        station.kill()
    until(lambda: not Path(f"/proc/{child[0]}/cmdline").exists() or not Path(f"/proc/{child[0]}/cmdline").read_bytes())
    with Process(tmp_path, **values) as station:
        with closing(sqlite3.connect(tmp_path / "station/station.sqlite")) as database:
            [(state, error)] = database.execute("SELECT state, error FROM candidates").fetchall()
        assert (state, error) == ("interrupted", "The station ended before the job did. Start it again.")


def children(process: int) -> list[int]:
    found = [path.read_text().split() for path in Path(f"/proc/{process}/task").glob("*/children")]
    return [int(number) for numbers in found for number in numbers]
