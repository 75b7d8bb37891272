"""Metrics of the daemon itself: how fresh what it knows of the replicas is, and what its controller does."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from autoscaler.decide.decision import Decision
from autoscaler.decide.outlook import Outlook
from autoscaler.fleet import Phase, PoolFleet
from forecaster.quantiles import Forecast
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


_Labelled = TypeVar("_Labelled", Counter, Gauge)
_TICK_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 15.0, 60.0)
"""Deciding takes milliseconds; a whole tick waits for actuators, up to their deadlines."""


class ControlMetrics:
    """The controller, by pool; labels are bounded by the policy."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"tidegate_pool_{name}", text, ("pool", *labels), registry=registry)

        self._replicas = gauge("replicas", "Replicas of a pool: wanted, and observed by state.", "state")
        self._demand = gauge("demand_per_second", "Offered demand, in the pool's unit.")
        self._expected = gauge("demand_expected_per_second", "Demand at the lead time that is provisioned for.")
        self._capacity = gauge("capacity_per_replica", "Demand a second that one replica is taken to serve.")
        self._lead = gauge("lead_time_seconds", "From asking for a replica to its being warm, as learned.", "quantile")
        self._cost = gauge("cost_per_hour", "Of the wanted replicas.")
        self._trusted = gauge("forecast_trusted", "1 while its forecast may act.")
        self._bad = gauge("bad_inputs", "Readings that could not be used in the last tick.")
        self._faulty = gauge("fault", "1 while a person should look at it.")
        self._decisions = Counter(
            "tidegate_pool_decisions_total", "Ticks by what came of them and what decided.",
            ("pool", "change", "reason"), registry=registry,
        )  # fmt: skip
        self._actions = Counter(
            "tidegate_pool_actions_total", "Actions carried out, by what decided.", ("pool", "action", "reason"),
            registry=registry,
        )  # fmt: skip
        self._failures = Counter(
            "tidegate_pool_action_failures_total", "Actions that failed.", ("pool", "action"), registry=registry
        )
        self._decide = Histogram(
            "tidegate_tick_decide_seconds", "Time to decide for all pools.", buckets=_TICK_BUCKETS_S, registry=registry
        )
        self._tick = Histogram(
            "tidegate_tick_seconds", "Whole ticks: look, decide, act.", buckets=_TICK_BUCKETS_S, registry=registry
        )
        self._series: set[tuple[Counter | Gauge, tuple[str, ...]]] = set()
        """Which labels each metric has."""

    def decided(self, seconds: float) -> None:
        """Deciding for all pools took this long."""
        self._decide.observe(seconds)

    def ticked(self, seconds: float) -> None:
        """A whole tick took this long."""
        self._tick.observe(seconds)

    def acted(self, pool: str, action: str, reason: str, *, failed: bool) -> None:
        """One action. `reason`: the source or limit that bound the decision."""
        if failed:
            self._of(self._failures, pool, action).inc()
        else:
            self._of(self._actions, pool, action, reason).inc()

    def pool(self, decision: Decision, fleet: PoolFleet | None, outlook: Outlook | None, faulty: bool) -> None:
        """One pool's decision and what was seen of it."""
        name = decision.pool
        change = "up" if decision.change > 0 else "down" if decision.change < 0 else "hold"
        self._of(self._decisions, name, change, decision.binding).inc()
        self._of(self._replicas, name, "desired").set(decision.desired)
        if fleet is not None:
            for phase in Phase:
                self._of(self._replicas, name, str(phase)).set(fleet.count(phase))
        self._of(self._lead, name, "0.5").set(decision.lead_p50_s)
        self._of(self._lead, name, "0.95").set(decision.lead_p95_s)
        self._of(self._cost, name).set(decision.cost_per_hour)
        self._of(self._trusted, name).set(outlook is not None and outlook.trusted)
        self._of(self._bad, name).set(len(decision.bad))
        self._of(self._faulty, name).set(bool(decision.fault) or faulty)
        known = (
            (self._demand, decision.demand),
            (self._expected, None if decision.band is None else decision.band[1]),
            (self._capacity, decision.per_replica),
        )
        for gauge, value in known:
            if value is not None:
                self._of(gauge, name).set(value)
            else:
                # What is not known has no series: a zero would be taken for a number.
                self._drop(gauge, (name,))

    def forget(self, pools: Iterable[str]) -> None:
        """Pools that are no more have no series."""
        gone = set(pools)
        for metric, labels in [one for one in self._series if one[1][0] in gone]:
            self._drop(metric, labels)

    def _of(self, metric: _Labelled, *labels: str) -> _Labelled:
        self._series.add((metric, labels))
        return metric.labels(*labels)

    def _drop(self, metric: Counter | Gauge, labels: tuple[str, ...]) -> None:
        if (metric, labels) in self._series:
            self._series.discard((metric, labels))
            metric.remove(*labels)


