"""Drift alarms: when they come, that they stay, and that a person ends them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from blemish.errors import UsageError
from blemish.serve import audit
from blemish.serve.database import Writer, migrate, open_database
from blemish.serve.drift import Drift
from blemish.serve.history import iso


def verdict(number: int, score: float | None, model: str = "m") -> dict[str, Any]:
    label = "failed" if score is None else "normal"
    return {"uid": f"{number:032x}", "time": number * 10**6, "product": "gear", "model": model, "label": label} | {
        "raw_score": score
    }


@pytest.fixture
def drift(tmp_path: Path) -> Iterator[Drift]:
    engine = open_database(f"sqlite:///{tmp_path}/d.sqlite")
    migrate(engine)
    writer = Writer(engine)
    found = Drift(writer)
    found.engine = engine  # type: ignore[attr-defined]
    yield found
    writer.close()
    engine.dispose()


def test_an_alarm_says_since_when_and_stays_until_a_person_has_seen_to_it(drift: Drift) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(UsageError, match="There is no drift alarm of product 'gear'"):
        drift.settle("gear", "ada")
    for number in range(300):
        drift.listen([verdict(number, None if number % 50 == 0 else float(rng.normal()))])
    assert drift.alarms == {}
    for number in range(300, 600):
        drift.listen([verdict(number, float(rng.normal(2.0)))])
    run = drift.run("gear")
    assert run is not None
    assert run.since is not None
    assert 250e6 < run.parts[run.since - 1][1] < 350e6
    assert drift.alarms == {"gear": iso(run.parts[run.since - 1][1])}
    taken = len(run.parts)
    drift.listen([verdict(600, 0.0)])
    assert len(run.parts) == taken
    drift.settle("gear", "ada")
    assert drift.alarms == {}
    entries = list(audit.entries(drift.engine))  # type: ignore[attr-defined]
    assert [(entry["who"], entry["action"]) for entry in entries] == [
        ("station", "drift alarm"), ("ada", "settle drift alarm")
    ]  # fmt: skip


def test_another_model_begins_anew(drift: Drift) -> None:
    rng = np.random.default_rng(0)
    for number in range(200):
        drift.listen([verdict(number, float(rng.normal()))])
    for number in range(200, 400):  # its scores are on another scale
        drift.listen([verdict(number, float(rng.normal(50)), "other")])
    run = drift.run("gear")
    assert run is not None
    assert (run.model, run.test.count, drift.alarms) == ("other", 200, {})
