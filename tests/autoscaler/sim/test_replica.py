"""The replica model against closed forms, and its invariants under any order of calls."""

from __future__ import annotations

import random
import time
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoscaler.sim.replica import EventKind, PromptTooLongError, Replica, ReplicaEvent, ReplicaModel, SimRequest

STEP_1 = 0.012 + 0.00015


def run_out(replica: Replica) -> dict[object, tuple[float, float]]:
    """Let everything finish: id -> (first token, end)."""
    first: dict[object, float] = {}
    ends: dict[object, float] = {}
    while (at := replica.next_event_at()) < inf:
        note(replica.advance(at), first, ends)
    return {key: (first[key], ends[key]) for key in ends}


def note(events: list[ReplicaEvent], first: dict[object, float], ends: dict[object, float]) -> None:
    for event in events:
        (first if event.kind is EventKind.FIRST_TOKEN else ends)[event.request_id] = event.at_s


@pytest.mark.parametrize("slow", [1.0, 2.5])
@pytest.mark.parametrize(("prompt", "output"), [(1, 1), (100, 1), (2048, 2), (2049, 10), (8192, 300)])
def test_a_request_alone_takes_the_closed_form(prompt: int, output: int, slow: float) -> None:
    model = ReplicaModel(slow_factor=slow)
    replica = Replica(model)
    replica.submit(SimRequest("a", prompt, output), 5.0)
    first, end = run_out(replica)["a"]
    steps = -(-prompt // 2048)
    ttft = slow * (steps * STEP_1 + 0.00012 * prompt)
    assert first - 5.0 == pytest.approx(ttft, abs=1e-9)
    assert end - 5.0 == pytest.approx(ttft + slow * (output - 1) * STEP_1, abs=1e-9)
    assert model.alone_s(prompt, output) == pytest.approx((first - 5.0, end - 5.0), abs=1e-9)


def test_a_batch_of_equal_requests_shares_its_steps() -> None:
    replica = Replica()
    for i in range(10):
        replica.submit(SimRequest(i, 100, 50), 0.0)
    first_at = 0.012 + 10 * 0.00015 + 0.00012 * 1000
    for first, end in run_out(replica).values():
        assert first == pytest.approx(first_at, abs=1e-9)
        assert end == pytest.approx(first_at + 49 * (0.012 + 10 * 0.00015), abs=1e-9)
    assert replica.busy_s == pytest.approx(first_at + 49 * (0.012 + 10 * 0.00015), abs=1e-9)


def test_prompts_are_prefilled_in_order_of_arrival_within_the_budget_of_a_step() -> None:
    replica = Replica()
    replica.submit(SimRequest("long", 3000, 1), 0.0)
    replica.submit(SimRequest("short", 100, 1), 0.0)
    done = run_out(replica)
    full_step = 0.012 + 2 * 0.00015 + 0.00012 * 2048
    second_step = 0.012 + 2 * 0.00015 + 0.00012 * (3100 - 2048)
    assert done["long"][0] == done["short"][0] == pytest.approx(full_step + second_step, abs=1e-9)


def test_decoding_goes_on_beside_a_prefill() -> None:
    replica = Replica()
    replica.submit(SimRequest("old", 10, 100), 0.0)
    started = replica.next_event_at()
    replica.advance(started)
    replica.submit(SimRequest("new", 2048, 1), started)
    step = 0.012 + 2 * 0.00015 + 0.00012 * 2048
    replica.advance(started + step + 1e-6)
    assert replica.generated_tokens("old", started + step + 1e-6) == 2


def test_a_request_that_comes_within_a_step_joins_the_next() -> None:
    replica = Replica()
    replica.submit(SimRequest("a", 10, 1000), 0.0)
    first = replica.next_event_at()
    at = first + 5.5 * STEP_1
    replica.submit(SimRequest("b", 10, 1), at)
    assert (replica.waiting, replica.queued(at)) == (1, 0)
    joined = first + 6 * STEP_1
    assert run_out(replica)["b"][0] == pytest.approx(joined + 0.012 + 2 * 0.00015 + 10 * 0.00012, abs=1e-9)


def test_the_65th_request_waits_for_a_slot_and_keeps_its_place() -> None:
    replica = Replica()
    for i in range(64):
        replica.submit(SimRequest(i, 10, 100 if i else 20), 0.0)
    replica.submit(SimRequest("next", 10, 1), 0.0)
    replica.submit(SimRequest("last", 10, 1), 0.0)
    replica.advance(0.05)
    assert (replica.running, replica.waiting, replica.queued(0.05)) == (64, 2, 2)
    done = run_out(replica)
    assert done[0][1] < done["next"][0] < done["last"][0]
    assert done["last"][0] < done[1][1]


def test_what_came_within_a_step_is_noticed_at_its_end() -> None:
    replica = Replica(ReplicaModel(max_running=1))
    replica.submit(SimRequest("a", 10, 1000), 0.0)
    first = replica.next_event_at()
    replica.submit(SimRequest("b", 10, 1), first + 4.5 * STEP_1)
    assert replica.queued(first + 4.9 * STEP_1) == 0
    assert replica.queued(first + 5.1 * STEP_1) == 1


def test_admission_waits_for_kv_memory_and_the_head_of_the_line_is_not_overtaken() -> None:
    replica = Replica(ReplicaModel(kv_tokens=1000))
    replica.submit(SimRequest("a", 400, 200), 0.0)
    replica.submit(SimRequest("big", 500, 100), 0.0)
    replica.submit(SimRequest("small", 10, 10), 0.0)
    replica.advance(0.05)
    assert (replica.running, replica.waiting) == (1, 2)
    done = run_out(replica)
    assert done["big"][0] > done["a"][1]
    assert done["small"][0] >= done["big"][0]
    with pytest.raises(PromptTooLongError):
        replica.submit(SimRequest("never", 900, 101), 10.0)


def test_cancelling_frees_slot_and_memory_at_once() -> None:
    replica = Replica(ReplicaModel(max_running=1))
    replica.submit(SimRequest("a", 10, 1000), 0.0)
    replica.submit(SimRequest("b", 10, 1), 0.0)
    replica.advance(1.0)
    assert replica.cancel("a", 1.0)
    assert not replica.cancel("a", 1.0)
    assert (replica.running, replica.waiting, replica.kv_reserved_tokens, replica.kv_usage_ratio) == (0, 1, 0, 0.0)
    step_end = STEP_1 + 10 * 0.00012
    while step_end < 1.0:
        step_end += STEP_1
    assert run_out(replica)["b"][0] == pytest.approx(step_end + STEP_1 + 10 * 0.00012, abs=1e-9)


def test_equal_blocks_are_prefilled_once_while_memory_lasts() -> None:
    replica = Replica(ReplicaModel(prefix_cache=True, kv_tokens=8192))
    replica.submit(SimRequest("a", 2100, 1, (1, 2, 3, 4)), 0.0)
    run_out(replica)
    replica.submit(SimRequest("b", 2100, 1, (1, 2, 3, 9)), 10.0)
    first = run_out(replica)["b"][0]
    assert first - 10.0 == pytest.approx(STEP_1 + 0.00012 * (2100 - 3 * 512), abs=1e-9)
    assert (replica.prefix_query_tokens, replica.prefix_hit_tokens) == (4200, 1536)
    replica.submit(SimRequest("c", 8000, 100), 20.0)
    run_out(replica)
    replica.submit(SimRequest("d", 2048, 1, (1, 2, 3, 4)), 100.0)
    assert run_out(replica)["d"][0] - 100.0 == pytest.approx(STEP_1 + 0.00012 * 2048, abs=1e-9)


def test_a_prompt_that_is_all_cached_still_computes_its_last_block() -> None:
    replica = Replica(ReplicaModel(prefix_cache=True))
    for start, name in ((0.0, "a"), (10.0, "b")):
        replica.submit(SimRequest(name, 1024, 1, (1, 2)), start)
        run_out(replica)
    assert replica.prefix_hit_tokens == 512


def test_a_change_of_speed_counts_from_the_next_step() -> None:
    replica = Replica()
    replica.submit(SimRequest("a", 1, 101), 0.0)
    first = replica.next_event_at()
    replica.set_slow_factor(2.0, first + 9.5 * STEP_1)
    assert run_out(replica)["a"][1] == pytest.approx(first + 10 * STEP_1 + 90 * 2 * STEP_1, abs=1e-9)


def test_the_clairvoyant_foresees_what_happens() -> None:
    replica = Replica(ReplicaModel(max_running=4, prefix_cache=True))
    rng = random.Random(7)
    for i in range(12):
        replica.submit(SimRequest(i, rng.randint(1, 5000), rng.randint(1, 300), (1, 2, i)), i * 0.1)
    request = SimRequest("me", 3000, 50, (1, 2))
    before = replica.work_left(1.3)
    foreseen = replica.finish_if_submitted(request, 1.3)
    assert replica.work_left(1.3) == before
    replica.submit(request, 1.3)
    assert run_out(replica)["me"] == pytest.approx(foreseen, abs=1e-9)
    assert replica.work_left(1e6) == (0, 0)


Action = tuple[str, float, int, int]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["submit", "submit", "submit", "cancel", "advance", "peek", "speed"]),
            st.floats(0, 0.4),
            st.integers(1, 3000),
            st.integers(1, 60),
        ),
        max_size=60,
    ),
    st.integers(1, 5),
)
def test_any_order_of_calls_keeps_the_books(actions: list[Action], slots: int) -> None:
    replica = Replica(ReplicaModel(max_running=slots, kv_tokens=9000, prefix_cache=True))
    now, sent, cancelled = 0.0, {}, set()
    first: dict[object, float] = {}
    ends: dict[object, float] = {}
    for i, (what, gap, prompt, output) in enumerate(actions):
        now += gap
        if what == "submit":
            replica.submit(SimRequest(i, prompt, output, tuple(range(prompt % 7))), now)
            sent[i] = (now, prompt, output)
        elif what == "cancel" and sent:
            victim = sorted(sent)[prompt % len(sent)]
            if replica.cancel(victim, now):
                cancelled.add(victim)
        elif what == "speed":
            replica.set_slow_factor(1.0 + output / 30, now)
        elif what == "peek":
            note(replica.advance(now), first, ends)
            assert replica.next_step_at(now) > now or replica.next_event_at() == inf
            for key in set(sent) - set(ends) - cancelled - {i}:
                if key in replica._jobs:
                    assert 0 <= replica.generated_tokens(key, now) <= sent[key][2]
        note(replica.advance(now), first, ends)
        assert replica.running <= slots
        assert 0 <= replica.kv_reserved_tokens <= 9000
        assert 0.0 <= replica.kv_usage_ratio <= 1.0
        assert replica.idle_cache_blocks * 512 + replica.kv_reserved_tokens <= 9000
    while (at := replica.next_event_at()) < inf:
        note(replica.advance(at), first, ends)
    assert set(ends) == set(sent) - cancelled
    for key, end in ends.items():
        at, _prompt, output = sent[key]
        assert at + 0.012 <= first[key] <= end
        assert end - first[key] >= (output - 1) * STEP_1 - 1e-6
    assert (replica.running, replica.waiting, replica.kv_reserved_tokens, replica.kv_usage_ratio) == (0, 0, 0, 0.0)


