"""What people say of verdicts, and which verdicts they are asked about. Verdicts themselves stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import Connection, func, insert, select

from blemish.errors import UsageError
from blemish.serve.history import History, Verdict, now
from blemish.serve.tables import ANOMALOUS, FAILED, JUDGEMENTS, NORMAL, feedback, review

Opinion: TypeAlias = dict[str, Any]
"""A row of `feedback` by column."""

CONTROL = 0.02
"""Share of the other parts that people are asked about, so that what is far from the threshold is looked at as well."""
_HOUR = 3_600_000_000


class Feedback:
    """Opinions, and the queue of verdicts to look at.

    Args:
        history: whose verdicts.
        per_hour: how many people are asked about within an hour at most.
        near: see `reason_to_ask`.

    Attributes:
        judged: called with a verdict of which a person has said something.
    """

    def __init__(self, history: History, per_hour: int, near: float) -> None:
        self._history, self._per_hour, self._near = history, per_hour, near
        self.judged: Callable[[Verdict], None] = lambda verdict: None

    def add(self, uid: str, who: str, judgement: str, kind: str = "", note: str = "") -> None:
        """Notes what a person says.

        Args:
            uid: of the part.
            who: the person.
            judgement: one of `JUDGEMENTS`: an anomalous part may be a false alarm, a normal one missed.
            kind: of defect.
            note: anything.

        Raises:
            UsageError: if there is no such verdict, or it can't be judged so.
        """
        if judgement not in JUDGEMENTS:
            raise UsageError(f"judgement must be one of {', '.join(JUDGEMENTS)}. Got {judgement!r}.")
        verdict = self._history.get(uid)
        if verdict is None:
            raise UsageError("There is no verdict of that uid.")
        needed = {"false alarm": (ANOMALOUS,), "missed": (NORMAL,), "right": (ANOMALOUS, NORMAL)}[judgement]
        if verdict["label"] not in needed:
            raise UsageError(
                f"{judgement!r} can be said of a part called {' or '.join(needed)}. It is {verdict['label']}."
            )
        row = {"uid": uid, "who": who, "judgement": judgement, "kind": kind[:64], "note": note[:2000]}
        self._history.writer.run(lambda connection: connection.execute(insert(feedback).values(**row, time=now())))
        self.judged(verdict)

    def of(self, uids: Iterable[str]) -> dict[str, Opinion]:
        """The newest opinion on each of these that has one."""
        query = select(feedback).where(feedback.c.uid.in_(list(uids))).order_by(feedback.c.id)
        with self._history.engine.connect() as connection:
            return {row["uid"]: dict(row) for row in connection.execute(query).mappings()}

    def all_of(self, uid: str) -> list[Opinion]:
        """Every opinion on a part, oldest first."""
        query = select(feedback).where(feedback.c.uid == uid).order_by(feedback.c.id)
        with self._history.engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def listen(self, found: Sequence[Verdict]) -> None:
        """A listener of the pipeline: puts verdicts into the queue."""
        chosen = [(verdict["uid"], why) for verdict in found if (why := reason_to_ask(verdict, self._near))]
        if not chosen:
            return

        def job(connection: Connection) -> None:
            since = select(func.count()).where(review.c.time >= now() - _HOUR)
            room = self._per_hour - (connection.scalar(since) or 0)
            rows = [{"uid": uid, "why": why, "time": now()} for uid, why in chosen[: max(room, 0)]]
            if rows:
                connection.execute(insert(review), rows)

        self._history.writer.submit(job)

    def queue(self, limit: int) -> list[Verdict]:
        """Verdicts that wait for an opinion, newest first; "why" says why: "near" or "control"."""
        query = (
            select(review.c.uid, review.c.why)
            .where(~select(feedback.c.id).where(feedback.c.uid == review.c.uid).exists())
            .order_by(review.c.id.desc())
            .limit(limit)
        )
        with self._history.engine.connect() as connection:
            asked = {row.uid: row.why for row in connection.execute(query)}
        return [{**verdict, "why": asked[verdict["uid"]]} for verdict in self._history.several(list(asked))]


def reason_to_ask(verdict: Verdict, near: float) -> str | None:
    """Why a person shall look at a verdict, as one whose score is less than `near` from 0.5; None for no reason."""
    if verdict["label"] == FAILED:
        return None
    if abs(verdict["score"] - 0.5) < near:
        return "near"
    drawn = int(verdict["uid"][-16:-8], 16) / 2**32  # other digits than those that decide which pictures stay
    return "control" if drawn < CONTROL else None


def truly_defective(verdict: Mapping[str, Any], opinion: Mapping[str, Any] | None) -> bool | None:
    """What a part is, if a person has said so."""
    if opinion is None:
        return None
    return bool((verdict["label"] == ANOMALOUS) == (opinion["judgement"] == "right"))
