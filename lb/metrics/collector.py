"""`LbMetrics`: watches the data plane, and answers a scrape from a snapshot so that a thread can make the text."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lb.errors import Reason
from lb.metrics.families import pause_families, request_families
from lb.metrics.loop_lag import PauseWatch
from lb.metrics.pace import give_way, paced
from lb.metrics.replicas import demand_families, view_families
from lb.metrics.requests import RequestCounters

if TYPE_CHECKING:
    from lb.effects import ReplicaChanged
    from lb.gateway import Gateway
    from lb.log import Log
    from lb.proxy.observer import RequestRecord


CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Pause = Callable[[], None]
Families = Callable[[Pause], Iterable[Metric]]
"""Makes families; calls its argument now and then, as making many takes milliseconds."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Result of the last policy load. `at` is epoch seconds."""

    ok: bool
    at: float
    policy_hash: str = ""
    error: str = ""


class LbMetrics(Collector):
    """Observer of the data plane and collector of its registry. One per process, written to on the event loop."""

    def __init__(self, registry: CollectorRegistry, *, version: str, now: Callable[[], float]) -> None:
        self._registry = registry
        self._version = version
        self._now = now
        self._started_at = now()
        self._gateway: Gateway | None = None
        self._log: Log | None = None
        self._captured: Families | None = None
        self._scrape: asyncio.Future[bytes] | None = None
        self._transitions: dict[tuple[str, str], int] = {}
        self._reloads = {True: 0, False: 0}
        self.requests = RequestCounters()
        self.pauses = PauseWatch()
        self.open_connections = 0
        self.accepted_connections = 0
        self.last_reload: Reload | None = None
        registry.register(self)
        ProcessCollector(registry=registry)

    # observer of the data plane -------------------------------------------------------------------------------------

    def finished(self, record: RequestRecord) -> None:
        self.requests.finished(record)

    def refused(self, reason: Reason) -> None:
        self.requests.refused(reason)

    def connections(self, delta: int) -> None:
        self.open_connections += delta
        if delta > 0:
            self.accepted_connections += delta

    # what else there is to watch ------------------------------------------------------------------------------------

    def watch_gateway(self, gateway: Gateway) -> None:
        """Read the balancer's view at each scrape and count changes of its replicas."""
        self._gateway = gateway
        gateway.subscribe(self._replica_changed)

    def watch_log(self, log: Log) -> None:
        """Count lines that were lost or left out."""
        self._log = log

    def reloaded(self, reload: Reload) -> None:
        """A policy was read; `ok` is False if it was refused and the old one stayed."""
        self.last_reload = reload
        self._reloads[reload.ok] += 1

    def _replica_changed(self, change: ReplicaChanged) -> None:
        key = (str(change.previous), str(change.current))
        self._transitions[key] = self._transitions.get(key, 0) + 1

    # scrape ---------------------------------------------------------------------------------------------------------

    async def exposition(self) -> bytes:
        """The registry as Prometheus text. The snapshot is taken on the loop, the text made in a thread; callers that
        come meanwhile share it, so that many or slow scrapers cost no more than one."""
        if self._scrape is None:
            self._scrape = asyncio.ensure_future(self._scrape_once())
            self._scrape.add_done_callback(self._scraped)
        return await asyncio.shield(self._scrape)

    async def _scrape_once(self) -> bytes:
        self._captured = self.capture()
        return await asyncio.to_thread(generate_latest, self._registry)

    def _scraped(self, scrape: asyncio.Future[bytes]) -> None:
        self._scrape = self._captured = None
        if not scrape.cancelled():
            scrape.exception()  # everyone who asked has it; read here too, for when they have all left

    def capture(self) -> Families:
        """A snapshot of everything, to be taken on the event loop. The result may be called in another thread."""
        now = self._now()
        parts: list[Families] = []
        if self._gateway is not None:
            balancer = self._gateway.balancer
            view, demand = balancer.view(now), balancer.demand(now)
            replicas = {replica.id for replica in view.replicas}
            listed = {model for replica in view.replicas for model in replica.models or ()}
            self.requests.prune(replicas, listed, now)
            parts += [lambda pause: view_families(view, pause), lambda _: demand_families(demand)]
        requests = self.requests.copy()
        own = [*pause_families(self.pauses), *self._process_families(now)]
        parts += [lambda pause: request_families(requests, pause), lambda _: own]
        return lambda pause: (family for part in parts for family in part(pause))

    def collect(self) -> Iterable[Metric]:
        captured = self._captured
        if captured is not None:
            return paced(captured(give_way))
        return self.capture()(_no_pause)

    def _process_families(self, now: float) -> Iterator[Metric]:
        info = GaugeMetricFamily("tidegate_build_info", "1, with the versions as labels.", labels=("version", "python"))
        info.add_metric((self._version, platform.python_version()), 1)
        yield info
        yield GaugeMetricFamily("tidegate_uptime_seconds", "Since this process began to count.", now - self._started_at)
        yield GaugeMetricFamily("tidegate_connections", "Client connections that are open.", self.open_connections)
        yield CounterMetricFamily("tidegate_accepted_connections", "Client connections.", self.accepted_connections)
        changes = CounterMetricFamily(
            "tidegate_replica_transitions", "Changes of a replica's state.", labels=("previous", "current")
        )
        for labels, count in self._transitions.items():
            changes.add_metric(labels, count)
        yield changes
        reloads = CounterMetricFamily("tidegate_policy_reloads", "Policies read since the start.", labels=("result",))
        reloads.add_metric(("applied",), self._reloads[True])
        reloads.add_metric(("refused",), self._reloads[False])
        yield reloads
        if self.last_reload is not None:
            yield GaugeMetricFamily(
                "tidegate_policy_last_reload_success", "0 while the last policy read was refused.", self.last_reload.ok
            )
            yield GaugeMetricFamily(
                "tidegate_policy_last_reload_timestamp_seconds", "When it was read.", self.last_reload.at
            )
        if self._log is not None:
            lines = CounterMetricFamily("tidegate_log_lines_missing", "Log lines not written.", labels=("cause",))
            lines.add_metric(("blocked",), self._log.writer.dropped)
            lines.add_metric(("repeated",), self._log.throttle.suppressed)
            yield lines


def _no_pause() -> None:
    """For whoever collects on the event loop, which must not sleep."""
