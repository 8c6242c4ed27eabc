"""Accepted once, judged once, never changed; on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, insert, inspect, text

from blemish.errors import UsageError
from blemish.serve.database import Writer, migrate, open_database, sole_user
from blemish.serve.history import History, Part, Search, Verdict, delivery_key, new_uid
from blemish.serve.tables import metadata, verdicts


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    os.environ.setdefault("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))  # it warns of a missing one
    pgserver = pytest.importorskip("pgserver")

    server = pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    finally:
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "sqlite":
        engine = open_database(f"sqlite:///{tmp_path}/station.sqlite")
    else:
        engine = open_database(request.getfixturevalue("postgresql"))
        with engine.begin() as connection:
            connection.execute(text("DROP SCHEMA public CASCADE"))
            connection.execute(text("CREATE SCHEMA public"))
    migrate(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def history(engine: Engine) -> Iterator[History]:
    writer = Writer(engine)
    yield History(engine, writer)
    writer.close()


def found(part: Part, label: str = "normal", raw_score: float | None = 1.5) -> Verdict:
    regions: list[Any] = [{"box": [0, 0, 2, 2]}]
    return {
        **{name: getattr(part, name) for name in ("uid", "key", "accepted", "source", "part", "product", "path")},
        **dict.fromkeys(("score", "threshold", "pixel_threshold", "brightness", "sharpness"), 0.5),
        "label": label,
        "raw_score": raw_score,
        "height": 4,
        "width": 6,
        "model": "m",
        "regions": regions,
        "seconds": 0.01,
        "error": None,
    }


def test_migrations_make_the_tables_that_the_code_uses(engine: Engine) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    migrate(engine)  # a second time does nothing
    assert {"accepted", "verdicts"} <= set(inspect(engine).get_table_names())


def test_a_part_is_in_the_journal_and_then_in_the_history(history: History) -> None:
    part = Part("http", "17", "gear", "a.png")
    assert history.accept([part]).result() == [True]
    assert history.waiting() == [part]
    [verdict] = history.record([found(part)]).result()
    assert history.waiting() == []
    assert history.get(part.uid) == verdict
    assert verdict["id"] == history.last_id()
    assert verdict["regions"] == [{"box": [0, 0, 2, 2]}]


def test_no_part_gets_two_verdicts(history: History) -> None:
    part = Part("http", "17", "gear")
    history.accept([part]).result()
    history.record([found(part)]).result()
    assert history.record([found(part, "anomalous")]).result() == []
    assert history.get(part.uid)["label"] == "normal"  # type: ignore[index]


def test_a_delivery_is_accepted_once(history: History) -> None:
    key = delivery_key("inbox", "a.png", 5)
    first, again = Part("inbox", "a", "gear", key=key), Part("inbox", "a", "gear", key=key)
    assert history.accept([first, again]).result() == [True, False]
    assert history.accept([again]).result() == [False]
    history.record([found(first)]).result()
    assert history.accept([again]).result() == [False]
    assert history.keys([key, "other"]) == {key}
    assert history.by_key(key)["uid"] == first.uid  # type: ignore[index]
    assert delivery_key("a", "bc") != delivery_key("ab", "c")


def test_one_write_that_fails_takes_no_other_along(history: History) -> None:
    good, broken = Part("http", "1", "gear"), Part("http", None, "gear")  # type: ignore[arg-type]
    futures = [history.accept([part]) for part in (good, broken)]
    assert futures[0].result() == [True]
    with pytest.raises(Exception, match=r"(?i)null"):
        futures[1].result()


def test_search_finds_what_a_loop_finds(history: History) -> None:
    labels = ("normal", "anomalous", "failed")
    for i in range(60):
        part = Part(("http", "inbox")[i % 2], f"p{i % 5}", ("gear", "pin")[i % 3 == 0])
        score = None if labels[i % 3] == "failed" else float(i)
        history.record([found(part, labels[i % 3], score)]).result()
    everything = list(history.every(Search()))
    assert [verdict["raw_score"] for verdict in everything[:2]] == [None, 58.0]
    assert len(everything) == 60
    moments = sorted({verdict["time"] for verdict in everything})
    wanted = [
        Search(label="anomalous"), Search(product="pin", label="normal"), Search(part="p3"), Search(source="inbox"),
        Search(low=10.0, high=20.0), Search(since=moments[20], until=moments[40]), Search(source="http", low=50.0),
        Search(product="no"),
    ]  # fmt: skip
    for one in wanted:
        naive = [
            verdict for verdict in everything
            if all(
                getattr(one, name) in (None, verdict[name]) for name in ("product", "label", "source", "part")
            )
            and (one.since is None or verdict["time"] >= one.since)
            and (one.until is None or verdict["time"] < one.until)
            and (one.low is None or (verdict["raw_score"] is not None and verdict["raw_score"] >= one.low))
            and (one.high is None or (verdict["raw_score"] is not None and verdict["raw_score"] <= one.high))
        ]  # fmt: skip
        paged, cursor = [], None
        while True:
            page = history.search(one, limit=4, cursor=cursor, window=7)
            assert len(page.verdicts) <= 4
            paged += page.verdicts
            cursor = page.cursor
            if cursor is None:
                break
        assert paged == naive == list(history.every(one, window=7)), one
    assert history.counts(0) == {"normal": 20, "anomalous": 20, "failed": 20}
    assert [verdict["id"] for verdict in history.after(10, 3)] == [11, 12, 13]


def test_a_page_at_the_end_of_a_span_walks_through_none_of_it(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{tmp_path}/station.sqlite")
    migrate(engine)
    rows = [
        {**found(Part("http", "", "gear", uid=f"{i:032x}")), "regions": "[]", "time": i, "accepted": i}
        for i in range(20_000)
    ]
    with engine.begin() as connection:
        connection.execute(insert(verdicts), rows)
        connection.execute(text("ANALYZE"))
    steps: list[None] = []  # one for each hundred instructions of SQLite's machine

    def count(connection: Any, *_: object) -> None:
        connection.set_progress_handler(lambda: steps.append(None), 100)

    event.listen(engine, "checkout", count)
    writer = Writer(engine)
    history = History(engine, writer)
    for wanted in (
        Search(since=100, until=20_000), Search(since=100), Search(since=100, until=20_000, product="gear")
    ):  # fmt: skip
        page = history.search(wanted, cursor="110-111")
        assert [verdict["time"] for verdict in page.verdicts] == list(range(109, 99, -1))
    writer.close()
    engine.dispose()
    assert len(steps) < 150


@pytest.mark.parametrize("cursor", ["", "1", "a-b", "1-2-3", "-1-2", "1" * 70 + "-2"])
def test_a_cursor_is_one_that_a_page_gave(history: History, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor must be one that a page gave"):
        history.search(Search(), cursor=cursor)


def test_uids_sort_by_time() -> None:
    assert len(new_uid()) == 32
    assert new_uid()[:12] <= new_uid()[:12]
    assert len({new_uid() for _ in range(1000)}) == 1000


def test_a_second_station_is_refused(engine: Engine, tmp_path: Path) -> None:
    held = sole_user(tmp_path, engine)
    with pytest.raises(UsageError, match="Another station is at work"):
        sole_user(tmp_path, engine)
    if engine.dialect.name == "postgresql":  # the database is shared, the folder isn't
        (tmp_path / "other").mkdir()
        with pytest.raises(UsageError, match="in this database"):
            sole_user(tmp_path / "other", engine)
    for lock in held:
        lock.close()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://a/b", "must be sqlite:/// or postgresql"),
        ("nonsense", "must be sqlite:/// or postgresql"),
        ("sqlite:////nowhere/at/all.sqlite", "can't be used: unable to open database file"),
        ("postgresql+psycopg://u:secret@127.0.0.1:1/x", "can't be used: connection failed"),
    ],
)
def test_a_database_that_cannot_be_used_is_one_clear_error(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        migrate(open_database(url))
    assert "secret" not in str(caught.value)


def test_a_database_of_a_newer_version_is_refused(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(UsageError, match="newer blemish"):
        migrate(engine)
