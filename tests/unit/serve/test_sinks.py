"""Every kind of sink against a real receiver: what it gets, in which order, and nothing is lost when it was away."""

from __future__ import annotations

import base64
import csv
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import UsageError
from blemish.serve.configuration import PictureSettings, station_settings
from blemish.serve.database import Writer, migrate, open_database
from blemish.serve.history import History, Part, shown
from blemish.serve.pictures import Pictures
from blemish.serve.sinks.kinds import KINDS, make_sink
from blemish.serve.sinks.worker import Pace, Worker
from receivers import Wire, free_port, modbus_controller, mqtt_broker, opcua_controller, web_server
from stations import running, until

SECRET = b"0123456789abcdef01234567"
LABELS = ("normal", "anomalous", "failed")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    engine = open_database(f"sqlite:///{tmp_path}/station.sqlite")
    migrate(engine)
    writer = Writer(engine)
    yield History(engine, writer)
    writer.close()
    engine.dispose()


def add(history: History, *, part: str = "", label: str = "normal", score: float | None = 0.1, **other: Any) -> int:
    """Puts a verdict into the history."""
    journalled = Part("camera", part, "gear")
    identity = {
        name: getattr(journalled, name) for name in ("uid", "key", "accepted", "source", "part", "product", "path")
    }
    unknown = dict.fromkeys(("raw_score", "threshold", "pixel_threshold", "height", "width"))
    row = {**identity, **unknown, "label": label, "score": score, "model": "m", "regions": [], "seconds": 0.1} | other
    [verdict] = history.record([{"error": None, **row}]).result()
    return int(verdict["id"])


USUAL = Pace()


def worker_of(history: History, tmp_path: Path, pace: Pace = USUAL, **section: Any) -> Worker:
    [settings] = station_settings({"sinks": [section]}).sinks
    pictures = Pictures(tmp_path / "pictures", PictureSettings(), 0.0)
    return Worker(settings, make_sink(settings, pictures), history, pace)


@contextmanager
def at_work(worker: Worker) -> Iterator[Worker]:
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()


def webhook(got: list[Any]) -> AbstractContextManager[int]:
    def answer(_: dict[str, str], body: bytes) -> int:
        got.append(json.loads(body))
        return 204

    return web_server(answer)


RECEIVERS: dict[
    str, tuple[Callable[[list[Any]], AbstractContextManager[int]], Callable[[int], dict[str, Any]], Any]
] = {
    "webhook": (webhook, lambda port: {"webhook": f"http://127.0.0.1:{port}/parts"}, lambda one: one["id"]),
    "mqtt": (mqtt_broker, lambda port: {"mqtt": f"mqtt://127.0.0.1:{port}"}, lambda one: one[1]["id"]),
    "modbus": (
        modbus_controller,
        lambda port: {"modbus": f"modbus://127.0.0.1:{port}", "first_register": 10},
        lambda one: (one[3] << 16) + one[4],
    ),
    "opcua": (
        opcua_controller,
        lambda port: {"opcua": f"opc.tcp://127.0.0.1:{port}/", "nodes": "ns=2;s=Inspection.{}"},
        lambda one: one["sequence"],
    ),
}


@pytest.fixture(scope="module")
def opcua() -> Iterator[tuple[list[Any], int]]:
    """Started once: it takes seconds."""
    got: list[Any] = []
    with opcua_controller(got) as port:
        yield got, port


@pytest.fixture
def receiver(request: pytest.FixtureRequest) -> Iterator[tuple[list[Any], int]]:
    if request.param == "opcua":
        got, port = request.getfixturevalue("opcua")
        got.clear()
        yield got, port
        return
    got = []
    with RECEIVERS[request.param][0](got) as port:
        yield got, port


@pytest.mark.parametrize(("receiver", "kind"), [(kind, kind) for kind in RECEIVERS], indirect=["receiver"])
def test_a_receiver_that_was_away_gets_everything_in_order(
    receiver: tuple[list[Any], int], kind: str, history: History, tmp_path: Path
) -> None:
    (got, port), (_, section, number) = receiver, RECEIVERS[kind]
    add(history)  # before there was this sink: not its business
    wire = Wire(port)
    with at_work(worker_of(history, tmp_path, name="it", **section(wire.port))) as worker:
        expected = [add(history, part="a", label=label, score=None if label == "failed" else 0.25) for label in LABELS]
        until(lambda: len(got) == 3)
        assert [number(one) for one in got] == expected
        until(lambda: worker.state.waiting == 0)
        wire.cut()
        expected += [add(history) for _ in range(5)]
        until(lambda: worker.trouble is not None)
        assert worker.state.waiting == 5
        assert len(got) == 3
        wire.mend()
        until(lambda: worker.state.waiting == 0)
        assert worker.state.error
        assert worker.trouble is None
    wire.cut()
    expected += [add(history) for _ in range(3)]  # the station starts while its receiver is away
    with at_work(worker_of(history, tmp_path, name="it", **section(wire.port))) as worker:
        until(lambda: worker.trouble is not None)
        wire.mend()
        until(lambda: worker.state.waiting == 0)
        until(lambda: len(got) >= len(expected))
    wire.cut()
    numbers = [number(one) for one in got]
    assert list(dict.fromkeys(numbers)) == expected  # one whose confirmation was cut off may come twice
    assert numbers == sorted(numbers)
    check = {"modbus": _check_modbus, "opcua": _check_opcua, "mqtt": _check_mqtt, "webhook": _check_webhook}[kind]
    check(got[:3], history)


