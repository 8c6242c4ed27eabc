"""Delivers verdicts to a sink, in the order of the history, from where the last run came to.

A sink has no queue of its own: the history is the queue, and the database remembers up to which verdict a sink has got
it. So a sink may be gone for weeks, memory stays what it is, the inspection never waits, and what was missed follows in
order. After a crash the last few are delivered once more: `id` and `uid` tell.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection, insert, select, update

from blemish.errors import UsageError
from blemish.serve.history import History, Verdict, now
from blemish.serve.sinks.settings import SinkSection
from blemish.serve.tables import sinks

log = logging.getLogger(__name__)
BATCH = 64
"""Verdicts that are read at once, and delivered again at most after a crash."""
POLL = 0.05
"""Seconds until a receiver that wasn't ready is asked again."""
GRACE = 5.0
"""Seconds that a sink has for what is left when the station stops."""


class Sink(Protocol):
    """Something that takes verdicts. All of it may raise: then it is closed, and opened again later."""

    def open(self) -> None:
        """Connects."""

    def send(self, verdict: Verdict) -> bool:
        """Delivers a verdict, for good once `flush` has returned; False if the receiver isn't ready for it yet."""

    def flush(self) -> None:
        """Makes sure of what was sent."""

    def beat(self) -> None:
        """Shows that the station is alive."""

    def close(self) -> None:
        """Disconnects; may be called at any time."""


@dataclass(frozen=True)
class SinkState:
    """How a sink is.

    Attributes:
        waiting: verdicts of the history that it hasn't seen yet.
        delivered: how many it got since the station started. errors: how often it failed since.
        last: when it got the last one, microseconds since 1970; None before the first.
        trouble: what is wrong at the moment; None if nothing is.
        error: what was wrong last.
    """

    waiting: int
    delivered: int
    errors: int
    last: int | None
    trouble: str | None
    error: str | None


@dataclass(frozen=True)
class Pace:
    """How a worker waits, in seconds.

    Attributes:
        beat: between two heartbeats.
        longest: between two tries to reach a sink, at most; the first follows after half a second.
        patience: how long a receiver may not be ready before that is called a trouble.
    """

    beat: float = 1.0
    longest: float = 30.0
    patience: float = 5.0


class Worker:
    """A thread that delivers.

    Args:
        settings: of the sink: its name, and which verdicts it gets.
        sink: that gets them.
        history: where they come from.
        pace: how it waits.

    Raises:
        UsageError: if a sink that the database doesn't know yet can't be reached. One that was reached before may be
            out of order while the station starts.
    """

    def __init__(self, settings: SinkSection, sink: Sink, history: History, pace: Pace = Pace()) -> None:
        self.settings, self.name = settings, settings.title
        self._sink, self._history, self._pace = sink, history, pace
        self._stop, self._wake = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"sink {self.name}", daemon=True)
        self._open = False
        self._deadline = self._beaten = 0.0
        self._refused_since: float | None = None
        self._delivered = self._errors = 0
        self.trouble: str | None = None
        self._error: str | None = None
        with history.engine.connect() as connection:
            row = connection.execute(select(sinks).where(sinks.c.name == self.name)).first()
        self._known = row is not None
        self._cursor: int = history.last_id() if row is None else row.cursor
        self._last: int | None = None if row is None else row.time
        if not self._known:
            try:
                sink.open()
            except Exception as error:
                self.close()
                raise UsageError(
                    f"The sink {self.name!r} can't be used: {reason_of(error)}. Start what is at {settings.place}, or "
                    f"take the sink out of the configuration."
                ) from error
            self._open = True

    def start(self) -> None:
        """Starts delivering."""
        if not self._known:
            row = {"name": self.name, "cursor": self._cursor, "time": None}
            self._history.writer.run(lambda connection: connection.execute(insert(sinks).values(**row)))
        self._thread.start()

    def stop(self) -> None:
        """Delivers what it can within `GRACE` seconds, and ends. The rest follows with the next start."""
        self._deadline = time.monotonic() + GRACE
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def close(self) -> None:
        """Disconnects."""
        self._open = False
        with suppress(Exception):  # it may be the connection's end that is the trouble
            self._sink.close()

    def wake(self, _: object = None) -> None:
        """A listener of the pipeline: there is something to deliver."""
        self._wake.set()

    @property
    def state(self) -> SinkState:
        """How the sink is."""
        waiting = max(self._history.last_id() - self._cursor, 0)
        return SinkState(waiting, self._delivered, self._errors, self._last, self.trouble, self._error)

    # ------------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        again = 0.0
        while not (self._stop.is_set() and time.monotonic() > self._deadline):
            self._wake.clear()
            try:
                if not self._open:
                    self._sink.open()
                    self._open = True
                pause = self._deliver()
                again = 0.0
            except Exception as error:
                self._errors += 1
                self.trouble = self._error = reason_of(error)
                log.warning("sink %s: %s", self.name, self.trouble)
                self.close()
                if self._stop.is_set():
                    break
                again = min(max(0.5, 2 * again), self._pace.longest)
                self._stop.wait(again)
                continue
            if pause == self._pace.beat:
                if self._stop.is_set():
                    break
                self._wake.wait(pause)
            elif pause:
                time.sleep(pause)
        self.close()

    def _deliver(self) -> float:
        """Delivers the next verdicts; how many seconds there is nothing to do then."""
        found = self._history.after(self._cursor, BATCH)
        reached, sent, pause = self._cursor, 0, 0.0 if found else self._pace.beat
        try:
            for verdict in found:
                if self._wants(verdict):
                    if not self._sink.send(verdict):
                        pause = POLL
                        break
                    sent += 1
                reached = verdict["id"]
        finally:
            if reached > self._cursor:
                self._sink.flush()
                self._remember(reached, sent)
        if time.monotonic() - self._beaten >= self._pace.beat:
            self._sink.beat()
            self._beaten = time.monotonic()
        if pause != POLL or sent:
            self._refused_since = None
        elif self._refused_since is None:
            self._refused_since = time.monotonic()
        slow = self._refused_since is not None and time.monotonic() - self._refused_since > self._pace.patience
        self.trouble = f"it hasn't taken verdict {found[0]['id']} for {self._pace.patience:g} s" if slow else None
        return pause

    def _wants(self, verdict: Verdict) -> bool:
        wanted = self.settings
        return (
            verdict["label"] in wanted.labels
            and (not wanted.products or verdict["product"] in wanted.products)
            and (not wanted.sources or verdict["source"] in wanted.sources)
        )

    def _remember(self, reached: int, sent: int) -> None:
        last = now() if sent else self._last

        def job(connection: Connection) -> None:
            connection.execute(update(sinks).where(sinks.c.name == self.name).values(cursor=reached, time=last))

        self._history.writer.run(job)
        self._cursor, self._last = reached, last
        self._delivered += sent


def reason_of(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
