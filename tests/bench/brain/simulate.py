"""Routing quality in model time: the real Balancer before simulated replicas, without sockets.

    .venv/bin/python -m tests.bench.brain.simulate --traces DIR [--scenario S3] [--seeds 3] [--router tidegate ...]

`DIR` holds the traces (`azure_code_2023.csv.gz`, `mooncake_conversation.csv.gz`, `servegen_r1_day.csv.gz`). Two
clairvoyant routers know every true length and simulate each replica forward: `selfish` takes the replica that ends the
request first, `clairvoyant` the one where request and neighbours together lose the least.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import islice
from math import inf
from pathlib import Path

from autoscaler.sim.replica import EventKind, Replica, ReplicaModel, SimRequest
from lb.balancer import Balancer
from lb.effects import Effects, Outcome, Queued, Routed, Ticket
from lb.endpoint import Endpoint
from lb.request import RequestInfo, SurfaceName, Usage
from lb.runtime import ProbeResult, ProbeStatus, RuntimeLoad
from lb.settings import LbSettings

SCRAPE_S = 0.5
PROGRESS_S = 0.25
BYTES_PER_TOKEN = 4
SAMPLES = {
    "servegen_r1_day.csv.gz": "servegen_r1_sample.csv.gz",
    "mooncake_conversation.csv.gz": "mooncake_conversation_15min.csv.gz",
}
"""Shorter ones, which are in the repository."""


@dataclass(frozen=True)
class Work:
    at: float
    prompt: int
    output: int
    limit: int
    blocks: tuple[int, ...] = ()
    surface: SurfaceName = SurfaceName.CHAT


@dataclass
class Scenario:
    models: list[ReplicaModel]
    works: list[Work]
    warm_s: float = 30.0
    slow_at: dict[int, tuple[float, float, float]] = field(default_factory=dict)


@dataclass
class Result:
    ttft: list[float] = field(default_factory=list)
    e2e: list[float] = field(default_factory=list)
    slowdown: list[float] = field(default_factory=list)
    hits: int = 0
    asked: int = 0

    def row(self) -> dict[str, float]:
        ttft, e2e = sorted(self.ttft), sorted(self.e2e)
        return {
            "e2e_mean": statistics.fmean(e2e),
            "e2e_p99": e2e[int(len(e2e) * 0.99)],
            "ttft_mean": statistics.fmean(ttft),
            "ttft_p50": ttft[len(ttft) // 2],
            "ttft_p99": ttft[int(len(ttft) * 0.99)],
            "slowdown": statistics.fmean(self.slowdown),
            "hit_ratio": self.hits / max(1, self.asked),
        }


# ---------------------------------------------------------------------- workloads


def trace(folder: Path, name: str, limit: int | None = None) -> list[dict[str, str]]:
    path = folder / name
    if not path.exists():
        path = folder / SAMPLES[name]
    with gzip.open(path, "rt", newline="") as file:
        return list(islice(csv.DictReader(file), limit))


def pairs(folder: Path, name: str) -> list[tuple[int, int]]:
    return [
        (max(16, min(8192, int(row["input_tokens"]))), max(1, min(4096, int(row["output_tokens"]))))
        for row in trace(folder, name, 60_000)
    ]


def poisson(
    kinds: list[tuple[float, list[tuple[int, int]], int, SurfaceName]], rates: list[tuple[float, float]], seed: int
) -> list[Work]:
    """`kinds`: (share, lengths, limit, surface); `rates`: (until, requests per second)."""
    rng = random.Random(seed)
    shares = [kind[0] for kind in kinds]
    works, at = [], 0.0
    for until, rate in rates:
        while at < until:
            _, lengths, limit, surface = rng.choices(kinds, shares)[0]
            prompt, output = rng.choice(lengths)
            works.append(Work(at, prompt, min(limit, output), limit, surface=surface))
            at += rng.expovariate(rate)
    return works


def mooncake(folder: Path, seconds: float, seed: int, every: int) -> list[Work]:
    rng = random.Random(seed)
    works = []
    start = 600.0 * seed
    for row in trace(folder, "mooncake_conversation.csv.gz"):
        at = float(row["arrival_seconds"]) - start
        if not 0.0 <= at < seconds:
            continue
        ids = tuple(int(part) for part in row["prefix_blocks_512"].split())
        if every > 1 and (ids[1] if len(ids) > 1 else ids[0]) % every:
            continue
        prompt = int(row["input_tokens"])
        works.append(
            Work(at + rng.uniform(0, 3), prompt, max(1, int(row["output_tokens"])), 4096, ids[: prompt // 512])
        )
    return sorted(works, key=lambda work: work.at)


def scenario(name: str, folder: Path, seed: int, load: float) -> Scenario:
    plain = [ReplicaModel() for _ in range(8)]
    chat = (1.0, pairs(folder, "servegen_r1_day.csv.gz"), 4096, SurfaceName.CHAT)
    if name == "S1":
        return Scenario(plain, poisson([chat], [(240.0, 17.0 * load)], seed))
    if name == "S2":
        slow = [ReplicaModel(slow_factor=2.5 if i < 2 else 1.0) for i in range(8)]
        return Scenario(slow, poisson([chat], [(240.0, 17.0 * load * 0.85)], seed))
    if name == "S3":
        code = (1.0, pairs(folder, "azure_code_2023.csv.gz"), 2048, SurfaceName.COMPLETIONS)
        return Scenario(plain, poisson([chat, code], [(240.0, 24.0 * load)], seed))
    if name == "S4":
        cached = [ReplicaModel(prefix_cache=True) for _ in range(8)]
        return Scenario(cached, mooncake(folder, 600.0, seed, 1), warm_s=60.0)
    if name == "S5":
        rate = 17.0 * load
        return Scenario(plain, poisson([chat], [(90.0, rate * 0.7), (150.0, rate * 1.5), (300.0, rate * 0.7)], seed))
    raise SystemExit(f"no scenario {name}")


# ---------------------------------------------------------------------- routers


class Plant:
    """Replicas and what happens in them."""

    def __init__(self, case: Scenario) -> None:
        self.case = case
        self.replicas = [Replica(model) for model in case.models]
        self.where: dict[int, int] = {}
        self.first: dict[int, float] = {}
        self.result = Result()

    def submit(self, number: int, replica: int, now: float) -> None:
        work = self.case.works[number]
        self.where[number] = replica
        self.replicas[replica].submit(SimRequest(number, work.prompt, work.output, work.blocks), now)

    def next_at(self) -> float:
        return min(replica.next_event_at() for replica in self.replicas)

    def advance(self, now: float) -> Iterator[tuple[EventKind, int, float]]:
        for replica in self.replicas:
            for event in replica.advance(now):
                yield event.kind, int(event.request_id), event.at_s  # type: ignore[call-overload]

    def record(self, kind: EventKind, number: int, at: float) -> None:
        work = self.case.works[number]
        if kind is EventKind.FIRST_TOKEN:
            self.first[number] = at
        elif work.at >= self.case.warm_s:
            alone = ReplicaModel().alone_s(work.prompt, work.output)[1]
            self.result.ttft.append(self.first[number] - work.at)
            self.result.e2e.append(at - work.at)
            self.result.slowdown.append((at - work.at) / alone)


def run_balancer(case: Scenario, strategy: str, weights: dict[str, float], oracle: bool = False) -> Result:
    plant = Plant(case)
    settings = LbSettings.model_validate(
        {"routing": {"strategy": strategy, "weights": weights}, "health": {"progress_min_s": 600.0}}
    )
    balancer = Balancer(settings, rng=random.Random(11), now=0.0)
    names = [f"r{i}" for i in range(len(plant.replicas))]
    balancer.set_endpoints([Endpoint(name, "h", i + 1, models=("m",)) for i, name in enumerate(names)], 0.0)
    for name in names:
        balancer.observe_probe(name, ProbeResult(ProbeStatus.READY), 0.0)
    index = {name: i for i, name in enumerate(names)}
    tickets: dict[int, Ticket] = {}
    numbers: dict[Ticket, int] = {}
    if oracle:
        lengths = balancer._lessons.lengths
        current = [0]

        def truth(model: object, tenant: object, surface: object, limit: object, seen: float) -> float:
            return max(1.0, case.works[current[0]].output - seen)

        lengths.__class__ = type("Oracle", (lengths.__class__,), {"__slots__": (), "remaining": staticmethod(truth)})

    def apply(effects: Effects, now: float) -> None:
        for effect in effects:
            if isinstance(effect, Routed):
                assert effect.ticket.replica is not None
                plant.submit(numbers[effect.ticket], index[effect.ticket.replica.id], now)

    def offer(number: int, now: float) -> None:
        work = case.works[number]
        info = RequestInfo(
            id=str(number), surface=work.surface, model="m", body_bytes=work.prompt * BYTES_PER_TOKEN,
            prompt_bytes=work.prompt * BYTES_PER_TOKEN, max_tokens=work.limit, stream=True, prefix=work.blocks,
        )  # fmt: skip
        if oracle:
            current[0] = number
        decision = balancer.offer(info, now)
        assert isinstance(decision, Routed | Queued), decision
        tickets[number] = decision.ticket
        numbers[decision.ticket] = number
        if isinstance(decision, Routed):
            apply([decision], now)

    def event(kind: EventKind, number: int, at: float) -> None:
        plant.record(kind, number, at)
        ticket, work = tickets[number], case.works[number]
        ticket.events = 1 if kind is EventKind.FIRST_TOKEN else work.output
        ticket.progress_at = at
        if kind is EventKind.FIRST_TOKEN:
            balancer.first_byte(ticket, at)
            return
        ticket.bytes_out = work.output
        del tickets[number], numbers[ticket]
        apply(balancer.finish(ticket, Outcome.OK, at, usage=Usage(work.prompt, work.output)), at)

    def tick(now: float, scrape: bool) -> None:
        for number, ticket in list(tickets.items()):
            if ticket.first_byte_at:
                if oracle:
                    current[0] = number
                ticket.events = plant.replicas[plant.where[number]].generated_tokens(number, now)
                ticket.progress_at = now
                balancer.progress(ticket, now)
        if scrape:
            for name, replica in zip(names, plant.replicas, strict=True):
                load = RuntimeLoad(
                    running=replica.running, waiting=replica.waiting, kv_usage_ratio=replica.kv_usage_ratio,
                    kv_capacity_tokens=replica.model.kv_tokens, max_running=replica.model.max_running,
                )  # fmt: skip
                apply(balancer.observe_load(name, load, now), now)
        apply(balancer.poll(now), now)

    drive(plant, offer, event, tick)
    return plant.result


def run_clairvoyant(case: Scenario, selfish: bool) -> Result:
    plant = Plant(case)

    def offer(number: int, now: float) -> None:
        work = case.works[number]
        request = SimRequest(number, work.prompt, work.output, work.blocks)
        costs = []
        for replica in plant.replicas:
            if selfish:
                costs.append(replica.finish_if_submitted(request, now)[1])
            else:
                costs.append(total_end(replica, request, now) - total_end(replica, None, now))
        plant.submit(number, costs.index(min(costs)), now)

    def event(kind: EventKind, number: int, at: float) -> None:
        plant.record(kind, number, at)

    drive(plant, offer, event, lambda now, scrape: None)
    return plant.result


def total_end(replica: Replica, request: SimRequest | None, now: float) -> float:
    """Sum of the ends of everything in `replica`, with `request` or without."""
    twin = replica.copy()
    if request is not None:
        twin.submit(request, now)
    total = 0.0
    while (at := twin.next_event_at()) != inf:
        total += sum(event.at_s - now for event in twin.advance(at) if event.kind is EventKind.FINISHED)
    return total


def drive(
    plant: Plant,
    offer: Callable[[int, float], None],
    event: Callable[[EventKind, int, float], None],
    tick: Callable[[float, bool], None],
) -> None:
    """Events in order of time: arrivals, what replicas do, and a clock."""
    heap: list[tuple[float, int, int]] = []
    for number, work in enumerate(plant.case.works):
        heappush(heap, (work.at, 1, number))
    next_tick, ticks = 0.0, 0
    open_ = 0
    while heap or open_:
        at = min(heap[0][0] if heap else inf, plant.next_at(), next_tick)
        for kind, number, when in plant.advance(at):
            event(kind, number, when)
            open_ -= kind is EventKind.FINISHED
        while heap and heap[0][0] <= at:
            _, _, number = heappop(heap)
            open_ += 1
            offer(number, at)
        if next_tick <= at:
            ticks += 1
            next_tick += PROGRESS_S
            tick(at, ticks % round(SCRAPE_S / PROGRESS_S) == 0)
    plant.result.hits = sum(replica.prefix_hit_tokens for replica in plant.replicas)
    plant.result.asked = sum(replica.prefix_query_tokens for replica in plant.replicas)


# ---------------------------------------------------------------------- command


def run(case: Scenario, router: str, weights: dict[str, float]) -> Result:
    if router in ("clairvoyant", "selfish"):
        return run_clairvoyant(case, router == "selfish")
    if router == "oracle":
        return run_balancer(case, "tidegate", weights, oracle=True)
    return run_balancer(case, router, weights)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--traces", type=Path, default=Path("tests/data/traces"))
    parser.add_argument("--scenario", nargs="*", default=["S1", "S2", "S3", "S4", "S5"])
    parser.add_argument("--router", nargs="*", default=["round-robin", "least-requests", "p2c", "tidegate"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--load", type=float, default=1.0)
    parser.add_argument("--weight", nargs="*", default=[], help="name=value")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    weights = {name: float(value) for name, value in (item.split("=") for item in args.weight)}
    rows = []
    for name in args.scenario:
        for router in args.router:
            results = [
                run(scenario(name, args.traces, seed, args.load), router, weights).row() for seed in range(args.seeds)
            ]
            row = {key: statistics.fmean(result[key] for result in results) for key in results[0]}
            rows.append({"scenario": name, "router": router, **row})
            print(f"{name} {router:16s} " + "  ".join(f"{key} {value:7.3f}" for key, value in row.items()), flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
