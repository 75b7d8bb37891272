"""What the balancer counts by model, put together by pool: pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite

from autoscaler.decide.observation import PoolDemand
from autoscaler.policy.pools import ObjectiveSettings, PoolSettings
from lb.cost.replica_model import Coefficients
from lb.signals import Objective
from lb.views import ModelDemand, ReplicaView

_MOST_WINDOW_S = 60.0
"""A minute smooths arrivals enough for a rate and is short enough for a spike."""
_LEAST_WINDOW_S = 10.0
_WINDOW_TICKS = 5.0
"""Whoever ticks more often than usual wants to see changes sooner, at the price of noise."""
_LEARNED = 8
"""Observations behind a replica's speed model from which it says what a replica can do."""
_MOST_BATCH = 256
"""Where slots are not known: the default of vLLM's max_num_seqs."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Means a second over `window_s`."""

    window_s: float
    requests: float
    prompt_tokens: float
    output_tokens: float
    served: float


class Rates:
    """Rates of a pool from the balancer's totals. Totals that fell (their model was forgotten meanwhile) begin anew."""

    def __init__(self) -> None:
        self._readings: deque[tuple[float, dict[str, tuple[float, ...]]]] = deque()

    def forget(self) -> None:
        """What comes next is counted from then on."""
        self._readings.clear()

    def observe(self, own: Sequence[ModelDemand], interval_s: float, now: float) -> Rate | None:
        """One reading a tick. None while less than half of the window was seen: what is not known holds, a low number
        would lower."""
        window_s = min(_MOST_WINDOW_S, max(_LEAST_WINDOW_S, _WINDOW_TICKS * interval_s))
        totals: dict[str, tuple[float, ...]] = {
            one.model: (one.offered_total, one.prompt_tokens_total, one.output_tokens_total, one.served_total)
            for one in own
        }
        readings = self._readings
        readings.append((now, totals))
        while len(readings) > 2 and readings[1][0] <= now - window_s:
            readings.popleft()
        began, before = readings[0]
        seen_s = now - began
        if seen_s < 0.5 * window_s or seen_s > 2.0 * window_s + interval_s:
            return None
        sums = [0.0] * 4
        for model, late in totals.items():
            # A model that appeared meanwhile had nothing before.
            early = before.get(model, (0.0,) * 4)
            if all(after >= earlier for after, earlier in zip(late, early, strict=True)):
                for index in range(4):
                    sums[index] += late[index] - early[index]
        return Rate(seen_s, *(one / seen_s for one in sums))