@dataclass(frozen=True, slots=True)
class ForecastState:
    """What is told of one pool's forecast."""

    pool: str
    forecast: Forecast | None
    age_s: float
    """Since the end of the newest data in it; NaN: there is none."""
    fit_s: float
    failures: int


class ForecastMetrics(Collector):
    """Forecasts by pool; labels are bounded by the policy. Demand is in the pool's unit."""

    def __init__(
        self, registry: CollectorRegistry, states: Callable[[], Iterable[ForecastState]], restarts: Callable[[], int]
    ) -> None:
        self._states = states
        self._restarts = restarts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        def gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"tidegate_forecast_{name}", text, labels=("pool", *labels))

        demand = gauge("demand_per_second", "Demand expected a time ahead.", "horizon", "quantile")
        coverage = gauge("coverage_ratio", "Share of what came true at or below the quantile, of late.", "quantile")
        loss = gauge("loss_ratio", "Its recent loss against that of the same time of the day before.")
        age = gauge("age_seconds", "Since the end of its newest data.")
        fit = gauge("fit_seconds", "CPU time that the last one took.")
        failures = CounterMetricFamily("tidegate_forecast_failures", "Forecasts that failed.", labels=("pool",))
        for state in self._states():
            failures.add_metric((state.pool,), state.failures)
            made = state.forecast
            if made is None:
                # What is not known has no series: a zero would be taken for a number.
                continue
            age.add_metric((state.pool,), state.age_s)
            fit.add_metric((state.pool,), state.fit_s)
            loss.add_metric((state.pool,), made.score_ratio)
            for level, share in zip(made.quantiles, made.coverage, strict=True):
                coverage.add_metric((state.pool, f"{level:g}"), share)
            for horizon_s, row in zip(made.horizons_s, made.values, strict=True):
                for level, value in zip(made.quantiles, row, strict=True):
                    demand.add_metric((state.pool, f"{horizon_s:g}", f"{level:g}"), value / made.step_s)
        restarts = CounterMetricFamily(
            "tidegate_forecast_process_restarts", "Times that the process that forecasts had to be ended."
        )
        restarts.add_metric((), self._restarts())
        yield from (demand, coverage, loss, age, fit, failures, restarts)


class StoreMetrics(Collector):
    """What became of writes to the store."""

    def __init__(self, registry: CollectorRegistry, counts: Callable[[], tuple[int, int, int]]) -> None:
        """`counts`: written, failed, dropped so far."""
        self._counts = counts
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily("tidegate_store_writes", "Writes to the store.", labels=("outcome",))
        for outcome, count in zip(("written", "failed", "dropped"), self._counts(), strict=True):
            family.add_metric((outcome,), count)
        yield family


def watch_gpus(registry: CollectorRegistry, feeds: GpuFeeds, settings: NvmlSettings, now: Callable[[], float]) -> None:
    """Export this node's cards and how its peers are doing."""
    hostname = socket.gethostname()
    registry.register(GpuCollector(feeds.snapshot, dcgm_names=settings.dcgm_names, hostname=hostname, clock=now))
    PeerMetrics(registry, lambda: feeds.peers, now)
