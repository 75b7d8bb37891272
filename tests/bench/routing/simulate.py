"""`python -m tests.bench.routing.simulate`: the scenarios through the real balancer in one process, without sockets.

Seconds instead of an hour, and no noise: for working on the scorers. Faults (S6) are left to the real thing.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush
from math import inf

from rich.console import Console

from autoscaler.sim.replica import EventKind, Replica
from lb.balancer import Balancer
from lb.effects import Effect, Outcome, Rejected, Routed, Ticket
from lb.endpoint import Endpoint
from lb.request import RequestInfo, SurfaceName, Usage
from lb.runtime import ProbeResult, ProbeStatus, RuntimeLoad
from lb.settings import LbSettings, RoutingSettings
from tests.bench.routing.oracle import (
    Choose,
    clairvoyant,
    clairvoyant_sum,
    least_connections,
    play,
    round_robin,
    two_choices,
)
from tests.bench.routing.outcome import Figures, figures
from tests.bench.routing.outcome import Outcome as Fate
from tests.bench.routing.report import show
from tests.bench.routing.scenarios import REPLICAS, SCENARIOS, Scenario
from tests.bench.routing.workload import Item

_SIMPLE: dict[str, Choose] = {
    "round-robin": round_robin, "two-choices": two_choices, "least-connections": least_connections,
    "clairvoyant": clairvoyant, "clairvoyant-sum": clairvoyant_sum,
}  # fmt: skip
_PROGRESS_S = 0.25
"""About 16 tokens, the pace at which the proxy reports a stream's progress."""
_PROBE_S = 1.0
_ARRIVAL, _REPLICA, _PROGRESS, _SCRAPE, _PROBE, _POLL = range(6)


