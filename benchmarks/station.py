"""Claim: a station costs little beside its session, loses nothing and judges nothing twice, whatever happens to it.

python benchmarks/station.py [--parts http files kills history outage] [--requests 10000] [--files 100000] ...

Each part needs a process of its own, `blemish serve`, with PaDiM on the bundled backbone at 256 x 256, in ONNX Runtime;
files and kills take a smaller model, since they count. Clients run on the same machine and take their share of it.
Hours at these sizes, and 20 GB of disk for the rows of history; each part writes a file of
its own as soon as it is done.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median, quantiles
from typing import Any

import yaml
from common import SIDE, arguments, claim, draw_parts, report

Row = dict[str, Any]
PARTS = ("http", "files", "kills", "history", "outage")
CLIENTS = 16
PAGE_MS = 200
PACE = 5
"""Parts per second while a sink is away."""


def row(case: str, count: int, value: float, unit: str) -> Row:
    return {"case": case, "count": count, "measured": round(value, 4), "unit": unit}


# ------------------------------------------------------------------------------------------------------- the process


class Station:
    """`blemish serve` in a folder that outlives it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "station.yaml").write_text(yaml.safe_dump({"port": 0, **settings}))

    def __enter__(self) -> Station:
        command = [sys.executable, "-m", "blemish", "serve", "--config", "station.yaml"]
        with (self.folder / "log.txt").open("ab") as log:
            self.process = subprocess.Popen(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=log, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])
        while self.get("/readyz")[0] != 200:
            if self.process.poll() is not None:
                raise SystemExit((self.folder / "log.txt").read_text())
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def get(self, path: str) -> tuple[int, bytes]:
        with suppress(OSError), closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        return 0, b""

    @property
    def rss_mb(self) -> float:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))

    def one(self, query: str) -> Any:
        """The first cell of what a query says to the database, whose process may be gone."""
        with closing(sqlite3.connect(self.folder / "station" / "station.sqlite", timeout=60)) as database:
            return database.execute(query).fetchone()[0]


def client(station: Station, pictures: Iterator[tuple[str, bytes]]) -> tuple[list[float], dict[str, str]]:
    """Sends one after the other; seconds of each, and which uid each part was given. Ends when the station is gone."""
    times, uids = [], {}
    with (
        suppress(OSError, http.client.HTTPException),
        closing(http.client.HTTPConnection("127.0.0.1", station.port, timeout=120)) as connection,
    ):
        for name, content in pictures:
            seconds, uid = send(connection, name, content)
            if uid is not None:
                times.append(seconds)
                uids[name] = uid
    return times, uids


def send(connection: http.client.HTTPConnection, name: str, content: bytes) -> tuple[float, str | None]:
    """Seconds until the verdict, and its uid; None if there was none."""
    started = time.perf_counter()
    connection.request("POST", f"/api/v1/inspect?part={name}", content, {"Idempotency-Key": name})
    answer = connection.getresponse()
    body = answer.read()
    return time.perf_counter() - started, json.loads(body)["uid"] if answer.status == 200 else None


def clients(station: Station, count: int, pictures: Iterator[tuple[str, bytes]]) -> tuple[list[float], dict[str, str]]:
    """`client` several times at once, over pictures that they share."""
    lock = threading.Lock()

    def shared() -> Iterator[tuple[str, bytes]]:
        while True:
            with lock:
                item = next(pictures, None)
            if item is None:
                return
            yield item

    with ThreadPoolExecutor(count) as pool:
        done = list(pool.map(lambda _: client(station, shared()), range(count)))
    return [t for times, _ in done for t in times], {name: uid for _, uids in done for name, uid in uids.items()}


# ------------------------------------------------------------------------------------------------------------- parts


