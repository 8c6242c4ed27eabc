"""From accepted parts to verdicts: a bounded queue, one thread that inspects, and one that writes.

A part takes one of a fixed number of places before it is accepted and gives it back when its verdict is in the history.
So the journal never holds more than that many parts, memory is bounded, and whoever brings more waits, or is told so.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from blemish.errors import BlemishError, UsageError
from blemish.monitor.appearance import brightness, sharpness
from blemish.predictions.rows import row_of
from blemish.runtime.session import Result, Session
from blemish.serve.history import History, Part, Verdict
from blemish.serve.models import Models
from blemish.serve.pictures import Pictures
from blemish.serve.tables import FAILED

log = logging.getLogger(__name__)
AGAIN = 1.0
"""Seconds until a verdict that could not be written is written again."""
_Judged: TypeAlias = tuple[Verdict, "npt.NDArray[np.float32] | None"]


@dataclass
class _Job:
    part: Part
    content: bytes | None  # the picture, where it isn't read from a file
    verdict: Future[Verdict] = field(default_factory=Future)


class Pipeline:
    """Takes parts, and gives each its verdict.

    Args:
        history: where they are journalled and remembered.
        models: who judges.
        pictures: where pictures lie.
        places: how many parts may wait.
        batch_size: how many are inspected together at most.

    Attributes:
        listeners: called with the verdicts of a batch, one after the other, when they are in the history; what they
            raise is logged.
        trouble: why verdicts can't be written at the moment; None if they can.
    """

    def __init__(self, history: History, models: Models, pictures: Pictures, *, places: int, batch_size: int) -> None:
        self._history, self._models, self._pictures = history, models, pictures
        self._places = threading.Semaphore(places)
        self._size, self._batch_size = places, batch_size
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[list[_Job], list[Verdict], list[Any]] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._inspect_all, name="inspector", daemon=True),
            threading.Thread(target=self._record_all, name="recorder", daemon=True),
        ]
        self.listeners: list[Callable[[Sequence[Verdict]], None]] = []
        self.trouble: str | None = None

    def start(self) -> None:
        """Starts, with the parts that the last run accepted and didn't judge."""
        left = self._history.waiting()
        for thread in self._threads:
            thread.start()
        for part in left:  # at most as many as a station has places; they were accepted, so nobody is asked again
            self._places.acquire(blocking=False)
            self._jobs.put(_Job(part, None))
        if left:
            log.info("parts of the last run without a verdict: %d", len(left))

    def stop(self) -> None:
        """Judges what was accepted, and ends."""
        self._jobs.put(None)
        for thread in self._threads:
            thread.join()

    @property
    def waiting(self) -> int:
        """About how many accepted parts have no verdict yet."""
        return self._jobs.qsize()

    def reserve(self, timeout: float | None = 0.0) -> bool:
        """Takes a place for a part; False if there is none within `timeout` seconds. `offer` or `release` end it."""
        return self._places.acquire(timeout=timeout) if timeout else self._places.acquire(blocking=False)

    def release(self) -> None:
        """Gives back a place of `reserve` that wasn't used."""
        self._places.release()

    def offer(self, parts: Sequence[tuple[Part, bytes | None]]) -> Future[list[Future[Verdict] | None]]:
        """Accepts parts for which places were reserved.

        Args:
            parts: each with its encoded picture; None reads it from its path.

        Returns:
            When they are journalled: for each the future of its verdict, or None if its key was accepted before. An
            error means that none was accepted. Places that aren't needed are given back.
        """
        answer: Future[list[Future[Verdict] | None]] = Future()

        def journalled(done: Future[list[bool]]) -> None:
            error = done.exception()
            if error is not None:
                for _ in parts:
                    self._places.release()
                answer.set_exception(error)
                return
            futures: list[Future[Verdict] | None] = []
            for (part, content), new in zip(parts, done.result(), strict=True):
                job = _Job(part, content)
                futures.append(job.verdict if new else None)
                if new:
                    self._jobs.put(job)
                else:
                    self._places.release()
            answer.set_result(futures)

        self._history.accept([part for part, _ in parts]).add_done_callback(journalled)
        return answer

    # ------------------------------------------------------------------------------------------------------ inspecting

    def _inspect_all(self) -> None:
        ended = False
        while not ended:
            first = self._jobs.get()
            if first is None:
                break
            jobs = [first]
            while len(jobs) < self._batch_size:
                try:
                    job = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if job is None:
                    ended = True
                    break
                jobs.append(job)
            for product, group in groupby(jobs, key=lambda job: job.part.product):
                same = list(group)
                found = self._judge(product, same)
                self._results.put((same, [verdict for verdict, _ in found], [anomaly for _, anomaly in found]))
        self._results.put(None)

    def _judge(self, product: str, jobs: list[_Job]) -> list[_Judged]:
        """A verdict and a map for each; whatever goes wrong is a verdict too: "could not be inspected"."""
        try:
            session = self._models.session(product)
        except Exception as error:
            return [_failed(job.part, _reason(error)) for job in jobs]
        return self._judge_with(session, jobs)

    def _judge_with(self, session: Session, jobs: list[_Job]) -> list[_Judged]:
        model, decision = session.fingerprint or "", session.decision
        try:
            results = list(session.stream([_picture(job) for job in jobs], decision))
        except Exception as error:
            if len(jobs) > 1:  # one bad picture must not take its neighbors along
                return [found for job in jobs for found in self._judge_with(session, [job])]
            return [_failed(jobs[0].part, _reason(error), model)]
        return [
            _judged(job.part, result, model, decision.pixel.cut)
            if isinstance(result, Result)
            else _failed(job.part, result.reason, model)
            for job, result in zip(jobs, results, strict=True)
        ]

    # -------------------------------------------------------------------------------------------------------- recording

    def _record_all(self) -> None:
        while (item := self._results.get()) is not None:
            jobs, found, maps = item
            recorded = self._record(found)
            for job, verdict, anomaly_map in zip(jobs, recorded, maps, strict=True):
                self._places.release()
                job.verdict.set_result(verdict)
                try:
                    self._pictures.finish(verdict, anomaly_map)
                except OSError as error:
                    log.warning("picture of %s: %s", verdict["uid"], error)
            for listener in self.listeners:
                try:
                    listener(recorded)
                except Exception:
                    log.exception("a listener failed")

    def _record(self, found: list[Verdict]) -> list[Verdict]:
        """Writes until it succeeds: a verdict that was found is never dropped."""
        while True:
            try:
                by_uid = {verdict["uid"]: verdict for verdict in self._history.record(found).result()}
                self.trouble = None
                return [by_uid.get(one["uid"]) or self._history.get(one["uid"]) or one for one in found]
            except Exception as error:
                self.trouble = f"verdicts can't be written: {error}"
                log.error("%s", self.trouble)
                time.sleep(AGAIN)


