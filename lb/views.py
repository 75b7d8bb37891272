"""What the balancer shows of itself: frozen copies for the admin API, metrics, and whoever scales."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lb.cost.replica_model import Coefficients


@dataclass(frozen=True, slots=True)
class ReplicaView:
    """One replica at one instant. None: not known, which is not zero."""

    id: str
    url: str
    state: str
    reason: str
    since_s: float
    """How long it has been in this state."""
    models: tuple[str, ...] | None
    """None: not known yet."""
    runtime: str | None
    zone: str | None
    in_flight: int
    """Requests sent and not finished."""
    in_flight_limit: int
    foreign: float
    """Requests of others, inferred from its readings."""
    abandoned: int
    """Requests whose clients left and on which it works on."""
    outstanding_tokens: float
    """Predicted prompt and output tokens still to compute for our requests."""
    predicted_backlog_s: float
    """Predicted time until it has finished what we sent it."""
    running: float | None
    waiting: float | None
    kv_usage_ratio: float | None
    load_age_s: float | None
    """Age of the last reading of its load."""
    slots: int | None
    ejected_until_s: float | None
    """Seconds until an ejection ends."""
    consecutive_faults: int
    warm_ratio: float
    """Share of its full speed that it is given credit for while it warms up, 1.0: warm."""
    drain_left_s: float | None
    """Patience left of a drain with a deadline."""
    gpu_state: str | None
    gpu_reason: str
    coefficients: Coefficients
    prediction_error: float
    """Mean absolute relative error of its speed model, recent."""
    tokens_per_event: float
    cache_trust: float
    """Share of predicted prefix-cache hits that its usage confirmed."""
    routed_total: int
    prompt_tokens_total: float
    prefix_blocks: int = 0
    """Prompt blocks that its prefix cache is taken to hold."""


@dataclass(frozen=True, slots=True)
class BalancerView:
    """The balancer at one instant."""

    replicas: tuple[ReplicaView, ...]
    strategy: str
    weights: Mapping[str, float]
    open_tickets: int
    """Offered and not finished, waiting ones included."""
    queued: int
    queue_depth: Mapping[int, int]
    """Waiting requests by priority."""
    queue_body_bytes: int
    retry_budget_tokens: float
    """Prompt tokens that may be sent again now."""
    prefix_blocks: int
    """Prompt blocks remembered over all replicas."""
    sessions: int
    token_error: float
    """Mean absolute relative error of prompt token estimates, recent."""
    output_coverage: float
    """Share of answers no longer than their predicted 90 % quantile: 0.9 is right."""
    closing: bool


@dataclass(frozen=True, slots=True)
class ModelDemand:
    """Offered demand for one model: served, queued and refused alike."""

    model: str
    """Empty for requests that name none."""
    offered_total: int
    rejected_total: int
    prompt_tokens_total: float
    output_tokens_total: float
    requests_per_s: float
    """Over the last minute, as are the rates below."""
    prompt_tokens_per_s: float
    output_tokens_per_s: float
    """Of answers that ended."""
    queued: int
    queue_age_s: float
    """How long the oldest has waited."""
    held: int
    """Of those queued, how many wait because no replica serves the model: whoever scales should start one."""
    in_flight: int
    replicas_ready: int
    replicas_total: int
    outstanding_tokens: float
    """Predicted tokens of queued and running requests still to compute."""
    backlog_s: float
    """Predicted time until the ready replicas have worked that off together; inf with work and no ready replica."""
    served_total: int = 0
    """Whole answers."""
    served_per_s: float = 0.0
    missed_total: int | None = None
    """Late, slow, failed or refused, held against the objective; None: there is none."""
    first_token_p95_s: float | None = None
    """95 % quantile over the last one to three minutes, as are the two below; None: no answers, or no objective."""
    inter_token_p95_s: float | None = None
    latency_p95_s: float | None = None


@dataclass(frozen=True, slots=True)
class DemandView:
    """Demand of all models at one instant."""

    at: float
    """Monotonic seconds."""
    models: Mapping[str, ModelDemand]
