"""Feedback, the review queue, thresholds, exports and retention, on a running station."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from blemish.monitor.appearance import sharpness
from blemish.serve import audit
from blemish.serve.accounts import Person
from blemish.serve.configuration import PictureSettings, station_settings
from blemish.serve.exporting import COLUMNS
from blemish.serve.feedback import reason_to_ask, truly_defective
from blemish.serve.pictures import Pictures
from blemish.serve.retention import Retention
from blemish.serve.showing import explanation_of
from blemish.serve.station import Station
from stations import running, until

PASSWORD = "correct horse battery"


@pytest.fixture(scope="module")
def line(
    small_model: Path, ranked: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Station, httpx.Client, list[dict[str, Any]]]]:
    """A station with an engineer, who has shown it every picture once, and a file that is none."""
    products = [{"code": "tile", "model": small_model}]
    asked: dict[str, Any] = {"review_per_hour": 3, "review_near": 1.0}  # all of these few pictures are that near
    with running(data=tmp_path_factory.mktemp("station"), products=products, pictures={"keep_normal": 1}, **asked) as (
        station,
        client,
    ):
        admin = Person("root", "admin")
        station.accounts.add_user(admin, "root", PASSWORD, "admin")
        client.headers["Authorization"] = f"Bearer {station.accounts.add_token(admin, 'ada', 'engineer', 1)}"
        answers = [client.post("/api/v1/inspect", content=path.read_bytes()).json() for path in ranked]
        answers.append(client.post("/api/v1/inspect", params={"part": "=1+1"}, content=b"no picture").json())
        yield station, client, answers


def label_of(answers: list[dict[str, Any]], label: str) -> dict[str, Any]:
    return next(answer for answer in answers if answer["label"] == label)


def test_feedback_stands_beside_the_verdict_and_the_newest_counts(line: Any) -> None:
    _, client, answers = line
    verdict = label_of(answers, "anomalous")
    address = f"/api/v1/verdicts/{verdict['uid']}"
    for judgement in ("false alarm", "right"):
        body = {"judgement": judgement, "kind": "scratch", "note": "at the edge"}
        assert client.post(f"{address}/feedback", json=body).status_code == 201
    assert client.get(address).json() == verdict
    said = client.get(f"{address}/feedback/all").json()
    assert [(one["judgement"], one["who"]) for one in said] == [("false alarm", "token ada"), ("right", "token ada")]
    for feedback, there in (("right", True), ("false alarm", False), ("none", False)):
        page = client.get("/api/v1/verdicts", params={"feedback": feedback, "limit": 1000}).json()
        assert (verdict["uid"] in {one["uid"] for one in page["verdicts"]}) is there


@pytest.mark.parametrize(
    ("label", "judgement", "message"),
    [
        ("anomalous", "missed", "'missed' can be said of a part called normal. It is anomalous."),
        ("normal", "false alarm", "'false alarm' can be said of a part called anomalous. It is normal."),
        ("failed", "right", "'right' can be said of a part called anomalous or normal. It is failed."),
    ],
)
def test_feedback_must_fit_the_verdict(line: Any, label: str, judgement: str, message: str) -> None:
    _, client, answers = line
    uid = label_of(answers, label)["uid"]
    answer = client.post(f"/api/v1/verdicts/{uid}/feedback", json={"judgement": judgement})
    assert (answer.status_code, answer.json()["detail"]) == (400, message)
    assert client.post("/api/v1/verdicts/none/feedback", json={"judgement": "right"}).status_code == 400


@pytest.mark.parametrize(
    ("label", "judgement", "defective"),
    [
        ("anomalous", "right", True),
        ("anomalous", "false alarm", False),
        ("normal", "right", False),
        ("normal", "missed", True),
    ],
)
def test_what_a_part_is_follows_from_verdict_and_opinion(label: str, judgement: str, defective: bool) -> None:
    assert truly_defective({"label": label}, {"judgement": judgement}) is defective
    assert truly_defective({"label": label}, None) is None


def test_people_are_asked_about_what_is_near_and_about_a_sample() -> None:
    def verdict(score: float, digits: str = "f" * 32, label: str = "normal") -> dict[str, Any]:
        return {"uid": digits, "score": score, "label": label}

    assert reason_to_ask(verdict(0.45), 0.1) == reason_to_ask(verdict(0.58, label="anomalous"), 0.1) == "near"
    assert reason_to_ask(verdict(0.1), 0.1) is None
    assert reason_to_ask(verdict(0.1, "0" * 32), 0.1) == "control"
    assert reason_to_ask({"label": "failed", "score": None, "uid": "0" * 32}, 0.1) is None


def test_pictures_that_people_are_asked_about_stay(tmp_path: Path) -> None:
    pictures = Pictures(tmp_path, PictureSettings(keep_normal=0), 0.1)
    for score, digits, stays in (
        (0.45, "f" * 32, True),
        (0.1, "f" * 32, False),
        (0.1, "f" * 16 + "0" * 8 + "f" * 8, True),
    ):
        assert pictures.keeps({"uid": digits, "score": score, "label": "normal"}) is stays


def test_a_picture_that_a_person_has_judged_stays(small_model: Path, tmp_path: Path, good: bytes) -> None:
    with running(
        data=tmp_path, products=[{"code": "tile", "model": small_model}], pictures={"keep_normal": 0}, review_near=0
    ) as (station, client):

        def passing() -> dict[str, Any]:
            while True:
                uid = client.post("/api/v1/inspect", content=good).json()["uid"]
                verdict = station.history.get(uid) or {}
                if not station.pictures.keeps(verdict):  # one of 50 is drawn for people to look at
                    return verdict

        judged, other = passing(), passing()
        client.post(f"/api/v1/verdicts/{judged['uid']}/feedback", json={"judgement": "right"})
        for _ in range(24):
            passing()
        until(lambda: station.pictures.find(other) is None)
        station.pictures.tidy(station.history)  # as the next start does
        found = station.pictures.find(judged)
        assert found is not None
        assert found.read_bytes() == good
        assert client.get(f"/api/v1/verdicts/{judged['uid']}/picture").status_code == 200
        assert list(station.learning.reviewed("tile").good | station.learning.reviewed("tile").held_out) == [
            judged["uid"]
        ]


def test_the_queue_is_capped_and_empties_with_opinions(line: Any) -> None:
    _, client, answers = line
    assert len(answers) > 4
    until(lambda: len(client.get("/api/v1/review").json()) >= 3)
    asked = client.get("/api/v1/review").json()
    assert len(asked) == 3  # of an hour
    assert {one["why"] for one in asked} <= {"near", "control"}
    client.post(f"/api/v1/verdicts/{asked[0]['uid']}/feedback", json={"judgement": "right"})
    assert [one["uid"] for one in client.get("/api/v1/review").json()] == [one["uid"] for one in asked[1:]]


def test_a_preview_counts_what_a_loop_counts(line: Any) -> None:
    _, client, answers = line
    judged = [answer for answer in answers if answer["label"] != "failed"]
    truth = {judged[-1]["uid"]: "right", judged[-2]["uid"]: "false alarm", judged[0]["uid"]: "right"}
    for uid, judgement in truth.items():
        client.post(f"/api/v1/verdicts/{uid}/feedback", json={"judgement": judgement})
    scores = [answer["raw_score"] for answer in judged]
    to = (scores[-1] + scores[-2]) / 2
    found = client.get("/api/v1/products/tile/threshold", params={"to": to}).json()
    assert found["current"] == judged[0]["threshold"]
    assert found["parts"] == len(judged)
    assert found["anomalous"] == sum(answer["label"] == "anomalous" for answer in judged)
    assert found["anomalous_then"] == 1
    assert (found["judged_defective"] >= 1, found["judged_good"] >= 2) == (True, True)
    assert (found["false_alarms"] >= 1, found["false_alarms_then"]) == (True, 0)
    assert sorted(found["scores"]) == sorted(scores)
    assert len(found["calibration"]) > 0
    assert client.get("/api/v1/products/none/threshold").status_code == 404


def test_a_threshold_moves_by_confirmation_and_outlives_the_process(
    small_model: Path, tmp_path: Path, good: bytes
) -> None:
    values: dict[str, Any] = {"data": tmp_path, "products": [{"code": "tile", "model": small_model}]}
    admin = Person("root", "admin")
    with running(**values) as (station, client):
        before = client.post("/api/v1/inspect", content=good).json()
        assert before["label"] == "normal"
        station.accounts.add_user(admin, "root", PASSWORD, "admin")
        tokens = {role: station.accounts.add_token(admin, role, role, 1) for role in ("operator", "engineer")}
        headers = {role: {"Authorization": f"Bearer {token}"} for role, token in tokens.items()}
        lower = before["raw_score"] / 2
        body = {"threshold": lower, "seen": before["threshold"], "reason": "customer's limit"}
        address = "/api/v1/products/tile/threshold"
        assert client.put(address, json=body, headers=headers["operator"]).status_code == 403
        assert client.put(address, json={**body, "threshold": 1e39}, headers=headers["engineer"]).status_code == 400
        moved = client.put(address, json=body, headers=headers["engineer"]).json()["threshold"]
        assert moved == float(np.float32(lower))
        again = client.put(address, json=body, headers=headers["engineer"])
        assert again.status_code == 409
        assert "Look again" in again.json()["detail"]
        after = client.post("/api/v1/inspect", content=good, headers=headers["operator"]).json()
        assert (after["label"], after["threshold"], after["raw_score"]) == ("anomalous", moved, before["raw_score"])
        [entry] = [entry for entry in audit.entries(station.engine) if entry["action"] == "set threshold"]
        assert entry["who"] == "token engineer"
        assert entry["detail"]["reason"] == "customer's limit"
    station = Station(station_settings(values))
    assert station.models.session("tile").threshold == moved
    station.writer.close()
    station.close()


def test_exports_hold_every_verdict(line: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    _, client, answers = line
    text = client.get("/api/v1/export.csv").content.decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [row["uid"] for row in rows] == [answer["uid"] for answer in reversed(answers)]
    assert float(rows[1]["raw_score"]) == answers[-2]["raw_score"]
    assert rows[0]["part"] == "'=1+1"  # no formula for a spreadsheet
    (tmp_path / "a.parquet").write_bytes(client.get("/api/v1/export.parquet").content)
    table = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert tuple(table[0]) == COLUMNS
    assert [row["raw_score"] for row in table] == [answer["raw_score"] for answer in reversed(answers)]
    coco = client.get("/api/v1/export.json", params={"label": "anomalous"}).json()
    wanted = [answer for answer in reversed(answers) if answer["label"] == "anomalous"]
    assert [image["raw_score"] for image in coco["images"]] == [answer["raw_score"] for answer in wanted]
    assert len(coco["annotations"]) == sum(len(answer["regions"]) for answer in wanted)
    assert client.get("/api/v1/export.exe").status_code == 422


def test_pictures_are_shown_in_three_ways(line: Any, ranked: list[Path]) -> None:
    station, client, answers = line
    verdict = answers[len(ranked) - 1]
    sizes, seen = {}, {}
    until(lambda: station.pictures.anomaly_map(verdict) is not None)
    for view in ("picture", "overlay", "thumbnail"):
        answer = client.get(f"/api/v1/verdicts/{verdict['uid']}/{view}")
        assert answer.status_code == 200
        with Image.open(io.BytesIO(answer.content)) as picture:
            sizes[view], seen[view] = picture.size, np.asarray(picture)
    assert sizes["picture"] == sizes["overlay"] == (verdict["width"], verdict["height"])
    assert max(sizes["thumbnail"]) <= 240
    with Image.open(ranked[-1]) as picture:
        assert np.array_equal(seen["picture"], np.asarray(picture.convert("RGB")))
    assert not np.array_equal(seen["picture"], seen["overlay"])
    assert client.get(f"/api/v1/verdicts/{answers[-1]['uid']}/picture").status_code == 404  # it was none
    assert client.get("/api/v1/verdicts/none/picture").status_code == 404


def test_a_verdict_is_explained_by_good_parts_while_its_model_is_there(line: Any, bad: bytes) -> None:
    station, client, answers = line
    verdict = label_of(answers, "anomalous")
    answer = client.get(f"/api/v1/verdicts/{verdict['uid']}/explanation")
    assert answer.headers["content-type"] == "image/png"
    width, height = Image.open(io.BytesIO(answer.content)).size
    assert width > 2 * height / max(len(verdict["regions"]), 1)  # a row each: what was found, and good parts beside it
    for uid in (label_of(answers, "failed")["uid"], "none"):
        assert client.get(f"/api/v1/verdicts/{uid}/explanation").status_code == 404
    row = station.history.get(verdict["uid"])
    session = station.models.session("tile")
    assert explanation_of(station.pictures, row, session)
    assert explanation_of(station.pictures, {**row, "model": "another"}, session) is None


def test_brightness_and_sharpness_are_those_of_the_picture(line: Any, ranked: list[Path]) -> None:
    station, _, answers = line
    image = np.asarray(Image.open(ranked[0]).convert("RGB"))
    assert answers[0]["brightness"] == pytest.approx(image.mean() / 255, rel=1e-4)
    assert answers[0]["sharpness"] == pytest.approx(sharpness(image), rel=1e-4)
    assert answers[-1]["brightness"] is None
    inspected = [answer for answer in answers if answer["label"] != "failed"]
    found = station.history.appearance("tile", 1000)
    assert [row[1:] for row in found] == [(answer["brightness"], answer["sharpness"]) for answer in inspected]
    assert station.history.appearance("tile", 3) == found[-2:]  # the newest had no picture


def test_retention_removes_by_age_and_then_the_oldest_beyond_the_quota(tmp_path: Path) -> None:
    settings = PictureSettings(days=10, quota_gb=25e-9)
    pictures = Pictures(tmp_path, settings, 0.0)
    for age in (12, 11, 3, 2, 1):
        path = tmp_path / "2020-01-01" / f"{age}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(10))
        os.utime(path, (time.time() - age * 86_400,) * 2)
    assert Retention(pictures).look() == 3
    assert {path.name for path in tmp_path.rglob("*.png")} == {"2.png", "1.png"}
    assert Retention(pictures).look() == 0