def _check_modbus(got: list[list[int]], _: History) -> None:
    assert [registers[1:3] + registers[5:] for registers in got] == [[1, 1, 2500], [1, 2, 2500], [1, 3, 65_535]]


def _check_opcua(got: list[dict[str, Any]], _: History) -> None:
    assert [one["verdict"] for one in got] == [1, 2, 3]
    assert [one["score"] for one in got] == [0.25, 0.25, -1]
    assert {(one["part"], one["product"], one["ready"]) for one in got} == {("a", "gear", True)}


def _check_mqtt(got: list[tuple[str, dict[str, Any]]], history: History) -> None:
    assert {topic for topic, _ in got} == {"blemish/gear"}
    _check_webhook([verdict for _, verdict in got], history)


def _check_webhook(got: list[dict[str, Any]], history: History) -> None:
    assert [one["label"] for one in got] == list(LABELS)
    assert got == [shown(history.get(one["uid"]) or {}) for one in got]


def test_a_controller_that_reads_nothing_is_waited_for_and_sees_the_heart_beat(
    history: History, tmp_path: Path
) -> None:
    from pymodbus.client import ModbusTcpClient

    pace = Pace(beat=0.05, patience=0.2)
    read: list[Any] = []
    asleep = threading.Event()
    beats: set[int] = set()

    def beaten() -> bool:
        beats.add(client.read_holding_registers(10).registers[0])
        return len(beats) > 3

    with (
        modbus_controller(read, asleep) as port,
        ModbusTcpClient("127.0.0.1", port=port) as client,
        at_work(worker_of(history, tmp_path, pace, modbus=f"modbus://127.0.0.1:{port}", first_register=10)) as worker,
    ):
        until(beaten)
        asleep.set()
        add(history)
        number = add(history)
        until(lambda: worker.trouble == f"it hasn't taken verdict {number} for 0.2 s")
        assert worker.state.waiting == 1
        beats.clear()
        until(beaten)
        assert read == []
        asleep.clear()
        until(lambda: len(read) == 2)
        until(lambda: worker.trouble is None)


def test_webhooks_are_signed_and_refused_ones_sent_again(history: History, tmp_path: Path) -> None:
    statuses = iter([500, 429, 302, 200, 200])
    got: list[tuple[dict[str, str], bytes]] = []

    def answer(headers: dict[str, str], body: bytes) -> int:
        got.append((headers, body))
        return next(statuses)

    secret = f"whsec_{base64.b64encode(SECRET).decode()}"
    with web_server(answer) as port:
        section = {
            "webhook": f"http://127.0.0.1:{port}",
            "secret": secret,
            "labels": ["anomalous"],
            "products": ["gear"],
        }
        worker = worker_of(history, tmp_path, Pace(longest=0.01), **section)
        assert secret not in repr(worker.settings)
        with at_work(worker):
            add(history, label="normal")
            first, second = (add(history, label="anomalous") for _ in range(2))
            until(lambda: worker.state.waiting == 0)
            assert (worker.state.delivered, worker.state.errors) == (2, 3)
            assert worker.state.error == "it answered 302 Found"
    assert [json.loads(body)["id"] for _, body in got] == [first] * 4 + [second]
    for headers, body in got:
        assert headers["webhook-id"] == json.loads(body)["uid"]
        message = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(SECRET, message, hashlib.sha256)).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"


def test_a_table_has_each_row_once_whatever_a_crash_left(history: History, tmp_path: Path) -> None:
    path = tmp_path / "out" / "verdicts.csv"
    with at_work(worker_of(history, tmp_path, csv=str(path))) as worker:
        numbers = [add(history, part="=1\r\n,2"), add(history, label="failed", score=None, error="no\npicture")]
        until(lambda: worker.state.waiting == 0)
    whole = path.read_bytes()
    path.write_bytes(whole + b"3,torn")
    settings = worker.settings
    sink = make_sink(settings, Pictures(tmp_path / "pictures", PictureSettings(), 0.0))
    sink.open()  # as after a crash before it was remembered what was written
    for number in (*numbers, add(history, part="new")):
        [verdict] = history.after(number - 1, 1)
        assert sink.send(verdict)
    sink.flush()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows] == ["'=1 ,2", "", "new"]
    assert [row["error"] for row in rows] == ["", "no picture", ""]
    assert path.read_bytes().startswith(whole)
    path.rename(tmp_path / "archived.csv")
    [verdict] = history.after(add(history) - 1, 1)
    sink.send(verdict)
    sink.flush()
    assert path.read_text().count("\n") == 2  # begun anew, with its head
    path.write_text("a;b\r\n1;2\r\n")
    with pytest.raises(UsageError, match="has other rows than a station writes"):
        worker_of(history, tmp_path, csv=str(path), name="another")


