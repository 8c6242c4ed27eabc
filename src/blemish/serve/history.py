"""The memory of a station: what it accepted, and what it found.

Append-only: there is no way to change or remove a verdict. A part is journalled before it is judged and gets its
verdict in the transaction that takes it out of the journal, so after a crash what is in the journal is exactly what
has no verdict yet.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, Select, delete, func, insert, select, tuple_

from blemish.serve.database import Writer
from blemish.serve.tables import accepted, feedback, verdicts

Verdict: TypeAlias = dict[str, Any]
"""A row of `verdicts` by column, with `regions` as a list; times in microseconds since 1970, UTC."""

WINDOW = 50_000
"""Verdicts that one search looks through at most. It then says how far it came: no filter makes a page slow."""


def now() -> int:
    """Microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def iso(microseconds: int) -> str:
    """A time as ISO 8601 writes it, in UTC."""
    return datetime.fromtimestamp(microseconds / 1e6, timezone.utc).isoformat(timespec="milliseconds")


def new_uid() -> str:
    """32 hexadecimal digits that nobody else has and that sort by time, which keeps an index of millions in order."""
    return f"{now() // 1000:012x}{secrets.token_hex(10)}"


def delivery_key(*identity: object) -> str:
    """32 hexadecimal digits for one delivery, of what tells it from others."""
    return hashlib.sha256("\0".join(map(str, identity)).encode("utf-8", "backslashreplace")).hexdigest()[:32]


@dataclass(frozen=True)
class Part:
    """A part that a source brings.

    Attributes:
        source: its name. part: the part's own, "" where it has none. product: its code.
        path: of its picture; None where that is in memory alone.
        key: see `delivery_key`; a second part with the same one isn't accepted. None for a part without one.
        uid, accepted: the station's own name for it, and when it was taken.
    """

    source: str
    part: str
    product: str
    path: str | None = None
    key: str | None = None
    uid: str = field(default_factory=new_uid)
    accepted: int = field(default_factory=now)


@dataclass(frozen=True)
class Search:
    """Which verdicts are wanted; None for all.

    Attributes:
        since, until: first moment, and the first moment after; microseconds since 1970.
        product, label, source, part: equal to these.
        low, high: raw scores from `low` to `high`, both included.
        feedback: the newest opinion is this; "none": there is none.
    """

    since: int | None = None
    until: int | None = None
    product: str | None = None
    label: str | None = None
    source: str | None = None
    part: str | None = None
    low: float | None = None
    high: float | None = None
    feedback: str | None = None


@dataclass(frozen=True)
class Page:
    """Verdicts, newest first.

    Attributes:
        cursor: where the next page begins; None if there is none.
        searched_to: time of the oldest verdict that was looked at; None if nothing older is left.
    """

    verdicts: list[Verdict]
    cursor: str | None
    searched_to: int | None