def models_of(pools: Sequence[PoolSettings], models: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Which models count to which pool. A model belongs to the first pool that names it, else to the first that names
    none; requests that name no model go there too, or to the only pool."""
    rest = next((pool.name for pool in pools if not pool.models), None)
    named: dict[str, str] = {}
    for pool in pools:
        for model in pool.models:
            named.setdefault(model, pool.name)
    found: dict[str, list[str]] = {pool.name: [] for pool in pools}
    for model in sorted({*models, *named}):
        owner = named.get(model, rest)
        if owner is None and not model and len(pools) == 1:
            owner = pools[0].name
        if owner is not None:
            found[owner].append(model)
    return {name: tuple(some) for name, some in found.items()}


def objectives_of(pools: Sequence[PoolSettings]) -> tuple[dict[str, Objective], Objective | None]:
    """What the balancer should hold answers against: by model, and of models that no pool names."""
    by_model: dict[str, Objective] = {}
    for pool in pools:
        for model in pool.models:
            by_model.setdefault(model, _objective(pool.objective))
    rest = next((pool for pool in pools if not pool.models), pools[0] if len(pools) == 1 else None)
    return by_model, None if rest is None else _objective(rest.objective)


def _objective(settings: ObjectiveSettings) -> Objective:
    return Objective(settings.first_token_s, settings.inter_token_s)


def pool_demand(
    pool: PoolSettings,
    models: Iterable[str],
    demand: Mapping[str, ModelDemand],
    replicas: Sequence[ReplicaView],
    rates: Rates,
    *,
    at: float,
    interval_s: float,
    complete: bool = True,
    gpu_utilization: float | None = None,
) -> PoolDemand:
    """Demand of one pool. `replicas` are the pool's. `complete`: all balancers were heard of; else what depends on all
    of them is not known, as a part of it looks like less of it."""
    own = [demand[model] for model in models if model in demand]
    ready = [one for one in replicas if one.state == "ready"]
    if not complete:
        rates.forget()
    rate = rates.observe(own, interval_s, at) if complete else None
    missed = [one.missed_total for one in own if one.missed_total is not None]
    queued = sum(one.queued for one in own)
    in_flight = sum(one.in_flight for one in own)
    return PoolDemand(
        at=at,
        window_s=rate.window_s if rate is not None else _MOST_WINDOW_S,
        requests_per_s=None if rate is None else rate.requests,
        prompt_tokens_per_s=None if rate is None else rate.prompt_tokens,
        output_tokens_per_s=None if rate is None else rate.output_tokens,
        in_flight=in_flight if complete else None,
        queued=queued if complete else None,
        held=sum(one.held for one in own) if not ready else 0,
        backlog_s=_backlog_s(own, bool(ready), queued + in_flight) if complete else None,
        offered_total=sum(one.offered_total for one in own) if complete else None,
        missed_total=sum(missed) if len(missed) == len(own) and complete else None,
        served_per_s=None if rate is None else rate.served,
        speed_per_s=_speed(pool, ready, own),
        gpu_utilization=gpu_utilization,
        kv_usage=_mean(one.kv_usage_ratio for one in ready),
        first_token_s=_worst(one.first_token_p95_s for one in own),
        inter_token_s=_worst(one.inter_token_p95_s for one in own),
        latency_s=_worst(one.latency_p95_s for one in own),
    )


def _backlog_s(own: Sequence[ModelDemand], ready: bool, work: int) -> float | None:
    """The longest, as models of a pool share its replicas. With work and nobody to do it there is no number."""
    if not ready:
        return None if work else 0.0
    return max((one.backlog_s for one in own if isfinite(one.backlog_s)), default=0.0)


def _worst(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _speed(pool: PoolSettings, ready: Sequence[ReplicaView], own: Sequence[ModelDemand]) -> float | None:
    """Units of demand a second that one replica can serve within the objective, for the requests of this service; the
    mean of the ready replicas whose speed is known."""
    offered = sum(one.offered_total for one in own)
    served = sum(one.served_total for one in own)
    if offered < _LEARNED or served < _LEARNED:
        return None
    prompt = sum(one.prompt_tokens_total for one in own) / offered
    output = sum(one.output_tokens_total for one in own) / served
    rates = [
        request_rate(one.coefficients, prompt, output, pool.objective.inter_token_s, one.slots)
        for one in ready
        if one.coefficients.first_tokens + one.coefficients.steps >= _LEARNED
    ]
    if not rates:
        return None
    mean = sum(rates) / len(rates)
    return mean * {"requests": 1.0, "prompt_tokens": prompt, "output_tokens": output}[pool.capacity.unit]


def request_rate(
    speed: Coefficients, prompt_tokens: float, output_tokens: float, inter_token_s: float, slots: int | None
) -> float:
    """Requests a second of a replica that is as full as the objective allows.

    With B running, a step takes s(B) = s0 + B (s1 + s2 context), and at a rate r a share r p of the time goes into
    prompts of p seconds. By Little's law B = r o gap for answers of o tokens, and gap = s(B) / (1 - r p) is what a
    client sees. From these, gap = s(B) + B p / o: the objective bounds B, and r = B / (o gap).
    """
    prefill_s = (
        speed.prefill_fixed_s
        + speed.prefill_s_per_token * prompt_tokens
        + speed.prefill_s_per_token2 * prompt_tokens * prompt_tokens
    )
    if output_tokens < 1.0:
        return 1.0 / max(prefill_s, 1e-6)
    context = prompt_tokens + 0.5 * output_tokens
    a_running_s = speed.step_s_per_running + speed.step_s_per_context_token * context + prefill_s / output_tokens
    most = float(slots or _MOST_BATCH)
    batch = (inter_token_s - speed.step_fixed_s) / a_running_s if a_running_s > 0.0 else most
    batch = min(most, max(1.0, batch))
    return batch / (output_tokens * (speed.step_fixed_s + batch * a_running_s))
