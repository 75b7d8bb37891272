"""How many requests a replica runs at once, where its runtime does not tell: learned, and never for good."""

from __future__ import annotations

from lb.effects import Outcome
from lb.replica import Replica
from lb.runtime import RuntimeLoad
from tests.lb.balancer.driver import Box


def full_at_28(box: Box) -> Replica:
    """Its token budget was taken by one long prompt: others waited beside a small batch."""
    box.join("a")
    for _ in range(2):
        box.balancer.observe_load("a", RuntimeLoad(running=28, waiting=3), box.now)
    replica = box.balancer.replicas["a"]
    assert replica.slots == 28
    return replica


def fill(box: Box, replica: Replica) -> None:
    while replica.in_flight < replica.limit:
        box.routed()


def test_learned_slots_grow_when_more_are_seen_running(box: Box) -> None:
    replica = full_at_28(box)
    box.balancer.observe_load("a", RuntimeLoad(running=41, waiting=0), box.now)
    assert replica.slots == 41


def test_learned_slots_grow_step_by_step_while_the_limit_is_reached_and_nothing_waits(box: Box) -> None:
    replica = full_at_28(box)
    box.balancer.observe_load("a", RuntimeLoad(running=0, waiting=0), box.now)
    box.balancer.observe_load("a", RuntimeLoad(running=0, waiting=0), box.now)
    assert replica.slots == 28, "nothing shows that it could run more"
    steps = []
    for _ in range(20):
        fill(box, replica)
        reading = RuntimeLoad(running=min(64, replica.in_flight), waiting=max(0, replica.in_flight - 64))
        box.balancer.observe_load("a", reading, box.now)
        steps.append(replica.slots)
    assert steps == sorted(steps)
    assert steps[0] == 30
    assert 64 <= replica.slots <= 80, steps
    assert replica.limit == 64 + 2, "what is seen full is not filled further"


def test_one_reading_without_a_queue_does_not_raise_learned_slots(box: Box) -> None:
    replica = full_at_28(box)
    fill(box, replica)
    for waiting in (0, 1, 0, 1, 0):
        box.balancer.observe_load("a", RuntimeLoad(running=28, waiting=waiting), box.now)
    assert replica.slots == 28


def test_an_operators_cap_raises_no_learned_slots(box: Box) -> None:
    box.join("a", max_in_flight=4)
    replica = box.balancer.replicas["a"]
    for _ in range(2):
        box.balancer.observe_load("a", RuntimeLoad(running=28, waiting=3), box.now)
    box.balancer.observe_load("a", RuntimeLoad(running=0, waiting=0), box.now)
    fill(box, replica)
    for _ in range(6):
        box.balancer.observe_load("a", RuntimeLoad(running=4, waiting=0), box.now)
    assert (replica.slots, replica.limit) == (28, 4)


def test_a_replica_that_asks_for_rest_gets_no_more_slots(box: Box) -> None:
    replica = full_at_28(box)
    box.balancer.observe_load("a", RuntimeLoad(running=0, waiting=0), box.now)
    fill(box, replica)
    box.finish(next(iter(replica.tickets)), Outcome.OVERLOADED, status=429)
    for _ in range(6):
        box.balancer.observe_load("a", RuntimeLoad(running=28, waiting=0), box.now)
    assert replica.slots == 28
