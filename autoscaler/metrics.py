"""Metrics of the daemon itself: how fresh what it knows of the replicas is."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from lb.source import Source


class SourceMetrics(Collector):
    """Age and state of each source; its labels are bounded by the policy."""

    def __init__(
        self, registry: CollectorRegistry, sources: Callable[[], tuple[Source, ...]], now: Callable[[], float]
    ) -> None:
        self._sources = sources
        self._now = now
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        replicas = GaugeMetricFamily("tidegate_source_replicas", "Replicas that a source lists.", labels=("source",))
        failing = GaugeMetricFamily("tidegate_source_failing", "1 while its last look failed.", labels=("source",))
        age = GaugeMetricFamily(
            "tidegate_source_age_seconds", "Since its last look that succeeded.", labels=("source",)
        )
        for source in self._sources():
            state = source.state
            replicas.add_metric((source.name,), state.endpoints)
            failing.add_metric((source.name,), state.error is not None)
            if state.refreshed_at is not None:
                age.add_metric((source.name,), max(0.0, self._now() - state.refreshed_at))
        yield from (replicas, failing, age)