class History:
    """Reads with any thread, writes with one.

    Args:
        engine: of a migrated database.
        writer: over the same.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self.engine = engine
        self.writer = writer

    # ---------------------------------------------------------------------------------------------------------- writing

    def accept(self, parts: Sequence[Part]) -> Future[list[bool]]:
        """Journals parts; when the result is there, each that is True will get a verdict, whatever happens. False
        stands for one whose key was accepted before.
        """

        def job(connection: Connection) -> list[bool]:
            keys = [part.key for part in parts if part.key is not None]
            known: set[str | None] = set()
            for table in (accepted, verdicts) if keys else ():
                known |= set(connection.scalars(select(table.c.key).where(table.c.key.in_(keys))))
            fresh = []
            for part in parts:
                fresh.append(part.key is None or part.key not in known)
                known.add(part.key)
            rows = [asdict(part) for part, new in zip(parts, fresh, strict=True) if new]
            if rows:
                connection.execute(insert(accepted), rows)
            return fresh

        return self.writer.submit(job)

    def record(self, found: Sequence[Verdict]) -> Future[list[Verdict]]:
        """Moves parts from the journal into the history; the result has their `id` and `time`. A part that has its
        verdict already keeps it.
        """

        def job(connection: Connection) -> list[Verdict]:
            uids = [verdict["uid"] for verdict in found]
            done = set(connection.scalars(select(verdicts.c.uid).where(verdicts.c.uid.in_(uids))))
            rows = [{**verdict, "time": now()} for verdict in found if verdict["uid"] not in done]
            if rows:
                stored = [{**row, "regions": json.dumps(row["regions"])} for row in rows]
                statement = insert(verdicts).returning(verdicts.c.id, sort_by_parameter_order=True)
                for row, number in zip(rows, connection.scalars(statement, stored), strict=True):
                    row["id"] = number
            connection.execute(delete(accepted).where(accepted.c.uid.in_(uids)))
            return rows

        return self.writer.submit(job)

    # ---------------------------------------------------------------------------------------------------------- reading

    def waiting(self) -> list[Part]:
        """Accepted parts without a verdict, in the order in which they came."""
        with self.engine.connect() as connection:
            rows = connection.execute(select(accepted).order_by(accepted.c.accepted, accepted.c.uid)).mappings()
            return [Part(**row) for row in rows]

    def get(self, uid: str) -> Verdict | None:
        """The verdict on a part; None if it has none."""
        return self._one(select(verdicts).where(verdicts.c.uid == uid))

    def by_key(self, key: str) -> Verdict | None:
        """The verdict on the part of one delivery; None if it has none."""
        return self._one(select(verdicts).where(verdicts.c.key == key))

    def keys(self, keys: Sequence[str]) -> set[str]:
        """Those of these that were accepted before, at most a thousand."""
        found: set[str] = set()
        with self.engine.connect() as connection:
            for table in (accepted, verdicts):
                found |= set(connection.scalars(select(table.c.key).where(table.c.key.in_(keys))))
        return found

    def several(self, uids: Sequence[str]) -> list[Verdict]:
        """The verdicts on these parts, newest first."""
        query = select(verdicts).where(verdicts.c.uid.in_(uids)).order_by(verdicts.c.id.desc())
        with self.engine.connect() as connection:
            return [_verdict(row) for row in connection.execute(query).mappings()]

    def search(self, wanted: Search, *, limit: int = 50, cursor: str | None = None, window: int = WINDOW) -> Page:
        """Verdicts that fit, newest first.

        Args:
            wanted: what to look for.
            limit: how many at most.
            cursor: of the page before; None for the first.
            window: how many verdicts are looked through at most, where no index answers.

        Raises:
            ValueError: for a cursor that no page gave.
        """
        query = select(verdicts.c.time, verdicts.c.id).order_by(verdicts.c.time.desc(), verdicts.c.id.desc())
        for name in ("product", "label", "part"):  # each has an index that holds the order as well
            value = getattr(wanted, name)
            if value is not None:
                query = query.where(verdicts.c[name] == value)
        if wanted.since is not None:
            query = query.where(verdicts.c.time >= wanted.since)
        until = wanted.until
        if cursor is not None:
            moment, number = _position(cursor)
            query = query.where(tuple_(verdicts.c.time, verdicts.c.id) < (moment, number))
            until = moment + 1 if until is None else min(until, moment + 1)
        if until is not None:
            # One bound, which says again what the pair does: of pairs, planners can neither tell how many rows they
            # leave, nor which of two bounds is the nearer one, and go through millions.
            query = query.where(verdicts.c.time < until)
        with self.engine.connect() as connection:
            # All that the indices don't answer is looked for in a window of bounded size.
            end = connection.execute(query.offset(window - 1).limit(1)).first() if self._conditions(wanted) else None
            if end is not None:
                inside = tuple_(verdicts.c.time, verdicts.c.id) >= (end.time, end.id)
                query = query.where(verdicts.c.time >= end.time, inside)
            full = query.with_only_columns(*verdicts.c).where(*self._conditions(wanted)).limit(limit + 1)
            rows = [_verdict(row) for row in connection.execute(full).mappings()]
        if len(rows) > limit:
            rows = rows[:limit]
            return Page(rows, f"{rows[-1]['time']}-{rows[-1]['id']}", rows[-1]["time"])
        if end is not None:
            return Page(rows, f"{end.time}-{end.id}", end.time)
        return Page(rows, None, None)

    def every(self, wanted: Search, *, window: int = WINDOW) -> Iterator[Verdict]:
        """All verdicts that fit, newest first, in bounded memory."""
        cursor = None
        while True:
            page = self.search(wanted, limit=1000, cursor=cursor, window=window)
            yield from page.verdicts
            cursor = page.cursor
            if cursor is None:
                return

    def after(self, number: int, limit: int) -> list[Verdict]:
        """The next verdicts whose `id` is above `number`, oldest first."""
        query = select(verdicts).where(verdicts.c.id > number).order_by(verdicts.c.id).limit(limit)
        with self.engine.connect() as connection:
            return [_verdict(row) for row in connection.execute(query).mappings()]

    def last_id(self) -> int:
        """The `id` of the newest verdict; 0 before the first."""
        with self.engine.connect() as connection:
            return connection.scalar(select(func.max(verdicts.c.id))) or 0

    def appearance(self, product: str, limit: int) -> list[tuple[int, float, float]]:
        """Time, brightness and sharpness of the newest parts of a product that have them, oldest first."""
        row = verdicts.c
        query = select(row.time, row.brightness, row.sharpness).where(row.product == product)
        query = query.order_by(row.time.desc(), row.id.desc()).limit(limit)
        with self.engine.connect() as connection:
            found = connection.execute(query).all()
        return [(time, light, detail) for time, light, detail in reversed(found) if light is not None]

    def counts(self, since: int) -> dict[str, int]:
        """How many verdicts of each label there are from a moment on."""
        query = (
            select(verdicts.c.label, func.count().label("total"))
            .where(verdicts.c.time >= since)
            .group_by(verdicts.c.label)
        )
        with self.engine.connect() as connection:
            return {row.label: row.total for row in connection.execute(query)}

    def _conditions(self, wanted: Search) -> list[Any]:
        found: list[Any] = []
        if wanted.source is not None:
            found.append(verdicts.c.source == wanted.source)
        if wanted.low is not None:
            found.append(verdicts.c.raw_score >= wanted.low)
        if wanted.high is not None:
            found.append(verdicts.c.raw_score <= wanted.high)
        if wanted.feedback is not None:
            newest = select(feedback.c.judgement).where(feedback.c.uid == verdicts.c.uid)
            newest = newest.order_by(feedback.c.id.desc()).limit(1)
            if wanted.feedback == "none":
                found.append(~newest.exists())
            else:  # few were ever called so: the others need no look at their newest opinion
                called = (feedback.c.judgement == wanted.feedback, feedback.c.uid == verdicts.c.uid)
                found += [select(feedback.c.id).where(*called).exists(), newest.scalar_subquery() == wanted.feedback]
        return found

    def _one(self, query: Select[Any]) -> Verdict | None:
        with self.engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return None if row is None else _verdict(row)


def shown(verdict: Verdict) -> dict[str, Any]:
    """A verdict as other programs get it: times as ISO 8601, nothing of the station's own."""
    left = {name: value for name, value in verdict.items() if name not in ("key", "path")}
    return {**left, "accepted": iso(verdict["accepted"]), "time": iso(verdict["time"])}


def _verdict(row: Any) -> Verdict:
    return {**row, "regions": json.loads(row["regions"])}


def _position(cursor: str) -> tuple[int, int]:
    moment, _, number = cursor.partition("-")
    if not (moment.isdigit() and number.isdigit() and len(cursor) < 60):
        raise ValueError(f"cursor must be one that a page gave. Got {cursor!r:.80}.")
    return int(moment), int(number)
