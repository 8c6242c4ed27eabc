"""The process in which a station learns, and in which a candidate judges in the shadow.

    python -m blemish.serve.learning_process fit|shadow

A process of its own, so that neither the memory nor an end of it touches inspection, and with the lowest priority, so
that a verdict never waits for it. Both verbs read JSON lines from standard input and write such to standard output; the
end of standard input, which is that of the station, ends them.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from blemish.errors import BlemishError, CalibrationError
from blemish.functional.conformal import normal_rank
from blemish.runtime import load
from blemish.runtime.session import Result, Session
from blemish.serve.models import at_threshold
from blemish.serve.tables import ANOMALOUS, FAILED, NORMAL

LOWEST = 19
"""Priority as `nice` calls it."""
PAUSE = 0.25
"""Seconds between two lines about progress."""


def main(verb: str) -> None:
    """Runs one of the verbs."""
    with suppress(AttributeError, OSError):  # Windows has no such call
        os.nice(LOWEST)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    {"fit": _fit, "shadow": _shadow}[verb](lambda answer: print(json.dumps(answer), file=answers))


# ---------------------------------------------------------------------------------------------------------- learning


def _fit(tell: Callable[[dict[str, Any]], None]) -> None:
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_station, daemon=True).start()
    told: dict[str, Any] = {"phase": "", "time": 0.0}

    def progress(phase: str, done: int, total: int) -> None:
        if phase != told["phase"] or done >= total or time.monotonic() - told["time"] > PAUSE:
            told.update(phase=phase, time=time.monotonic())
            tell({"phase": phase, "done": done, "total": total})

    try:
        tell({"report": learn(task, progress)})
    except BlemishError as error:
        tell({"error": str(error)})
    except Exception as error:
        tell({"error": f"{type(error).__name__}: {error}"})
        raise


def learn(task: dict[str, Any], progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Makes a candidate and compares it.

    Args:
        task: "how": "fit" learns anew, with the detector, the settings and the backbone of a model; "update" adds good
            pictures to it. "current" and "threshold": that model, which is in force, and the raw score from which it
            calls parts anomalous. "data": see `blemish.serve.reviewed`. "output": where the candidate goes.
        progress: told of each phase.

    Returns:
        What `compare` says, and under "note" what people should know.
    """
    from blemish.artifact import load as load_detector
    from blemish.artifact import save
    from blemish.data.datamodule import ImageDataModule
    from blemish.engine import Engine

    anew = task["how"] == "fit"
    data = ImageDataModule(task["data"], num_workers=0, calibrate_on="cross" if anew else "auto")
    detector = load_detector(task["current"])
    decider, note = detector.decider, ""
    decider.miss_cost = None  # labeled defects are for the comparison: good pictures alone choose the threshold
    scores = len(data.split.fit if anew else data.split.calibration)
    if decider.max_false_alarm_rate is not None:
        try:
            normal_rank(scores, decider.max_false_alarm_rate)
        except CalibrationError:
            note = (
                f"{scores} good pictures are too few to certify a false-alarm rate of "
                f"{decider.max_false_alarm_rate:.1%}: the highest of their scores decides."
            )
            decider.max_false_alarm_rate = None
    engine = Engine("auto", progress=progress)
    (engine.fit if anew else engine.update)(detector, data, thumbnails=bool(detector.good_images.pictures))
    save(detector, task["output"])
    report = compare(Path(task["data"]), Path(task["current"]), task["threshold"], Path(task["output"]), progress)
    return {**report, "note": note}


def compare(
    data: Path, current: Path, threshold: float, candidate: Path, progress: Callable[[str, int, int], None]
) -> dict[str, Any]:
    """Judges the test set of `blemish.serve.reviewed`, from which no model has learned, with two models.

    Returns:
        "good" and "defective": how many pictures; under "current" and "candidate" the "false_alarms" and "misses" of
        each, "model" of the candidate is its fingerprint; "differ": uids that the two don't agree on.
    """
    sessions = {"current": load(current), "candidate": load(candidate)}
    sessions["current"].decision = at_threshold(sessions["current"].decision, threshold)
    files = sorted(path for path in (data / "test").rglob("*") if path.is_file())
    found: dict[str, Any] = {name: {"false_alarms": 0, "misses": 0} for name in sessions}
    differ = []
    for number, path in enumerate(files):
        progress("comparison", number, len(files))
        labels = {name: judged(session, path)["label"] for name, session in sessions.items()}
        for name, label in labels.items():
            if path.parent.name == "good":
                found[name]["false_alarms"] += label != NORMAL
            else:
                found[name]["misses"] += label == NORMAL
        if len(set(labels.values())) > 1:
            differ.append(path.stem)
    good = sum(path.parent.name == "good" for path in files)
    counts = {"good": good, "defective": len(files) - good, "differ": differ}
    return {**found, **counts, "model": sessions["candidate"].fingerprint}


# ------------------------------------------------------------------------------------------------------ in the shadow


def _shadow(tell: Callable[[dict[str, Any]], None]) -> None:
    sessions: dict[str, Session] = {}
    for task in _tasks():
        try:
            if task["model"] not in sessions:
                sessions[task["model"]] = load(task["model"])
            tell(judged(sessions[task["model"]], Path(task["picture"])))
        except BlemishError as error:
            tell({"label": FAILED, "raw_score": None, "threshold": None, "error": str(error)})
        sessions = {name: session for name, session in sessions.items() if name in task["wanted"]}


def judged(session: Session, picture: Path) -> dict[str, Any]:
    """What a model says of a picture: label, raw score, threshold; "failed" with the reason in "error"."""
    [result] = session.stream([picture])
    if not isinstance(result, Result):
        return {"label": FAILED, "raw_score": None, "threshold": session.threshold, "error": result.reason}
    label = ANOMALOUS if result.is_anomalous else NORMAL
    return {"label": label, "raw_score": result.raw_score, "threshold": session.threshold, "error": None}


def _tasks() -> Iterator[dict[str, Any]]:
    for line in sys.stdin:
        yield json.loads(line)


def _end_with_the_station() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
