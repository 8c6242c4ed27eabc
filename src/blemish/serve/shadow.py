"""A candidate judges what comes, and nobody hears of it: its verdicts stand beside those of the model in force.

It gets a part when that has its verdict, in a process of the lowest priority. What comes faster than it judges is
passed over: a candidate never makes a part wait.
"""

from __future__ import annotations

import json
import logging
import queue
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from blemish.serve.feedback import Feedback, truly_defective
from blemish.serve.history import History, Verdict, now
from blemish.serve.learning import Learning, child
from blemish.serve.pictures import RECENT, Pictures
from blemish.serve.tables import ANOMALOUS, FAILED, READY, shadow_verdicts, verdicts

log = logging.getLogger(__name__)
WAITING = RECENT // 2
"""Parts that may wait; the pictures of so many are there for sure."""
AGAIN = 10.0
"""Seconds until a process that ended is started again."""
NEWEST = 2000
"""Shadow verdicts that a summary counts over, at most."""
SHOWN = 24
"""Parts of which the two models say different things that a summary names."""


@dataclass(frozen=True)
class Summary:
    """What a candidate would have changed, over the newest parts that it has judged.

    Attributes:
        parts: how many; `failed` of them it could not inspect.
        anomalous, anomalous_then: how many the model in force, and the candidate, called anomalous.
        judged_good, judged_defective: how many people have judged to be so.
        false_alarms, false_alarms_then: good ones that the one and the other called anomalous.
        misses, misses_then: defective ones that the one and the other called normal.
        differ: uids of the newest parts on which they don't agree.
    """

    parts: int
    failed: int
    anomalous: int
    anomalous_then: int
    judged_good: int
    judged_defective: int
    false_alarms: int
    false_alarms_then: int
    misses: int
    misses_then: int
    differ: list[str]


class Shadow:
    """Lets candidates that are ready judge.

    Args:
        learning: whose candidates.
        history, feedback, pictures: of the station.
        folder: for the log of the process.

    Attributes:
        judged: parts since the start that a candidate has judged.
        passed_over: parts since the start that came faster than a candidate judged, or whose picture was gone.
    """

    def __init__(
        self, learning: Learning, history: History, feedback: Feedback, pictures: Pictures, folder: Path
    ) -> None:
        self._learning, self._history, self._feedback, self._pictures = learning, history, feedback, pictures
        self._log = folder / "shadow.txt"
        self._jobs: queue.Queue[tuple[Verdict, int, Path]] = queue.Queue(WAITING)
        self._wanted: dict[str, tuple[int, Path]] = {}
        self._process: subprocess.Popen[str] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self.judged = self.passed_over = 0
        learning.changed = self.look
        self.look()

    def look(self) -> None:
        """Finds out which candidates are ready."""
        ready = self._learning.candidates(state=READY)
        self._wanted = {row["product"]: (row["id"], self._learning.file_of(row["id"])) for row in ready}

    def listen(self, found: Sequence[Verdict]) -> None:
        """A listener of the pipeline; never waits."""
        for verdict in found:
            wanted = self._wanted.get(verdict["product"])
            if wanted is not None and verdict["label"] != FAILED:
                try:
                    self._jobs.put_nowait((verdict, *wanted))
                except queue.Full:
                    self.passed_over += 1

    def start(self) -> None:
        """Starts to judge."""
        self._thread.start()

    def stop(self) -> None:
        """Ends, whatever waits."""
        self._stop.set()
        process = self._process
        if process is not None:
            process.kill()
        self._thread.join()

    def summary(self, candidate: int) -> Summary:
        """What a candidate has said so far, beside what the model in force said."""
        row = shadow_verdicts.c
        query = (
            select(row.uid, row.label.label("then"), verdicts.c.label)
            .join(verdicts, verdicts.c.uid == row.uid)
            .where(row.candidate == candidate)
            .order_by(row.id.desc())
            .limit(NEWEST)
        )
        with self._history.engine.connect() as connection:
            rows = [dict(found) for found in connection.execute(query).mappings()]
        judged = [found for found in rows if found["then"] != FAILED]
        opinions = self._feedback.of([found["uid"] for found in judged])
        truth = [(found, truly_defective(found, opinions.get(found["uid"]))) for found in judged]
        good = [found for found, defective in truth if defective is False]
        bad = [found for found, defective in truth if defective is True]

        def alarms(found: list[dict[str, Any]], name: str) -> int:
            return sum(one[name] == ANOMALOUS for one in found)

        return Summary(
            parts=len(rows),
            failed=len(rows) - len(judged),
            anomalous=alarms(judged, "label"),
            anomalous_then=alarms(judged, "then"),
            judged_good=len(good),
            judged_defective=len(bad),
            false_alarms=alarms(good, "label"),
            false_alarms_then=alarms(good, "then"),
            misses=len(bad) - alarms(bad, "label"),
            misses_then=len(bad) - alarms(bad, "then"),
            differ=[found["uid"] for found in rows if found["label"] != found["then"]][:SHOWN],
        )

    # --------------------------------------------------------------------------------------------------------- private

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                item = self._jobs.get(timeout=0.5)
            except queue.Empty:
                if not self._wanted:
                    self._end()  # a process that nobody needs gives its memory back
                continue
            try:
                self._judge(*item)
            except (OSError, ValueError) as error:  # the process has ended
                self._end()
                if not self._stop.is_set():
                    log.warning("the process that judges in the shadow has ended: %s", error)
                    self._stop.wait(AGAIN)
        self._end()

    def _judge(self, verdict: Verdict, candidate: int, model: Path) -> None:
        picture = self._pictures.find(verdict)
        if picture is None:
            self.passed_over += 1
            return
        if self._process is None:
            self._process = child("shadow", self._log)
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        wanted = [str(path.resolve()) for _, path in self._wanted.values()]
        task = {"model": str(model.resolve()), "picture": str(picture), "wanted": wanted}
        process.stdin.write(json.dumps(task) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        row = {**answer, "candidate": candidate, "uid": verdict["uid"], "time": now()}
        self._history.writer.run(lambda connection: connection.execute(insert(shadow_verdicts).values(**row)))
        self.judged += 1

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with suppress(OSError):  # for what it hadn't read
                        stream.close()