def _picture(job: _Job) -> bytes | str:
    if job.content is None and job.part.path is None:
        raise UsageError(
            "The station ended before this part was inspected, and its disk had no room to keep the picture. Show the "
            "part again."
        )
    return job.part.path or "" if job.content is None else job.content


def _reason(error: Exception) -> str:
    if isinstance(error, BlemishError):
        return str(error)
    log.error("an inspection failed", exc_info=error)
    return f"{type(error).__name__}: {error}"


def _failed(part: Part, reason: str, model: str | None = None) -> _Judged:
    names = ("raw_score", "score", "threshold", "pixel_threshold", "height", "width", "brightness", "sharpness")
    unknown = dict.fromkeys(names)
    found: dict[str, Any] = {"label": FAILED, "model": model, "regions": [], "seconds": 0.0, "error": reason[:2000]}
    return {**_identity(part), **unknown, **found}, None


def _judged(part: Part, result: Result, model: str, pixel_threshold: float) -> _Judged:
    row = row_of(result, model=model, pixel_threshold=pixel_threshold)
    del row["path"]
    if result.image is not None:
        row |= {"brightness": brightness(result.image), "sharpness": sharpness(result.image)}
    return {**_identity(part), **row, "error": None}, result.anomaly_map


def _identity(part: Part) -> dict[str, Any]:
    return {name: getattr(part, name) for name in ("uid", "key", "accepted", "source", "part", "product", "path")}