def http_rate(folder: Path, model: Path, images: list[bytes], count: int) -> tuple[list[Row], list[Row]]:
    from blemish.runtime import load
    from blemish.runtime.session import Session

    session = Session(load(model).backend, batch_size=8)
    sample = [images[number % len(images)] for number in range(min(20 + count // 10, 400))]

    def bare(one_by_one: bool) -> list[float]:
        """Seconds per picture, of the whole stream or of each."""
        if one_by_one:
            return [timed(lambda image=image: session(image)) for image in sample]
        return [timed(lambda: list(session.stream(sample))) / len(sample)]

    list(session.stream(sample[:16]))
    alone = median(bare(True))
    before = bare(False)[0]
    numbered = ((str(number), images[number % len(images)]) for number in itertools.count())
    with Station(folder / "http", products=[{"code": "part", "model": str(model)}]) as station:
        single, _ = client(station, itertools.islice(numbered, len(sample)))
        memory, elapsed = [], 0.0
        uids: dict[str, str] = {}
        times: list[float] = []
        for _ in range(10):  # memory is looked at ten times on the way
            started = time.perf_counter()
            found, told = clients(station, CLIENTS, itertools.islice(numbered, count // 10))
            elapsed += time.perf_counter() - started
            times += found
            uids |= told
            memory.append(station.rss_mb)
        stored = station.one("SELECT count(*) FROM verdicts")
    after = bare(False)[0]
    rate, bare_rate = len(times) / elapsed, 1 / mean((before, after))
    p95 = quantiles(single, n=20)[-1]
    rows = [
        row("bare session, stream", len(sample), bare_rate, "parts/s"),
        row(f"{CLIENTS} clients", len(times), rate, "parts/s"),
        row("bare session, one by one, median", len(sample), 1000 * alone, "ms"),
        row("1 client, 95th percentile", len(single), 1000 * p95, "ms"),
        row(f"{CLIENTS} clients, 95th percentile", len(times), 1000 * quantiles(times, n=20)[-1], "ms"),
        row("memory after a tenth", count // 10, memory[0], "MB"),
        row("memory at the end", count, memory[-1], "MB"),
    ]
    sent_count = 10 * (count // 10) + len(single)
    share, growth, slower = rate / bare_rate, memory[-1] / memory[0], p95 / alone
    lost = sent_count - min(stored, len(uids) + len(single))
    return rows, [
        claim(f"{CLIENTS} clients over HTTP", "0.8 of the session's rate", f"{share:.2f}", share >= 0.8),
        claim("verdicts over HTTP", "none lost", f"{lost} of {sent_count:,}", lost == 0),
        claim("memory from the first tenth to the end", "flat within 10 %", f"{growth:.2f} x", growth < 1.1),
        claim("one client, 95th percentile", "under 3 x the session's time", f"{slower:.2f} x", slower < 3),
    ]


def dropped_files(folder: Path, model: Path, images: list[bytes], count: int) -> tuple[list[Row], list[Row]]:
    inbox = folder / "inbox"
    inbox.mkdir()
    sources = []
    for number, image in enumerate(images):
        sources.append(folder / f"source{number}.png")
        sources[-1].write_bytes(image)
    products = [{"code": "part", "model": str(model)}]
    with Station(folder / "files", products=products, sources=[{"folder": str(inbox)}]) as station:
        started = time.perf_counter()
        for number in range(count):
            os.link(sources[number % len(sources)], inbox / f"{number:07d}.png")
        while station.one("SELECT count(*) FROM verdicts") < count:
            time.sleep(0.2)
        elapsed = time.perf_counter() - started
        time.sleep(2)  # whatever would come twice
        stored = station.one("SELECT count(*) FROM verdicts")
        distinct = station.one("SELECT count(DISTINCT part) FROM verdicts")
    rows = [row("dropped at once", count, count / elapsed, "parts/s")]
    good = stored == distinct == count
    return rows, [claim(f"{count:,} files dropped at once", "each once", f"{stored:,}, {distinct:,} different", good)]


def killed(folder: Path, model: Path, images: list[bytes], count: int) -> tuple[list[Row], list[Row]]:
    inbox = folder / "killed-inbox"
    inbox.mkdir()
    products = [{"code": "part", "model": str(model)}]
    station = Station(folder / "kills", products=products, sources=[{"folder": str(inbox), "settle": 0.1}])
    rng, dropped, answered = random.Random(0), 0, {}
    for number in range(count):
        with station, ThreadPoolExecutor(1) as pool:
            endless = ((f"k{number}-{one}", images[one % len(images)]) for one in itertools.count())
            sending = pool.submit(clients, station, 4, endless)
            for _ in range(20):
                hidden = inbox / ".hidden"
                hidden.write_bytes(images[dropped % len(images)])
                hidden.rename(inbox / f"d{dropped:06d}.png")
                dropped += 1
            time.sleep(rng.uniform(0, 2))
            station.kill()
            answered |= sending.result()[1]
    with station:
        while station.one("SELECT count(*) FROM verdicts WHERE source != 'http'") < dropped or station.one(
            "SELECT count(*) FROM accepted"
        ):
            time.sleep(0.2)
    sound = station.one("PRAGMA integrity_check") == "ok"
    stored, distinct = (
        station.one("SELECT count(*) FROM verdicts"),
        station.one("SELECT count(DISTINCT part) FROM verdicts"),
    )
    with closing(sqlite3.connect(station.folder / "station" / "station.sqlite")) as database:
        kept = dict(database.execute("SELECT part, uid FROM verdicts WHERE source = 'http'"))
        files = {part for (part,) in database.execute("SELECT part FROM verdicts WHERE source != 'http'")}
    lost = sum(kept.get(part) != uid for part, uid in answered.items()) + dropped - len(files)
    rows = [row("kill -9 under load, parts accepted", count, stored, "parts")]
    return rows, [
        claim(f"kill -9 at {count} random moments: parts lost", "0", f"{lost} of {stored:,}", lost == 0),
        claim("parts judged twice after that", "0", str(stored - distinct), stored == distinct),
        claim("the database after that", "sound", "sound" if sound else "damaged", sound),
    ]


def paging(folder: Path, count: int, postgresql: bool) -> tuple[list[Row], list[Row]]:
    rows, claims = [], []
    with Databases(folder, postgresql) as urls:
        for name, url in urls.items():
            slowest = 0.0
            for case, milliseconds in pages_of(url, count):
                rows.append(row(f"{name}, {case}", count, milliseconds, "ms"))
                slowest = max(slowest, milliseconds)
            goal = f"under {PAGE_MS} ms"
            claims.append(
                claim(f"slowest page of {count:,} verdicts, {name}", goal, f"{slowest:.0f} ms", slowest < PAGE_MS)
            )
    return rows, claims


class Databases:
    """Addresses of databases by name, for as long as the block lasts."""

    def __init__(self, folder: Path, postgresql: bool) -> None:
        self.folder, self.postgresql = folder, postgresql
        self.server: Any = None

    def __enter__(self) -> dict[str, str]:
        urls = {"SQLite": f"sqlite:///{self.folder / 'history.sqlite'}"}
        if self.postgresql:
            import pgserver

            self.server = pgserver.get_server(self.folder / "postgresql", cleanup_mode="delete")
            urls["PostgreSQL"] = self.server.get_uri().replace("postgresql://", "postgresql+psycopg://")
        return urls

    def __exit__(self, *_: object) -> None:
        if self.server is not None:
            self.server.cleanup()


def pages_of(url: str, count: int) -> Iterator[tuple[str, float]]:
    """Median milliseconds of a page of 50, by what is asked for and how deep."""
    from sqlalchemy import insert, text

    from blemish.serve.database import Writer, migrate, open_database
    from blemish.serve.history import History, Search
    from blemish.serve.tables import feedback, verdicts

    engine = open_database(url)
    migrate(engine)
    labels = ("normal",) * 970 + ("anomalous",) * 29 + ("failed",)
    first = 1_700_000_000_000_000
    tenth = count // 10
    for start in range(0, tenth, 10_000):
        made = [
            {
                "uid": f"{number:032x}",
                "accepted": first + 1000 * number,
                "time": first + 1000 * number,
                "source": f"camera {number % 3}",
                "part": f"p{number}",
                "product": f"product{number % 4}",
                "label": labels[number * 7919 % 1000],
                "raw_score": number * 7919 % 1000 / 1000,
                "score": 0.1,
                "regions": "[]",
                "seconds": 0.01,
            }
            for number in range(start, min(start + 10_000, tenth))
        ]
        said = [
            {"time": one["time"], "uid": one["uid"], "who": "ada", "judgement": judgement, "kind": "", "note": ""}
            for one, judgement in zip(made[::100], itertools.cycle(("right", "missed", "false alarm")), strict=False)
        ]
        with engine.begin() as connection:
            connection.execute(insert(verdicts), made)
            connection.execute(insert(feedback), said)
    for copy in range(1, 10):  # the tenth again, later and under other names, by the database itself
        changed = {"uid": f"'{copy}' || substr(uid, 2)", "time": f"time + {1000 * tenth * copy}"}
        changed["accepted"] = changed["time"].replace("time", "accepted")
        changed["part"] = f"part || '-{copy}'"
        with engine.begin() as connection:
            for table in (verdicts, feedback):
                columns = [column.name for column in table.columns if column.name != "id"]
                values = ", ".join(changed.get(name, name) for name in columns)
                original = "substr(uid, 1, 1) = '0' ORDER BY id"
                connection.execute(
                    text(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {values} FROM {table} WHERE {original}")
                )
    with engine.begin() as connection:
        connection.execute(text("ANALYZE"))
    writer = Writer(engine)
    history = History(engine, writer)
    searches = {
        "all": Search(),
        "a product": Search(product="product2"),
        "anomalous": Search(label="anomalous"),
        "failed of a product": Search(product="product1", label="failed"),
        "one part": Search(part=f"p{tenth // 3}"),
        "one hour": Search(since=first + 500 * count, until=first + 500 * count + 3_600_000_000),
        "a source": Search(source="camera 1"),
        "scores": Search(low=0.9995, high=1.0),
        "called missed": Search(feedback="missed"),
        "without an opinion": Search(feedback="none"),
    }
    middle = f"{first + 1000 * (count // 2)}-{count // 2}"
    for case, wanted in searches.items():
        for depth, cursor in (("first page", None), ("in the middle", middle)):
            times = [
                timed(lambda wanted=wanted, cursor=cursor: history.search(wanted, cursor=cursor)) for _ in range(9)
            ]
            yield f"{case}, {depth}", 1000 * median(times)
    writer.close()
    engine.dispose()


def outage(folder: Path, model: Path, images: list[bytes], seconds: float) -> tuple[list[Row], list[Row]]:
    """Each part goes to a station whose sink goes away, and to another without a sink: both feel the same machine."""
    got: list[int] = []
    server = receiver(0, got)
    port = server.server_address[1]
    settings = {"products": [{"code": "part", "model": str(model)}]}
    spans = {"before": min(seconds, 60.0), "away": seconds, "back": min(seconds, 60.0)}
    rows, ratios = [], {}
    names = (f"o{number}" for number in itertools.count())
    with (
        Station(folder / "outage", **settings, sinks=[{"webhook": f"http://127.0.0.1:{port}/"}]) as station,
        Station(folder / "beside", **settings) as beside,
        closing(http.client.HTTPConnection("127.0.0.1", station.port, timeout=120)) as first,
        closing(http.client.HTTPConnection("127.0.0.1", beside.port, timeout=120)) as second,
    ):
        for case, span in spans.items():
            if case == "away":
                server.shutdown()
                server.server_close()
            elif case == "back":
                server = receiver(port, got)
            times: dict[Any, list[float]] = {first: [], second: []}
            for number, (name, content) in enumerate(paced(span, names, images)):
                for connection in (first, second) if number % 2 else (second, first):
                    times[connection].append(send(connection, name, content)[0])
            own, other = (quantiles(times[connection], n=20)[-1] for connection in (first, second))
            ratios[case] = own / other
            rows.append(row(f"95th percentile, sink {case}", len(times[first]), 1000 * own, "ms"))
            rows.append(row("beside it without a sink", len(times[second]), 1000 * other, "ms"))
        stored = station.one("SELECT count(*) FROM verdicts")
        end = time.monotonic() + 120
        while len(set(got)) < stored and time.monotonic() < end:
            time.sleep(0.1)
    server.shutdown()
    server.server_close()
    slower, all_there = ratios["away"] / ratios["before"], len(set(got)) == stored
    told = f"{len(set(got))} of {stored}, {'' if got == sorted(got) else 'not '}in order"
    return rows, [
        claim(f"95th percentile, a sink away for {seconds:g} s", "within 20 %", f"{slower:.2f} x", slower < 1.2),
        claim("its messages afterwards", "all, in order", told, all_there and got == sorted(got)),
    ]


def receiver(port: int, got: list[int]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(204)
            self.end_headers()

        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"])))["id"])
            self.do_HEAD()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def paced(span: float, names: Iterator[str], images: list[bytes]) -> Iterator[tuple[str, bytes]]:
    end = time.monotonic() + span
    due = time.monotonic()
    while due < end:
        time.sleep(max(0.0, due - time.monotonic()))
        name = next(names)
        yield name, images[hash(name) % len(images)]
        due = max(due + 1 / PACE, time.monotonic())  # what came too late isn't made up for


# --------------------------------------------------------------------------------------------------------------- main


def timed(function: Callable[[], Any]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def models(folder: Path) -> tuple[Path, Path, list[bytes]]:
    """The line's model, a small one, and pictures."""
    from blemish import Engine, ImageDataModule, Padim

    parts = draw_parts(folder / "parts", 24, test=4)
    tested = sorted((parts / "test").rglob("*.png"))
    paths = []
    for name, settings in (
        ("line", {"backbone": "bundled", "image_size": SIDE}),
        ("small", {"backbone": "filter_bank", "image_size": 64}),
    ):
        model = Padim(**settings)
        Engine("cpu", progress=False).fit(model, ImageDataModule(parts, num_workers=0))
        paths.append(model.export(folder / name, "onnx", images=tested[:4]).path)
    good = sorted((parts / "test" / "good").iterdir())
    bad = [path for path in tested if path not in good]
    line = [good[number % len(good)] for number in range(19)] + bad[:1]  # one part in twenty is defective
    return paths[0], paths[1], [path.read_bytes() for path in line]


class Installed:
    """Answers as `common.Half` does; everything runs here."""

    name = "ours"

    def __call__(self, task: str) -> dict[str, str]:
        packages = ("blemish", "onnxruntime", "fastapi", "uvicorn", "sqlalchemy")
        return {"sqlite": sqlite3.sqlite_version, **{package: version(package) for package in packages}}


def main() -> None:
    parser = arguments(__doc__ or "", device=False, peer=False)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--outage", type=float, default=600, help="seconds that a sink is away")
    parser.add_argument("--no-postgresql", action="store_true", help="leave PostgreSQL out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line, small, images = models(folder)
        work: dict[str, Callable[[], tuple[list[Row], list[Row]]]] = {
            "http": lambda: http_rate(folder, line, images, options.requests),
            "files": lambda: dropped_files(folder, small, images, options.files),
            "kills": lambda: killed(folder, small, images, options.kills),
            "history": lambda: paging(folder, options.rows, not options.no_postgresql),
            "outage": lambda: outage(folder, line, images, options.outage),
        }
        for part in options.parts:
            report(f"station_{part}", options, *work[part](), Installed())


if __name__ == "__main__":
    main()
