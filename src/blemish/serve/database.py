"""The database of a station: one engine to read with, and one thread that writes.

SQLite takes one writer at a time anyway, and numbers that one thread hands out are committed in their order in
PostgreSQL as well. Writes that wait together share a transaction: under load a commit, and so a flush of the disk, is
paid once for many parts.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

import alembic.command
import alembic.config
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from blemish.errors import UsageError
from blemish.extras import needing_extras

T = TypeVar("T")
TOGETHER = 256
"""Writes in one transaction at most."""


def open_database(url: str) -> Engine:
    """An engine for SQLite in WAL mode, or PostgreSQL.

    Raises:
        UsageError: for another database, or one that can't be reached.
        MissingExtraError: for PostgreSQL without its driver.
    """
    try:
        kind = make_url(url).get_backend_name()
        if kind not in ("sqlite", "postgresql"):
            raise UsageError(f"database must be sqlite:/// or postgresql+psycopg://. Got {kind!r}.")
        with needing_extras():
            engine = create_engine(url, pool_size=8, max_overflow=32)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(f"database must be sqlite:/// or postgresql+psycopg://. {error}.") from error
    if kind == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _: Any) -> None:
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def migrate(engine: Engine) -> None:
    """Brings the schema to that of this version; a new database gets all of it.

    Raises:
        UsageError: if the database can't be reached, or a newer version wrote it.
    """
    shown = engine.url.render_as_string(hide_password=True)
    settings = alembic.config.Config()
    settings.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    settings.set_main_option("path_separator", "os")
    try:
        with engine.begin() as connection:
            settings.attributes["connection"] = connection
            alembic.command.upgrade(settings, "head")
    except alembic.util.CommandError as error:
        raise UsageError(
            f"The database {shown} was written by a newer blemish ({error}). Run: pip install --upgrade blemish"
        ) from error
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise UsageError(f"The database {shown} can't be used: {reason}. Check its address and its rights.") from error


def sole_user(folder: Path, engine: Engine) -> list[Any]:
    """Locks a station's folder and database until the process ends, however it ends.

    Returns:
        What holds the locks; they go with it.

    Raises:
        UsageError: if another station is at work there.
    """
    lock = sqlite3.connect(folder / "station.lock", timeout=0, isolation_level=None, check_same_thread=False)
    try:
        lock.execute("BEGIN EXCLUSIVE")  # a lock that every operating system lifts when the process is gone
    except sqlite3.OperationalError as error:
        lock.close()
        raise UsageError(f"Another station is at work in {folder}. Stop it, or choose another --data.") from error
    held: list[Any] = [lock]
    if engine.dialect.name == "postgresql":
        connection = engine.connect()
        if not connection.scalar(text("SELECT pg_try_advisory_lock(hashtext('blemish station'))")):
            connection.close()
            lock.close()
            raise UsageError("Another station is at work in this database. Stop it, or choose another --database.")
        connection.commit()  # the lock belongs to the connection, not to the transaction
        held.append(connection)
    return held


class Writer:
    """The thread that writes.

    Args:
        engine: of `open_database`.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: queue.SimpleQueue[tuple[Callable[[Connection], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Connection], T]) -> Future[T]:
        """Runs `job` in a transaction; its result is there when it is committed, or the error when nothing was."""
        future: Future[T] = Future()
        self._jobs.put((job, future))
        return future

    def run(self, job: Callable[[Connection], T]) -> T:
        """As `submit`, and waits."""
        return self.submit(job).result()

    def close(self) -> None:
        """Writes what was submitted, and ends."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            jobs, last = [first], False
            while len(jobs) < TOGETHER:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    last = True
                    break
                jobs.append(job)
            self._write(jobs)
            if last:
                break

    def _write(self, jobs: list[tuple[Callable[[Connection], Any], Future[Any]]]) -> None:
        try:
            with self._engine.begin() as connection:
                results = [job(connection) for job, _ in jobs]
        except Exception as error:
            if len(jobs) > 1:  # one that can't be written must not take the others along
                for job in jobs:
                    self._write([job])
            else:
                jobs[0][1].set_exception(error)
            return
        for (_, future), result in zip(jobs, results, strict=True):
            future.set_result(result)
