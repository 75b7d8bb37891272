"""Gauges of the balancer's view: what is true at the moment of the scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from lb.cost.replica_model import Coefficients
from lb.metrics.labels import MAX_MODELS, NONE, OTHER, label_value

if TYPE_CHECKING:
    from lb.views import BalancerView, DemandView, ModelDemand, ReplicaView

MAX_PRIORITIES = 16
"""Priorities come from clients; those beyond the most urgent of this many are counted together."""

_REPLICA: tuple[tuple[str, str, Callable[[ReplicaView], float | None]], ...] = (
    ("in_flight", "Requests sent to it and not finished.", lambda view: view.in_flight),
    ("in_flight_limit", "Most requests that are sent to it at once.", lambda view: view.in_flight_limit),
    ("foreign_requests", "Requests of others, inferred from its readings.", lambda view: view.foreign),
    ("abandoned_requests", "Requests it works on although their clients left.", lambda view: view.abandoned),
    ("outstanding_tokens", "Predicted tokens it has still to compute for us.", lambda view: view.outstanding_tokens),
    (
        "predicted_backlog_seconds",
        "Predicted time until it has finished what it has.",
        lambda view: view.predicted_backlog_s,
    ),
    ("running", "Requests in its batch, as the runtime says.", lambda view: view.running),
    ("waiting", "Requests queued inside the runtime, as it says.", lambda view: view.waiting),
    ("kv_usage_ratio", "KV cache in use, as the runtime says.", lambda view: view.kv_usage_ratio),
    ("load_age_seconds", "Age of the last reading of its load.", lambda view: view.load_age_s),
    ("consecutive_faults", "Faults of real requests in a row.", lambda view: view.consecutive_faults),
    ("warm_ratio", "Share of full speed it is given credit for while it warms up.", lambda view: view.warm_ratio),
    (
        "prediction_error_ratio",
        "Mean absolute relative error of its speed model.",
        lambda view: view.prediction_error,
    ),
    ("cache_trust_ratio", "Predicted prefix hits that its usage confirmed.", lambda view: view.cache_trust),
    ("tokens_per_event", "Output tokens per stream event.", lambda view: view.tokens_per_event),
)

_BALANCER: tuple[tuple[str, str, Callable[[BalancerView], float]], ...] = (
    ("open_tickets", "Requests offered and not finished, waiting ones included.", lambda view: view.open_tickets),
    ("queue_body_bytes", "Body bytes of waiting requests.", lambda view: view.queue_body_bytes),
    ("retry_budget_tokens", "Prompt tokens that may be sent again now.", lambda view: view.retry_budget_tokens),
    ("prefix_index_blocks", "Prompt blocks remembered over all replicas.", lambda view: view.prefix_blocks),
    ("sessions", "Sessions tied to a replica.", lambda view: view.sessions),
    (
        "token_estimate_error_ratio",
        "Mean absolute relative error of prompt token estimates.",
        lambda view: view.token_error,
    ),
    (
        "output_length_coverage_ratio",
        "Answers no longer than their predicted 90 % quantile; 0.9 is right.",
        lambda view: view.output_coverage,
    ),
)

_DEMAND: tuple[tuple[str, str, Callable[[ModelDemand], float]], ...] = (
    ("requests_per_second", "Offered requests over the last minute.", lambda demand: demand.requests_per_s),
    (
        "prompt_tokens_per_second",
        "Offered prompt tokens over the last minute.",
        lambda demand: demand.prompt_tokens_per_s,
    ),
    (
        "output_tokens_per_second",
        "Output tokens of answers over the last minute.",
        lambda demand: demand.output_tokens_per_s,
    ),
    ("queued", "Requests waiting here.", lambda demand: demand.queued),
    ("queue_age_seconds", "How long the oldest of them has waited.", lambda demand: demand.queue_age_s),
    ("held", "Requests waiting because no replica serves the model.", lambda demand: demand.held),
    ("in_flight", "Requests at replicas.", lambda demand: demand.in_flight),
    ("replicas_ready", "Replicas that serve the model and are ready.", lambda demand: demand.replicas_ready),
    ("replicas", "Replicas that serve the model.", lambda demand: demand.replicas_total),
    ("backlog_seconds", "Predicted time to work off what is queued and running.", lambda demand: demand.backlog_s),
)

_OFFERED: tuple[tuple[str, str, Callable[[ModelDemand], float]], ...] = (
    ("offered_requests", "Requests offered: served, waiting and refused.", lambda demand: demand.offered_total),
    ("offered_prompt_tokens", "Prompt tokens offered, estimated.", lambda demand: demand.prompt_tokens_total),
)


def view_families(view: BalancerView, pause: Callable[[], None]) -> Iterator[Metric]:
    """Replicas, queue and tickets. A value that a runtime does not tell has no series: absent is not zero."""
    replicas = [(label_value(replica.id), replica) for replica in view.replicas]
    state = GaugeMetricFamily("tidegate_replica_state", "1 for the state it is in.", labels=("replica", "state"))
    gpu = GaugeMetricFamily(
        "tidegate_replica_gpu_state", "1 for the state of the worst GPU under it.", labels=("replica", "state")
    )
    routed = CounterMetricFamily("tidegate_replica_routed", "Requests sent to it.", labels=("replica",))
    speed = GaugeMetricFamily(
        "tidegate_replica_speed", "Coefficients of its fitted speed model.", labels=("replica", "coefficient")
    )
    for number, (name, replica) in enumerate(replicas):
        if number % 16 == 0:
            pause()
        state.add_metric((name, str(replica.state)), 1)
        if replica.gpu_state is not None:
            gpu.add_metric((name, replica.gpu_state), 1)
        routed.add_metric((name,), replica.routed_total)
        for field in fields(Coefficients):
            speed.add_metric((name, field.name), getattr(replica.coefficients, field.name))
    yield from (state, gpu, routed, speed)
    for metric, text, read in _REPLICA:
        family = GaugeMetricFamily(f"tidegate_replica_{metric}", text, labels=("replica",))
        for name, replica in replicas:
            value = read(replica)
            if value is not None:
                family.add_metric((name,), value)
        yield family
    for metric, text, total in _BALANCER:
        yield GaugeMetricFamily(f"tidegate_{metric}", text, value=total(view))
    yield _queue_depth(view)


def _queue_depth(view: BalancerView) -> Metric:
    family = GaugeMetricFamily("tidegate_queue_depth", "Requests waiting here.", labels=("priority",))
    depths = sorted(view.queue_depth.items())
    for priority, depth in depths[:MAX_PRIORITIES] or [(0, 0)]:
        family.add_metric((str(priority),), depth)
    if len(depths) > MAX_PRIORITIES:
        family.add_metric((OTHER,), sum(depth for _, depth in depths[MAX_PRIORITIES:]))
    return family


def demand_families(view: DemandView) -> Iterator[Metric]:
    """Offered demand: what the autoscaler sees. Beyond the busiest models the rest has no series here."""
    busiest = sorted(view.models.values(), key=lambda demand: demand.offered_total, reverse=True)[:MAX_MODELS]
    named = {label_value(demand.model) if demand.model else NONE: demand for demand in busiest}
    for metric, text, read in _DEMAND:
        family = GaugeMetricFamily(f"tidegate_demand_{metric}", text, labels=("model",))
        for label, demand in named.items():
            family.add_metric((label,), read(demand))
        yield family
    for metric, text, read in _OFFERED:
        counter = CounterMetricFamily(f"tidegate_demand_{metric}", text, labels=("model",))
        for label, demand in named.items():
            counter.add_metric((label,), read(demand))
        yield counter
    missed = CounterMetricFamily(
        "tidegate_demand_missed_requests", "Requests that got less than their pool's objective.", labels=("model",)
    )
    for label, demand in named.items():
        if demand.missed_total is not None:
            missed.add_metric((label,), demand.missed_total)
    yield missed
