"""Silence of a replica: when it is taken for hung, what is taken back from it, and what it must not teach."""

from __future__ import annotations

import pytest

from lb.effects import Outcome, Routed, Ticket, Withdraw
from lb.request import Usage
from lb.runtime import RuntimeLoad
from tests.lb.balancer.driver import Box, on, settings


def test_a_silent_replica_is_taken_for_hung(box: Box) -> None:
    box.join("a", "b")
    box.balancer.replicas["a"].speed.derate(1.0)
    for _ in range(12):  # lessons, so that silence can be judged
        ticket = on(box, "a")
        box.balancer.first_byte(ticket, box.now + 0.1)
        ticket.events, ticket.progress_at = 50, box.now + 0.9
        box.now += 1.0
        box.finish(ticket, usage=Usage(500, 50))
    stuck = [on(box, "a") for _ in range(3)]
    box.poll(9.0)
    assert box.state("a") == "ready"
    box.poll(60.0)
    assert box.state("a") == "ejected"
    assert "no answer" in box.balancer.replicas["a"].reason
    assert all(ticket.replica is not None for ticket in stuck)


def learned(box: Box) -> None:
    """Silence can be judged only where the speed is known."""
    for replica in box.balancer.replicas.values():
        for _ in range(10):
            replica.speed.learn_steps(1, 500, 0.013, 50)


def streaming(box: Box, name: str) -> Ticket:
    """A stream on `name` that has begun."""
    ticket = on(box, name)
    box.balancer.first_byte(ticket, box.now)
    return ticket


def goes_on(box: Box, ticket: Ticket) -> None:
    ticket.events += 1
    ticket.progress_at = box.now
    box.balancer.progress(ticket, box.now)


def withdrawn(effects: list[object]) -> list[Ticket]:
    return [effect.ticket for effect in effects if isinstance(effect, Withdraw)]


def test_what_waits_on_a_hung_replica_is_taken_back_and_what_has_begun_is_not(box: Box) -> None:
    box.join("a", "b")
    learned(box)
    begun, waits, whole = streaming(box, "a"), on(box, "a"), on(box, "a", stream=False)
    assert withdrawn(box.poll(9.0)) == []
    assert withdrawn(box.poll(2.0)) == [waits]
    assert box.state("a") == "ejected"
    assert isinstance(box.balancer.retry(waits, Outcome.HUNG, box.now), Routed)
    assert waits.replica is box.balancer.replicas["b"]
    assert withdrawn(box.poll(1.0)) == []
    assert begun.replica is whole.replica is box.balancer.replicas["a"]


def test_where_no_other_replica_may_take_it_it_waits_on_and_is_asked_again(box: Box) -> None:
    box.join("a")
    learned(box)
    waits = on(box, "a")
    box.poll(30.0)
    assert withdrawn(box.poll(1.0)) == [waits]
    assert box.balancer.retry(waits, Outcome.HUNG, box.now) is None
    assert waits.replica is box.balancer.replicas["a"]
    assert withdrawn(box.poll(1.0)) == [waits]


def test_being_moved_is_within_the_budget_of_retries() -> None:
    box = Box(settings(retries={"budget_ratio": 0.0, "budget_min_tokens": 400}))
    box.join("a", "b")
    learned(box)
    waits = on(box, "a", prompt_tokens=500)
    box.poll(30.0)
    assert withdrawn(list(box.effects)) == [waits]
    assert box.balancer.retry(waits, Outcome.HUNG, box.now) is None


def after_a_silence(box: Box, silence_s: float, waiting: float | None = 0.0) -> tuple[Ticket, list[Ticket]]:
    """A replica is silent for some seconds, then goes on with its streams but one; (that one, withdrawn ones)."""
    box.join("a", "b")
    learned(box)
    begun, swallowed = streaming(box, "a"), on(box, "a")
    for _ in range(round(silence_s)):
        box.poll(1.0)
    for _ in range(10):
        box.now += 0.5
        goes_on(box, begun)
        if waiting is not None:
            box.balancer.observe_load("a", RuntimeLoad(running=1, waiting=waiting), box.now)
        box.poll()
    return swallowed, withdrawn(box.effects)


def test_a_request_that_a_replica_swallowed_while_it_hung_is_taken_back(box: Box) -> None:
    swallowed, found = after_a_silence(box, 5.0)
    assert box.state("a") == "ready"
    assert found == [swallowed]
    assert box.balancer.replicas["a"].waiting == 0, "it would hold up nothing more"


def test_a_late_request_without_a_silence_is_waited_for(box: Box) -> None:
    """Fetching an image, compiling a grammar: the replica works on the others meanwhile."""
    assert after_a_silence(box, 0.0)[1] == []


@pytest.mark.parametrize("waiting", [1.0, None])
def test_a_request_that_may_be_in_the_runtimes_queue_is_waited_for(box: Box, waiting: float | None) -> None:
    assert after_a_silence(box, 5.0, waiting)[1] == []


def test_without_a_reading_one_that_was_overtaken_after_a_silence_is_taken_back(box: Box) -> None:
    swallowed, found = after_a_silence(box, 5.0, None)
    assert found == []
    box.balancer.drain("b", box.now)
    streaming(box, "a")
    assert withdrawn(box.poll(1.0)) == [swallowed]


def test_a_swallowed_request_that_is_answered_after_all_teaches_nothing(box: Box) -> None:
    swallowed, _ = after_a_silence(box, 5.0)
    replica = box.balancer.replicas["a"]
    before = replica.speed.coefficients
    box.balancer.first_byte(swallowed, box.now)
    assert replica.speed.coefficients == before
    box.finish(swallowed)
    assert replica.waiting == 0


def test_a_silence_says_nothing_of_the_speed(box: Box) -> None:
    """Taken for slow, it would get nothing, and could not show that it is not."""
    box.join("a", "b")
    learned(box)
    replica = box.balancer.replicas["a"]
    before = replica.speed.coefficients
    begun, waits = streaming(box, "a"), on(box, "a")
    for _ in range(5):
        box.poll(1.0)
    box.balancer.first_byte(waits, box.now)
    for _ in range(20):
        for ticket in (begun, waits):
            goes_on(box, ticket)
    for ticket in (begun, waits):
        box.finish(ticket, usage=Usage(500, 21))
    assert replica.speed.coefficients == before
    box.now += 0.1
    later = streaming(box, "a")
    for _ in range(20):
        box.now += 0.013
        goes_on(box, later)
    box.finish(later, usage=Usage(500, 21))
    assert replica.speed.coefficients.steps == before.steps + 1


def test_tokens_in_the_runtimes_own_counters_are_progress(box: Box) -> None:
    box.join("a", "b")
    for replica in box.balancer.replicas.values():
        for _ in range(10):
            replica.speed.learn_steps(1, 500, 0.013, 50)
    on(box, "a", stream=False)
    for second in range(100):
        box.now += 1.0
        box.effects += box.balancer.observe_load(
            "a", RuntimeLoad(running=1, output_tokens_total=100.0 * second), box.now
        )
        box.poll()
    assert box.state("a") == "ready"


def test_a_long_prompt_is_not_silence(box: Box) -> None:
    box.join("a", "b")
    for replica in box.balancer.replicas.values():
        for _ in range(10):
            replica.speed.learn_steps(1, 500, 0.013, 50)
    on(box, "a", prompt_tokens=100_000)
    box.poll(11.5)
    assert box.state("a") == "ready"
