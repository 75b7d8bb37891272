"""The same requests without any network: what a router that knows everything would do, and what simple ones do."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf

from autoscaler.sim.replica import EventKind, Replica, ReplicaModel, SimRequest
from tests.bench.routing.outcome import Outcome
from tests.bench.routing.workload import Item

Choose = Callable[[list[Replica], SimRequest, float], int]


@dataclass(frozen=True, slots=True)
class Played:
    """What a choice led to."""

    outcomes: list[Outcome]
    chosen: list[int]
    hit_ratio: float


def play(items: Sequence[Item], models: Sequence[ReplicaModel], choose: Choose) -> Played:
    """Send each request to `choose(replicas, request, now)` when it is due, and let everything finish."""
    replicas = [Replica(model) for model in models]
    outcomes = [Outcome() for _ in items]
    chosen = []

    def note(replica: Replica, now: float) -> None:
        for event in replica.advance(now):
            assert isinstance(event.request_id, int)
            outcome, due = outcomes[event.request_id], items[event.request_id].at_s
            if event.kind is EventKind.FIRST_TOKEN:
                outcome.first_s = event.at_s - due
            else:
                outcome.end_s = event.at_s - due

    for index, item in enumerate(items):
        for replica in replicas:
            note(replica, item.at_s)
        request = item.sim(index)
        where = choose(replicas, request, item.at_s)
        chosen.append(where)
        replicas[where].submit(request, item.at_s)
    for replica in replicas:
        while (at := replica.next_event_at()) < inf:
            note(replica, at)
    queried = sum(replica.prefix_query_tokens for replica in replicas)
    hits = sum(replica.prefix_hit_tokens for replica in replicas)
    return Played(outcomes, chosen, hits / queried if queried else 0.0)


def clairvoyant(replicas: list[Replica], request: SimRequest, now: float) -> int:
    """The replica that would finish this request first, with true lengths and true work left."""
    return min(range(len(replicas)), key=lambda index: replicas[index].finish_if_submitted(request, now)[1])


def clairvoyant_sum(replicas: list[Replica], request: SimRequest, now: float) -> int:
    """The replica where this request's end and the delay it means for all others there add up to least."""

    def cost(index: int) -> float:
        replica = replicas[index]
        first, end = replica.finish_if_submitted(request, now)
        model, others = replica.model, replica.running + replica.waiting
        # Each other request there waits for this one's prefill once (what a cached prefix spares shows in `first`), and
        # a little longer for every token while it runs.
        prefill_s = min(request.prompt_tokens * model.prefill_s_per_token * replica.slow_factor, first - now)
        decode_s = model.step_s_per_running * replica.slow_factor * request.output_tokens
        return end - now + others * (prefill_s + decode_s)

    return min(range(len(replicas)), key=cost)


def least_connections(replicas: list[Replica], request: SimRequest, now: float) -> int:
    """As nginx and HAProxy: fewest open requests; ties in turn."""
    least = min(replica.running + replica.waiting for replica in replicas)
    ties = [index for index, replica in enumerate(replicas) if replica.running + replica.waiting == least]
    assert isinstance(request.id, int)
    return ties[request.id % len(ties)]


def round_robin(replicas: list[Replica], request: SimRequest, now: float) -> int:
    assert isinstance(request.id, int)
    return request.id % len(replicas)


def two_choices(replicas: list[Replica], request: SimRequest, now: float) -> int:
    """The less loaded of two that are drawn; the draw depends on the request alone."""
    assert isinstance(request.id, int)
    a, b = random.Random(request.id).sample(range(len(replicas)), 2)
    return a if replicas[a].running + replicas[a].waiting <= replicas[b].running + replicas[b].waiting else b
