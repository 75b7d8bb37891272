"""A replica as its actuator and the balancer see it, made one: pure.

The actuator knows what exists, the balancer what serves. A replica counts as ready while the balancer sends it
requests, and as failed when the actuator says so, or when it has not served for as long as a start may take and nothing
runs on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil

from autoscaler.actuator import Observation, Observed
from autoscaler.fleet import Phase, PoolFleet, ReplicaFact
from autoscaler.policy.pools import PoolSettings
from lb.endpoint import Endpoint
from lb.views import ReplicaView

SERVING = frozenset({"ready", "trial"})
"""States of the balancer in which it sends requests."""
_BROKEN = frozenset({"failed", "ejected"})


@dataclass(frozen=True, slots=True)
class Joined:
    """One pool at one instant."""

    fleet: PoolFleet
    details: Mapping[str, str]
    """Words on a replica's phase, by its id, for people."""


def join(pool: PoolSettings, observation: Observation, views: Mapping[str, ReplicaView], now: float) -> Joined:
    """`views` are the balancer's replicas by id."""
    facts: list[ReplicaFact] = []
    details: dict[str, str] = {}
    for one in observation.replicas:
        view = views.get(one.endpoint.id if one.endpoint is not None else one.fact.id)
        facts.append(_fact(pool, one, view, now))
        words = one.detail or (view.reason if view is not None else "")
        if words:
            details[one.fact.id] = words
    bare = observation.fleet()
    return Joined(PoolFleet(bare.at, tuple(facts), bare.complete, bare.wanted_by_others, bare.full), details)


def _fact(pool: PoolSettings, one: Observed, view: ReplicaView | None, now: float) -> ReplicaFact:
    fact = one.fact
    if view is None:
        # Where the actuator knows the address, the balancer is about to hear of it; else it finds out by other means.
        known = one.endpoint is None
        return fact if fact.phase is not Phase.READY or known else replace(fact, phase=Phase.STARTING)
    busy = replace(
        fact,
        in_flight=in_flight(view),
        work_left_s=view.predicted_backlog_s,
        cache_value=float(view.prefix_blocks),
    )
    if fact.phase not in (Phase.READY, Phase.STARTING):
        return busy
    state = view.state
    if state == "draining":
        return replace(busy, phase=Phase.DRAINING, since_s=now - view.since_s)
    if state in SERVING:
        # The balancer's probe and the actuator's are two looks at one server: either one that passes is enough.
        return replace(
            busy, phase=Phase.READY, since_s=fact.since_s if fact.phase is Phase.READY else now - view.since_s
        )
    if state in _BROKEN and view.since_s > pool.start.give_up_s and not busy.in_flight:
        return replace(busy, phase=Phase.FAILED, since_s=now - view.since_s)
    return replace(busy, phase=Phase.STARTING)


def in_flight(view: ReplicaView) -> int:
    """Requests that would be cut if it ended now: ours, those whose clients left, those of others; and whatever its
    own counters say, which see what another balancer sent."""
    ours = view.in_flight + view.abandoned + ceil(view.foreign)
    return max(ours, ceil((view.running or 0.0) + (view.waiting or 0.0)))


def reported(
    pool: PoolSettings, views: Mapping[str, ReplicaView], others: frozenset[str], now: float
) -> list[Observed]:
    """The balancer's replicas that a pool without an actuator of its own stands for: those that serve one of its
    models and belong to no other pool (`others`: their ids)."""
    found = []
    for view in views.values():
        if view.id in others or (pool.models and view.models is not None and not set(pool.models) & set(view.models)):
            continue
        phase = Phase.READY if view.state in SERVING else Phase.STARTING
        found.append(Observed(ReplicaFact(view.id, phase, pool.kinds[0].name, since_s=now - view.since_s)))
    return found


def endpoints(observation: Observation, before: tuple[Endpoint, ...]) -> tuple[Endpoint, ...]:
    """What the balancer should know of a pool. What has failed serves nobody; what could not be asked for may."""
    seen = {one.fact.id for one in observation.replicas}
    found = [one.endpoint for one in observation.replicas if one.endpoint is not None and _serves(one.fact.phase)]
    if not observation.complete:
        found += [endpoint for endpoint in before if endpoint.id not in seen]
    return tuple(found)


def _serves(phase: Phase) -> bool:
    return phase is not Phase.FAILED
