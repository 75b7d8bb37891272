"""The exposition: valid, complete, documented, and made without holding up the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import math
import re
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

import lb.metrics.collector
from lb.cost.replica_model import ReplicaModel
from lb.effects import Outcome, ReplicaChanged
from lb.errors import Reason
from lb.metrics import LbMetrics, PauseWatch, Reload
from lb.proxy.observer import RequestRecord
from lb.request import SurfaceName
from lb.settings import CostSettings
from lb.views import BalancerView, DemandView, ModelDemand, ReplicaView

REPLICA = ReplicaView(
    id="http://10.0.0.1:8000",
    url="http://10.0.0.1:8000",
    state="ready",
    reason="",
    since_s=1.0,
    models=("llama",),
    runtime="vllm",
    zone=None,
    in_flight=3,
    in_flight_limit=256,
    foreign=0.0,
    abandoned=0,
    outstanding_tokens=1234.5,
    predicted_backlog_s=2.5,
    running=3.0,
    waiting=None,
    kv_usage_ratio=0.5,
    load_age_s=0.1,
    slots=None,
    ejected_until_s=None,
    consecutive_faults=0,
    warm_ratio=1.0,
    drain_left_s=None,
    gpu_state="ok",
    gpu_reason="",
    coefficients=ReplicaModel(CostSettings()).coefficients,
    prediction_error=0.1,
    tokens_per_event=1.0,
    cache_trust=1.0,
    routed_total=7,
    prompt_tokens_total=100.0,
)
VIEW = BalancerView(
    replicas=(REPLICA, dataclasses.replace(REPLICA, id='http://h"\n:1', state="ejected", models=None)),
    strategy="tidegate",
    weights={},
    open_tickets=4,
    queued=1,
    queue_depth={0: 1},
    queue_body_bytes=10,
    retry_budget_tokens=32768.0,
    prefix_blocks=5,
    sessions=0,
    token_error=0.1,
    output_coverage=0.9,
    closing=False,
)
DEMAND = ModelDemand(
    model="llama",
    offered_total=10,
    rejected_total=1,
    prompt_tokens_total=100.0,
    output_tokens_total=200.0,
    requests_per_s=0.5,
    prompt_tokens_per_s=5.0,
    output_tokens_per_s=10.0,
    queued=1,
    queue_age_s=0.5,
    held=0,
    in_flight=3,
    replicas_ready=1,
    replicas_total=2,
    outstanding_tokens=1000.0,
    backlog_s=math.inf,
    missed_total=2,
)
RECORD = RequestRecord(
    request_id="r",
    method="POST",
    path="/v1/chat/completions",
    client="10.0.0.9",
    surface=SurfaceName.CHAT,
    model="llama",
    tenant="default",
    status=200,
    outcome=Outcome.OK,
    reason=None,
    replica_id="http://10.0.0.1:8000",
    decision_reason="least work",
    attempts=1,
    queue_s=0.0,
    ttft_s=0.2,
    duration_s=1.2,
    bytes_in=100,
    bytes_out=2000,
    events=51,
    est_prompt_tokens=20.0,
    est_output_tokens=100.0,
    prompt_tokens=25,
    output_tokens=101,
    cached_tokens=5,
    predicted_s=1.0,
)


class FakeGateway:
    """A gateway whose balancer shows what it is given."""

    def __init__(self, view: BalancerView = VIEW, demand: tuple[ModelDemand, ...] = (DEMAND,)) -> None:
        self.balancer = self
        self._view = view
        self._demand = demand
        self.listeners: list[Callable[[ReplicaChanged], None]] = []

    def view(self, now: float) -> BalancerView:
        return self._view

    def demand(self, now: float) -> DemandView:
        return DemandView(at=now, models={demand.model: demand for demand in self._demand})

    def subscribe(self, listener: Callable[[ReplicaChanged], None]) -> None:
        self.listeners.append(listener)


def watching(gateway: FakeGateway | None = None) -> LbMetrics:
    metrics = LbMetrics(CollectorRegistry(), version="1.2.3", now=lambda: 100.0)
    gateway = gateway or FakeGateway()
    metrics.watch_gateway(gateway)  # type: ignore[arg-type]
    gateway.listeners[0](ReplicaChanged("a", "joining", "ready", "probe"))
    log = SimpleNamespace(writer=SimpleNamespace(dropped=2), throttle=SimpleNamespace(suppressed=3))
    metrics.watch_log(log)  # type: ignore[arg-type]
    metrics.finished(RECORD)
    metrics.refused(Reason.BAD_REQUEST)
    metrics.connections(1)
    metrics.connections(1)
    metrics.connections(-1)
    metrics.reloaded(Reload(ok=True, at=1_800_000_000.0, policy_hash="abc"))
    return metrics


async def scraped(metrics: LbMetrics) -> tuple[str, list[Sample]]:
    text = (await metrics.exposition()).decode()
    return text, [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def value(samples: list[Sample], name: str, **labels: str) -> float:
    [found] = [s.value for s in samples if s.name == name and s.labels == labels]
    return found


async def test_values_arrive() -> None:
    _, samples = await scraped(watching())
    labels = {"model": "llama", "replica": "http://10.0.0.1:8000", "outcome": "ok", "code": "200"}
    assert value(samples, "tidegate_requests_total", **labels) == 1
    assert value(samples, "tidegate_rejections_total", reason="bad_request") == 1
    assert value(samples, "tidegate_rejections_total", reason="queue_full") == 0
    assert value(samples, "tidegate_time_to_first_token_seconds_bucket", model="llama", le="0.1") == 0
    assert value(samples, "tidegate_time_to_first_token_seconds_bucket", model="llama", le="0.2") == 1
    assert value(samples, "tidegate_time_to_first_token_seconds_bucket", model="llama", le="3600.0") == 1
    assert value(samples, "tidegate_time_to_first_token_seconds_count", model="llama") == 1
    assert value(samples, "tidegate_replica_in_flight", replica="http://10.0.0.1:8000") == 3
    assert value(samples, "tidegate_replica_state", replica="http://10.0.0.1:8000", state="ready") == 1
    assert value(samples, "tidegate_demand_backlog_seconds", model="llama") == math.inf
    assert value(samples, "tidegate_demand_missed_requests_total", model="llama") == 2
    assert value(samples, "tidegate_queue_depth", priority="0") == 1
    assert value(samples, "tidegate_open_tickets") == 4
    assert value(samples, "tidegate_connections") == 1
    assert value(samples, "tidegate_accepted_connections_total") == 2
    assert value(samples, "tidegate_replica_transitions_total", previous="joining", current="ready") == 1
    assert value(samples, "tidegate_policy_reloads_total", result="applied") == 1
    assert value(samples, "tidegate_policy_last_reload_success") == 1
    assert value(samples, "tidegate_log_lines_missing_total", cause="blocked") == 2
    assert value(samples, "tidegate_build_info", version="1.2.3", python=lb.metrics.collector.platform.python_version())


async def test_what_a_runtime_does_not_tell_has_no_series() -> None:
    _, samples = await scraped(watching())
    assert not [sample for sample in samples if sample.name == "tidegate_replica_waiting"]


async def test_timeouts_are_counted_by_kind() -> None:
    metrics = watching()
    for outcome in (Outcome.CONNECT_TIMEOUT, Outcome.IDLE_TIMEOUT, Outcome.IDLE_TIMEOUT):
        metrics.finished(dataclasses.replace(RECORD, outcome=outcome, status=504))
    metrics.finished(dataclasses.replace(RECORD, outcome=None, reason=Reason.QUEUE_TIMEOUT, status=503))
    metrics.refused(Reason.REQUEST_TIMEOUT)
    _, samples = await scraped(metrics)
    kinds = {sample.labels["kind"]: sample.value for sample in samples if sample.name == "tidegate_timeouts_total"}
    assert {kind: count for kind, count in kinds.items() if count} == {
        "connect": 1,
        "idle": 2,
        "queue": 1,
        "request": 1,
    }


async def test_l13_hostile_labels_leave_a_valid_document() -> None:
    hostile = 'x"} 1\ntidegate_forged{a="\\ \x00 \ud800'
    metrics = watching(FakeGateway(demand=(dataclasses.replace(DEMAND, model=hostile),)))
    metrics.finished(dataclasses.replace(RECORD, model=hostile, replica_id=hostile))
    text, samples = await scraped(metrics)
    assert "\ntidegate_forged" not in text
    assert not any(sample.name.startswith("tidegate_forged") for sample in samples)
    assert any('x"} 1?tidegate_forged' in sample.labels.get("model", "") for sample in samples)


async def test_d10_a_hundred_thousand_names_do_not_grow_the_document() -> None:
    metrics = watching()
    before, _ = await scraped(metrics)
    for number in range(100_000):
        junk = dataclasses.replace(RECORD, model=f"junk-{number}", outcome=Outcome.CLIENT_ERROR, status=404)
        metrics.requests.finished(junk)
    after, _ = await scraped(metrics)
    assert len(after) < len(before) + 20_000


async def test_every_series_is_unique() -> None:
    _, samples = await scraped(watching())
    keys = [(sample.name, tuple(sorted(sample.labels.items()))) for sample in samples]
    assert len(keys) == len(set(keys))


async def test_the_readme_lists_exactly_these_metrics() -> None:
    readme = Path(lb.metrics.collector.__file__).with_name("README.md").read_text()
    rows = re.findall(r"^\| `(tidegate_\w+)` \| (\w+) \| ([\w, ]*)\|", readme, re.MULTILINE)
    documented = {
        (name, kind, frozenset(filter(None, labels.replace(" ", "").split(",")))) for name, kind, labels in rows
    }
    served = set()
    for family in text_string_to_metric_families((await watching().exposition()).decode()):
        if not family.name.startswith("tidegate_") or family.name == "tidegate_replica_waiting":
            continue
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        served.add((name, family.type, frozenset(labels)))
    waiting = ("tidegate_replica_waiting", "gauge", frozenset({"replica"}))  # untold in the view above
    assert served | {waiting} == documented


async def test_help_and_type_come_once_and_first() -> None:
    text, _ = await scraped(watching())
    names = re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)
    assert len(names) == len(set(names))
    assert text.endswith("\n")


async def test_g12_the_text_is_made_off_the_loop_and_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = watching()
    made_in: list[str] = []
    may_go_on = threading.Event()

    def slow(registry: CollectorRegistry) -> bytes:
        made_in.append(threading.current_thread().name)
        assert may_go_on.wait(5)
        return b"text"

    monkeypatch.setattr(lb.metrics.collector, "generate_latest", slow)
    scrapes = [asyncio.create_task(metrics.exposition()) for _ in range(20)]
    await asyncio.sleep(0)
    metrics.finished(RECORD)  # the loop goes on
    scrapes.pop().cancel()  # a scraper that leaves takes nothing from the others
    may_go_on.set()
    assert await asyncio.gather(*scrapes) == [b"text"] * 19
    assert len(made_in) == 1
    assert made_in[0] != threading.main_thread().name
    assert await metrics.exposition() == b"text"
    assert len(made_in) == 2


async def test_a_failed_scrape_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = watching()
    good = lb.metrics.collector.generate_latest
    monkeypatch.setattr(lb.metrics.collector, "generate_latest", lambda registry: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        await metrics.exposition()
    monkeypatch.setattr(lb.metrics.collector, "generate_latest", good)
    assert (await metrics.exposition()).startswith(b"# HELP")


async def test_pauses_are_measured() -> None:
    watch = PauseWatch()
    watch.start()
    watch.start()
    task = asyncio.create_task(watch.run(interval_s=0.001))
    for _ in range(50):
        await asyncio.sleep(0.001)
    gc.collect()
    task.cancel()
    watch.stop()
    assert sum(watch.gc_pause_s.counts) >= 1
    assert sum(watch.loop_lag_s.counts) >= 10
    assert watch.take_max() > 0
    assert watch.take_max() == 0
