"""Pools beyond the shortlist: a decision looks at few replicas and still finds the right one."""

from __future__ import annotations

import random
from heapq import heappop, heappush

import pytest

from lb.balancer import Balancer
from lb.effects import Outcome, Routed, Ticket
from lb.endpoint import Endpoint
from lb.ledger import Entry
from lb.request import RequestInfo, SurfaceName, Usage
from lb.routing.form import overlap, seconds
from lb.runtime import ProbeResult, ProbeStatus
from lb.settings import LbSettings


def big(replicas: int, **routing: object) -> Balancer:
    policy = LbSettings.model_validate({"routing": routing, "admission": {"default_max_in_flight": 8}})
    balancer = Balancer(policy, rng=random.Random(3), now=0.0)
    balancer.set_endpoints([Endpoint(f"r{i}", "h", i + 1, models=("m",)) for i in range(replicas)], 0.0)
    for i in range(replicas):
        balancer.observe_probe(f"r{i}", ProbeResult(ProbeStatus.READY), 0.0)
    return balancer


def test_a_large_pool_is_used_whole_and_never_past_its_room() -> None:
    balancer = big(150)
    tickets = []
    for number in range(150 * 8):
        info = RequestInfo(id=str(number), surface=SurfaceName.CHAT, model="m", prompt_tokens=500, stream=True)
        decision = balancer.offer(info, 0.001 * number)
        assert isinstance(decision, Routed)
        tickets.append(decision.ticket)
    assert {replica.in_flight for replica in balancer.replicas.values()} == {8}
    info = RequestInfo(id="late", surface=SurfaceName.CHAT, model="m", prompt_tokens=500, stream=True)
    assert not isinstance(balancer.offer(info, 2.0), Routed)
    (released,) = balancer.finish(tickets[77], Outcome.OK, 2.0, usage=Usage(500, 10))
    assert isinstance(released, Routed)
    assert released.ticket.replica is tickets[77].replica


def test_a_large_pool_finds_prefix_holders_beyond_the_idle_ones() -> None:
    balancer = big(150)
    prefix = tuple(range(100, 140))

    def offer(number: int, **fields: object) -> str:
        info = RequestInfo(id=str(number), surface=SurfaceName.CHAT, model="m", stream=True, **fields)  # type: ignore[arg-type]
        decision = balancer.offer(info, 1.0 + 0.01 * number)
        assert isinstance(decision, Routed)
        assert decision.ticket.replica is not None
        return decision.ticket.replica.id

    home = offer(0, prompt_bytes=80_000, prefix=prefix)
    balancer.first_byte(next(iter(balancer.replicas[home].tickets)), 1.0)
    for number in range(1, 100):
        offer(number, prompt_tokens=10)
    assert offer(200, prompt_bytes=80_000, prefix=prefix) == home


def costs(balancer: Balancer, info: RequestInfo, now: float) -> dict[str, float]:
    """What each ready replica would cost the request, by a scan of all of them."""
    router = balancer._router
    prompt, output = balancer._lessons.estimate(info)
    entry = Entry(balancer._fleet.pools.find("m", now), prompt, output, info.stream)  # type: ignore[arg-type]
    found = {}
    for replica in balancer.replicas.values():
        if replica.in_flight < replica.limit:
            shape = replica.shape
            wait = replica.free_at - now
            wait = wait if wait >= 0.0 else (-wait if replica.waiting else 0.0)
            shared = overlap(shape[6], shape[7], output)
            found[replica.id] = wait * router.weighing.wait_weight + seconds(
                shape[:6], prompt, entry.quad, output, entry.context, shared
            )
    return found


@pytest.mark.parametrize("seed", range(3))
def test_the_shortlist_is_nearly_as_good_as_a_full_scan(seed: int) -> None:
    """120 replicas under a random load: what the choices cost, over what the best of all would have."""
    rng = random.Random(seed)
    balancer = big(120, shortlist=16)
    heap: list[tuple[float, int, int, Ticket]] = []
    paid = best = now = 0.0
    for number in range(3000):
        now += 0.01
        while heap and heap[0][0] <= now:
            at, _, event, ticket = heappop(heap)
            if event == 0:
                balancer.first_byte(ticket, at)
            else:
                ticket.events = ticket.bytes_out = 50
                ticket.progress_at = at
                balancer.finish(ticket, Outcome.OK, at, usage=Usage(100, 50))
        info = RequestInfo(
            id=str(number), surface=SurfaceName.CHAT, model="m", stream=True, max_tokens=rng.choice((50, 500)),
            prompt_tokens=min(30_000, int(rng.lognormvariate(6, 1.5))),
        )  # fmt: skip
        balancer._router._renew(now)
        scan = costs(balancer, info, now)
        decision = balancer.offer(info, now)
        assert isinstance(decision, Routed)
        ticket = decision.ticket
        assert ticket.replica is not None
        if number > 500:
            paid += scan[ticket.replica.id]
            best += min(scan.values())
        first = now + balancer._router.first_byte_s(ticket.replica, ticket.core) * rng.uniform(0.8, 1.2)  # type: ignore[arg-type]
        heappush(heap, (first, number, 0, ticket))
        heappush(heap, (first + rng.expovariate(1 / 3.0), number, 1, ticket))
    assert paid <= best * 1.06
