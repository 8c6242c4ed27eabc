"""Thresholds that people set while the line runs: what a change would mean, and the change as an event."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select

from blemish.errors import UsageError
from blemish.runtime.session import Session
from blemish.serve.audit import note
from blemish.serve.feedback import Feedback, truly_defective
from blemish.serve.history import History, now
from blemish.serve.models import Models, at_threshold, calibration_scores
from blemish.serve.tables import FAILED, thresholds, verdicts

RECENT = 2000
"""Verdicts that a preview counts over, at most."""


@dataclass(frozen=True)
class Preview:
    """What another threshold would mean for the newest verdicts of a product by its model.

    Attributes:
        current, proposed: raw thresholds.
        parts: how many verdicts are counted over.
        anomalous, anomalous_then: how many of them lie at the one and the other threshold or above.
        judged_good, judged_defective: how many of them people have judged to be so.
        false_alarms, false_alarms_then: good ones at the threshold or above.
        misses, misses_then: defective ones below.
        scores: raw scores of the verdicts. calibration: those of the calibration.
    """

    current: float
    proposed: float
    parts: int
    anomalous: int
    anomalous_then: int
    judged_good: int
    judged_defective: int
    false_alarms: int
    false_alarms_then: int
    misses: int
    misses_then: int
    scores: list[float]
    calibration: list[float]


class ChangedMeanwhile(UsageError):
    """The threshold isn't any more what somebody saw when they decided to move it."""


class Thresholds:
    """What people have set.

    Args:
        history: whose verdicts are counted over.
        feedback: what people say of them.
    """

    def __init__(self, history: History, feedback: Feedback) -> None:
        self._history, self._feedback = history, feedback

    def of(self, product: str, model: str) -> float | None:
        """The newest threshold for a product and the fingerprint of its model; None if nobody set one."""
        query = select(thresholds.c.threshold).where(thresholds.c.product == product, thresholds.c.model == model)
        with self._history.engine.connect() as connection:
            return connection.scalar(query.order_by(thresholds.c.id.desc()).limit(1))

    def preview(self, session: Session, product: str, proposed: float) -> Preview:
        """What `proposed`, a raw score, would mean.

        Raises:
            UsageError: for a number that float32 can't hold.
        """
        current = session.threshold
        proposed = at_threshold(session.decision, proposed).image.effective_threshold
        query = (
            select(verdicts.c.uid, verdicts.c.label, verdicts.c.raw_score)
            .where(verdicts.c.product == product, verdicts.c.model == session.fingerprint, verdicts.c.label != FAILED)
            .order_by(verdicts.c.time.desc(), verdicts.c.id.desc())
            .limit(RECENT)
        )
        with self._history.engine.connect() as connection:
            rows = [dict(row) for row in connection.execute(query).mappings()]
        opinions = self._feedback.of([row["uid"] for row in rows])
        scores = [float(row["raw_score"]) for row in rows]
        truth = [truly_defective(row, opinions.get(row["uid"])) for row in rows]
        good = [score for score, defective in zip(scores, truth, strict=True) if defective is False]
        bad = [score for score, defective in zip(scores, truth, strict=True) if defective is True]

        def above(values: list[float], threshold: float) -> int:
            return sum(value >= threshold for value in values)

        return Preview(
            current=current,
            proposed=proposed,
            parts=len(scores),
            anomalous=above(scores, current),
            anomalous_then=above(scores, proposed),
            judged_good=len(good),
            judged_defective=len(bad),
            false_alarms=above(good, current),
            false_alarms_then=above(good, proposed),
            misses=len(bad) - above(bad, current),
            misses_then=len(bad) - above(bad, proposed),
            scores=scores,
            calibration=calibration_scores(session),
        )

    def confirm(self, models: Models, product: str, threshold: float, *, seen: float, who: str, reason: str) -> float:
        """Sets a threshold, from the next part on, for as long as the product has this model.

        Args:
            models: of the station.
            product: its code.
            threshold: raw score from which a part is anomalous.
            seen: the threshold that was in force when the person decided.
            who: the person.
            reason: why.

        Returns:
            The threshold in force: `threshold` in float32.

        Raises:
            ChangedMeanwhile: if `seen` isn't in force any more.
            UsageError: for a number that float32 can't hold, or a product without a model.
        """
        session = models.session(product)
        if session.threshold != seen:
            raise ChangedMeanwhile(f"The threshold is {session.threshold:g} by now, not {seen:g}. Look again.")
        decision = at_threshold(session.decision, threshold)
        value = decision.image.effective_threshold
        row = {"product": product, "model": session.fingerprint or "", "threshold": value, "who": who, "reason": reason}

        def job(connection: Connection) -> None:
            connection.execute(insert(thresholds).values(**row, time=now()))
            note(connection, who, "set threshold", product=product, before=seen, threshold=value, reason=reason)

        self._history.writer.run(job)  # on the disk before it decides anything
        session.decision = decision
        return value