class Plant:
    """Replicas, the balancer and the events between them, in model time."""

    def __init__(self, scenario: Scenario, items: Sequence[Item], settings: LbSettings, seed: int) -> None:
        self.fates = [Fate() for _ in items]
        self.balancer = Balancer(settings, rng=random.Random(seed), now=0.0)
        self.replicas = [Replica(scenario.model(index)) for index in range(REPLICAS)]
        self.routed: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self._items = items
        self._scrape_s = settings.health.scrape_interval_s
        self._tickets: dict[int, Ticket] = {}
        self._places = {f"r{index}": index for index in range(REPLICAS)}
        self._events: list[tuple[float, int, int]] = []
        self._wake = [inf] * REPLICAS
        self._open = len(items)
        self._rng = random.Random(seed)

    def run(self) -> None:
        """Until every request has ended."""
        endpoints = [
            Endpoint(id=name, host="127.0.0.1", port=1 + index, models=("mock-model",), runtime="vllm")
            for name, index in self._places.items()
        ]
        self._carry_out(self.balancer.set_endpoints(endpoints, 0.0), 0.0)
        for index in range(REPLICAS):
            self._probe(index, 0.0)
            self._push(self._rng.random() * self._scrape_s, _SCRAPE, index)
        for index, item in enumerate(self._items):
            self._push(item.at_s, _ARRIVAL, index)
        self._push(_PROGRESS_S, _PROGRESS, 0)
        while self._open and self._events:
            now, kind, index = heappop(self._events)
            if kind == _ARRIVAL:
                self._arrive(index, now)
            elif kind == _REPLICA:
                if now >= self._wake[index]:
                    self._advance(index, now)
            elif kind == _PROGRESS:
                self._progress(now)
            elif kind == _SCRAPE:
                self._scrape(index, now)
            elif kind == _PROBE:
                self._probe(index, now)
            deadline = self.balancer.next_deadline()
            if deadline is not None and deadline <= now:
                self._carry_out(self.balancer.poll(now), now)

    def _push(self, at: float, kind: int, index: int) -> None:
        heappush(self._events, (at, kind, index))

    def _arrive(self, index: int, now: float) -> None:
        item = self._items[index]
        size = item.prompt_tokens * 4
        info = RequestInfo(
            id=str(index), surface=SurfaceName.CHAT if item.chat else SurfaceName.COMPLETIONS, model="mock-model",
            body_bytes=size + 200, prompt_bytes=size, max_tokens=4096 if item.chat else 2048, stream=True,
            prefix=item.block_ids[: size // 2048] if item.block_ids else (hash(("only", index)),),
        )  # fmt: skip
        decision = self.balancer.offer(info, now, owner=index)
        if isinstance(decision, Rejected):
            self._end(index, f"rejected {decision.reason}", now)
            return
        self._tickets[index] = decision.ticket
        if isinstance(decision, Routed):
            self._send(index, decision.ticket, now)

    def _send(self, index: int, ticket: Ticket, now: float) -> None:
        assert ticket.replica is not None
        place = self._places[ticket.replica.id]
        self.routed[place] += 1
        self.reasons[ticket.reason] += 1
        self._catch_up(place, now)
        self.replicas[place].submit(self._items[index].sim(index), now)
        self._arm(place)

    def _carry_out(self, effects: Iterable[Effect], now: float) -> None:
        for effect in effects:
            if isinstance(effect, Routed):
                assert isinstance(effect.ticket.owner, int)
                self._send(effect.ticket.owner, effect.ticket, now)
            elif isinstance(effect, Rejected) and effect.ticket is not None:
                assert isinstance(effect.ticket.owner, int)
                self._end(effect.ticket.owner, f"rejected {effect.reason}", now)

    def _arm(self, place: int) -> None:
        at = self.replicas[place].next_event_at()
        self._wake[place] = at
        if at < inf:
            self._push(at, _REPLICA, place)

    def _advance(self, place: int, now: float) -> None:
        self._catch_up(place, now)
        self._arm(place)

    def _catch_up(self, place: int, now: float) -> None:
        for event in self.replicas[place].advance(now):
            assert isinstance(event.request_id, int)
            index = event.request_id
            ticket, item = self._tickets[index], self._items[index]
            if event.kind is EventKind.FIRST_TOKEN:
                self.fates[index].first_s = event.at_s - item.at_s
                ticket.first_byte_at = event.at_s
                ticket.events, ticket.progress_at = 1, event.at_s
                self.balancer.first_byte(ticket, event.at_s)
            else:
                ticket.events, ticket.progress_at = item.output_tokens, event.at_s
                self._end(index, "", event.at_s)
                used = Usage(item.prompt_tokens, item.output_tokens, event.cached_tokens)
                effects = self.balancer.finish(ticket, Outcome.OK, event.at_s, status=200, usage=used)
                self._carry_out(effects, now)

    def _end(self, index: int, failure: str, now: float) -> None:
        self.fates[index].end_s = now - self._items[index].at_s
        self.fates[index].failure = failure
        self._tickets.pop(index, None)
        self._open -= 1

    def _progress(self, now: float) -> None:
        for place in range(REPLICAS):
            self._catch_up(place, now)
        for index, ticket in list(self._tickets.items()):
            if ticket.first_byte_at and ticket.replica is not None:
                tokens = self.replicas[self._places[ticket.replica.id]].generated_tokens(index, now)
                if tokens > ticket.events:
                    ticket.events, ticket.progress_at = tokens, now
                    self.balancer.progress(ticket, now)
        self._push(now + _PROGRESS_S, _PROGRESS, 0)

    def _scrape(self, place: int, now: float) -> None:
        self._catch_up(place, now)
        replica = self.replicas[place]
        replica.next_event_at()
        load = RuntimeLoad(
            running=replica.running, waiting=replica.queued(now), kv_usage_ratio=replica.kv_usage_ratio,
            kv_capacity_tokens=replica.model.kv_tokens, prompt_tokens_total=replica.prompt_tokens_total,
            output_tokens_total=replica.generation_tokens_total,
        )  # fmt: skip
        self._carry_out(self.balancer.observe_load(f"r{place}", load, now), now)
        self._push(now + self._scrape_s, _SCRAPE, place)

    def _probe(self, place: int, now: float) -> None:
        probe = ProbeResult(ProbeStatus.READY, models=("mock-model",), runtime="vllm", latency_s=0.001)
        self._carry_out(self.balancer.observe_probe(f"r{place}", probe, now), now)
        self._push(now + _PROBE_S, _PROBE, place)


def through_balancer(scenario: Scenario, items: Sequence[Item], strategy: str, seed: int) -> Figures:
    """One scenario through `lb.balancer` with one of its strategies."""
    began = time.process_time()
    settings = LbSettings(routing=RoutingSettings.model_validate({"strategy": strategy}))
    plant = Plant(scenario, items, settings, seed)
    plant.run()
    queried = sum(replica.prefix_query_tokens for replica in plant.replicas)
    hits = sum(replica.prefix_hit_tokens for replica in plant.replicas)
    sys.stderr.write(
        f"{scenario.name} {strategy}: {len(items) / (time.process_time() - began):.0f} requests per CPU second, "
        f"reasons {dict(plant.reasons.most_common(6))}, routed {[plant.routed[i] for i in range(REPLICAS)]}\n"
    )
    return figures(
        items, plant.fates, scenario.warm_s, hit_ratio=hits / queried if queried else None,
        spread=tuple(plant.routed[index] for index in range(REPLICAS)),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenarios", default="S1,S2,S3,S4,S5")
    parser.add_argument("--only", default=",".join((*_SIMPLE, "tidegate", "least-requests")))
    parser.add_argument("--runs", type=int, default=1)
    chosen = parser.parse_args()
    console = Console(width=200)
    for label in chosen.scenarios.split(","):
        scenario = SCENARIOS[label]
        models = [scenario.model(index) for index in range(REPLICAS)]
        found: dict[str, list[Figures]] = {}
        for seed in range(1, chosen.runs + 1):
            items = scenario.items(seed)
            for name in chosen.only.split(","):
                if name in _SIMPLE:
                    played = play(items, models, _SIMPLE[name])
                    counts = Counter(played.chosen)
                    spread = tuple(counts[index] for index in range(REPLICAS))
                    one = figures(items, played.outcomes, scenario.warm_s, hit_ratio=played.hit_ratio, spread=spread)
                else:
                    one = through_balancer(scenario, items, name, seed)
                found.setdefault(name, []).append(one)
        show(console, f"{label} (simulated): {scenario.title}", found)


if __name__ == "__main__":
    main()
