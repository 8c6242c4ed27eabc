"""What a station counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from blemish.serve.history import Verdict
from blemish.serve.sinks.worker import Worker
from blemish.serve.tables import LABELS

if TYPE_CHECKING:
    from collections.abc import Callable

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Counters in a registry of their own.

    Args:
        waiting: how many parts wait.
        open_models: how many models are open.
    """

    def __init__(self, waiting: Callable[[], float], open_models: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        self._verdicts = Counter(
            "blemish_verdicts", "Verdicts by product and label.", ["product", "label"], registry=self.registry
        )
        self._delay = Histogram(
            "blemish_verdict_seconds",
            "Seconds from a part's acceptance to its verdict in the history.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.refused = Counter(
            "blemish_refused_parts", "Parts that weren't accepted since too many waited.", registry=self.registry
        )
        for name, text, value in (
            ("blemish_waiting_parts", "Accepted parts without a verdict.", waiting),
            ("blemish_open_models", "Models that are open.", open_models),
        ):
            Gauge(name, text, registry=self.registry).set_function(value)

    def count(self, verdicts: Sequence[Verdict]) -> None:
        """A listener of the pipeline."""
        for verdict in verdicts:
            assert verdict["label"] in LABELS
            self._verdicts.labels(verdict["product"], verdict["label"]).inc()
            self._delay.observe((verdict["time"] - verdict["accepted"]) / 1e6)

    def watch(self, sinks: Sequence[Worker]) -> None:
        """Adds what is to be known of sinks."""
        self.registry.register(_Sinks(sinks))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class _Sinks(Collector):
    """The states of sinks at the moment when somebody asks."""

    def __init__(self, sinks: Sequence[Worker]) -> None:
        self._sinks = sinks

    def collect(self) -> Iterator[Metric]:
        states = {sink.name: sink.state for sink in self._sinks}
        for kind, name, text, value in (
            (GaugeMetricFamily, "waiting", "Verdicts that a sink hasn't seen.", lambda state: state.waiting),
            (GaugeMetricFamily, "works", "1 if nothing is wrong.", lambda state: state.trouble is None),
            (CounterMetricFamily, "delivered", "Verdicts that a sink got.", lambda state: state.delivered),
            (CounterMetricFamily, "errors", "Failures of a sink.", lambda state: state.errors),
        ):
            family = kind(f"blemish_sink_{name}", text, labels=["sink"])
            for sink, state in states.items():
                family.add_metric([sink], value(state))
            yield family
