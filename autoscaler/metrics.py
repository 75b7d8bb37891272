"""Metrics of the daemon itself: how fresh what it knows of the replicas is."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from lb.feeds.gpu_feeds import GpuFeeds
from lb.feeds.node_scraper import PeerState
from lb.source import Source
from nvml.metrics import GpuCollector
from nvml.settings import NvmlSettings


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


class PeerMetrics(Collector):
    """Age of what each peer said, and whether it answers; its labels are bounded by the policy."""

    def __init__(
        self, registry: CollectorRegistry, peers: Callable[[], tuple[PeerState, ...]], now: Callable[[], float]
    ) -> None:
        self._peers = peers
        self._now = now
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        failing = GaugeMetricFamily("tidegate_peer_failing", "1 while its last reading failed.", labels=("peer",))
        failures = CounterMetricFamily(
            "tidegate_peer_failures", "Readings of it that brought nothing.", labels=("peer",)
        )
        age = GaugeMetricFamily("tidegate_peer_age_seconds", "Since it last answered.", labels=("peer",))
        for state in self._peers():
            peer = state.peer.settings.url
            failing.add_metric((peer,), state.error is not None)
            failures.add_metric((peer,), state.failures)
            if state.read_at is not None:
                age.add_metric((peer,), max(0.0, self._now() - state.read_at))
        yield from (failing, failures, age)


def watch_gpus(registry: CollectorRegistry, feeds: GpuFeeds, settings: NvmlSettings, now: Callable[[], float]) -> None:
    """Export this node's cards and how its peers are doing."""
    hostname = socket.gethostname()
    registry.register(GpuCollector(feeds.snapshot, dcgm_names=settings.dcgm_names, hostname=hostname, clock=now))
    PeerMetrics(registry, lambda: feeds.peers, now)
