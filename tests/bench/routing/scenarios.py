"""S1 to S6: which requests come, to which replicas, and what happens to those meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from autoscaler.sim.replica_model import ReplicaModel
from tests.bench.routing.workload import AZURE, SERVEGEN, Item, lengths, long_documents, mooncake, poisson

REPLICAS = 8
CHAT_CAPACITY = 26.2
"""Requests per second that 8 equal replicas complete when they are never short of work, for `servegen` lengths."""
MIXED_CAPACITY = 20.4
"""The same for the mix of S3; both measured with `autoscaler.sim.replica`."""


@dataclass(frozen=True, slots=True)
class Change:
    """At `at_s` model seconds replica `replica` gets this fault (as `POST /mock/fault` takes it)."""

    at_s: float
    replica: int
    fault: dict[str, object]


@dataclass(frozen=True)
class Scenario:
    """One scenario; `items(seed)` gives its requests."""

    name: str
    title: str
    items: Callable[[int], list[Item]]
    slow: dict[int, float] = field(default_factory=dict)
    """Replica -> slow factor."""
    prefix_cache: bool = False
    kv_tokens: int = 262_144
    changes: tuple[Change, ...] = ()
    warm_s: float = 20.0
    """Requests before this are sent but not counted: an empty pool is not what is being compared."""

    def model(self, replica: int) -> ReplicaModel:
        return ReplicaModel(
            slow_factor=self.slow.get(replica, 1.0), prefix_cache=self.prefix_cache, kv_tokens=self.kv_tokens
        )


def _chat(rates: tuple[tuple[float, float, float], ...], seed: int) -> list[Item]:
    return poisson([(1.0, lengths(SERVEGEN, chat=True))], rates, seed)


def _mixed(rates: tuple[tuple[float, float, float], ...], seed: int) -> list[Item]:
    kinds = [(0.45, lengths(AZURE, chat=False)), (0.45, lengths(SERVEGEN, chat=True)), (0.1, long_documents())]
    return poisson(kinds, rates, seed)


def _conversations(end_s: float, every: int, seed: int) -> list[Item]:
    # Another part of the trace for each seed, as its arrivals are what they are.
    start_s = (seed % 3) * 300.0
    return mooncake(start_s, start_s + end_s, every, seed)


def _failing(name: str, title: str, *changes: Change) -> Scenario:
    return Scenario(name, title, partial(_chat, ((0, 150, 0.55 * CHAT_CAPACITY),)), changes=changes)


_BURST = ((0, 60, 0.6 * CHAT_CAPACITY), (60, 120, 1.5 * CHAT_CAPACITY), (120, 210, 0.6 * CHAT_CAPACITY))

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("S1", "8 equal replicas at 80 %", partial(_chat, ((0, 200, 0.8 * CHAT_CAPACITY),))),
        Scenario(
            "S2",
            "2 of 8 replicas 2.5 times slower, at 80 %",
            partial(_chat, ((0, 200, 0.8 * CHAT_CAPACITY * (6 + 2 / 2.5) / 8),)),
            slow={6: 2.5, 7: 2.5},
        ),
        Scenario("S3", "long prompts (10 % documents, 45 % code) mixed with chat, at 75 %",
                 partial(_mixed, ((0, 220, 0.75 * MIXED_CAPACITY),))),
        Scenario("S4", "shared prefixes (Mooncake conversations)", partial(_conversations, 300.0, 1),
                 prefix_cache=True, kv_tokens=524_288, warm_s=60.0),
        Scenario("S5", "60 %, then 60 s of 150 %, then 60 %", partial(_chat, _BURST)),
        _failing("S6-hang", "a replica hangs from 50 s to 100 s",
                 Change(50, 0, {"kind": "hang"}), Change(100, 0, {"kind": "none"})),
        _failing("S6-reset", "a replica resets every request from 50 s to 100 s",
                 Change(50, 0, {"kind": "reset"}), Change(100, 0, {"kind": "none"})),
        _failing("S6-503", "a replica answers 503 from 50 s to 100 s",
                 Change(50, 0, {"kind": "status", "status": 503}), Change(100, 0, {"kind": "none"})),
        _failing("S6-cold", "a replica joins at 50 s, 3 times slower for 30 s",
                 Change(0, 0, {"kind": "loading"}), Change(50, 0, {"kind": "slow", "factor": 3.0}),
                 Change(80, 0, {"kind": "none"})),
    )
}  # fmt: skip
