"""Learning from what people judged: one job at a time, in a process of its own, and the candidates that come of it.

A job writes reviewed pictures into a data set, fits or updates a model, and compares it with the one in force on
pictures that neither has learned from. Then the candidate judges in the shadow until a person promotes or discards it.
"""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, update

from blemish.errors import BlemishError, OutputError, UsageError
from blemish.serve.audit import note
from blemish.serve.feedback import Feedback
from blemish.serve.history import History, now
from blemish.serve.models import Models
from blemish.serve.pictures import Pictures
from blemish.serve.reviewed import Reviewed, reviewed_of, write_data_set
from blemish.serve.tables import BROKEN, DISCARDED, INTERRUPTED, READY, RUNNING, candidates

log = logging.getLogger(__name__)
WAYS = ("update", "fit")
"""Add pictures to the model, or learn anew with its settings."""


class Busy(UsageError):
    """Another job runs."""


class Learning:
    """Jobs and candidates of a station.

    Args:
        folder: for data sets and models.
        history, feedback, pictures, models: of the station.
        datasets: product -> pictures that a new model learns from as well.

    Attributes:
        job: number, phase, and how much is done of the job that runs; None where none does.
        changed: called when a candidate of a product has become ready, or isn't any more.
    """

    def __init__(
        self,
        folder: Path,
        history: History,
        feedback: Feedback,
        pictures: Pictures,
        models: Models,
        datasets: Mapping[str, Path | None],
    ) -> None:
        self._folder, self._history, self._feedback = folder, history, feedback
        self._pictures, self._models, self._datasets = pictures, models, datasets
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self.job: dict[str, Any] | None = None
        self.changed: Callable[[], None] = lambda: None
        ended = update(candidates).where(candidates.c.state == RUNNING)
        ended = ended.values(state=INTERRUPTED, error="The station ended before the job did. Start it again.")
        history.writer.run(lambda connection: connection.execute(ended))

    def file_of(self, candidate: int) -> Path:
        """The model file of a candidate."""
        return self._folder / str(candidate) / "model.safetensors"

    def reviewed(self, product: str) -> Reviewed:
        """What there is to learn from."""
        return reviewed_of(self._history, self._feedback, self._pictures, product)

    def candidates(self, product: str | None = None, *, state: str | None = None) -> list[dict[str, Any]]:
        """Rows by column, newest first; `report` as a mapping."""
        query = select(candidates).order_by(candidates.c.id.desc())
        query = query if product is None else query.where(candidates.c.product == product)
        query = query if state is None else query.where(candidates.c.state == state)
        with self._history.engine.connect() as connection:
            rows = connection.execute(query.limit(100)).mappings()
            return [{**row, "report": json.loads(row["report"])} for row in rows]

    def start(self, product: str, how: str, who: str) -> int:
        """Starts a job.

        Args:
            product: its code.
            how: one of `WAYS`.
            who: the person.

        Returns:
            The number of the candidate to be.

        Raises:
            Busy: if a job runs.
            BlemishError: if the model can't be learned from, or there aren't enough pictures.
        """
        if how not in WAYS:
            raise UsageError(f"how must be one of {', '.join(WAYS)}. Got {how!r}.")
        session, start = self._models.session(product), self._models.products[product]
        if start.suffix.lower() != ".safetensors":
            raise UsageError(
                f"An exported model can't learn. Give product {product!r} the .safetensors that {start.name} was made "
                f"from."
            )
        with self._lock:
            if self.job is not None:
                raise Busy(f"Candidate {self.job['candidate']} is being made. One job runs at a time.")
            found = self.reviewed(product)
            number = self._add(product, how, who, found)
            folder = self.file_of(number).parent
            try:
                shutil.rmtree(folder, ignore_errors=True)  # of a database that was set back
                write_data_set(found, folder / "data", None if how == "update" else self._datasets[product])
                task = {"how": how, "data": str(folder / "data"), "output": str(self.file_of(number))}
                now_judging = {"current": str(start.resolve()), "threshold": session.threshold}
                self._process = child("fit", folder / "log.txt")
                assert self._process.stdin is not None
                self._process.stdin.write(json.dumps({**task, **now_judging}) + "\n")
                self._process.stdin.flush()
            except (BlemishError, OSError) as error:
                self._end(number, BROKEN, {"error": str(error)})
                raise error if isinstance(error, BlemishError) else OutputError(folder, str(error)) from error
            self.job = {"candidate": number, "product": product, "phase": "", "done": 0, "total": 0}
            self._thread = threading.Thread(target=self._watch, args=(number, self._process), daemon=True)
            self._thread.start()
        return number

    def discard(self, candidate: int, who: str) -> None:
        """Ends the job of a candidate, or lets it judge in the shadow no longer.

        Raises:
            UsageError: if it is neither made nor ready.
        """

        def job(connection: Connection) -> None:
            query = update(candidates).where(candidates.c.id == candidate, candidates.c.state.in_((RUNNING, READY)))
            if not connection.execute(query.values(state=DISCARDED)).rowcount:
                raise UsageError(f"There is no candidate {candidate} that is made or ready.")
            note(connection, who, "discard candidate", candidate=candidate)

        self._history.writer.run(job)
        with self._lock:
            running = self.job is not None and self.job["candidate"] == candidate
            if running and self._process is not None:
                self._process.kill()
        if not running:
            self._remove(candidate)
        self.changed()

    def stop(self) -> None:
        """Ends the job that runs; the next start calls it interrupted."""
        with self._lock:
            thread = self._thread
            if self._process is not None:
                self._process.kill()
        if thread is not None:
            thread.join()

    # --------------------------------------------------------------------------------------------------------- private

    def _add(self, product: str, how: str, who: str, found: Reviewed) -> int:
        row = {"product": product, "how": how, "who": who, "state": RUNNING}

        def job(connection: Connection) -> int:
            report = json.dumps({"reviewed": found.counts()})
            added = insert(candidates).values(**row, report=report, time=now()).returning(candidates.c.id)
            number = int(connection.execute(added).scalar_one())
            note(connection, who, "learn", product=product, how=how, candidate=number)
            return number

        return self._history.writer.run(job)

    def _watch(self, number: int, process: subprocess.Popen[str]) -> None:
        """Follows a job to its end."""
        last: dict[str, Any] = {}
        assert process.stdout is not None
        assert process.stdin is not None
        for line in process.stdout:
            last = json.loads(line)
            if "phase" in last and self.job is not None:
                self.job = {**self.job, **last}
        process.wait()
        process.stdin.close()
        process.stdout.close()
        if "report" in last:
            self._end(number, READY, last)
        else:
            reason = last.get("error") or f"The process that learned has ended with {process.returncode}."
            self._end(number, INTERRUPTED if process.returncode < 0 else BROKEN, {"error": reason})
        with self._lock:
            self.job = self._process = None
        self.changed()

    def _end(self, number: int, state: str, said: Mapping[str, Any]) -> None:
        """Writes how a job ended, unless somebody has discarded it meanwhile."""

        def job(connection: Connection) -> bool:
            row = connection.execute(select(candidates).where(candidates.c.id == number)).one()
            if row.state != RUNNING:
                return False
            report = {**json.loads(row.report), **said.get("report", {})}
            values = {"state": state, "error": said.get("error"), "report": json.dumps(report)}
            if state == READY:  # the newest of a product is the one that judges in the shadow
                older = update(candidates).where(candidates.c.product == row.product, candidates.c.state == READY)
                connection.execute(older.values(state=DISCARDED))
                values["model"] = report["model"]
            connection.execute(update(candidates).where(candidates.c.id == number).values(**values))
            return state == READY

        if not self._history.writer.run(job):
            log.warning("candidate %d: %s", number, said.get("error"))
            self._remove(number)

    def _remove(self, number: int) -> None:
        """Data set and model go, the log stays."""
        shutil.rmtree(self.file_of(number).parent / "data", ignore_errors=True)
        self.file_of(number).unlink(missing_ok=True)


def child(verb: str, log_file: Path) -> subprocess.Popen[str]:
    """A process of `blemish.serve.learning_process`, in a session of its own: Ctrl-C is for the station."""
    log_file.parent.mkdir(parents=True, exist_ok=True)
    with log_file.open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "blemish.serve.learning_process", verb],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True,
        )  # fmt: skip