def test_pictures_are_sorted_by_verdict(history: History, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    wanted = {
        "OK": ("normal", 0.1),
        "NG": ("anomalous", 0.9),
        "unsure": ("anomalous", 0.55),
        "failed": ("failed", None),
    }
    with at_work(worker_of(history, tmp_path, folder=str(tmp_path / "sorted"))) as worker:
        for name, (label, score) in wanted.items():
            add(history, part=f"../{name}", label=label, score=score, path=str(picture))
        add(history, part="gone", path=str(tmp_path / "gone.png"))
        until(lambda: worker.state.waiting == 0)
    files = {path.relative_to(tmp_path / "sorted").as_posix(): path for path in (tmp_path / "sorted").rglob("*.*")}
    for name, (label, _) in wanted.items():
        [stem] = [
            one.removesuffix(".png") for one in files if one.startswith(f"{name}/-{name}_") and one.endswith(".png")
        ]
        assert files[f"{stem}.png"].read_bytes() == b"picture"
        assert json.loads(files[f"{stem}.json"].read_text())["label"] == label
    assert [Path(one).suffix for one in files if "gone" in one] == [".json"]
    assert len(files) == 9


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"topic": "a"}, "sinks.0: must have one of the keys mqtt, webhook, folder, csv, opcua, modbus"),
        ({"csv": "a", "folder": "b"}, "sinks.0: must have one of the keys"),
        ({"mqtt": "broker"}, "sinks.0.mqtt.mqtt: must be an address like mqtt://host. Got 'broker'"),
        ({"mqtt": "mqtt://b", "topic": "a/#"}, "sinks.0.mqtt.topic: String should match"),
        ({"mqtt": "mqtt://b", "topic": "{uid}"}, "may hold {product}, {source} and {label} alone"),
        ({"webhook": "ftp://x"}, "must be an address like https://host"),
        ({"webhook": "https://x", "secret": "short"}, "must be whsec_ and at least 24 bytes as Base64"),
        ({"opcua": "opc.tcp://x", "nodes": "ns=2;s=a"}, "must hold {} once"),
        ({"modbus": "modbus://x:99999"}, "must be an address like modbus://host"),
        ({"csv": "a", "labels": ["bad"]}, "sinks.0.csv.labels.0: Input should be 'normal', 'anomalous' or 'failed'"),
    ],
)
def test_what_is_wrong_is_said_when_it_is_read(section: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        station_settings({"sinks": [section]})
    assert message in str(caught.value)


@pytest.mark.parametrize("kind", RECEIVERS)
def test_a_new_sink_that_cannot_be_reached_is_an_error(kind: str, history: History, tmp_path: Path) -> None:
    section = RECEIVERS[kind][1](free_port())
    with pytest.raises(UsageError, match=rf"The sink '{kind} .*' can't be used: .*\. Start what is at"):
        worker_of(history, tmp_path, Pace(longest=0.01), **section)


def test_a_variable_that_is_not_there_is_named(opcua: tuple[list[Any], int], history: History, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"it has no variable 'ns=2;s=Else.heartbeat'"):
        worker_of(history, tmp_path, opcua=f"opc.tcp://127.0.0.1:{opcua[1]}/", nodes="ns=2;s=Else.{}")


def test_sinks_of_a_station(small_model: Path, tmp_path: Path, good: bytes) -> None:
    assert set(KINDS) == {"mqtt", "webhook", "folder", "csv", "opcua", "modbus"}
    products = [{"code": "tile", "model": str(small_model)}]
    refuse = [True]
    with web_server(lambda *_: 500 if refuse else 200) as port:
        sinks = [
            {"csv": str(tmp_path / "all.csv")},
            {"webhook": f"http://user:word@127.0.0.1:{port}/x", "name": "erp"},
        ]
        with running(data=tmp_path / "s", products=products, sinks=sinks) as (station, client):
            verdict = client.post("/api/v1/inspect", content=good).json()  # a sink that refuses doesn't delay it
            until(lambda: client.get("/api/v1/sinks").json()[0]["waiting"] == 0)
            until(lambda: client.get("/readyz").json()["troubles"])
            assert client.get("/readyz").json() == {
                "ready": True,
                "troubles": ["sink erp: it answered 500 Internal Server Error"],
            }
            table, erp = client.get("/api/v1/sinks").json()
            assert (table["name"], table["delivered"], table["trouble"]) == ("csv all.csv", 1, None)
            assert (erp["address"], erp["waiting"], erp["last"]) == (f"http://127.0.0.1:{port}/x", 1, None)
            metrics = client.get("/metrics").text
            assert 'blemish_sink_waiting{sink="erp"} 1.0' in metrics
            assert 'blemish_sink_works{sink="erp"} 0.0' in metrics
            assert 'blemish_sink_delivered_total{sink="csv all.csv"} 1.0' in metrics
            refuse.clear()
            until(lambda: not station.troubles)
            assert client.get("/api/v1/sinks").json()[1]["last"]
    assert verdict["uid"] in (tmp_path / "all.csv").read_text()
