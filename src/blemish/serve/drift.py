"""Drift alarms: per product and model, a sequential test that the order of scores tells nothing.

A test runs over `LENGTH` parts and then begins anew, as it does when the station starts, when another model judges, and
when a person has seen to an alarm. Within one run the chance of a false alarm is at most `ALPHA`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blemish.errors import UsageError
from blemish.monitor.exchangeability import ExchangeabilityTest
from blemish.serve.audit import note
from blemish.serve.database import Writer
from blemish.serve.history import Verdict, iso
from blemish.serve.tables import FAILED

ALPHA = 0.001
LENGTH = 10_000
"""Parts of one run."""
POINTS = 500
"""Points of a run that are kept to be drawn."""


@dataclass
class Run:
    """A test over the parts of one product that one model judged.

    Attributes:
        model: its fingerprint. parts: uid and time of each, in order.
        curve: after how many parts the logarithm of the capital, to base 10, was what.
        alarm_at: number of the part with which the alarm came, from 1 on; None as long as all is well.
        since: number of the part from which on order has told something; None without an alarm.
    """

    model: str
    test: ExchangeabilityTest
    parts: list[tuple[str, int]] = field(default_factory=list)
    curve: list[tuple[int, float]] = field(default_factory=list)
    alarm_at: int | None = None
    since: int | None = None


class Drift:
    """The runs of a station.

    Args:
        writer: alarms go into the audit trail.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._runs: dict[str, Run] = {}
        self._lock = threading.Lock()

    def listen(self, found: Sequence[Verdict]) -> None:
        """A listener of the pipeline."""
        for verdict in found:
            if verdict["label"] != FAILED:
                with self._lock:
                    self._add(verdict)

    def run(self, product: str) -> Run | None:
        """The run of a product; None before its first part."""
        with self._lock:
            return self._runs.get(product)

    @property
    def alarms(self) -> dict[str, str]:
        """Product -> since when, ISO 8601."""
        with self._lock:
            return {
                product: iso(run.parts[run.since - 1][1])
                for product, run in self._runs.items()
                if run.alarm_at is not None and run.since is not None
            }

    def settle(self, product: str, who: str) -> None:
        """A person has seen to it: the next part begins a new run.

        Raises:
            UsageError: if there is no alarm.
        """
        with self._lock:
            run = self._runs.get(product)
            if run is None or run.alarm_at is None:
                raise UsageError(f"There is no drift alarm of product {product!r}.")
            del self._runs[product]
        self._writer.run(lambda connection: note(connection, who, "settle drift alarm", product=product))

    def _add(self, verdict: Verdict) -> None:
        product, model = verdict["product"], verdict["model"] or ""
        run = self._runs.get(product)
        if run is not None and run.alarm_at is not None:
            return  # until a person has seen to it
        if run is None or run.model != model or run.test.count >= LENGTH:
            run = self._runs[product] = Run(model, ExchangeabilityTest(np.random.default_rng()))
        run.test.add(verdict["raw_score"])
        run.parts.append((verdict["uid"], verdict["time"]))
        if run.test.count % (LENGTH // POINTS) == 0 or run.test.count < POINTS:
            run.curve.append((run.test.count, run.test.log_capital / np.log(10)))
        if run.test.rejects(ALPHA):
            run.alarm_at, run.since = run.test.count, min(run.test.lowest_at + 1, run.test.count)
            detail: dict[str, Any] = {"product": product, "model": model, "since": iso(run.parts[run.since - 1][1])}
            self._writer.submit(lambda connection: note(connection, "station", "drift alarm", **detail))
