"""Frozen copies of the balancer's state for those who look at it."""

from __future__ import annotations

from math import inf

from lb.admission.queue import WaitQueue
from lb.fleet import Fleet
from lb.learning import Lessons
from lb.ledger import Entry, backlog_s, outstanding_tokens
from lb.pools import Pool
from lb.replica import Replica
from lb.retry import RetryBudget
from lb.routing.pipeline import Router
from lb.settings import LbSettings
from lb.views import BalancerView, DemandView, ModelDemand, ReplicaView

_TAIL = 0.95
"""What operators set thresholds on; a minute rarely has enough answers for more."""


def replica_view(replica: Replica, prefix_blocks: int, now: float) -> ReplicaView:
    load, gpu, endpoint = replica.load, replica.gpu, replica.endpoint
    ejected_s = replica.outlier.ejected_until - now
    return ReplicaView(
        id=replica.id,
        url=endpoint.url,
        state=str(replica.state),
        reason=replica.reason,
        since_s=now - replica.since,
        models=replica.models,
        runtime=replica.runtime,
        zone=endpoint.zone,
        in_flight=replica.in_flight,
        in_flight_limit=replica.limit,
        foreign=replica.foreign,
        abandoned=len(replica.abandoned),
        outstanding_tokens=outstanding_tokens(replica),
        predicted_backlog_s=backlog_s(replica, now),
        running=None if load is None else load.running,
        waiting=None if load is None else load.waiting,
        kv_usage_ratio=None if load is None else load.kv_usage_ratio,
        load_age_s=None if replica.load_at == -inf else now - replica.load_at,
        slots=replica.slots,
        ejected_until_s=ejected_s if ejected_s > 0.0 else None,
        consecutive_faults=replica.outlier.faults,
        warm_ratio=1.0 if replica.ramp is None else replica.ramp.ratio(now),
        drain_left_s=None if replica.drain_at is None else replica.drain_at - now,
        gpu_state=None if gpu is None else str(gpu.state),
        gpu_reason="" if gpu is None else gpu.reason,
        coefficients=replica.speed.coefficients,
        prediction_error=replica.speed.error,
        tokens_per_event=replica.tokens_per_event,
        cache_trust=replica.cache_trust,
        routed_total=replica.routed_total,
        prompt_tokens_total=replica.prompt_tokens_total,
        prefix_blocks=prefix_blocks,
    )


def balancer_view(
    settings: LbSettings,
    fleet: Fleet,
    router: Router,
    queue: WaitQueue,
    budget: RetryBudget,
    lessons: Lessons,
    closing: bool,
    now: float,
) -> BalancerView:
    return BalancerView(
        replicas=tuple(replica_view(replica, router.prefixes.held(replica.index), now) for replica in fleet.everyone()),
        strategy=settings.routing.strategy,
        weights=dict(router.weighing.weights),
        open_tickets=len(queue) + sum(one.in_flight for one in fleet.everyone()),
        queued=len(queue),
        queue_depth=queue.depth_by_priority(),
        queue_body_bytes=queue.bytes,
        retry_budget_tokens=budget.level(now),
        prefix_blocks=len(router.prefixes),
        sessions=len(router.sessions),
        token_error=lessons.tokens.error,
        output_coverage=lessons.lengths.coverage,
        closing=closing,
    )


def demand_view(fleet: Fleet, queue: WaitQueue, now: float) -> DemandView:
    """Demand by model. Pools that have never been asked for anything and have no replica are left out."""
    outstanding: dict[Pool, float] = {}
    for replica in fleet.everyone():
        for ticket in replica.tickets:
            entry = ticket.core
            assert isinstance(entry, Entry)
            outstanding[entry.pool] = outstanding.get(entry.pool, 0.0) + _tokens_left(replica, entry)
    models = {
        pool.key: _model_demand(pool, outstanding.get(pool, 0.0), queue, now)
        for pool in fleet.pools.all()
        if pool.signals.offered_total or (pool.key and pool.roster.members)
    }
    return DemandView(now, models)


def _tokens_left(replica: Replica, entry: Entry) -> float:
    if entry.unary:
        return replica.unary_tokens / replica.unary
    return entry.remaining + (entry.uncached if entry.waits_prefill else 0.0)


def _model_demand(pool: Pool, outstanding: float, queue: WaitQueue, now: float) -> ModelDemand:
    signals = pool.signals
    span_s = signals.span_s(now)
    offered, prompt_tokens = signals.offered.total(now)
    served, output_tokens = signals.served.total(now)
    judge = signals.judge
    queued = queue.depth(pool.key)
    waiting = signals.waiting_prompt_tokens + signals.waiting_output_tokens
    return ModelDemand(
        model=pool.key,
        offered_total=signals.offered_total,
        rejected_total=signals.rejected_total,
        prompt_tokens_total=signals.prompt_tokens_total,
        output_tokens_total=signals.output_tokens_total,
        requests_per_s=offered / span_s,
        prompt_tokens_per_s=prompt_tokens / span_s,
        output_tokens_per_s=output_tokens / span_s,
        queued=queued,
        queue_age_s=queue.oldest_age_s(pool.key, now),
        held=queued if not pool.roster.ready else 0,
        in_flight=signals.in_flight,
        replicas_ready=len(pool.roster.ready),
        replicas_total=len(pool.roster.members),
        outstanding_tokens=outstanding + waiting,
        backlog_s=_backlog_s(pool, waiting + outstanding, now),
        served_total=signals.served_total,
        served_per_s=served / span_s,
        missed_total=None if judge is None else signals.rejected_total + judge.missed_total,
        first_token_p95_s=None if judge is None else judge.first_token.quantile(_TAIL, now),
        inter_token_p95_s=None if judge is None else judge.inter_token.quantile(_TAIL, now),
        latency_p95_s=None if judge is None else judge.latency.quantile(_TAIL, now),
    )


def _backlog_s(pool: Pool, outstanding: float, now: float) -> float:
    """Mean backlog of the ready replicas, and the queue's work shared among them at their present batch."""
    ready = pool.roster.ready
    if not ready:
        return inf if outstanding > 0.0 else 0.0
    signals = pool.signals
    total = 0.0
    for replica in ready:
        pace = replica.pace
        batch = max(1, replica.in_flight)
        token_s = (pace.step_s + pace.running_s * batch) / batch
        share = 1.0 / len(ready)
        total += backlog_s(replica, now)
        total += share * (signals.waiting_prompt_tokens * pace.token_s + signals.waiting_output_tokens * token_s)
    return total / len(ready)
