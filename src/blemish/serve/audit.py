"""Who did what: a chain in which each row's digest covers the one before it.

    digest_n = SHA-256(digest_(n-1), n, time, who, action, detail)

A row that was changed, removed or put in between breaks the chain at that place. Rows cut off at the end are noticed by
whoever kept the digest of an earlier export.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Connection, Engine, insert, select

from blemish.serve.history import now
from blemish.serve.tables import audit

FIRST = "0" * 64


def note(connection: Connection, who: str, action: str, **detail: Any) -> None:
    """Adds a row, in the transaction of what it is about. Only the writing thread may do this."""
    last = connection.execute(select(audit.c.id, audit.c.digest).order_by(audit.c.id.desc()).limit(1)).first()
    number, before = (1, FIRST) if last is None else (last.id + 1, last.digest)
    row = {"id": number, "time": now(), "who": who, "action": action, "detail": json.dumps(detail, sort_keys=True)}
    connection.execute(insert(audit).values(**row, digest=_digest(before, row)))


def entries(engine: Engine, *, newest_first: bool = False, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Rows by column, `detail` as a mapping."""
    query = select(audit).order_by(audit.c.id.desc() if newest_first else audit.c.id).limit(limit)
    with engine.connect() as connection:
        for row in connection.execution_options(yield_per=1000).execute(query).mappings():
            yield {**row, "detail": json.loads(row["detail"])}


def broken_at(engine: Engine) -> int | None:
    """The number of the first row that doesn't fit the one before it; None if the chain is whole."""
    before, expected = FIRST, 1
    with engine.connect() as connection:
        rows = connection.execution_options(yield_per=1000).execute(select(audit).order_by(audit.c.id)).mappings()
        for row in rows:
            if row["id"] != expected or row["digest"] != _digest(before, row):
                return expected
            before, expected = row["digest"], expected + 1
    return None


def _digest(before: str, row: Any) -> str:
    content = [before, *(row[name] for name in ("id", "time", "who", "action", "detail"))]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
