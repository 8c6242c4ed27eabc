"""A station at work: HTTP, folders, products, full disks; in this process, behind a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from blemish.catalog import write_catalog
from blemish.errors import ArtifactError, UsageError
from blemish.runtime import load
from blemish.serve.configuration import station_settings
from blemish.serve.folder import WatchedFolder
from blemish.serve.history import Part, Search
from blemish.serve.station import Station
from stations import drop, running, until


@pytest.fixture(scope="module")
def served(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Station, httpx.Client]]:
    products = [{"code": "tile", "model": small_model}, {"code": "other", "model": small_model}]
    with running(data=tmp_path_factory.mktemp("station"), products=products, max_upload_mb=1) as both:
        yield both


def test_a_verdict_is_that_of_a_session(served: Any, small_model: Path, good: bytes, bad: bytes) -> None:
    _, client = served
    session = load(small_model)
    for picture, part in ((good, "1"), (bad, "2")):
        answer = client.post("/api/v1/inspect", params={"product": "tile", "part": part}, content=picture)
        assert answer.status_code == 200, answer.text
        verdict, [result] = answer.json(), session(picture)
        assert verdict["label"] == result.label
        assert verdict["raw_score"] == result.raw_score
        assert verdict["threshold"] == result.threshold
        assert verdict["model"] == session.fingerprint
        assert [region["area"] for region in verdict["regions"]] == [region.area for region in result.regions]
        assert client.get(f"/api/v1/verdicts/{verdict['uid']}").json() == verdict
        assert (verdict["part"], verdict["source"]) == (part, "http")
    assert client.get("/api/v1/verdicts", params={"part": "2"}).json()["verdicts"][0] == verdict
    assert client.get("/api/v1/verdicts/none").status_code == 404


@pytest.mark.parametrize(
    ("product", "content", "reason"),
    [
        ("tile", b"no picture", "not an image"),
        ("tile", b"\x89PNG\r\n\x1a\n", ""),
        ("gear", None, "There is no model for product 'gear'. Products with one: tile, other."),
    ],
)
def test_what_cannot_be_inspected_is_never_normal(
    served: Any, good: bytes, product: str, content: bytes | None, reason: str
) -> None:
    station, client = served
    answer = client.post("/api/v1/inspect", params={"product": product}, content=content or good)
    verdict = answer.json()
    assert answer.status_code == 200
    assert verdict["label"] == "failed"
    assert verdict["raw_score"] is None
    assert reason in verdict["error"]
    assert verdict["error"]
    assert station.history.get(verdict["uid"])["label"] == "failed"


def test_a_batch_keeps_its_order(served: Any, good: bytes, bad: bytes) -> None:
    _, client = served
    files = [("files", ("a.png", good)), ("files", ("b.png", bad)), ("files", ("c.png", b"x")), ("files", ("d", good))]
    verdicts = client.post("/api/v1/inspect/batch", params={"product": "tile"}, files=files).json()
    assert [verdict["part"] for verdict in verdicts] == ["a.png", "b.png", "c.png", "d"]
    assert [verdict["label"] for verdict in verdicts] == ["normal", "anomalous", "failed", "normal"]


def test_the_same_key_is_inspected_once(served: Any, good: bytes) -> None:
    _, client = served
    headers = {"Idempotency-Key": "order 7, part 9"}

    def send(_: int) -> Any:
        return httpx.post(
            f"{client.base_url}/api/v1/inspect", params={"product": "tile"}, content=good, headers=headers, timeout=60
        ).json()

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(send, range(6)))
    assert len({answer["uid"] for answer in answers}) == 1
    other = client.post("/api/v1/inspect", params={"product": "other"}, content=good, headers=headers).json()
    assert other["uid"] != answers[0]["uid"]


@pytest.mark.parametrize(
    ("parameters", "content", "status"),
    [
        ({}, b"x", 400),  # two products: which?
        ({"product": "../etc"}, b"x", 422),
        ({"product": "tile"}, b"", 400),
        ({"product": "tile"}, bytes(1_000_001), 413),
        ({"product": "tile", "part": "p" * 257}, b"x", 422),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(
    served: Any, parameters: dict[str, str], content: bytes, status: int
) -> None:
    station, client = served
    before = station.history.last_id()
    assert client.post("/api/v1/inspect", params=parameters, content=content).status_code == status
    assert station.history.last_id() == before
    assert station.pipeline.reserve()  # its place was given back
    station.pipeline.release()


def test_metrics_count_what_happened(served: Any, good: bytes) -> None:
    station, client = served

    def counted() -> float:
        value = station.metrics.registry.get_sample_value
        return value("blemish_verdicts_total", {"product": "tile", "label": "normal"}) or 0.0

    before = counted()
    client.post("/api/v1/inspect", params={"product": "tile"}, content=good)
    until(lambda: counted() == before + 1)
    text = client.get("/metrics").text
    assert 'blemish_verdicts_total{label="normal",product="tile"}' in text
    assert "blemish_verdict_seconds_bucket" in text
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json()["ready"] is True


def test_pictures_of_all_but_normal_parts_are_kept(small_model: Path, tmp_path: Path, good: bytes, bad: bytes) -> None:
    products = [{"code": "tile", "model": small_model}]
    with running(data=tmp_path, products=products, pictures={"keep_normal": 0}) as (station, client):

        def shown(content: bytes) -> dict[str, Any]:
            uid = client.post("/api/v1/inspect", content=content).json()["uid"]
            return station.history.get(uid) or {}

        passing = shown(good)
        while station.pictures.keeps(passing):  # one of 50 is drawn for people to look at
            passing = shown(good)
        kept = [passing, shown(bad), shown(b"x")]
        assert station.pictures.find(kept[0]) is not None  # for those who look at the line
        others = 0
        while others < 24:
            others += not station.pictures.keeps(shown(good))
        until(lambda: station.pictures.find(kept[0]) is None)
        until(lambda: station.pictures.anomaly_map(kept[1]) is not None)
        assert station.pictures.find(kept[1]).read_bytes() == bad  # type: ignore[union-attr]
        assert station.pictures.find(kept[2]).read_bytes() == b"x"  # type: ignore[union-attr]
        [result] = load(small_model)(bad)
        assert abs(station.pictures.anomaly_map(kept[1]) - result.anomaly_map).max() < 1e-4  # type: ignore[operator]


def test_too_many_parts_are_refused_before_they_are_accepted(small_model: Path, tmp_path: Path, good: bytes) -> None:
    with running(data=tmp_path, products=[{"code": "tile", "model": small_model}], queue=2) as (station, client):
        gate = threading.Event()
        inner = station.models.session
        station.models.session = lambda product: gate.wait() and inner(product)  # type: ignore[assignment, return-value]
        with ThreadPoolExecutor(2) as pool:
            waiting = [pool.submit(httpx.post, f"{client.base_url}/api/v1/inspect", content=good) for _ in range(2)]
            until(lambda: len(station.history.waiting()) == 2)
            refused = client.post("/api/v1/inspect", content=good)
            gate.set()
            assert [one.result().status_code for one in waiting] == [200, 200]
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert len(list(station.history.every(Search()))) == 2


def test_a_full_disk_stops_pictures_not_inspection(small_model: Path, tmp_path: Path, bad: bytes) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    values = {"products": [{"code": "tile", "model": small_model}], "sources": [{"folder": inbox, "take": True}]}
    with running(data=tmp_path / "data", pictures={"reserve_gb": 1e9}, **values) as (station, client):
        verdict = client.post("/api/v1/inspect", content=bad).json()
        assert verdict["label"] == "anomalous"
        drop(inbox, "a.png", bad)
        until(lambda: station.history.last_id() == 2)
        assert (inbox / "a.png").is_file()  # the one copy there is
        assert not list((tmp_path / "data/pictures").rglob("*.*"))
        assert "disk is nearly full" in client.get("/readyz").json()["troubles"][0]


def test_folders_bring_each_file_once(small_model: Path, tmp_path: Path, good: bytes, bad: bytes) -> None:
    left, taken = tmp_path / "left", tmp_path / "taken"
    for folder in (left, taken):
        folder.mkdir()
    drop(left, "before.png", good)
    products = [{"code": "tile", "model": small_model}, {"code": "other", "model": small_model}]
    sources = [
        {"folder": left, "pattern": r"^(?P<product>\w+)/(?P<part>\d+)", "product": "tile", "settle": 0.1},
        {"folder": taken, "product": "other", "take": True, "settle": 0.1},
    ]
    values: dict[str, Any] = {"data": tmp_path / "data", "products": products, "sources": sources}
    with running(**values) as (station, _):
        drop(left, "other/007-front.png", bad)
        drop(left, "nothing/1.png", bad)
        drop(taken, "deep/b.png", bad)
        (left / "notes.txt").write_text("no picture")
        drop(left, ".hidden.png", good)
        until(lambda: station.history.last_id() == 4)
        until(lambda: not list(taken.rglob("*.png")))
    with running(**values) as (station, _):
        drop(left, "last.png", bad)
        until(lambda: station.history.last_id() == 5)
        drop(left, "last.png", good)  # another delivery under the same name
        until(lambda: station.history.last_id() == 6)
        seen = [(v["source"], v["part"], v["product"], v["label"]) for v in station.history.every(Search())]
        assert sorted(seen) == sorted(
            [
                ("left", "before", "tile", "normal"),
                ("left", "007", "other", "anomalous"),
                ("left", "1", "nothing", "failed"),
                ("taken", "b", "other", "anomalous"),
                ("left", "last", "tile", "anomalous"),
                ("left", "last", "tile", "normal"),
            ]
        )
        [failed] = [v for v in station.history.every(Search()) if v["source"] == "taken"]
        assert station.pictures.find(failed).read_bytes() == bad  # type: ignore[union-attr]


def test_a_file_that_comes_right_after_the_first_look_is_taken_without_another(
    small_model: Path, tmp_path: Path, good: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = WatchedFolder._look

    def look_and_drop(self: WatchedFolder) -> None:
        look(self)
        drop(self.folder, "next.png", good)

    monkeypatch.setattr(WatchedFolder, "_look", look_and_drop)
    monkeypatch.setattr("blemish.serve.folder.LOOK", 1e9)
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    products = [{"code": "tile", "model": small_model}]
    with running(data=tmp_path / "data", products=products, sources=[{"folder": inbox, "settle": 0.1}]) as (station, _):
        until(lambda: station.history.last_id() == 1)


def test_a_file_is_taken_when_it_is_complete(small_model: Path, tmp_path: Path, good: bytes) -> None:
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    products = [{"code": "tile", "model": small_model}]
    sources = [{"folder": inbox, "settle": 0.1, "patience": 6}]
    with running(data=tmp_path / "data", products=products, sources=sources) as (station, _):
        with (inbox / "slow.png").open("wb") as file:
            for start in range(0, len(good), len(good) // 5 + 1):
                file.write(good[start : start + len(good) // 5 + 1])
                file.flush()
                threading.Event().wait(0.4)  # longer than it has to settle
                assert start + len(good) // 5 + 1 >= len(good) or station.history.last_id() == 0
        (inbox / "torn.png").write_bytes(good[: len(good) // 2])
        until(lambda: station.history.last_id() == 2)
        verdicts = {verdict["part"]: verdict["label"] for verdict in station.history.every(Search())}
        assert verdicts == {"slow": "normal", "torn": "failed"}


def test_models_are_opened_on_demand_and_closed_within_the_bound(small_model: Path, tmp_path: Path) -> None:
    products = [{"code": code, "model": small_model} for code in "abc"]
    size = small_model.stat().st_size / 1e6
    station = Station(station_settings({"data": tmp_path, "products": products, "model_memory_mb": 2.5 * size}))
    try:
        assert station.models.open == ["b", "c"]
        first = station.models.session("b")
        station.models.session("a")
        assert station.models.open == ["b", "a"]
        assert station.models.session("b") is first
    finally:
        station.writer.close()
        station.close()


def test_what_a_killed_station_left_is_put_in_order(small_model: Path, tmp_path: Path, good: bytes) -> None:
    values: dict[str, Any] = {"data": tmp_path, "products": [{"code": "tile", "model": small_model}]}
    station = Station(station_settings(values))
    waiting = Part("http", "waits", "tile", path=None)
    stored = station.pictures.store(waiting.uid, good)
    kept = Part("http", "kept", "tile", str(stored), uid=waiting.uid)
    orphan = station.pictures.store("0" * 4 + waiting.uid[4:12] + "f" * 20, good)  # of the same day
    lost = Part("http", "lost", "tile", path=None)
    station.history.accept([kept, lost]).result()
    station.writer.close()
    station.close()
    with running(**values) as (station, _):
        until(lambda: station.history.last_id() == 2)
        assert station.history.get(kept.uid)["label"] == "normal"  # type: ignore[index]
        assert "no room to keep the picture" in station.history.get(lost.uid)["error"]  # type: ignore[index]
        assert orphan is not None
        assert not orphan.exists()


def test_a_catalog_is_served_by_product(small_model: Path, tmp_path: Path, good: bytes, bad: bytes) -> None:
    line = tmp_path / "line.catalog"
    write_catalog({"gear": small_model, "pin": small_model}, line)
    session = load(small_model)
    for _ in range(2):  # and again when it is started again
        with running(data=tmp_path / "station", catalog=line) as (_, client):
            for product in ("gear", "pin"):
                for picture in (good, bad):
                    verdict = client.post("/api/v1/inspect", params={"product": product}, content=picture).json()
                    assert (verdict["raw_score"], verdict["model"]) == (
                        session(picture)[0].raw_score,
                        session.fingerprint,
                    )
            assert client.post("/api/v1/inspect", params={"product": "cog"}, content=good).json()["label"] == "failed"
    line.write_bytes(line.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="is not a catalog, or it is damaged"):
        station_settings({"data": tmp_path / "station", "catalog": line})


def test_start_fails_with_one_clear_error(small_model: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.safetensors"
    torn.write_bytes(small_model.read_bytes()[:-1])
    table: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"products": [{"code": "a", "model": torn}]}, ArtifactError, "Product 'a', model .*torn.safetensors"),
        ({"products": [{"code": "a", "model": tmp_path / "no.onnx"}]}, ArtifactError, "no model file"),
        (
            {"products": [{"code": "a", "model": small_model}], "sources": [{"folder": tmp_path / "no"}]},
            UsageError,
            "watched folder .* can't be read: No such file or directory. Make it first",
        ),
    ]
    for number, (values, kind, message) in enumerate(table):
        with pytest.raises(kind, match=message):
            Station(station_settings({"data": tmp_path / f"d{number}", **values}))


def test_what_a_kill_left_half_written_is_removed_by_the_next_start(
    small_model: Path, tmp_path: Path, bad: bytes
) -> None:
    products = [{"code": "tile", "model": small_model}]
    with running(data=tmp_path, products=products) as (station, client):
        verdict = client.post("/api/v1/inspect", content=bad).json()
        until(lambda: station.pictures.anomaly_map(verdict) is not None)
        [day] = station.pictures.folder.iterdir()
    half = day / ".blemish-0123456789abcdef"  # where `blemish.files.replacing` writes
    half.mkdir()
    (half / "x.map.png").write_bytes(b"half a map")
    unknown = day / "0123.png"
    unknown.write_bytes(b"never accepted")
    with running(data=tmp_path, products=products) as (station, client):
        assert client.get("/readyz").json()["ready"]
        assert not half.exists()
        assert not unknown.exists()
        assert station.pictures.anomaly_map(verdict) is not None
