"""Which model judges a product: the configured one, or one that a person has promoted.

Events, of which the newest counts. A promotion stands in for one configured model, by its fingerprint: who puts another
file into the configuration has decided anew, and gets that one.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from blemish.errors import ArtifactError, UsageError
from blemish.seal import read_seal
from blemish.serve.audit import note
from blemish.serve.history import History, now
from blemish.serve.models import Models
from blemish.serve.tables import PROMOTED, READY, candidates, promotions
from blemish.serve.thresholds import ChangedMeanwhile


class Promotions:
    """Who judges, and who did before.

    Args:
        history: whose database holds the events.
        configured: product -> the model file that the configuration names.
        file_of: the file of a candidate, by its number.
    """

    def __init__(self, history: History, configured: Mapping[str, Path], file_of: Callable[[int], Path]) -> None:
        self._history, self._configured, self._file_of = history, dict(configured), file_of
        self._lock = threading.Lock()  # one change at a time
        self._seals = {product: _fingerprint(path) for product, path in configured.items()}

    def candidate(self, product: str) -> int | None:
        """The number of the candidate that judges a product; None where the configured model does."""
        newest = self._newest(product)
        return None if newest is None else newest.candidate

    def file(self, product: str) -> Path:
        """The model file that shall judge a product."""
        candidate = self.candidate(product)
        return self._configured[product] if candidate is None else self._file_of(candidate)

    def promote(self, models: Models, candidate: int, *, seen: str, who: str) -> None:
        """Lets a candidate judge, from the next part on.

        Args:
            models: of the station.
            candidate: its number.
            seen: fingerprint of the model in force when the person decided.
            who: the person.

        Raises:
            ChangedMeanwhile: if another model is in force, or the candidate isn't ready any more.
            BlemishError: if the candidate can't be opened.
        """
        with self._lock, self._history.engine.connect() as connection:
            row = connection.execute(select(candidates).where(candidates.c.id == candidate)).first()
            if row is None or row.state != READY:
                raise ChangedMeanwhile(f"Candidate {candidate} is {'gone' if row is None else row.state}. Look again.")
            newest = self._newest(row.product)
            self._switch(models, row.product, candidate, None if newest is None else newest.id, seen, who)

    def go_back(self, models: Models, product: str, *, seen: str, who: str) -> None:
        """Lets the model judge that did so before the newest promotion.

        Raises:
            ChangedMeanwhile: if another model than `seen` is in force.
            UsageError: if none was promoted.
            BlemishError: if the earlier model can't be opened.
        """
        with self._lock, self._history.engine.connect() as connection:
            newest = self._newest(product)
            if newest is None or newest.candidate is None:
                raise UsageError(f"Product {product!r} has its configured model. There is no way back.")
            earlier = connection.execute(select(promotions).where(promotions.c.id == newest.before)).first()
            target, before = (None, None) if earlier is None else (earlier.candidate, earlier.before)
            self._switch(models, product, target, before, seen, who)

    def _switch(
        self, models: Models, product: str, candidate: int | None, before: int | None, seen: str, who: str
    ) -> None:
        current = models.session(product).fingerprint or ""
        if current != seen:
            raise ChangedMeanwhile(f"Product {product!r} is judged by model {current[:16]} by now. Look again.")
        path = self._configured[product] if candidate is None else self._file_of(candidate)
        opened = models.opened(product, path)
        row = {"product": product, "configured": self._seals[product], "candidate": candidate, "before": before}
        detail = {"product": product, "before": current, "model": opened[0].fingerprint}

        def job(connection: Connection) -> None:
            connection.execute(insert(promotions).values(**row, who=who, time=now()))
            if candidate is not None:
                connection.execute(update(candidates).where(candidates.c.id == candidate).values(state=PROMOTED))
            note(connection, who, "change model", **detail)

        self._history.writer.run(job)  # on the disk before it judges anything
        models.put(product, path, opened)

    def _newest(self, product: str) -> Any:
        query = select(promotions).where(
            promotions.c.product == product, promotions.c.configured == self._seals[product]
        )
        with self._history.engine.connect() as connection:
            return connection.execute(query.order_by(promotions.c.id.desc()).limit(1)).first()


def _fingerprint(path: Path) -> str:
    """What nobody promoted anything for where the file can't be read: then it judges, and `Models.check` complains."""
    try:
        return read_seal(path, [path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else []) or ""
    except (ArtifactError, OSError):
        return "unreadable"