def test_skipping_gives_what_single_steps_give() -> None:
    rng = random.Random(3)
    trace = [(i * 0.05, SimRequest(i, rng.randint(1, 4000), rng.randint(1, 200))) for i in range(200)]
    results: list[dict[object, float]] = []
    for by_step in (False, True):
        replica = Replica(ReplicaModel(max_running=16))
        first: dict[object, float] = {}
        ends: dict[object, float] = {}
        now = 0.0
        for at, request in trace:
            while by_step and (now := replica.next_step_at(now)) < at:
                note(replica.advance(now), first, ends)
                replica.set_slow_factor(1.0, now)  # any change makes it plan again
            now = at
            replica.submit(request, at)
        while (now := replica.next_event_at()) < inf:
            note(replica.advance(now), first, ends)
        results.append(ends)
    assert len(results[0]) == 200
    assert results[0] == pytest.approx(results[1], abs=1e-6)


def test_a_request_costs_few_microseconds() -> None:
    """The simulator needs 8,000 requests a CPU second in all; the replica alone must leave most of that free."""
    rng = random.Random(1)
    replica = Replica()
    began = time.process_time()
    for i in range(4000):
        replica.submit(SimRequest(i, rng.randint(1, 1500), rng.randint(1, 500)), i * 0.15)
    run_out(replica)
    assert 4000 / (time.process_time() - began) > 8000
