"""Where requests go, and that the explanation is the decision."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from lb.effects import Outcome, Routed
from lb.errors import SettingsError
from lb.replica import GpuReading, GpuState
from lb.request import Usage
from lb.routing.pickers import PICKERS
from lb.routing.scorers import PREFERENCES, SCORERS, WEIGHTS
from lb.runtime import RuntimeLoad
from lb.settings import LbSettings
from tests.lb.balancer.driver import Box, endpoint, settings


def test_every_strategy_of_the_policy_exists() -> None:
    words = LbSettings.model_json_schema()["$defs"]["RoutingSettings"]["properties"]["strategy"]["enum"]
    assert set(words) == set(PICKERS)


def test_weights_name_every_scorer_once() -> None:
    assert set(WEIGHTS) == {*SCORERS, *PREFERENCES, "first_token"}
    assert not set(SCORERS) & set(PREFERENCES)


def test_a_weight_of_no_scorer_is_refused_and_changes_nothing(box: Box) -> None:
    with pytest.raises(SettingsError, match=r"lb\.routing\.weights\.zoom is not a scorer; there are predicted_work"):
        box.balancer.reconfigure(settings(routing={"weights": {"zoom": 1.0}, "strategy": "random"}), box.now)
    assert box.balancer.view(box.now).strategy == "tidegate"


def test_near_ties_are_broken_at_random(box: Box) -> None:
    box.join("a", "b", "c", "d")
    seen = box.where(400, max_tokens=50)
    assert set(seen) == {"a", "b", "c", "d"}
    assert max(seen.values()) < 160


def test_short_requests_do_not_queue_behind_a_long_prompt(box: Box) -> None:
    box.join("a", "b")
    long = box.routed(prompt_tokens=40_000)
    assert long.replica is not None
    for _ in range(8):
        assert box.routed(prompt_tokens=100).replica is not long.replica


def test_a_long_prompt_goes_where_few_streams_would_stand_still(box: Box) -> None:
    box.join("a", "b")
    for ticket in [box.routed(prompt_tokens=50, max_tokens=2000) for _ in range(8)]:
        box.balancer.first_byte(ticket, box.now + 0.1)
        if ticket.replica is not None and ticket.replica.id == "b":
            box.finish(ticket, Outcome.CLIENT_CLOSED)
    box.now += 1.0
    assert box.routed(prompt_tokens=20_000).replica is box.balancer.replicas["b"]


def test_a_stream_that_is_nearly_done_counts_little(box: Box) -> None:
    """Two replicas with equal counts; on one the streams have nearly reached their limit."""
    box.join("a", "b")
    tickets = [box.routed(prompt_tokens=10, max_tokens=1000) for _ in range(12)]
    for ticket in tickets:
        box.balancer.first_byte(ticket, box.now)
    box.now += 12.0
    for ticket in tickets:
        assert ticket.replica is not None
        ticket.events = 980 if ticket.replica.id == "a" else 20
        ticket.progress_at = box.now
        box.balancer.progress(ticket, box.now)
    a, b = box.balancer.replicas["a"], box.balancer.replicas["b"]
    assert a.in_flight == b.in_flight
    assert a.output_tokens_left < b.output_tokens_left / 4
    assert box.where(20, prompt_tokens=10, max_tokens=1000) == {"a": 20}


def test_slow_replicas_are_learned_and_get_less() -> None:
    box = Box(settings())
    box.join("slow", "fast")
    pace = {"slow": 3.0, "fast": 1.0}
    for _ in range(80):
        ticket = box.routed()
        assert ticket.replica is not None
        times = pace[ticket.replica.id]
        box.now += 0.084 * times
        box.balancer.first_byte(ticket, box.now)
        box.now += 99 * 0.01215 * times
        ticket.events, ticket.progress_at = 100, box.now
        box.finish(ticket, usage=Usage(500, 100))
    for _ in range(60):
        box.routed()
    counts = {name: replica.in_flight for name, replica in box.balancer.replicas.items()}
    assert counts["slow"] < 0.6 * counts["fast"]


def test_foreign_load_counts_once_two_readings_agree(box: Box) -> None:
    box.join("a", "b")
    mine = [box.routed() for _ in range(4)]
    busy = RuntimeLoad(running=30, waiting=0)
    box.balancer.observe_load("a", busy, box.now)
    assert box.balancer.replicas["a"].foreign == 0.0, "one reading is not a fact"
    box.balancer.observe_load("a", busy, box.now)
    assert box.balancer.replicas["a"].foreign == 30 - box.balancer.replicas["a"].in_flight
    assert set(box.where(10)) == {"b"}
    assert len(mine) == 4


def test_a_reading_of_zero_does_not_hide_what_we_sent(box: Box) -> None:
    box.join("a", "b")
    for _ in range(10):
        box.balancer.observe_load("a", RuntimeLoad(running=0, waiting=0), box.now)
        box.balancer.observe_load("b", RuntimeLoad(running=0, waiting=0), box.now)
        box.routed()
    counts = sorted(replica.in_flight for replica in box.balancer.replicas.values())
    assert counts == [5, 5]


def test_readings_go_stale(box: Box) -> None:
    box.join("a", "b")
    for _ in range(2):
        box.balancer.observe_load("a", RuntimeLoad(running=50, waiting=9, kv_usage_ratio=0.99), box.now)
    assert set(box.where(10)) == {"b"}
    for _ in range(3):
        box.balancer.observe_load_failed("a", "timed out", box.now)
    assert set(box.where(40)) == {"a", "b"}


def test_slots_are_learned_from_a_queue_inside_the_runtime(box: Box) -> None:
    box.join("a")
    for _ in range(20):
        box.routed()
    for _ in range(2):
        box.balancer.observe_load("a", RuntimeLoad(running=8, waiting=12), box.now)
    replica = box.balancer.replicas["a"]
    assert (replica.slots, replica.limit) == (8, 8 + 2)
    box.queued()


def test_slots_that_the_runtime_tells_are_believed(box: Box) -> None:
    box.join("a", max_in_flight=20)
    box.balancer.observe_load("a", RuntimeLoad(running=0, waiting=0, max_running=64), box.now)
    assert box.balancer.replicas["a"].limit == 20
    box.endpoints(endpoint("a"))
    assert box.balancer.replicas["a"].limit == 66


def test_kv_memory_bounds_what_is_sent(box: Box) -> None:
    box.join("a")
    box.balancer.observe_load("a", RuntimeLoad(kv_usage_ratio=0.0, kv_capacity_tokens=10_000, max_running=64), box.now)
    sent = 0
    while isinstance(box.offer(prompt_tokens=3000, max_tokens=100), Routed):
        sent += 1
    assert sent == 4, "the last may overshoot, as the runtime queues it for a moment"


def test_absurd_readings_count_as_not_said(box: Box) -> None:
    box.join("a")
    nan = float("nan")
    reading = RuntimeLoad(running=nan, waiting=-1.0, kv_usage_ratio=7.0, kv_capacity_tokens=0, max_running=0)
    for _ in range(3):
        box.balancer.observe_load("a", reading, box.now)
    replica = box.balancer.replicas["a"]
    assert replica.load == RuntimeLoad()
    assert (replica.foreign, replica.slots) == (0.0, None)


def test_abandoned_work_keeps_counting_until_its_predicted_end() -> None:
    box = Box(settings(), abandons={"llamacpp": True})
    box.join("a", "b", runtime="llamacpp")
    ticket = box.routed(stream=False, prompt_tokens=4000)
    replica = ticket.replica
    assert replica is not None
    predicted = ticket.predicted_s
    box.finish(ticket, Outcome.CLIENT_CLOSED)
    assert (replica.in_flight, len(replica.abandoned)) == (0, 1)
    other = next(one for one in box.balancer.replicas.values() if one is not replica)
    tickets = [box.routed(stream=False, prompt_tokens=10) for _ in range(1)]
    assert tickets[0].replica is other
    box.poll(predicted + 0.1)
    assert replica.abandoned == []


def test_abandoned_streams_and_other_runtimes_stop_at_once() -> None:
    box = Box(settings(), abandons={"llamacpp": True})
    box.join("a", runtime="llamacpp")
    box.finish(box.routed(stream=True), Outcome.CLIENT_CLOSED)
    assert box.balancer.replicas["a"].abandoned == []
    box.join("b", runtime="vllm")
    box.finish(box.routed(stream=False), Outcome.CLIENT_CLOSED)
    assert box.balancer.replicas["b"].abandoned == []


def test_the_runtimes_own_count_ends_the_reckoning_of_abandoned_work() -> None:
    box = Box(settings(), abandons={"llamacpp": True})
    box.join("a", runtime="llamacpp")
    box.finish(box.routed(stream=False), Outcome.CLIENT_CLOSED)
    box.balancer.observe_load("a", RuntimeLoad(running=0, waiting=0), box.now)
    assert box.balancer.replicas["a"].abandoned == []


def test_a_prefix_is_followed_and_let_go_under_load(box: Box) -> None:
    box.join("a", "b", "c", "d")
    prompt = {"prompt_tokens": 4096, "prompt_bytes": 4096 * 4, "prefix": tuple(range(1, 9))}
    first = box.routed(**prompt)
    home = first.replica
    box.finish(first)
    box.now += 10.0
    for _ in range(10):
        ticket = box.routed(**prompt)
        assert ticket.replica is home
        assert (ticket.reason, ticket.cached_tokens) == ("prefix", 4095.0)
        box.finish(ticket)
    assert home is not None
    home.free_at = box.now + 0.4
    assert box.routed(**prompt).replica is home, "computing 4,096 tokens again takes longer"
    home.free_at = box.now + 1.0
    assert box.routed(**prompt).replica is not home


def test_affinity_can_be_turned_off() -> None:
    box = Box(settings(routing={"prefix_affinity": False}))
    box.join("a", "b", "c", "d")
    seen = box.where(60, prompt_tokens=4096, prompt_bytes=4096 * 4, prefix=tuple(range(1, 9)))
    assert len(seen) == 4


def test_the_index_is_trusted_as_far_as_usage_confirms_it(box: Box) -> None:
    box.join("a")
    prompt = {"prompt_tokens": 4096, "prompt_bytes": 4096 * 4, "prefix": tuple(range(1, 9))}
    box.finish(box.routed(**prompt))
    for _ in range(30):
        ticket = box.routed(**prompt)
        box.finish(ticket, usage=Usage(4096, 100, 1024))
    assert box.balancer.replicas["a"].cache_trust == pytest.approx(0.25, abs=0.05)
    assert box.routed(**prompt).cached_tokens == pytest.approx(1024, rel=0.2)


def test_a_session_stays_and_moves_when_its_replica_leaves(box: Box) -> None:
    box.join("a", "b", "c")
    first = box.routed(session=42)
    home = first.replica
    assert home is not None
    for _ in range(5):
        box.routed()
        assert box.routed(session=42).replica is home
    box.effects += box.balancer.drain(home.id, box.now)
    moved = box.routed(session=42).replica
    assert moved is not home
    box.effects += box.balancer.undrain(home.id, box.now)
    assert box.routed(session=42).replica is moved


def test_silent_sessions_are_forgotten() -> None:
    box = Box(settings(routing={"session_ttl": "60s"}))
    box.join("a")
    box.finish(box.routed(session=1))
    assert box.balancer.view(box.now).sessions == 1
    box.poll(61.0)
    assert box.balancer.view(box.now).sessions == 0


def test_the_own_zone_is_preferred_a_little() -> None:
    box = Box(settings(routing={"zone": "here"}))
    box.endpoints(endpoint("near", zone="here"), endpoint("far", zone="there"))
    box.probe("near")
    box.probe("far")
    assert box.where(20) == {"near": 20}
    for _ in range(6):
        box.routed(prompt_tokens=3000)
    assert {replica.in_flight for replica in box.balancer.replicas.values()} == {3}


def test_adapters_and_loaded_models_are_preferred(box: Box) -> None:
    box.join("a", "b")
    box.balancer.observe_load("a", RuntimeLoad(adapters=("x",), loaded_models=("other",)), box.now)
    box.balancer.observe_load("b", RuntimeLoad(adapters=("y",), loaded_models=("m", "other")), box.now)
    assert box.where(20) == {"b": 20}
    box.balancer.observe_load("b", RuntimeLoad(adapters=("y",), loaded_models=("other",)), box.now)
    assert box.where(20, adapter="x") == {"a": 20}


def test_little_gpu_memory_is_avoided(box: Box) -> None:
    box.join("a", "b")
    box.balancer.observe_gpu("a", GpuReading(GpuState.OK, headroom_ratio=0.001), box.now)
    assert box.where(20) == {"b": 20}
    box.balancer.observe_gpu("a", GpuReading(GpuState.OK, headroom_ratio=0.05), box.now)
    assert set(box.where(40)) == {"a", "b"}


def test_the_explanation_is_the_decision(box: Box) -> None:
    """Terms add up to the cost, and the cheapest is the one that was chosen, for any mixture of circumstances."""
    rng = random.Random(5)
    box.join("a", "b", "c", "d")
    box.balancer.observe_gpu("c", GpuReading(GpuState.DEGRADED), box.now)
    open_: list[object] = []
    for step in range(300):
        box.now += rng.random() * 0.2
        for name in "ab":
            box.balancer.observe_load(
                name,
                RuntimeLoad(running=rng.randrange(30), waiting=rng.randrange(4), kv_usage_ratio=rng.random()),
                box.now,
            )
        ticket = box.routed(
            prompt_tokens=rng.randrange(1, 9000), prompt_bytes=30_000, prefix=tuple(range(rng.randrange(12))),
            session=rng.choice((None, None, 1)), stream=rng.random() < 0.7,
        )  # fmt: skip
        explanation = box.balancer.explain(f"r{step}")
        assert explanation is not None
        assert ticket.replica is not None
        assert explanation.chosen == ticket.replica.id
        best = next(one for one in explanation.candidates if one.has_room)
        chosen = next(one for one in explanation.candidates if one.replica_id == explanation.chosen)
        assert chosen.cost_s <= best.cost_s + 0.0011 + 0.0021 * abs(best.cost_s)
        assert set(best.terms) >= {"wait", "first_token", *SCORERS}
        open_.append(ticket)
        if len(open_) > 40:
            box.finish(open_.pop(rng.randrange(40)))  # type: ignore[arg-type]


def test_only_recent_decisions_are_remembered(box: Box) -> None:
    box.join("a")
    for _ in range(4100):
        box.finish(box.routed(), Outcome.CLIENT_CLOSED)
    assert box.balancer.explain("r0") is None
    assert box.balancer.explain("r4099") is not None
    assert box.balancer.explain("nobody") is None


@pytest.mark.parametrize("strategy", ["round-robin", "random", "least-requests", "p2c"])
def test_simple_strategies_spread(strategy: str) -> None:
    box = Box(settings(routing={"strategy": strategy}))
    box.join("a", "b", "c", "d")
    tickets = [box.routed(prompt_tokens=int(10 ** (1 + i % 4))) for i in range(200)]
    counts = Counter(ticket.replica.id for ticket in tickets if ticket.replica is not None)
    spread = max(counts.values()) - min(counts.values())
    assert spread <= {"round-robin": 0, "least-requests": 1, "p2c": 12, "random": 40}[strategy]
